"""A reader of another package reads a catalog's activations, without a change to this one."""

import os
import tomllib
from pathlib import Path

import numpy as np
import pytest

from lfm_tasks.catalog import read_catalog
from lfm_tasks.sources import open_array
from lfm_tasks.stores.atlas.files import read_atlas
from tests.packaging.test_example_plugin import PLUGIN, command, with_entry_points

N_POINTS = 60
LAYERS = ("layer2", "layer10")
CATALOG = """
version: 1
datasets: {probe: {ids: positional}}
models:
  small: {activations: {path: "small/{layer}.tab", dataset: probe}}
  large: {activations: {path: "large/{layer}.tab", dataset: probe}}
atlas: {graph: {n_neighbors: 10}, n_eigenpairs: 8, null: {n_permutations: 19}}
"""


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which the example package is there as after ``pip install``."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return with_entry_points(tmp_path, project["name"], project["entry-points"])


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """Write two models of two layers as .tab."""
    folder, generator = tmp_path / "zoo", np.random.default_rng(0)
    latent = generator.standard_normal((N_POINTS, 4))
    for model, width in (("small", 6), ("large", 12)):
        (folder / model).mkdir(parents=True)
        for layer in LAYERS:
            rows = np.tanh(latent @ generator.standard_normal((4, width)))
            np.savetxt(folder / model / f"{layer}.tab", rows, delimiter="\t", fmt="%.17g")
    (folder / "data_catalog.yaml").write_text(CATALOG)
    return folder


def test_reader_of_another_package__reads_what_was_saved(
    zoo: Path, installed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for entry in reversed(installed["PYTHONPATH"].split(os.pathsep)[:2]):
        monkeypatch.syspath_prepend(entry)
    expected = np.loadtxt(zoo / "small" / "layer2.tab")

    array = open_array(zoo / "small" / "layer2.tab", "layer2.tab")

    assert array.shape == (N_POINTS, 6)
    assert array.memory_bytes == N_POINTS * 6 * 8
    np.testing.assert_array_equal(array.load(), expected)
    with array.rows() as rows:
        np.testing.assert_array_equal(rows(np.array([5, 3])), expected[[5, 3]])


def test_catalog_of_such_files__is_validated_and_becomes_an_atlas(zoo: Path, installed: dict[str, str]) -> None:
    validated = command(zoo, installed, "validate")
    run = command(zoo, installed, "run", "--no-prefect", "--no-dask")

    assert validated.returncode == 0, validated.stderr
    assert run.returncode == 0, run.stderr
    catalog = read_catalog(zoo / "data_catalog.yaml")
    atlas = read_atlas(zoo / catalog.atlas.path)
    assert set(atlas.source.to_numpy().tolist()) == {
        f"{model}/{layer}" for model in ("small", "large") for layer in LAYERS
    }


def test_the_same_catalog_without_the_package__says_that_nothing_reads_it(zoo: Path) -> None:
    validated = command(zoo, dict(os.environ), "validate")

    assert validated.returncode != 0
    assert "got a .tab file, expected one of .npy" in validated.stdout + validated.stderr
