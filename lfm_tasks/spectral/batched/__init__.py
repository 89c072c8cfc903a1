"""Many maps at once, in compiled loops."""
