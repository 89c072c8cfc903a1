"""A zoo of PyTorch networks from catalog to atlas: only with its user's word, in one process or on Dask workers."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm_atlas.pipeline import Outcome, build_atlas
from lfm_tasks.catalog import read_catalog
from lfm_tasks.runtime.session import open_run
from lfm_tasks.stages.inventory.stage import validate_catalog
from lfm_tasks.stores.units.store import UnitStore

torch = pytest.importorskip("torch", reason="needs the extra [torch]")

ZOO = """
from torch import nn

def tiny(width):
    return nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, 5))
"""
CATALOG = """
version: 1
datasets: {probe: {ids: {path: ids.npy}, inputs: {path: inputs.npy}}}
models:
  narrow: {torch: {factory: "torch_zoo:tiny", args: {width: 8}, dataset: probe, batch_size: 32}}
  wide: {torch: {factory: "torch_zoo:tiny", args: {width: 16}, dataset: probe, batch_size: 32}}
atlas: {graph: {n_neighbors: 10}, n_eigenpairs: 8, "null": {n_permutations: 19}}
"""
generator = np.random.default_rng(0)
N_POINTS = 120
INPUTS = generator.standard_normal((N_POINTS, 6)).astype(np.float32)
IDS = generator.permutation([f"p{number:03}" for number in range(N_POINTS)])


def write(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "torch_zoo.py").write_text(ZOO)
    np.save(folder / "inputs.npy", INPUTS)
    np.save(folder / "ids.npy", IDS)
    (folder / "data_catalog.yaml").write_text(CATALOG)
    return folder


def build(folder: Path, *, trust: bool = True, in_process: bool = True) -> Outcome:
    catalog = read_catalog(folder / "data_catalog.yaml", {}, trust_code=trust)
    with open_run(catalog, lambda *_: None, in_process=in_process) as run:
        return build_atlas(run)


def by_hand(width: int) -> dict[str, np.ndarray]:
    """Give each layer of the network that starts from seed 0, rows in the order of their ids."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        first, last = torch.nn.Linear(6, width), torch.nn.Linear(width, 5)
        hidden = first(torch.from_numpy(INPUTS[np.argsort(IDS)]))
        layers = {"0": hidden, "1": torch.tanh(hidden), "2": last(torch.tanh(hidden))}
    return {name: tensor.numpy() for name, tensor in layers.items()}


def recorded(folder: Path) -> dict[tuple[str, str], np.ndarray]:
    store, found = UnitStore(folder / ".lfm-atlas"), {}
    catalog = read_catalog(folder / "data_catalog.yaml", {}, trust_code=True)
    for planned in validate_catalog(catalog, lambda *_: None).spaces:
        with store.open("activations", planned.key) as unit:
            assert unit.read("ids").tolist() == sorted(IDS)
            found[planned.space.model, planned.space.layer] = unit.read("activations")
    return found


def digests(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    folder = write(tmp_path_factory.mktemp("torch_zoo"))
    return folder, build(folder)


def test_zoo__is_refused_without_its_users_word(tmp_path: Path) -> None:
    catalog = read_catalog(write(tmp_path) / "data_catalog.yaml", {})

    zoo = validate_catalog(catalog, lambda *_: None)

    assert (zoo.spaces, {failure.reason for failure in zoo.failures}) == ((), {"untrusted_code"})
    message = "got the factory torch_zoo:tiny, which is code and would run here, and you did not allow it. Read it"
    assert all(message in failure.message for failure in zoo.failures)
    assert not list(tmp_path.glob("__pycache__"))


def test_zoo__of_the_catalogs_folder_needs_more_than_its_modules_name(tmp_path: Path) -> None:
    # The names of modules mean installed ones: a folder that was downloaded must not stand in for them.
    catalog = read_catalog(write(tmp_path) / "data_catalog.yaml", {"LFM_ATLAS_TRUSTED_MODULES": "torch_zoo"})
    messages = [failure.message for failure in validate_catalog(catalog, lambda *_: None).failures]
    assert all("cannot be imported (ModuleNotFoundError: No module named 'torch_zoo')" in said for said in messages)
    assert len(messages) == 2


def test_zoo__is_recorded_as_by_hand(built: tuple[Path, Outcome]) -> None:
    folder, outcome = built
    assert (outcome.n_spaces, outcome.failures) == (6, ())
    found: dict[Any, np.ndarray] = recorded(folder)
    assert len(found) == 6
    for (model, layer), activations in found.items():
        expected = by_hand({"narrow": 8, "wide": 16}[model])[layer]
        np.testing.assert_allclose(activations, expected, rtol=0, atol=1e-6)


def test_zoo__is_the_same_on_dask_workers(built: tuple[Path, Outcome], tmp_path: Path) -> None:
    outcome = build(write(tmp_path / "dask"), in_process=False)

    assert outcome.failures == ()
    assert digests(tmp_path / "dask" / "atlas") == digests(built[0] / "atlas")


def test_zoo__is_not_run_again_unless_its_code_changes(tmp_path: Path, built: tuple[Path, Outcome]) -> None:
    again = build(built[0])
    assert not any(again.computed.values())

    before = read_catalog(write(tmp_path) / "data_catalog.yaml", {}, trust_code=True)
    keys = {planned.key for planned in validate_catalog(before, lambda *_: None).spaces}
    (tmp_path / "torch_zoo.py").write_text(ZOO.replace("Tanh", "ReLU"))
    changed = {planned.key for planned in validate_catalog(before, lambda *_: None).spaces}
    assert not keys & changed
