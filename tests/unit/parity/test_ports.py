"""Real ports of a PyTorch transformer: ONNX, bfloat16, float16, int8 weights; what they change is found and named."""

import copy
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm_tasks.parity.sides import Side
from lfm_tasks.parity.stage import LayerParity, Parity, compare_sides

torch = pytest.importorskip("torch")

N_BLOCKS, WIDTH, N_WORDS, N_TEXTS, N_TOKENS = 4, 32, 60, 48, 6
TOKENS = np.random.default_rng(0).integers(0, N_WORDS, (N_TEXTS, N_TOKENS))
NAMES = ["embedding", *(f"block{number}" for number in range(N_BLOCKS))]


def network() -> Any:
    """Return a transformer that gives what each of its layers gives."""

    class Transformer(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(N_WORDS, WIDTH)
            self.blocks = torch.nn.ModuleList(
                torch.nn.ModuleDict(
                    {
                        "mix": torch.nn.Linear(WIDTH, 3 * WIDTH),
                        "out": torch.nn.Linear(WIDTH, WIDTH),
                        "up": torch.nn.Linear(WIDTH, 2 * WIDTH),
                        "down": torch.nn.Linear(2 * WIDTH, WIDTH),
                        "norm": torch.nn.LayerNorm(WIDTH),
                    }
                )
                for _ in range(N_BLOCKS)
            )

        def forward(self, tokens: Any) -> Any:
            state = self.table(tokens)
            states = [state]
            for block in self.blocks:
                query, key, value = block["mix"](state).chunk(3, dim=-1)
                shares = torch.softmax(query @ key.transpose(1, 2) / WIDTH**0.5, dim=-1)
                state = block["norm"](state + block["out"](shares @ value))
                state = state + block["down"](torch.nn.functional.gelu(block["up"](state)))
                states.append(state)
            return tuple(states)

    torch.manual_seed(0)
    return Transformer().eval()


def side(outputs: Mapping[str, np.ndarray]) -> Side:
    ids = np.array([f"{text}/{token}" for text in range(N_TEXTS) for token in range(N_TOKENS)])
    return Side("network", {name: rows.reshape(len(ids), -1) for name, rows in outputs.items()}, ids)


def run(net: Any) -> Side:
    with torch.no_grad():
        states = net(torch.from_numpy(TOKENS))
    return side({name: state.float().numpy() for name, state in zip(NAMES, states, strict=True)})


@pytest.fixture(scope="module")
def reference() -> Side:
    return run(network())


def first(parity: Parity) -> LayerParity:
    assert parity.first_broken is not None
    return parity.first_broken


def test_onnx__of_the_network_is_within_tolerance(reference: Side, tmp_path: Path) -> None:
    import onnxruntime

    with warnings.catch_warnings():
        # The exporter that needs no further package is an old one, and says so.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network(), (torch.from_numpy(TOKENS),), tmp_path / "net.onnx", dynamo=False, input_names=["tokens"],
            output_names=NAMES,
        )  # fmt: skip
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    outputs = dict(zip(NAMES, session.run(None, {"tokens": TOKENS}), strict=True))
    parity = compare_sides(reference, side(outputs))
    assert parity.first_broken is None
    assert parity.layers[0].status == "equal"
    assert max(layer.largest_ulps for layer in parity.layers) > 0  # another program: not the same bits


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision__is_recognized_and_within_its_tolerance(reference: Side, dtype: str) -> None:
    parity = compare_sides(reference, run(network().to(getattr(torch, dtype))))
    assert parity.first_broken is None
    assert {layer.precision for layer in parity.layers} == {dtype}
    assert all(0.2 < layer.typical_ulps < 30 for layer in parity.layers)


def rounded_to_int8(weights: Any) -> Any:
    scale = weights.abs().max() / 127
    return torch.round(weights / scale) * scale


@pytest.mark.parametrize("block", range(N_BLOCKS))
def test_int8_weights_of_a_block__are_located_and_named(reference: Side, block: int) -> None:
    net = network()
    with torch.no_grad():
        for name in ("mix", "out", "up", "down"):
            net.blocks[block][name].weight.copy_(rounded_to_int8(net.blocks[block][name].weight))
    found = first(compare_sides(reference, run(net)))
    assert (found.reference, found.kind) == (f"block{block}", "rounding")
    assert "as from weights or sums in fewer bits" in found.words


def test_int8_activations__are_located_and_named(reference: Side) -> None:
    net = network()
    net.blocks[2]["norm"].register_forward_hook(lambda module, inputs, output: rounded_to_int8(output))
    found = first(compare_sides(reference, run(net)))
    assert (found.reference, found.kind) == ("block2", "rounding")
    layers = {name: rows for name, rows in reference.layers.items() if isinstance(rows, np.ndarray)}
    layers["block1"] = rounded_to_int8(torch.from_numpy(layers["block1"])).numpy()
    found = first(compare_sides(reference, side(layers)))
    assert (found.reference, found.kind) == ("block1", "quantized")
    assert "its numbers take 2" in found.words


def test_bfloat16_sums_among_float32__are_located_and_named(reference: Side) -> None:
    """One block computes in bfloat16 and gives float32: no type tells."""
    net = network()
    inner = copy.deepcopy(net.blocks[1]["down"]).to(torch.bfloat16)
    net.blocks[1]["down"].forward = lambda rows: inner(rows.to(torch.bfloat16)).float()
    found = first(compare_sides(reference, run(net)))
    assert (found.reference, found.kind) == ("block1", "rounding")


def test_a_small_change_of_few_directions__is_no_rounding(reference: Side) -> None:
    """An adapter of rank 1 moves rows as little as rounding does, and all in one direction."""
    net = network()
    generator = torch.Generator().manual_seed(3)
    column, row = torch.randn(WIDTH, 1, generator=generator), torch.randn(1, 2 * WIDTH, generator=generator)
    with torch.no_grad():
        net.blocks[1]["down"].weight.add_(0.0005 * column @ row)
    assert first(compare_sides(reference, run(net))).kind != "rounding"
