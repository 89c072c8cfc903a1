"""Workers as pods of the Dask operator: the one door to dask-kubernetes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from dask_kubernetes.operator import KubeCluster

from lfm_tasks.catalog import Catalog
from lfm_tasks.catalog.cluster import KubernetesCluster
from lfm_tasks.workers.clusters.kubernetes_manifest import dask_cluster


@contextmanager
def open_cluster(catalog: Catalog) -> Iterator[Mapping[str, Any]]:
    """Give what a client takes to reach it; its pods are deleted when the block ends."""
    cluster = catalog.cluster
    assert isinstance(cluster, KubernetesCluster)  # noqa: S101 - for mypy
    manifest = dask_cluster(cluster, f"lfm-atlas-{uuid4().hex[:8]}")
    started = KubeCluster(
        namespace=cluster.namespace, custom_cluster_spec=manifest, resource_timeout=cluster.wait_seconds, quiet=True
    )
    with started:
        if cluster.adapt is not None:
            started.adapt(minimum=cluster.adapt.minimum, maximum=cluster.adapt.maximum)
        yield {"address": started}
