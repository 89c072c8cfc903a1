"""The store of a catalog: a folder of this machine, or an object store with a folder of copies."""

from collections.abc import Iterator
from contextlib import contextmanager

from lfm_tasks.catalog import Catalog
from lfm_tasks.stores.units.store import UnitStore


def unit_store(catalog: Catalog) -> UnitStore:
    """Return the store that holds the catalog's units."""
    root = catalog.root / catalog.atlas.store
    if catalog.atlas.remote is None:
        return UnitStore(root)
    from lfm_tasks.stores.remote.units import RemoteUnits

    return RemoteUnits(root, catalog.atlas.remote)


@contextmanager
def remotely_locked(catalog: Catalog, purpose: str) -> Iterator[None]:
    """Hold the lock of the catalog's object store, if it has one."""
    if catalog.atlas.remote is None:
        yield
        return
    from lfm_tasks.stores.remote.lock import locked_remotely

    with locked_remotely(catalog.atlas.remote, purpose):
        yield
