"""The zoo that ships with the package: eight small networks in ONNX files, and the script that trained them."""

from pathlib import Path


def zoo_folder() -> Path:
    """Return the folder that holds the zoo's .onnx files."""
    return Path(__file__).parent
