"""Rows of data carried from space to space: alignments, baselines, and the choice among them."""
