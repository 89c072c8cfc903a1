"""Maps of PyTorch networks: pooled over their pixels wherever the channels are, or refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm_tasks.catalog import read_catalog
from lfm_tasks.errors import DataError
from lfm_tasks.sources.networks.torch_layouts import channel_places
from lfm_tasks.sources.opening import open_source, read_dataset
from lfm_tasks.sources.source import Source

torch = pytest.importorskip("torch", reason="needs the extra [torch]")
nn = torch.nn


class Turning(nn.LayerNorm):  # type: ignore[name-defined, misc]
    """A norm that takes and gives channels first, as torchvision's LayerNorm2d does."""


@pytest.mark.parametrize(
    ("module", "shape", "place"),
    [
        (nn.Conv2d(3, 8, 1), (8, 8, 8), "first"),
        (nn.BatchNorm2d(8), (8, 8, 8), "first"),
        (nn.AdaptiveAvgPool2d(8), (8, 8, 8), "first"),
        (nn.Upsample(2), (8, 8, 8), "first"),
        (nn.Linear(8, 8), (8, 8, 8), "last"),
        (nn.LayerNorm(8), (8, 8, 8), "last"),
        (nn.LayerNorm((8, 8, 8)), (8, 8, 8), "unknown"),
        (Turning(8), (8, 8, 8), "unknown"),
        (Turning(8), (8, 7, 7), "first"),
        (nn.ReLU(), (7, 7, 8), "last"),
        (nn.ReLU(), (8, 7, 7), "first"),
        (nn.ReLU(), (8, 1, 1), "first"),
        (nn.ReLU(), (8, 6, 7), "unknown"),
    ],
)
def test_place_of_channels__follows_from_the_kind_or_from_a_square_map(module: Any, shape: Any, place: str) -> None:
    modules, shapes = {"it": module, "linear": nn.Linear(2, 3)}, {"it": shape, "linear": (5, 5, 3)}

    assert channel_places(modules, shapes)["it"] == place


def test_network_of_convolutions__has_channels_first_throughout() -> None:
    modules = {"conv": nn.Conv2d(3, 8, 1), "relu": nn.ReLU(), "fc": nn.Linear(8, 2), "twice": nn.Linear(1, 1)}
    shapes = {"conv": (8, 8, 8), "relu": (8, 8, 8), "fc": (2,), "twice": "is called several times"}

    assert channel_places(modules, shapes) == {"conv": "first", "relu": "first"}


ZOO = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.linear, self.act = nn.Conv2d(3, 6, 1), nn.Linear(6, 6), nn.ReLU()

    def forward(self, x):
        return self.act(self.linear(self.conv(x).permute(0, 2, 3, 1))).mean((1, 2))
"""
INPUTS = np.random.default_rng(0).standard_normal((10, 3, 6, 6)).astype(np.float32)


def opened(folder: Path, pool: str) -> Source:
    (folder / "turned_zoo.py").write_text(ZOO)
    np.save(folder / "inputs.npy", INPUTS)
    (folder / "data_catalog.yaml").write_text(f"""
version: 1
datasets: {{probe: {{ids: positional, inputs: {{path: inputs.npy}}}}}}
models: {{net: {{torch: {{factory: "turned_zoo:Net", dataset: probe, pool: {pool}}}}}}}
""")
    catalog = read_catalog(folder / "data_catalog.yaml", {}, trust_code=True)
    return open_source("net", catalog.model_on("net"), catalog, read_dataset("probe", catalog))


def test_maps_with_channels_last__are_pooled_over_their_pixels(tmp_path: Path) -> None:
    source, flat = opened(tmp_path, "mean"), opened(tmp_path, "flatten")
    (pooled,) = source.batches(["conv", "linear"], np.arange(10))
    (whole,) = flat.batches(["conv", "linear", "act"], np.arange(10))

    np.testing.assert_allclose(pooled["conv"], whole["conv"].reshape(10, 6, 6, 6).mean((2, 3)), atol=1e-6)
    np.testing.assert_allclose(pooled["linear"], whole["linear"].reshape(10, 6, 6, 6).mean((1, 2)), atol=1e-6)
    # What is the same as ever keeps its key.
    assert "shape" not in source.identity("conv")
    assert source.identity("linear")["shape"] == "nhwc"
    assert "shape" not in flat.identity("linear")


def test_map_that_nothing_tells_of__is_refused_unless_it_is_flattened(tmp_path: Path) -> None:
    source = opened(tmp_path, "mean")

    with pytest.raises(DataError, match=r"act gives maps \(6, 6, 6\) a point in a network with") as caught:
        source.identity("act")
    assert caught.value.reason == "wrong_shape"
    opened(tmp_path, "flatten").identity("act")
