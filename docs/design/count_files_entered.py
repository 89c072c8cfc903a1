"""Counts the files that a reader crosses from ``score_pairs`` to a cell of ``edges.parquet``.

Run it from a checkout with ``PYTHONPATH=.:flows python docs/design/count_files_entered.py``, or without PYTHONPATH
where lfm-atlas is installed.

It runs a zoo of two spaces in a temporary folder and in this process, as ``lfm-atlas run --no-prefect --no-dask`` does,
with the measure ``overlap`` only. A profile function (`sys.setprofile`) notes each distinct file of ``lfm_tasks`` of
which a function is entered. The count starts when `score_pairs` is entered and ends when `write_edges`, which writes
``edges.parquet``, returns: the report is drawn after that. Only calls count, not the code that runs at import.

Between the two, other stages run and publish sections beside the scores (`SECTION_STAGES`), none of which changes a
cell of that table. Files that are entered only for them are marked with ``+`` and counted apart. With them it was 60
files before small modules were merged.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import numpy as np

import lfm_tasks
from lfm_atlas.pipeline import build_atlas
from lfm_tasks.catalog import read_catalog
from lfm_tasks.runtime.session import open_run

FIRST, LAST = "score_pairs", "write_edges"
SECTION_STAGES = ("collection", "kept_maps", "kept_maps", "transfers", "embeddings")
PACKAGE = Path(lfm_tasks.__file__).parent

CATALOG = """
version: 1
datasets:
  probe: {ids: {path: ids.npy}}
models:
  a: {activations: {path: "{model}.npz", key: "{layer}", dataset: probe, ids: {path: ids.npy}}}
  b: {activations: {path: "{model}.npz", key: "{layer}", dataset: probe, ids: {path: ids.npy}}}
atlas:
  graph: {n_neighbors: 10}
  n_eigenpairs: 8
  measures: [overlap]
"""


class FilesEntered:
    """A profile function that collects the files of lfm_tasks, in the order in which they are first entered."""

    def __init__(self) -> None:
        self.for_a_cell: dict[str, bool] = {}
        self._is_counting = self._is_over = False
        self._section: FrameType | None = None

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Note the file of a function that is called; `sys.setprofile` calls this at each call and return."""
        path, name = Path(frame.f_code.co_filename), frame.f_code.co_name
        if self._is_over or event not in ("call", "return") or not path.is_relative_to(PACKAGE):
            return
        if event == "return":
            self._is_over = name == LAST
            if frame is self._section:
                self._section = None
            return
        self._is_counting |= name == FIRST
        file = path.relative_to(PACKAGE)
        if self._section is None and file.parts[0] == "stages" and file.parts[1] in SECTION_STAGES:
            self._section = frame
        if self._is_counting and name != "<module>":
            self.for_a_cell[str(file)] = self.for_a_cell.get(str(file), False) or self._section is None


def write_zoo(folder: Path) -> Path:
    """Write a catalog of two models with one layer each, on the same 60 points; return its path."""
    generator = np.random.default_rng(0)
    activations = generator.normal(size=(60, 5))
    np.save(folder / "ids.npy", np.arange(60))
    np.savez(folder / "a.npz", layer=activations)
    np.savez(folder / "b.npz", layer=activations @ generator.normal(size=(5, 5)))
    (folder / "data_catalog.yaml").write_text(CATALOG)
    return folder / "data_catalog.yaml"


def files_entered() -> dict[str, bool]:
    """Return the files of lfm_tasks that are entered, in order, and whether also for something else than a section."""
    entered = FilesEntered()
    with TemporaryDirectory() as folder:
        catalog = read_catalog(write_zoo(Path(folder)))
        with open_run(catalog, lambda stage, done, total: None, in_process=True) as run:
            sys.setprofile(entered)
            try:
                build_atlas(run)
            finally:
                sys.setprofile(None)
    return entered.for_a_cell


def main() -> None:
    """Print the files in order, and how many there are."""
    files = files_entered()
    for index, (path, is_for_a_cell) in enumerate(files.items(), start=1):
        sys.stdout.write(f"{index:3d} {' ' if is_for_a_cell else '+'} {path}\n")
    sys.stdout.write(
        f"{sum(files.values())} files from {FIRST} to a cell of edges.parquet, {len(files)} with sections\n"
    )


if __name__ == "__main__":
    main()
