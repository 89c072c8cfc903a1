"""Latent Functional Maps for whole model zoos: kernels, sources, stores and stages."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lfm_tasks.published.opening import open_atlas as open_atlas
    from lfm_tasks.stores.atlas_schema import AtlasError as AtlasError

__version__ = "0.1.0"
__all__ = ["AtlasError", "__version__", "open_atlas"]


def __getattr__(name: str) -> Any:
    # xarray takes a second to import: only who opens an atlas waits for it.
    if name == "open_atlas":
        from lfm_tasks.published.opening import open_atlas

        return open_atlas
    if name == "AtlasError":
        from lfm_tasks.stores.atlas_schema import AtlasError

        return AtlasError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
