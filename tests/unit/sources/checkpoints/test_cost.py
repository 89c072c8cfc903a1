from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm_tasks.catalog.checkpoints import CheckpointModel
from lfm_tasks.sources.checkpoints.cost import LIBRARY_BYTES, image_side, n_tokens, run_cost
from lfm_tasks.sources.checkpoints.folder import Checkpoint, layer_names

SETTINGS = CheckpointModel(path="x", dataset="d", batch_size=8)


def checkpoint(**changes: Any) -> Checkpoint:
    config = {"model_type": "bert", "max_position_embeddings": 100}
    shapes = ((None, 10),) * 3
    whole = Checkpoint(
        Path("x"), "transformers", "texts", "bert", None, config, layer_names(3), shapes, "mean", False,
        1000, 600, 4000, "float32", (),
    )  # fmt: skip
    return replace(whole, **changes)


def test_run_cost__multiplies_every_token_with_every_parameter() -> None:
    cost = run_cost(checkpoint(), SETTINGS, np.array([8, 32]))

    assert list(n_tokens(checkpoint(), SETTINGS, np.array([8, 32]))) == [4, 10]
    assert cost.flops == 2 * 600 * 7
    assert cost.weight_bytes == 4000
    states = 8 * 4 * 10 * (3 * 10 + 14 * 10)  # batch × bytes × tokens of the longest × (layers and one at work)
    assert cost.peak_bytes == 4000 + states + LIBRARY_BYTES


@pytest.mark.parametrize(("limit", "longest"), [(None, 100), (20, 20), (1000, 100)])
def test_n_tokens__are_cut_where_the_model_or_the_catalog_cuts(limit: int | None, longest: int) -> None:
    settings = SETTINGS.model_copy(update={"max_tokens": limit})

    assert n_tokens(checkpoint(), settings, np.array([4000]))[0] == longest


@pytest.mark.parametrize(
    ("stored", "dtype", "weights", "beside"),
    [
        ("float32", "auto", 4000, 0),
        ("bfloat16", "auto", 2000, 0),
        ("float32", "bfloat16", 2000, 4000),
        ("bfloat16", "float32", 4000, 2000),
    ],
)
def test_run_cost__holds_the_weights_in_the_type_they_are_computed_in(
    stored: str, dtype: str, weights: int, beside: int
) -> None:
    found = checkpoint(dtype=stored, weight_bytes={"float32": 4000, "bfloat16": 2000}[stored])
    settings = SETTINGS.model_copy(update={"dtype": dtype, "batch_size": 1})
    cost = run_cost(found, settings, np.array([1]))

    assert cost.weight_bytes == weights
    assert cost.peak_bytes - LIBRARY_BYTES - weights >= beside


def test_run_cost__of_quantized_weights_is_what_is_stored() -> None:
    cost = run_cost(checkpoint(quantized="gptq", weight_bytes=500, dtype="i32"), SETTINGS, np.array([1]))

    assert cost.weight_bytes == 500


def test_run_cost__of_images_counts_patches(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text('{"size": {"height": 64, "width": 64}}')
    files = (tmp_path / "preprocessor_config.json",)
    vit = checkpoint(reads="images", config={"patch_size": 16, "image_size": 224}, files=files)
    resnet = checkpoint(reads="images", config={}, shapes=((8, None, None),))
    timm = checkpoint(loader="timm", reads="images", config={"pretrained_cfg": {"input_size": [3, 32, 32]}}, shapes=())

    assert [image_side(one) for one in (vit, resnet, timm)] == [64, 224, 32]
    assert run_cost(vit, SETTINGS, np.zeros(5, np.int64)).flops == 2 * 600 * 16
    assert run_cost(resnet, SETTINGS, np.zeros(5, np.int64)).flops == 2 * 600 * 196
    assert run_cost(timm, SETTINGS, np.zeros(5, np.int64)).flops == 2 * 600 * 4
    maps = run_cost(resnet, SETTINGS, np.zeros(5, np.int64)).peak_bytes - LIBRARY_BYTES - 4000
    assert 100 << 20 < maps < 200 << 20  # ResNet-50 holds 8 × 64 × 112 × 112 floats and some more


def test_run_cost__of_no_points_is_nothing_but_the_weights() -> None:
    assert run_cost(checkpoint(), SETTINGS, np.zeros(0, np.int64)).flops == 2 * 600
