"""Opens the cluster that a catalog names, whatever its kind."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib import import_module
from typing import Any

from lfm_tasks.catalog import Catalog
from lfm_tasks.workers.pool import ClusterError

# Gives the arguments of a Dask client of the scheduler, for as long as the cluster is open.
OpenCluster = AbstractContextManager[Mapping[str, Any]]

# Kind of cluster -> the library that starts it; the extra of the kind's name installs it.
LIBRARIES = {
    "address": "distributed",
    "slurm": "dask_jobqueue",
    "kubernetes": "dask_kubernetes",
    "gateway": "dask_gateway",
}


def opener(catalog: Catalog) -> Callable[[], OpenCluster]:
    """Return a function that opens the catalog's cluster.

    Raises
    ------
    ClusterError
        If the library for this kind of cluster is not installed.
    """
    kind = catalog.cluster.type
    library = LIBRARIES[kind]
    try:
        import_module(library)
        module = import_module(f"lfm_tasks.workers.clusters.{kind}")
    except ImportError as error:
        needs = f'install it: python -m pip install "lfm-atlas[{kind}]"'
        package = library.replace("_", "-")
        raise ClusterError(f"cluster.type {kind} needs {package}, which is not installed: {needs}") from error
    return lambda: _with_cluster_errors(module.open_cluster(catalog), kind)


@contextmanager
def _with_cluster_errors(cluster: OpenCluster, kind: str) -> Iterator[Mapping[str, Any]]:
    """Open a cluster; any error of its library while it starts becomes a `ClusterError`."""
    with ExitStack() as closing:
        try:
            client_arguments = closing.enter_context(cluster)
        except ClusterError:
            raise
        except Exception as error:  # the libraries have no common class of errors
            raise ClusterError(f"the {kind} cluster could not be started ({type(error).__name__}: {error})") from error
        yield client_arguments
