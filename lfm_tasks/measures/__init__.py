"""The similarity measures that stand beside LFM: what a measure is, and all of them by name."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lfm_tasks.measures.cka import linear_cka_matrix as linear_cka_matrix
    from lfm_tasks.measures.measure import Measure as Measure
    from lfm_tasks.measures.registry import MEASURES as MEASURES
    from lfm_tasks.measures.registry import PlugInError as PlugInError

_HOMES = {
    "MEASURES": "registry",
    "Measure": "measure",
    "PlugInError": "registry",
    "linear_cka_matrix": "cka",
}
__all__ = ["MEASURES", "Measure", "PlugInError", "linear_cka_matrix"]


def __getattr__(name: str) -> Any:
    # scipy takes a second to import: only who uses a measure waits for it.
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
