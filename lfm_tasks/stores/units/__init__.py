"""Committed units of arrays: written, published, checked, listed; `UnitStore` is the door."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lfm_tasks.errors import CorruptUnitError as CorruptUnitError
    from lfm_tasks.stores.units.store import UnitStore as UnitStore

_HOMES = {"CorruptUnitError": "lfm_tasks.errors", "UnitStore": "lfm_tasks.stores.units.store"}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a name when it is first used from here: a process that needs one module pays for that one alone."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
