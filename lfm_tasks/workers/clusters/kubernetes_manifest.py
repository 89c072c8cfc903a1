"""The manifest of a DaskCluster, as the Dask operator takes it.

Written out, because the one that dask-kubernetes would write starts ``dask-worker`` and ``dask-scheduler``, which are
no commands any more.
"""

import re
from typing import Any

from lfm_tasks.catalog.cluster import KubernetesCluster
from lfm_tasks.workers.dask_config import THREADS, as_variables

_PORTS = {"tcp-comm": 8786, "http-dashboard": 8787}
_UNITS = {"kB": "k", "MB": "M", "GB": "G", "TB": "T", "KiB": "Ki", "MiB": "Mi", "GiB": "Gi", "TiB": "Ti"}


def dask_cluster(cluster: KubernetesCluster, name: str) -> dict[str, Any]:
    """Return the manifest of a scheduler and the smallest number of workers, one thread and one BLAS thread each."""
    workers, _ = cluster.bounds
    limits = {"cpu": "1", "memory": quantity(cluster.memory)}
    # Not http.routes: the operator asks for the scheduler's health.
    at_scheduler = as_variables("distributed.comm", "distributed.scheduler.allowed")
    # The pod of a new worker may wait for its image.
    at_scheduler["DASK_DISTRIBUTED__SCHEDULER__NO_WORKERS_TIMEOUT"] = f"{cluster.wait_seconds}s"
    at_worker = THREADS | as_variables("distributed.comm", "distributed.worker.memory")
    worker = ["dask", "worker", "--name", "$(DASK_WORKER_NAME)", "--nthreads", "1", "--no-dashboard"]
    worker += ["--memory-limit", cluster.memory.replace(" ", ""), "--preload", "lfm_tasks.workers.pool"]
    ports = [{"name": port, "containerPort": number, "protocol": "TCP"} for port, number in _PORTS.items()]
    probes = {
        kind: {"httpGet": {"port": "http-dashboard", "path": "/health"}, "initialDelaySeconds": 5, "periodSeconds": 10}
        for kind in ("readinessProbe", "livenessProbe")
    }
    service = [{"name": port, "protocol": "TCP", "port": number, "targetPort": port} for port, number in _PORTS.items()]
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
                    {"name": "worker", "args": worker, "env": _variables(at_worker)}
                    | {"resources": {"requests": limits, "limits": limits}},
                ),
            },
            "scheduler": {
                "spec": _pod(
                    cluster,
                    {"name": "scheduler", "args": ["dask", "scheduler"], "env": _variables(at_scheduler)}
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
    pod = {"automountServiceAccountToken": False, "securityContext": {"fsGroup": 10001}, "containers": [whole]}
    if cluster.volume_claim is None:
        return pod
    whole["volumeMounts"] = [{"name": "zoo", "mountPath": cluster.volume_path}]
    volume = {"name": "zoo", "persistentVolumeClaim": {"claimName": cluster.volume_claim}}
    return pod | {"volumes": [volume]}
