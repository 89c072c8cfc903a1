"""Opens a run: takes the store's lock, clears what killed runs left, and stops the workers at the end."""

from collections.abc import Iterator
from contextlib import contextmanager

from lfm_tasks.catalog import Catalog
from lfm_tasks.catalog.cluster import LocalCluster
from lfm_tasks.runtime.log import logged
from lfm_tasks.runtime.run import Announce, Run, Tally
from lfm_tasks.runtime.scope import Scope
from lfm_tasks.runtime.store import remotely_locked, unit_store
from lfm_tasks.stores.atlas.files import sweep
from lfm_tasks.stores.units.integrity import put_damage_aside, put_unfinished_aside
from lfm_tasks.stores.units.locks import locked
from lfm_tasks.workers.memory import memory_limit, n_workers
from lfm_tasks.workers.pool import InProcess, LocalDask, Workers

PURPOSE = "lfm-atlas run"


@contextmanager
def open_run(
    catalog: Catalog, announce: Announce, *, in_process: bool = False, scope: Scope | None = None
) -> Iterator[Run]:
    """Give a run that alone writes to the catalog's store. ``in_process``: no Dask, for tests and debugging."""
    root = catalog.root / catalog.atlas.store
    with locked(root, PURPOSE), remotely_locked(catalog, PURPOSE):
        store = unit_store(catalog)
        store.sweep()
        sweep(catalog.root / catalog.atlas.path)
        workers: Workers = _workers(catalog, in_process)
        try:
            with logged(Run(catalog, store, workers, announce, Tally(), scope or Scope())) as run:
                # Copies of remote units are checked, and fetched again, when they are read.
                found = () if catalog.atlas.remote else put_damage_aside(store)
                run.notes["put_aside"] = [f"{damage.place}: {damage.found}" for damage in found]
                yield run
                if not catalog.atlas.remote:
                    put_unfinished_aside(store)
        finally:
            workers.close()


def refuse_if_busy(catalog: Catalog) -> None:
    """Raise `StoreBusyError` if another run holds the store: for who would only learn it after seconds of starting."""
    root = catalog.root / catalog.atlas.store
    if root.is_dir():
        with locked(root, PURPOSE):
            pass


def _workers(catalog: Catalog, in_process: bool) -> Workers:
    if in_process:
        return InProcess(memory_limit(catalog, among=1))
    if isinstance(catalog.cluster, LocalCluster):
        return LocalDask(n_workers(catalog), memory_limit(catalog))
    from lfm_tasks.workers.clusters.remote import RemoteDask  # Dask takes a second: a run without news needs none

    return RemoteDask(catalog)
