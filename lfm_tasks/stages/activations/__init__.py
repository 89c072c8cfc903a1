"""Stage activations: the rows of every space, recorded or read, and stored."""
