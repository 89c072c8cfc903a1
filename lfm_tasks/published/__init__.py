"""The published atlas as people use it: opened, asked, compared, exported. Nothing here writes into it."""
