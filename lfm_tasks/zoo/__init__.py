"""The zoo that ships with the package: eight small networks in ONNX files, and the script that trained them."""

import shutil
from pathlib import Path


def zoo_folder() -> Path:
    """Return the folder that holds the zoo's .onnx files."""
    return Path(__file__).parent


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
