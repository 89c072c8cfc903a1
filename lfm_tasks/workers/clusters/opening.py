"""Opens the cluster that a catalog names."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib import import_module
from typing import Any

from lfm_tasks.catalog import Catalog
from lfm_tasks.workers.pool import ClusterError

# What a client takes to reach the scheduler, for as long as the cluster is open.
Opened = AbstractContextManager[Mapping[str, Any]]

# Kind of cluster -> its package, which is the extra of the same name; none for what Dask itself brings.
EXTRAS = {"address": "", "slurm": "dask-jobqueue", "kubernetes": "dask-kubernetes", "gateway": "dask-gateway"}


def opener(catalog: Catalog) -> Callable[[], Opened]:
    """Return what opens the catalog's cluster; `ClusterError` if its extra is not installed."""
    kind = catalog.cluster.type
    try:
        engine = import_module(f"lfm_tasks.workers.clusters.{kind}")
    except ImportError as error:
        needs = f'install it: python -m pip install "lfm-atlas[{kind}]"'
        raise ClusterError(f"cluster.type {kind} needs {EXTRAS[kind]}, which is not installed: {needs}") from error
    return lambda: _opened(engine.open_cluster(catalog), kind)


@contextmanager
def _opened(cluster: Opened, kind: str) -> Iterator[Mapping[str, Any]]:
    """Give the same; what the library raises while it starts the cluster becomes a sentence."""
    with ExitStack() as closing:
        try:
            reached = closing.enter_context(cluster)
        except ClusterError:
            raise
        except Exception as error:  # the libraries have no common class of errors
            raise ClusterError(f"the {kind} cluster could not be started ({type(error).__name__}: {error})") from error
        yield reached
