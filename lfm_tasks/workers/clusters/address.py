"""A scheduler that runs already, reached by its address or scheduler file, with certificates if it requires them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dask.distributed import Security

from lfm_tasks.catalog import Catalog
from lfm_tasks.catalog.cluster import AddressCluster
from lfm_tasks.workers.pool import ClusterError


@contextmanager
def open_cluster(catalog: Catalog) -> Iterator[Mapping[str, Any]]:
    """Give the arguments of its client; the cluster goes on when the block ends."""
    cluster = catalog.cluster
    assert isinstance(cluster, AddressCluster)  # noqa: S101 - for mypy
    security = _security(catalog, cluster)
    if "://" in cluster.scheduler:
        yield {"address": cluster.scheduler, "security": security}
        return
    file = catalog.locate(cluster.scheduler)
    if not file.is_file():
        raise ClusterError(f"got no scheduler file {file}. Start dask scheduler --scheduler-file {file}, then workers")
    yield {"scheduler_file": str(file), "security": security}


def _security(catalog: Catalog, cluster: AddressCluster) -> Security:
    """Return the certificates: those of the catalog, else of Dask's settings (``DASK_DISTRIBUTED__COMM__TLS__...``)."""
    paths = {
        "tls_ca_file": cluster.tls.ca,
        "tls_client_cert": cluster.tls.cert,
        "tls_client_key": cluster.tls.key,
    } if cluster.tls else {}  # fmt: skip
    files = {option: str(catalog.locate(path)) for option, path in paths.items() if path is not None}
    missing = sorted(path for path in files.values() if not Path(path).is_file())
    if missing:
        raise ClusterError(f"got no certificate {missing[0]}: cluster.tls names PEM files, relative to the catalog")
    security = Security(**files)
    if cluster.scheduler.startswith("tls://") and not (security.tls_ca_file and security.tls_client_cert):
        variables = "DASK_DISTRIBUTED__COMM__TLS__CA_FILE, ..._CLIENT__CERT and ..._CLIENT__KEY"
        raise ClusterError(f"{cluster.scheduler} needs certificates. Name them in cluster.tls, or set {variables}")
    return security
