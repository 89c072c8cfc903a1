"""Image and services of deploy/: built, run as their user, found by each other, with the bytes outside of it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.robustness.clusters.conftest import needs, wait_for
from tests.robustness.clusters.containers import PROGRAMS, Image, Services, built_image, services

pytestmark = pytest.mark.cluster
ADDRESS = 'cluster: {type: address, scheduler: "tcp://scheduler:8786"}\n'


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    needs(*PROGRAMS, root=True)
    with built_image(tmp_path_factory.mktemp("image"), "lfm-atlas") as image:
        yield image


@pytest.fixture
def compose(image: Image, tmp_path: Path) -> Iterator[Services]:
    """Give the services, and an empty folder of the user of the image as the catalog's."""
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    zoo.chmod(0o700)
    os.chown(zoo, 10001, 10001)
    with services(image, {"LFM_ATLAS_ZOO": str(zoo), "LFM_ATLAS_AUTH": "user:password"}, tmp_path) as started:
        yield started


def edges(zoo: Path) -> bytes:
    return (zoo / "atlas" / "edges.parquet").read_bytes()


def test_image__runs_the_shipped_zoo_as_its_user_and_gives_the_bytes_outside_of_it(
    compose: Services, tmp_path: Path, zoo_folder_built: Path
) -> None:
    assert compose.image.user == "10001:10001"
    for command in ("init /zoo", "run /zoo/data_catalog.yaml --no-prefect"):
        compose.run("worker", "lfm-atlas", *command.split())

    assert edges(tmp_path / "zoo") == edges(zoo_folder_built)
    assert {path.stat().st_uid for path in (tmp_path / "zoo").rglob("*")} == {10001}
    assert "pip.conf" not in {path.name for path in (compose.image.root / "run").rglob("*")}


def test_services_of_the_compose_file__find_each_other_and_give_the_same_bytes(
    compose: Services, tmp_path: Path, zoo_folder_built: Path
) -> None:
    catalog = tmp_path / "zoo" / "data_catalog.yaml"
    compose.run("worker", "lfm-atlas", "init", "/zoo")
    catalog.write_text(catalog.read_text(encoding="utf-8") + ADDRESS, encoding="utf-8")
    for name in ("server", "scheduler", "dask-worker"):
        compose.start(name)
    compose.wait_until_healthy("server")
    compose.start("worker")

    compose.run("worker", "lfm-atlas", "deploy", "/zoo/data_catalog.yaml")
    ready = "prefect work-pool inspect lfm-atlas"
    wait_for(lambda: "READY" in compose.run("worker", *ready.split(), check=False).stdout, "the worker's arrival")
    names = compose.run("worker", "prefect", "deployment", "ls", "--output", "json")
    compose.run("worker", "prefect", "deployment", "run", "audit/zoo", "--watch", check=False)

    compose.check_running()
    assert edges(tmp_path / "zoo") == edges(zoo_folder_built), names.stdout + compose.logs()
    assert (tmp_path / "zoo" / "audits" / "audit.json").is_file()
