"""Opens a run: takes the store's lock, clears what killed runs left, and stops the workers at the end."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from lfm_tasks.catalog import Catalog
from lfm_tasks.stages.asked import Scope
from lfm_tasks.stages.run import Announce, Run, Tally
from lfm_tasks.stages.run_log import logged
from lfm_tasks.stages.workers import InProcess, LocalDask, Workers
from lfm_tasks.stores.atlas_files import sweep
from lfm_tasks.stores.locks import locked
from lfm_tasks.stores.soundness import put_damage_aside
from lfm_tasks.stores.units import UnitStore

PURPOSE = "lfm-atlas run"


@contextmanager
def open_run(
    catalog: Catalog, announce: Announce, *, in_process: bool = False, scope: Scope | None = None
) -> Iterator[Run]:
    """Give a run that alone writes to the catalog's store. ``in_process``: no Dask, for tests and debugging."""
    root = catalog.root / catalog.atlas.store
    with locked(root, PURPOSE):
        store = UnitStore(root)
        store.sweep()
        sweep(catalog.root / catalog.atlas.path)
        workers: Workers = InProcess() if in_process else _local_dask(catalog)
        try:
            with logged(Run(catalog, store, workers, announce, Tally(), scope or Scope())) as run:
                run.notes["put_aside"] = [f"{damage.place}: {damage.found}" for damage in put_damage_aside(store)]
                yield run
        finally:
            workers.close()


def refuse_if_busy(catalog: Catalog) -> None:
    """Raise `StoreBusyError` if another run holds the store: for who would only learn it after seconds of starting."""
    root = catalog.root / catalog.atlas.store
    if root.is_dir():
        with locked(root, PURPOSE):
            pass


def _local_dask(catalog: Catalog) -> LocalDask:
    n_workers = catalog.cluster.n_workers or len(os.sched_getaffinity(0))
    return LocalDask(n_workers, catalog.cluster.memory_limit or "auto")
