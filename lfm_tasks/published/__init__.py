"""The published atlas for its users: opened, queried, compared, exported, and never changed."""
