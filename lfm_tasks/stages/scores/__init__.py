"""Stage scores: all requested pairs of spaces, in blocks."""
