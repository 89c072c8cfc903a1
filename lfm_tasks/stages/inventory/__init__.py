"""Stage inventory (``validate`` in logs): checks everything that the catalog requests before any computation."""
