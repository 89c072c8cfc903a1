"""Latent Functional Maps for whole model zoos: kernels, sources, stores and stages."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lfm_tasks.spectral.few_pairs import fit_map as fit_map

__version__ = "0.1.0"
__all__ = ["__version__", "fit_map"]


def __getattr__(name: str) -> Any:
    # scipy takes a second to import: only who fits a map waits for it.
    if name == "fit_map":
        from lfm_tasks.spectral.few_pairs import fit_map

        return fit_map
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
