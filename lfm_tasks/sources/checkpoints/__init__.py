"""Checkpoints of Hugging Face libraries: what a folder holds, and what its layers are."""
