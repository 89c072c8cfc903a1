"""What is recorded from PyTorch networks; factories run only with their user's word."""

from pathlib import Path

import numpy as np
import pytest

from lfm_tasks.catalog import Catalog, read_catalog
from lfm_tasks.reasons import ReasonError
from lfm_tasks.sources.datasets import read_dataset
from lfm_tasks.sources.opening import open_source
from lfm_tasks.sources.source import Source

torch = pytest.importorskip("torch", reason="needs the extra [torch]")

ZOO = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=5):
        super().__init__()
        self.first = nn.Linear(4, width)
        self.act = nn.ReLU(inplace=True)
        self.last = nn.Linear(width, 2)
        self.unused = nn.Linear(1, 1)
        self.twice = nn.Identity()

    def forward(self, x):
        return {"out": self.twice(self.twice(self.last(self.act(self.first(x)))))}
"""
INPUTS = np.random.default_rng(0).standard_normal((10, 4)).astype(np.float32)


def zoo(folder: Path, *, trust: bool = True, **environment: str) -> Catalog:
    (folder / "own_zoo.py").write_text(ZOO)
    np.save(folder / "inputs.npy", INPUTS)
    (folder / "data_catalog.yaml").write_text("""
version: 1
datasets: {probe: {ids: positional, inputs: {path: inputs.npy}}}
models: {net: {torch: {factory: "own_zoo:Net", args: {width: 6}, dataset: probe, batch_size: 4}}}
""")
    return read_catalog(folder / "data_catalog.yaml", environment, trust_code=trust)


def opened(catalog: Catalog) -> Source:
    return open_source("net", catalog.models["net"], catalog, read_dataset("probe", catalog))


def test_torch_source__records_before_the_next_module_overwrites(tmp_path: Path) -> None:
    batches = list(opened(zoo(tmp_path)).batches(["first", "act"], np.arange(10)))
    first, act = (np.concatenate([batch[name] for batch in batches]) for name in ("first", "act"))
    assert [len(batch["act"]) for batch in batches] == [4, 4, 2]
    assert first.min() < 0
    np.testing.assert_array_equal(act, np.maximum(first, 0))


def test_torch_source__two_openings_give_the_same_bits_and_leave_the_generator_alone(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    first, second = (next(iter(opened(zoo(tmp_path)).batches(["last"], np.arange(4))))["last"] for _ in range(2))
    assert first.tobytes() == second.tobytes()
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(("layer", "why"), [("unused", "is never called"), ("twice", "is called several times")])
def test_torch_source__refuses_modules_that_are_not_called_once(tmp_path: Path, layer: str, why: str) -> None:
    with pytest.raises(ReasonError, match=f"{layer} {why}.*leave it out"):
        opened(zoo(tmp_path)).identity(layer)


def test_factory__runs_only_with_its_users_word(tmp_path: Path) -> None:
    with pytest.raises(ReasonError, match=r"own_zoo:Net, which is code .*--trust-code, or name its module") as caught:
        opened(zoo(tmp_path, trust=False))
    assert caught.value.reason == "untrusted_code"
    assert opened(zoo(tmp_path)).layer_names()
