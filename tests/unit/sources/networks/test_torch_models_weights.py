"""Weights of PyTorch networks: the right ones are in the network afterwards, wrong ones are told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm_tasks.catalog import read_catalog
from lfm_tasks.errors import DataError
from lfm_tasks.sources.opening import open_source, read_dataset
from lfm_tasks.sources.source import Source

torch = pytest.importorskip("torch", reason="needs the extra [torch]")

from safetensors.torch import save_file, save_model  # noqa: E402 - comes with torch

from lfm_tasks.sources.networks.torch_networks import as_array, load_weights, state_digest  # noqa: E402

INPUTS = np.random.default_rng(0).standard_normal((7, 4)).astype(np.float32)
ZOO = """
from torch import nn

def net():
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
"""


def net(seed: int = 0) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3)).eval()


class Tied(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(3, 3, bias=False)
        self.last = torch.nn.Linear(3, 3, bias=False)
        self.last.weight = self.first.weight


class View(torch.nn.Module):
    """Has two buffers that share memory of which neither is the whole."""

    def __init__(self) -> None:
        super().__init__()
        whole = torch.zeros(3)
        self.register_buffer("first", whole[:2])
        self.register_buffer("last", whole[1:])


def refused(folder: Path, tensors: dict[str, Any], message: str, module: Any = None) -> None:
    save_file(tensors, folder / "w.safetensors")
    with pytest.raises(DataError, match=message) as caught:
        load_weights(module or net(), folder / "w.safetensors", "w.safetensors")
    assert caught.value.reason == "bad_weights"


def tensors(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    state = dict(net().state_dict())
    change(state)
    return state


def test_load_weights__puts_in_every_tensor(tmp_path: Path) -> None:
    path, module, other = tmp_path / "w.safetensors", net(0), net(1)
    other[1].running_mean += 0.5
    save_model(other, path)
    inputs = torch.from_numpy(INPUTS)
    assert state_digest(module) != state_digest(other)
    assert not torch.equal(module(inputs), other(inputs))

    load_weights(module, path, "w")

    assert state_digest(module) == state_digest(other)
    assert torch.equal(module(inputs), other(inputs))


def test_load_weights__knows_tied_tensors(tmp_path: Path) -> None:
    module, other = Tied(), Tied()
    save_model(other, tmp_path / "w.safetensors")
    load_weights(module, tmp_path / "w.safetensors", "w")
    assert torch.equal(module.last.weight, other.first.weight)
    assert module.last.weight is module.first.weight


def test_load_weights__casts_up_what_is_stored_in_half_precision(tmp_path: Path) -> None:
    module = net()
    save_file({key: t.half() if t.is_floating_point() else t for key, t in net(1).state_dict().items()}, tmp_path / "w")
    (tmp_path / "w").rename(tmp_path / "w.safetensors")
    load_weights(module, tmp_path / "w.safetensors", "w")
    assert torch.equal(module[0].weight, net(1)[0].weight.half().float())


def test_load_weights__refuses_missing_and_unexpected_tensors(tmp_path: Path) -> None:
    missing = "got nothing for 1 tensors, '0.bias' first, expected exactly the network's own. Check factory, args and"
    refused(tmp_path, tensors(lambda state: state.pop("0.bias")), rf"^w.safetensors: {missing}")
    more = "got 1 tensors that the network has not, 'head.bias' first, expected exactly"
    refused(tmp_path, tensors(lambda state: state.update({"head.bias": torch.zeros(2)})), more)
    renamed = "nothing for 1 tensors, '0.bias' first; got 1 .*'0.biass' first; did you mean '0.bias'"
    refused(tmp_path, tensors(lambda state: state.update({"0.biass": state.pop("0.bias")})), renamed)


def test_load_weights__refuses_other_shapes_before_it_changes_anything(tmp_path: Path) -> None:
    module = net()
    before = state_digest(module)
    other = tensors(lambda state: state.update({"1.weight": torch.zeros(5)}))
    refused(
        tmp_path, other, r"w.safetensors#1.weight: got the shape \(5,\), expected \(3,\). Check the factory's", module
    )
    assert state_digest(module) == before


@pytest.mark.parametrize("dtype", [torch.float64, torch.int8], ids=str)
def test_load_weights__refuses_types_that_do_not_fit(tmp_path: Path, dtype: Any) -> None:
    other = tensors(lambda state: state.update({"0.bias": torch.zeros(3, dtype=dtype)}))
    refused(tmp_path, other, rf"#0.bias: got {dtype}, expected torch.float32 .* without loss. Save it so")


def test_load_weights__refuses_buffers_that_overlap(tmp_path: Path) -> None:
    separate = {"first": torch.zeros(2), "last": torch.zeros(2)}
    refused(tmp_path, separate, r"cannot be put into the network \(.*\), expected .*. Load them in the factory", View())


@pytest.mark.parametrize(
    "content", [b"", b"\x05\0\0\0\0\0\0\0{", b"\xff" * 40, "cut"], ids=["empty", "short", "noise", "cut"]
)
def test_load_weights__refuses_damaged_files(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "w.safetensors"
    save_model(net(), path)
    path.write_bytes(path.read_bytes()[:-3] if content == "cut" else content)
    with pytest.raises(DataError, match=r"^w: cannot be read \(.+\). Save it again") as caught:
        load_weights(net(), path, "w")
    assert caught.value.reason == "damaged_source"


def test_load_weights__names_the_nearest_file(tmp_path: Path) -> None:
    save_model(net(), tmp_path / "weights.safetensors")
    for name in ("weigths.safetensors", "nowhere/weights.safetensors"):
        hint = "; there is no folder 'nowhere' either" if "/" in name else "; did you mean 'weights.safetensors'"
        with pytest.raises(DataError, match=f"{name}: no such file{hint}") as caught:
            load_weights(net(), tmp_path / name, name)
        assert caught.value.reason == "missing_source"


@pytest.mark.parametrize("name", ["w.pt", "weights"])
def test_load_weights__refuses_what_could_hold_code(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match=r"got a (\.pt|nameless) file, expected \.safetensors, .*save_model") as caught:
        load_weights(net(), tmp_path / name, name)
    assert caught.value.reason == "bad_weights"


def test_as_array__gives_bfloat16_as_float32() -> None:
    values = torch.tensor([1.5, -2], dtype=torch.bfloat16, requires_grad=True)
    array = as_array(values)
    assert (array.dtype, array.tolist()) == (np.dtype(np.float32), [1.5, -2])


# --- from a catalog


def opened(folder: Path, weights: str) -> Source:
    (folder / "weights_zoo.py").write_text(ZOO)
    np.save(folder / "inputs.npy", INPUTS)
    (folder / "data_catalog.yaml").write_text(f"""
version: 1
datasets: {{probe: {{ids: positional, inputs: {{path: inputs.npy}}}}}}
models: {{net: {{torch: {{factory: "weights_zoo:net", {weights} dataset: probe}}}}}}
""")
    catalog = read_catalog(folder / "data_catalog.yaml", {}, trust_code=True)
    return open_source("net", catalog.model_on("net"), catalog, read_dataset("probe", catalog))


def test_torch_source__records_with_the_weights_of_the_catalog(tmp_path: Path) -> None:
    save_model(net(1), tmp_path / "net.safetensors")
    with_weights, without = opened(tmp_path, 'weights: "{model}.safetensors",'), opened(tmp_path, "")

    (batch,), (other,) = (source.batches(["1"], np.arange(7)) for source in (with_weights, without))

    np.testing.assert_allclose(batch["1"], net(1)(torch.from_numpy(INPUTS)).detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(other["1"], net(0)(torch.from_numpy(INPUTS)).detach().numpy(), atol=1e-6)
    changed = {key for key, value in with_weights.identity("1").items() if value != without.identity("1")[key]}
    assert changed == {"weights", "state"}
