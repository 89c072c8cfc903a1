"""Writes what a newcomer starts with: the commented catalog and the zoo it describes."""

import shutil
from pathlib import Path

from lfm_tasks.zoo import zoo_folder


def write_start(folder: Path) -> None:
    """Write ``data_catalog.yaml`` and ``zoo/`` into ``folder``; nothing that is there is overwritten.

    Raises
    ------
    FileExistsError
        If ``folder`` already holds one of the two.
    """
    catalog, zoo = folder / "data_catalog.yaml", folder / "zoo"
    for path in (catalog, zoo):
        if path.exists():
            raise FileExistsError(f"{path} exists and is not overwritten: choose an empty folder")
    zoo.mkdir(parents=True)
    for network in sorted(zoo_folder().glob("*.onnx")):
        shutil.copyfile(network, zoo / network.name)
    catalog.write_text(_catalog_text().replace("lfm_tasks/zoo/", "zoo/"), encoding="utf-8")


def _catalog_text() -> str:
    """Return the shipped catalog: beside the networks in a wheel, at the top level in a checkout."""
    shipped = zoo_folder() / "data_catalog.yaml"
    checkout = zoo_folder().parents[1] / "data_catalog.yaml"
    return (shipped if shipped.exists() else checkout).read_text(encoding="utf-8")
