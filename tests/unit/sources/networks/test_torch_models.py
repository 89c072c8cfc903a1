"""What is recorded from PyTorch networks; factories run only with their user's word."""

import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm_tasks.catalog import Catalog, read_catalog
from lfm_tasks.errors import DataError
from lfm_tasks.sources.opening import open_source, read_dataset
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
    return open_source("net", catalog.model_on("net"), catalog, read_dataset("probe", catalog))


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
    with pytest.raises(DataError, match=f"{layer} {why}.*Leave it out"):
        opened(zoo(tmp_path)).identity(layer)


def test_factory__runs_only_with_its_users_word(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"own_zoo:Net, which is code .*--trust-code, or name its module") as caught:
        opened(zoo(tmp_path, trust=False))
    assert caught.value.reason == "untrusted_code"
    assert opened(zoo(tmp_path)).layer_names()


# --- what modules give

OUTPUTS = """
from collections import OrderedDict
from torch import nn

class ModelOutput(OrderedDict):
    pass

class Gives(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, x):
        return self.make(x)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.pair = Gives(lambda x: (x * 2, x))
        self.nested = Gives(lambda x: [None, (x * 3, x)])
        self.mapping = Gives(lambda x: {"hidden": x * 4, "other": x})
        self.output = Gives(lambda x: ModelOutput(loss=None, logits=x * 5))
        self.integers = Gives(lambda x: x.long())
        self.nothing = Gives(lambda x: (None, "text"))
        self.transposed = Gives(lambda x: x.T)

    def forward(self, x):
        return [module(x) for module in self.children()]

def fails(width):
    raise RuntimeError("no such width")

def no_network():
    return 3

number = 3
"""


def with_factory(folder: Path, factory: str, options: str = "") -> Source:
    (folder / "outputs_zoo.py").write_text(OUTPUTS)
    (folder / "broken_zoo.py").write_text("1 / 0")
    np.save(folder / "inputs.npy", INPUTS)
    (folder / "data_catalog.yaml").write_text(f"""
version: 1
datasets: {{probe: {{ids: positional, inputs: {{path: inputs.npy}}}}}}
models: {{net: {{torch: {{factory: "{factory}", {options} dataset: probe, batch_size: 4}}}}}}
""")
    return opened(read_catalog(folder / "data_catalog.yaml", {}, trust_code=True))


@pytest.mark.parametrize(("layer", "factor"), [("pair", 2), ("nested", 3), ("mapping", 4), ("output", 5)])
def test_torch_source__records_the_first_tensor_of_what_a_module_gives(tmp_path: Path, layer: str, factor: int) -> None:
    batches = with_factory(tmp_path, "outputs_zoo:Net").batches([layer], np.arange(10)[::-1])
    np.testing.assert_array_equal(np.concatenate([batch[layer] for batch in batches]), factor * INPUTS[::-1])


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        ("integers", "gives torch.int64, where a float tensor is needed"),
        ("nothing", "gives no tensor, where a float tensor is needed"),
        ("transposed", r"gives \(4, 3\) for 3 points, where a row a point is needed"),
    ],
)
def test_torch_source__refuses_modules_that_give_no_rows(tmp_path: Path, layer: str, why: str) -> None:
    with pytest.raises(DataError, match=rf"{layer} {why}. Leave it out with layers: \['!{layer}'\]") as caught:
        with_factory(tmp_path, "outputs_zoo:Net").identity(layer)
    assert caught.value.reason == "wrong_shape"


def test_torch_source__runs_batch_by_batch_and_keeps_no_tensor_and_no_hook(tmp_path: Path) -> None:
    source: Any = opened(zoo(tmp_path))
    source.layer_shapes()  # the probe hooks everything
    fed: list[weakref.ref[Any]] = []
    source._module.register_forward_pre_hook(lambda _, inputs: fed.append(weakref.ref(inputs[0])))

    for number, batch in enumerate(source.batches(["first", "act"], np.arange(10)), start=1):
        assert len(fed) == number + 1  # a few rows of the first batch are computed twice
        # Only pooled rows are left of a batch, in memory of their own.
        assert all(reference() is None for reference in fed)
        assert all(values.base is None for values in batch.values())
        assert not any(module._forward_hooks for module in source._module.modules())


def test_torch_source__removes_its_hooks_when_the_network_stops(tmp_path: Path) -> None:
    source: Any = opened(zoo(tmp_path))
    source.layer_shapes()
    source._module.last.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(DataError, match=r"stopped on inputs of shape \(4, 4\), torch.float32 \(ZeroDivisionError"):
        next(iter(source.batches(["first"], np.arange(10))))
    assert not any(module._forward_hooks for module in source._module.modules())


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("nowhere_zoo:Net", r"nowhere_zoo:Net cannot be imported \(ModuleNotFoundError: .*\). Install its package"),
        ("broken_zoo:Net", r"broken_zoo:Net cannot be imported \(ZeroDivisionError: division by zero\)"),
        ("outputs_zoo:Nets", "got no Nets in outputs_zoo; did you mean 'Net'"),
        ("outputs_zoo:number", "got a int at outputs_zoo:number, expected something that can be called. Name a"),
        ("outputs_zoo:fails", "outputs_zoo:fails raised TypeError: .*missing 1 required.* for args: {}. Call it"),
        ("outputs_zoo:no_network", "got a int from the factory outputs_zoo:no_network, expected a torch.nn.Module"),
    ],
)
def test_factory__that_gives_no_network_is_told(tmp_path: Path, factory: str, message: str) -> None:
    with pytest.raises(DataError, match=f"^model net: .*{message}") as caught:
        with_factory(tmp_path, factory).layer_names()
    assert caught.value.reason == "bad_factory"


def test_factory__says_what_it_raised_for_which_args(tmp_path: Path) -> None:
    message = r"outputs_zoo:fails raised RuntimeError: no such width for args: \{'width': 3\}. Call it yourself"
    with pytest.raises(DataError, match=message):
        with_factory(tmp_path, "outputs_zoo:fails", "args: {width: 3},").layer_names()


@pytest.mark.parametrize("package", ["torch", "safetensors.torch"])
def test_torch_source__without_pytorch_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    catalog = zoo(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)  # its import fails
    with pytest.raises(DataError, match=r'got no PyTorch .*: pip install "lfm-atlas\[torch\]"') as caught:
        opened(catalog).layer_names()
    assert caught.value.reason == "missing_package"
