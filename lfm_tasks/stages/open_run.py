"""Opens a run: takes the store's lock, clears what killed runs left, and stops the workers at the end."""

from collections.abc import Iterator
from contextlib import contextmanager

from lfm_tasks.catalog import Catalog
from lfm_tasks.stages.asked import Scope
from lfm_tasks.stages.run import Announce, Run, Tally
from lfm_tasks.stages.run_log import logged
from lfm_tasks.stages.workers import InProcess, LocalDask, Workers, memory_limit, n_workers
from lfm_tasks.stores.atlas_files import sweep
from lfm_tasks.stores.locks import locked
from lfm_tasks.stores.units import UnitStore


@contextmanager
def open_run(
    catalog: Catalog, announce: Announce, *, in_process: bool = False, scope: Scope | None = None
) -> Iterator[Run]:
    """Give a run that alone writes to the catalog's store. ``in_process``: no Dask, for tests and debugging."""
    root = catalog.root / catalog.atlas.store
    with locked(root, "lfm-atlas run"):
        store = UnitStore(root)
        store.sweep()
        sweep(catalog.root / catalog.atlas.path)
        workers: Workers = _workers(catalog, in_process)
        try:
            with logged(Run(catalog, store, workers, announce, Tally(), scope or Scope())) as run:
                yield run
        finally:
            workers.close()


def _workers(catalog: Catalog, in_process: bool) -> Workers:
    if in_process:
        return InProcess(memory_limit(catalog, among=1))
    return LocalDask(n_workers(catalog), memory_limit(catalog))
