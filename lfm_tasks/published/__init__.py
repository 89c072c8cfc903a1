"""The published atlas for its users: opened, queried, compared, exported. Nothing here writes into it."""
