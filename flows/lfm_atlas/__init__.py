"""Similarity atlases of whole model zoos, in Python: ``from lfm_atlas import open_atlas``."""

from typing import TYPE_CHECKING, Any

import lfm_tasks
from lfm_tasks import __version__

if TYPE_CHECKING:
    from lfm_tasks import AtlasError as AtlasError
    from lfm_tasks import fit_map as fit_map
    from lfm_tasks import open_atlas as open_atlas

__all__ = ["AtlasError", "__version__", "fit_map", "open_atlas"]


def __getattr__(name: str) -> Any:
    # scipy and xarray take a second each to import: only whoever uses them waits for it.
    if name in __all__:
        return getattr(lfm_tasks, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
