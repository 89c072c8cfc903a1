"""Readers of files: a table of formats, and one module a kind."""
