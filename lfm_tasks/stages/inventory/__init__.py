"""Stage inventory: what the catalog requests, checked before anything is computed."""
