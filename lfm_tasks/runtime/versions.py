"""versions.py."""

from importlib.metadata import version

from lfm_tasks import __version__


def versions() -> dict[str, str]:
    """Return the versions of what the numbers were computed with."""
    libraries = ("numpy", "scipy", "scikit-learn", "pynndescent", "onnxruntime")
    return {"lfm-atlas": __version__} | {name: version(name) for name in libraries}
