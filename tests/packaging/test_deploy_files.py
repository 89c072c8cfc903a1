"""What lies in deploy/ is what its programs take, and what the code does by itself."""

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from lfm_tasks.catalog.cluster import KubernetesCluster
from lfm_tasks.workers.clusters.kubernetes import dask_cluster
from lfm_tasks.workers.dask_config import write_settings

DEPLOY = Path(__file__).parents[2] / "deploy"
MANIFESTS = sorted(path for path in (DEPLOY / "k8s").glob("*.yaml") if path.name != "kustomization.yaml")


def read(path: Path) -> Any:
    return YAML(typ="safe").load(path)


def program(name: str) -> str:
    """Return the path of a program beside this Python or on the PATH; skip the test where there is none."""
    beside = Path(sys.executable).with_name(name)
    path = str(beside) if beside.is_file() else shutil.which(name)
    if path is None:
        pytest.skip(f"not run: got no {name}")
    return path


def says_yes(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_dask_settings__are_those_of_the_code(tmp_path: Path) -> None:
    assert read(DEPLOY / "dask.yaml") == json.loads(write_settings(tmp_path).read_text())


def test_compose_file__fits_the_schema_of_compose_files(tmp_path: Path) -> None:
    check = program("check-jsonschema")
    misspelt = tmp_path / "compose.yaml"
    misspelt.write_text((DEPLOY / "compose.yaml").read_text().replace("restart:", "restrat:"))

    says_yes(check, "--builtin-schema", "vendor.compose-spec", str(DEPLOY / "compose.yaml"))
    with pytest.raises(AssertionError, match="restrat"):
        says_yes(check, "--builtin-schema", "vendor.compose-spec", str(misspelt))


def test_compose_file__publishes_on_loopback_only_and_starts_workers_of_one_thread() -> None:
    services = read(DEPLOY / "compose.yaml")["services"]

    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    command = services["dask-worker"]["command"]
    assert command[command.index("--nthreads") + 1] == "1"


def test_manifests__fit_the_strict_schemas_of_kubernetes() -> None:
    if find_spec("kubernetes_validate") is None:
        pytest.skip("not run: got no kubernetes-validate")
    import kubernetes_validate

    kinds = {path.name: read(path) for path in MANIFESTS if path.name != "dask_cluster.yaml"}
    for manifest in kinds.values():
        kubernetes_validate.validate(manifest, "1.31", strict=True)
    spoilt = kinds["zoo.yaml"] | {"spce": {}}
    with pytest.raises(kubernetes_validate.ValidationError, match="spce"):
        kubernetes_validate.validate(spoilt, "1.31", strict=True)


def test_kustomization__names_every_manifest() -> None:
    assert sorted(read(DEPLOY / "k8s" / "kustomization.yaml")["resources"]) == [path.name for path in MANIFESTS]


def test_standing_dask_cluster__is_the_one_that_a_run_would_start_and_fits_the_operators_definition() -> None:
    volume = {"volume_claim": "zoo", "volume_path": "/zoo"}
    cluster = KubernetesCluster(type="kubernetes", image="lfm-atlas", namespace="lfm-atlas", n_workers=4, **volume)
    manifest = read(DEPLOY / "k8s" / "dask_cluster.yaml")

    assert manifest == dask_cluster(cluster, "lfm-atlas")
    if (package := find_spec("dask_kubernetes")) is None or package.origin is None:
        pytest.skip("not run: got no dask-kubernetes, which holds the definition")
    chart = Path(package.origin).parent / "operator" / "deployment" / "helm" / "dask-kubernetes-operator"
    definition = read(chart / "crds" / "daskcluster.yaml")
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    jsonschema.validate(manifest, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest | {"spec": {"worker": {"replicas": "four"}}}, schema)


@pytest.mark.parametrize("script", ["slurm/run.sbatch", "lock"])
def test_script__has_nothing_that_shellcheck_knows_better(script: str) -> None:
    says_yes(program("shellcheck"), str(DEPLOY / script))


def test_units_of_systemd__are_well_formed(tmp_path: Path) -> None:
    check = program("systemd-analyze")
    for path in (DEPLOY / "systemd").iterdir():
        text = (
            path.read_text().replace("/opt/lfm-atlas/bin/lfm-atlas", sys.executable).replace("=lfm-atlas\n", "=root\n")
        )
        (tmp_path / path.name).write_text(text)

    says_yes(check, "verify", *(str(tmp_path / path.name) for path in (DEPLOY / "systemd").iterdir()))


def test_container__leaves_out_what_is_not_listed() -> None:
    listed = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()

    assert listed[0] == "*"
    assert all((DEPLOY.parent / line.removeprefix("!")).exists() for line in listed if line.startswith("!"))
    assert "USER 10001" in (DEPLOY / "Dockerfile").read_text()
