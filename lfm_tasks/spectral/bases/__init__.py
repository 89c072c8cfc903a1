"""Graphs, their eigenbases, and maps where every point is known in both spaces."""
