"""The zoo that ships with the package: eight small networks in ONNX files, and the script that trained them."""

import os
import shutil
from pathlib import Path
from uuid import uuid4

from lfm_tasks.stores.outputs import check_output_folder
from lfm_tasks.stores.units.durable import make_folder


def zoo_folder() -> Path:
    """Return the folder that holds the zoo's .onnx files."""
    return Path(__file__).parent


def write_start(folder: Path) -> None:
    """Write ``data_catalog.yaml`` and ``zoo/`` into ``folder``: both or, on a full disk, neither.

    Raises
    ------
    FolderError
        If ``folder`` already holds one of the two, which is never replaced, or lies in an atlas or a store.
    """
    check_output_folder(folder, ("data_catalog.yaml", "zoo"), hint="Choose an empty folder")
    make_folder(folder)
    staged = folder / f".start.{uuid4().hex}.partial"
    try:
        (staged / "zoo").mkdir(parents=True)
        for network in sorted(zoo_folder().glob("*.onnx")):
            shutil.copyfile(network, staged / "zoo" / network.name)
        catalog = staged / "data_catalog.yaml"
        catalog.write_text(_catalog_text().replace("lfm_tasks/zoo/", "zoo/"), encoding="utf-8")
        # The catalog last: it says that the zoo is there.
        for name in ("zoo", "data_catalog.yaml"):
            os.rename(staged / name, folder / name)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _catalog_text() -> str:
    """Return the shipped catalog: beside the networks in a wheel, at the top level in a checkout."""
    shipped = zoo_folder() / "data_catalog.yaml"
    checkout = zoo_folder().parents[1] / "data_catalog.yaml"
    return (shipped if shipped.exists() else checkout).read_text(encoding="utf-8")
