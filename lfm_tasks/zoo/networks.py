"""Small networks in numpy: their layers, one after the other, forwards and backwards."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

Array = Float[np.ndarray, "..."]
Weights = dict[str, Array]  # "<layer>.weight" and "<layer>.bias"
Kind = Literal["linear", "conv", "relu", "tanh", "pool", "image", "flatten"]

_KERNEL = 3  # a convolution sees 3 × 3 pixels, zeros beyond the edge
_POOL = 2  # pooling takes the mean of 2 × 2 pixels


@dataclass(frozen=True)
class Layer:
    """One step; ``n_in`` and ``n_out`` are features (linear) or channels (conv)."""

    kind: Kind
    name: str
    n_in: int = 0
    n_out: int = 0
    image: tuple[int, ...] = ()


Network = tuple[Layer, ...]


def mlp(widths: tuple[int, ...], activation: Literal["relu", "tanh"]) -> Network:
    """Return a multilayer perceptron: linear layers of these widths, with ``activation`` after all but the last.

    ``widths`` include those of inputs and outputs.
    """
    layers: list[Layer] = []
    for depth, (n_in, n_out) in enumerate(pairwise(widths[:-1]), start=1):
        layers += [Layer("linear", f"linear{depth}", n_in, n_out), Layer(activation, f"{activation}{depth}")]
    return (*layers, Layer("linear", "logits", widths[-2], widths[-1]))


def cnn(n_channels: int, n_hidden: int) -> Network:
    """Return three convolutions and two linear layers for 8 × 8 images that come as 64 pixels."""
    return (
        Layer("image", "image", image=(1, 8, 8)),
        Layer("conv", "conv1", 1, n_channels),
        Layer("relu", "relu1"),
        Layer("conv", "conv2", n_channels, n_channels),
        Layer("relu", "relu2"),
        Layer("pool", "pool2"),
        Layer("conv", "conv3", n_channels, n_channels),
        Layer("relu", "relu3"),
        Layer("flatten", "flatten"),
        Layer("linear", "linear4", n_channels * 16, n_hidden),
        Layer("relu", "relu4"),
        Layer("linear", "logits", n_hidden, 10),
    )


def initial_weights(network: Network, seed: int) -> Weights:
    """Return normal weights of variance 2 / fan-in (He et al. 2015) and biases of 0, float32."""
    random = np.random.default_rng(seed)
    weights: Weights = {}
    for layer in network:
        if layer.n_out:
            shape = (layer.n_in, layer.n_out) if layer.kind == "linear" else (layer.n_out, layer.n_in, _KERNEL, _KERNEL)
            scale = np.sqrt(2 / (np.prod(shape) / layer.n_out))
            weights[f"{layer.name}.weight"] = (scale * random.standard_normal(shape)).astype(np.float32)
            weights[f"{layer.name}.bias"] = np.zeros(layer.n_out, np.float32)
    return weights


def activations(network: Network, weights: Weights, inputs: Float[np.ndarray, "batch pixels"]) -> dict[str, Array]:
    """Return the output of every layer, by name, first layer first."""
    values: dict[str, Array] = {}
    value: Array = inputs
    for layer in network:
        value = values[layer.name] = _FORWARD[layer.kind](layer, weights, value)
    return values


def gradients(
    network: Network, weights: Weights, inputs: Float[np.ndarray, "batch pixels"], labels: Int[np.ndarray, " batch"]
) -> Weights:
    """Return the gradient of the mean cross-entropy with respect to every weight, by name."""
    values = activations(network, weights, inputs)
    before = [inputs, *values.values()]
    logits = before[-1] - before[-1].max(axis=1, keepdims=True)
    upstream: Array = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    upstream[np.arange(len(labels)), labels] -= 1
    upstream /= len(labels)
    by_name: Weights = {}
    for layer, value in zip(reversed(network), reversed(before[:-1]), strict=True):
        upstream = _BACKWARD[layer.kind](_Step(layer, weights, value, by_name), upstream)
    return by_name


@dataclass(frozen=True)
class _Step:
    """One layer on the way back: its weights, its input, and the gradients of all layers so far."""

    layer: Layer
    weights: Weights
    value: Array
    gradients: Weights

    def store(self, weight: Array, bias: Array) -> None:
        self.gradients[f"{self.layer.name}.weight"] = weight
        self.gradients[f"{self.layer.name}.bias"] = bias


def _linear(layer: Layer, weights: Weights, value: Array) -> Array:
    return np.asarray(value @ weights[f"{layer.name}.weight"] + weights[f"{layer.name}.bias"])


def _linear_back(step: _Step, upstream: Array) -> Array:
    step.store(step.value.T @ upstream, upstream.sum(axis=0))
    return np.asarray(upstream @ step.weights[f"{step.layer.name}.weight"].T)


def _conv(layer: Layer, weights: Weights, value: Array) -> Array:
    return _correlate(value, weights[f"{layer.name}.weight"]) + weights[f"{layer.name}.bias"][:, None, None]


def _conv_back(step: _Step, upstream: Array) -> Array:
    weight = np.tensordot(upstream, _windows(step.value), axes=((0, 2, 3), (0, 2, 3)))
    step.store(weight, upstream.sum(axis=(0, 2, 3)))
    # The adjoint of a correlation correlates with the kernel turned by 180°, its channels swapped.
    turned = step.weights[f"{step.layer.name}.weight"][:, :, ::-1, ::-1].swapaxes(0, 1)
    return _correlate(upstream, turned)


def _correlate(value: Array, weight: Array) -> Array:
    return np.moveaxis(np.tensordot(_windows(value), weight, axes=((1, 4, 5), (1, 2, 3))), 3, 1)


def _windows(value: Array) -> Array:
    padded = np.pad(value, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return np.lib.stride_tricks.sliding_window_view(padded, (_KERNEL, _KERNEL), axis=(2, 3))


def _pool(_layer: Layer, _weights: Weights, value: Array) -> Array:
    batch, channels, height, width = value.shape
    blocks = value.reshape(batch, channels, height // _POOL, _POOL, width // _POOL, _POOL)
    return np.asarray(blocks.mean(axis=(3, 5)))


def _pool_back(_step: _Step, upstream: Array) -> Array:
    return upstream.repeat(_POOL, axis=2).repeat(_POOL, axis=3) / _POOL**2


_FORWARD: dict[Kind, Callable[[Layer, Weights, Any], Array]] = {
    "linear": _linear,
    "conv": _conv,
    "relu": lambda _layer, _weights, value: np.maximum(value, 0),
    "tanh": lambda _layer, _weights, value: np.tanh(value),
    "pool": _pool,
    "image": lambda layer, _weights, value: value.reshape(-1, *layer.image),
    "flatten": lambda _layer, _weights, value: value.reshape(len(value), -1),
}
_BACKWARD: dict[Kind, Callable[[_Step, Any], Array]] = {
    "linear": _linear_back,
    "conv": _conv_back,
    "relu": lambda step, upstream: upstream * (step.value > 0),
    "tanh": lambda step, upstream: upstream * (1 - np.tanh(step.value) ** 2),
    "pool": _pool_back,
    "image": lambda step, upstream: upstream.reshape(step.value.shape),
    "flatten": lambda step, upstream: upstream.reshape(step.value.shape),
}
