"""Stage inventory (``validate`` in logs): what the catalog requests, checked before anything is computed."""
