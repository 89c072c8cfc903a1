"""Nearest neighbors of all points, exact and approximate."""
