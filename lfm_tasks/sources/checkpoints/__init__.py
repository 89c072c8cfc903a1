"""Checkpoints of Hugging Face libraries: the contents of a folder, and the layers of its network."""
