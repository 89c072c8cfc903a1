"""Similarity atlases of whole model zoos, in Python.

``compare(x, y)`` and ``compare({"a": x, "b": y, ...})`` for arrays, ``measures`` for single numbers, ``open_atlas`` for
what a run has published, ``fit_map`` and `LatentFunctionalMap` to carry rows of one space into another.
"""

# ``python -m lfm_atlas`` runs this module while the working directory is on the path: whatever is imported here could
# be a file of a stranger. The names come when somebody asks for them; scipy and xarray take a second each, too.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from lfm_atlas.estimator import LatentFunctionalMap as LatentFunctionalMap
    from lfm_atlas.in_memory import Comparison as Comparison
    from lfm_atlas.in_memory import compare as compare
    from lfm_atlas.measure_functions import measures as measures
    from lfm_tasks import AtlasError as AtlasError
    from lfm_tasks import __version__ as __version__
    from lfm_tasks import fit_map as fit_map
    from lfm_tasks import open_atlas as open_atlas

_HOMES = {
    "AtlasError": "lfm_tasks",
    "Comparison": "lfm_atlas.in_memory",
    "LatentFunctionalMap": "lfm_atlas.estimator",
    "__version__": "lfm_tasks",
    "compare": "lfm_atlas.in_memory",
    "fit_map": "lfm_tasks",
    "measures": "lfm_atlas.measure_functions",
    "open_atlas": "lfm_tasks",
}
__all__ = [
    "AtlasError",
    "Comparison",
    "LatentFunctionalMap",
    "__version__",
    "compare",
    "fit_map",
    "measures",
    "open_atlas",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
