"""Stage bases: a neighbor graph and its low eigenvectors for every space."""
