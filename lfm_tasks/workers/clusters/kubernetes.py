"""Workers as pods of the Dask operator: the only module that imports dask-kubernetes."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from lfm_tasks.catalog import Catalog
from lfm_tasks.catalog.cluster import KubernetesCluster
from lfm_tasks.workers.dask_config import THREADS, as_variables

_PORTS = {"tcp-comm": 8786, "http-dashboard": 8787}
_UNITS = {"kB": "k", "MB": "M", "GB": "G", "TB": "T", "KiB": "Ki", "MiB": "Mi", "GiB": "Gi", "TiB": "Ti"}


@contextmanager
def open_cluster(catalog: Catalog) -> Iterator[Mapping[str, Any]]:
    """Give the arguments of its client; its pods are deleted when the block ends."""
    from dask_kubernetes.operator import KubeCluster  # here: the manifest can be read without the library

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


def dask_cluster(cluster: KubernetesCluster, name: str) -> dict[str, Any]:
    """Return the manifest of a scheduler and the smallest number of workers, one thread and one BLAS thread each.

    Written out, because the manifest that dask-kubernetes would write starts ``dask-worker`` and ``dask-scheduler``,
    commands that no longer exist.
    """
    workers, _ = cluster.bounds
    limits = {"cpu": "1", "memory": quantity(cluster.memory)}
    # Without http.routes: the operator polls the scheduler's health.
    scheduler_settings = as_variables("distributed.comm", "distributed.scheduler.allowed")
    # The pod of a new worker may wait for its image.
    scheduler_settings["DASK_DISTRIBUTED__SCHEDULER__NO_WORKERS_TIMEOUT"] = f"{cluster.wait_seconds}s"
    worker_settings = THREADS | as_variables("distributed.comm", "distributed.worker.memory")
    arguments = ["dask", "worker", "--name", "$(DASK_WORKER_NAME)", "--nthreads", "1", "--no-dashboard"]
    arguments += ["--memory-limit", cluster.memory.replace(" ", ""), "--preload", "lfm_tasks.workers.pool"]
    ports = [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in _PORTS.items()]
    probes = {
        kind: {"httpGet": {"port": "http-dashboard", "path": "/health"}, "initialDelaySeconds": 5, "periodSeconds": 10}
        for kind in ("readinessProbe", "livenessProbe")
    }
    service = [{"name": name, "protocol": "TCP", "port": port, "targetPort": name} for name, port in _PORTS.items()]
    selector = {"dask.org/cluster-name": name, "dask.org/component": "scheduler"}
    return {
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskCluster",
        "metadata": {"name": name, "namespace": cluster.namespace, "labels": {"app.kubernetes.io/name": "lfm-atlas"}},
        "spec": {
            "worker": {
                "replicas": workers,
                "spec": _pod(
                    cluster,
                    {"name": "worker", "args": arguments, "env": _variables(worker_settings)}
                    | {"resources": {"requests": limits, "limits": limits}},
                ),
            },
            "scheduler": {
                "spec": _pod(
                    cluster,
                    {"name": "scheduler", "args": ["dask", "scheduler"], "env": _variables(scheduler_settings)}
                    | {"ports": ports}
                    | probes,
                ),
                "service": {"type": "ClusterIP", "selector": selector, "ports": service},
            },
        },
    }


def quantity(size: str) -> str:
    """Return a size such as ``4 GiB`` as Kubernetes writes it: ``4Gi``.

    Examples
    --------
    >>> quantity("4 GiB")
    '4Gi'
    """
    number, unit = re.match(r"([\d.]+) ?(.*)", size).groups()  # type: ignore[union-attr]
    return number + _UNITS.get(unit, "")


def _variables(values: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in values.items()]


def _pod(cluster: KubernetesCluster, container: dict[str, Any]) -> dict[str, Any]:
    safe = {
        "allowPrivilegeEscalation": False,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    whole = {"image": cluster.image, "imagePullPolicy": "IfNotPresent", "securityContext": safe, **container}
    # Nothing is imported from the folder of the catalog, where the image may start.
    whole |= {"workingDir": "/", "env": [*container["env"], *_variables({"PYTHONSAFEPATH": "1"})]}
    pod = {"automountServiceAccountToken": False, "securityContext": {"fsGroup": 10001}, "containers": [whole]}
    if cluster.volume_claim is None:
        return pod
    whole["volumeMounts"] = [{"name": "zoo", "mountPath": cluster.volume_path}]
    volume = {"name": "zoo", "persistentVolumeClaim": {"claimName": cluster.volume_claim}}
    return pod | {"volumes": [volume]}
