"""Workers of a Dask Gateway: the only module that imports dask-gateway.

Users log in by dask-gateway's own setting ``gateway.auth``.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

import dask
from dask_gateway import Gateway

from lfm_tasks.catalog import Catalog
from lfm_tasks.catalog.cluster import GatewayCluster


@contextmanager
def open_cluster(catalog: Catalog) -> Iterator[Mapping[str, Any]]:
    """Give the arguments of its client; the Gateway stops the cluster when the block ends."""
    cluster = catalog.cluster
    assert isinstance(cluster, GatewayCluster)  # noqa: S101 - for mypy
    # dask-gateway looks for a proxy in the environment, and not for what no_proxy says.
    directly = {"gateway.http-client.proxy": False} if proxy_bypass(urlsplit(cluster.address).hostname or "") else {}
    with (
        dask.config.set(directly),
        Gateway(cluster.address, proxy_address=cluster.proxy_address) as gateway,
        gateway.new_cluster(shutdown_on_close=True, **cluster.options) as started,
    ):
        minimum, maximum = cluster.bounds
        if cluster.adapt is None:
            started.scale(maximum)
        else:
            started.adapt(minimum=minimum, maximum=maximum)
        yield {"address": started}
