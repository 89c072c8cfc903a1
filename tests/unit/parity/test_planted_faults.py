"""Faults planted at each layer of a small transformer: the layer is found, and the kind is named where it has one."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from lfm_tasks.parity.sides import Side
from lfm_tasks.parity.stage import Parity, ParityOptions, compare_sides

N_LAYERS, N_HEADS, WIDTH, N_TEXTS, N_TOKENS, N_WORDS = 12, 4, 32, 24, 8, 40
EVERY_LAYER = range(N_LAYERS)


@dataclass(frozen=True)
class Block:
    """Weights of one block, and the ways in which a port gets it wrong."""

    query: np.ndarray
    key: np.ndarray
    value: np.ndarray
    output: np.ndarray
    up: np.ndarray
    down: np.ndarray
    shift: np.ndarray
    epsilon: float = 1e-5
    factor: float = 1.0
    is_transposed: bool = False
    hidden_type: type = np.float32


def blocks() -> list[Block]:
    generator = np.random.default_rng(5)

    def weights(n_in: int, n_out: int, scale: float = 1.0) -> np.ndarray:
        return (scale * generator.standard_normal((n_in, n_out)) / np.sqrt(n_in)).astype(np.float32)

    # The hidden units of the feed-forward part are large, as they are in networks that overflow in half precision.
    return [
        Block(
            *(weights(WIDTH, WIDTH) for _ in range(3)), weights(WIDTH, WIDTH, 0.3), weights(WIDTH, 2 * WIDTH, 6e4),
            weights(2 * WIDTH, WIDTH, 1e-5), weights(1, WIDTH, 0.2)[0],
        )
        for _ in EVERY_LAYER
    ]  # fmt: skip


def normalized(rows: np.ndarray, block: Block) -> np.ndarray:
    centered = rows - rows.mean(axis=-1, keepdims=True)
    scale = np.sqrt(np.square(centered).mean(axis=-1, keepdims=True) + np.float32(block.epsilon))
    return block.factor * (centered / scale + block.shift)


def attended(rows: np.ndarray, block: Block) -> np.ndarray:
    heads = [
        (rows @ part).reshape(N_TEXTS, N_TOKENS, N_HEADS, -1).swapaxes(1, 2)
        for part in (block.query, block.key, block.value)
    ]
    scores = heads[0] @ heads[1].swapaxes(2, 3) / np.float32(np.sqrt(heads[0].shape[-1]))
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = (shares / shares.sum(axis=-1, keepdims=True)) @ heads[2]
    order = (0, 2, 3, 1) if block.is_transposed else (0, 2, 1, 3)
    return mixed.transpose(order).reshape(N_TEXTS, N_TOKENS, WIDTH)


def run(network: list[Block], table: np.ndarray, name: str = "network") -> Side:
    """Return what the network computes, a row a token: the embedding, and three layers of each block."""
    tokens = np.random.default_rng(6).integers(0, N_WORDS, (N_TEXTS, N_TOKENS))
    state = table[tokens]
    layers = {"embedding": state}
    with np.errstate(over="ignore", invalid="ignore"):
        for number, block in enumerate(network):
            attention = attended(state, block)
            middle = normalized(state + attention @ block.output, replace(block, factor=1.0, epsilon=1e-5))
            hidden = np.maximum(middle @ block.up, 0).astype(block.hidden_type).astype(np.float32)
            state = normalized(middle + hidden @ block.down, block).astype(np.float32)
            layers |= {f"{number}.attention": attention, f"{number}.hidden": hidden, f"{number}.output": state}
    ids = np.array([f"text{text}/{token}" for text in range(N_TEXTS) for token in range(N_TOKENS)])
    return Side(name, {layer: rows.reshape(len(ids), -1) for layer, rows in layers.items()}, ids)


def words() -> np.ndarray:
    return np.random.default_rng(4).standard_normal((N_WORDS, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def reference() -> Side:
    return run(blocks(), words())


def port(layer: int, **fault: object) -> Side:
    network = blocks()
    network[layer] = replace(network[layer], **fault)  # type: ignore[arg-type]
    return run(network, words())


def compared(reference: Side, candidate: Side) -> Parity:
    return compare_sides(reference, candidate, ParityOptions(n_explained=1, with_geometry=False))


def first(reference: Side, candidate: Side) -> tuple[str, str, str]:
    broken = compared(reference, candidate).first_broken
    assert broken is not None
    return broken.reference, broken.kind, broken.words


def test_the_same_network_is_equal_to_the_last_bit(reference: Side) -> None:
    assert {layer.status for layer in compared(reference, run(blocks(), words())).layers} == {"equal"}


@pytest.mark.parametrize("layer", EVERY_LAYER)
def test_a_scale_is_found_and_named(reference: Side, layer: int) -> None:
    found = first(reference, port(layer, factor=1.01))
    assert found == (f"{layer}.output", "scale", "every number is 1.01 times as large")


@pytest.mark.parametrize("layer", EVERY_LAYER)
def test_a_transposed_head_is_found_and_named(reference: Side, layer: int) -> None:
    found = first(reference, port(layer, is_transposed=True))
    assert found == (f"{layer}.attention", "permutation", "units are transposed: (4, 8) is read as (8, 4)")


@pytest.mark.parametrize("layer", EVERY_LAYER)
def test_a_wrong_epsilon_is_found_and_named(reference: Side, layer: int) -> None:
    where, kind, words = first(reference, port(layer, epsilon=1e-3))
    assert (where, kind) == (f"{layer}.output", "row_scale")
    assert "epsilon of its normalization" in words


@pytest.mark.parametrize("layer", EVERY_LAYER)
def test_an_overflow_of_half_precision_is_found_and_named(reference: Side, layer: int) -> None:
    where, kind, words = first(reference, port(layer, hidden_type=np.float16))
    assert (where, kind) == (f"{layer}.hidden", "overflow")
    assert "float16 ends at 65,504" in words


@pytest.mark.parametrize("layer", range(N_LAYERS - 1))
def test_two_swapped_layers_are_found_and_named(reference: Side, layer: int) -> None:
    network = blocks()
    network[layer], network[layer + 1] = network[layer + 1], network[layer]
    candidate = run(network, words())
    broken = compared(reference, candidate)
    assert broken.first_broken is not None
    assert broken.first_broken.reference == f"{layer}.attention"
    assert broken.first_broken.kind == "swapped"
    assert f"{layer + 1}.attention" in broken.first_broken.words


@pytest.mark.parametrize("layer", EVERY_LAYER)
def test_a_layer_with_the_weights_of_its_neighbor_is_found_and_named(reference: Side, layer: int) -> None:
    network, neighbor = blocks(), layer + 1 if layer + 1 < N_LAYERS else layer - 1
    network[layer] = network[neighbor]
    found = first(reference, run(network, words()))
    assert found[:2] == (f"{layer}.attention", "swapped")
    assert f"{neighbor}.attention" in found[2]


@pytest.mark.parametrize("word", range(N_WORDS))
def test_a_wrong_row_of_the_tokenizer_is_found_by_its_inputs(reference: Side, word: int) -> None:
    table = words()
    table[word] = table[(word + 1) % N_WORDS]
    parity = compared(reference, run(blocks(), table))
    tokens = np.random.default_rng(6).integers(0, N_WORDS, (N_TEXTS, N_TOKENS))
    expected = {f"text{text}/{token}" for text, token in zip(*np.nonzero(tokens == word), strict=True)}

    broken = parity.first_broken
    assert broken is not None
    assert (broken.reference, broken.kind) == ("embedding", "inputs")
    assert {name for name, _ in broken.inputs} <= expected
    assert len(broken.inputs) == min(10, len(expected))
    assert f"{len(expected)} of {N_TEXTS * N_TOKENS} inputs differ" in broken.words


@pytest.mark.parametrize("layer", EVERY_LAYER)
def test_a_scale_is_found_among_the_rounding_of_half_precision(reference: Side, layer: int) -> None:
    candidate = port(layer, factor=1.05)
    rounded = {name: rows.astype(np.float16) if "hidden" not in name else rows
               for name, rows in candidate.layers.items()}  # type: ignore[union-attr]  # fmt: skip
    assert first(reference, replace(candidate, layers=rounded))[:2] == (f"{layer}.output", "scale")
