"""Units and atlases in an object store, and its lock."""
