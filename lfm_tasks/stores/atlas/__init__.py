"""The published atlas on disk: its files and their schema."""
