"""Latent Functional Maps for whole model zoos: the stages, and the sources, stores and kernels below them.

`lfm_atlas` is the public package: it offers the names of ``__all__``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lfm_tasks.published.atlas import open_atlas as open_atlas
    from lfm_tasks.spectral.transfer.selection import fit_map as fit_map
    from lfm_tasks.stores.atlas.schema import AtlasError as AtlasError

__version__ = "0.1.0"
__all__ = ["AtlasError", "__version__", "fit_map", "open_atlas"]

_HOMES = {
    "AtlasError": "lfm_tasks.stores.atlas.schema",
    "fit_map": "lfm_tasks.spectral.transfer.selection",
    "open_atlas": "lfm_tasks.published.atlas",
}


def __getattr__(name: str) -> Any:
    # scipy and xarray take a second each to import: only their users wait for it.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
