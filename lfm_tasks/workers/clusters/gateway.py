"""Workers of a Dask Gateway: the one door to dask-gateway. Who we are is said by its own settings, ``gateway.auth``."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dask_gateway import Gateway

from lfm_tasks.catalog import Catalog
from lfm_tasks.catalog.cluster import GatewayCluster


@contextmanager
def open_cluster(catalog: Catalog) -> Iterator[Mapping[str, Any]]:
    """Give what a client takes to reach it; the Gateway stops it when the block ends."""
    cluster = catalog.cluster
    assert isinstance(cluster, GatewayCluster)  # noqa: S101 - for mypy
    with (
        Gateway(cluster.address, proxy_address=cluster.proxy_address) as gateway,
        gateway.new_cluster(shutdown_on_close=True, **cluster.options) as started,
    ):
        minimum, maximum = cluster.bounds
        if cluster.adapt is None:
            started.scale(maximum)
        else:
            started.adapt(minimum=minimum, maximum=maximum)
        yield {"address": started}
