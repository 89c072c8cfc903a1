"""Stage kept maps: functional maps that stay in the atlas (``maps`` in logs)."""
