"""What must hold on the shipped zoo, whose relations are known by construction."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from lfm_tasks.statistics.model_pairs import match_layers
from lfm_tasks.stores.atlas.files import read_atlas, read_json

LAYERS = ("relu1", "relu2", "relu3", "relu4", "logits")
SEEDS = ("mlp_s0", "mlp_s1", "mlp_s2")
TRAINED = (*SEEDS, "mlp_s0_finetuned", "mlp_s0_permuted", "cnn_s0", "tanh_s0")


@pytest.fixture(scope="module")
def atlas(zoo_folder_built: Path) -> xr.Dataset:
    return read_atlas(zoo_folder_built / "atlas").sel(dataset="digits")


@pytest.mark.parametrize("measure", ["lfm", "overlap"])
@pytest.mark.parametrize("layer", LAYERS)
def test_permuted_and_scaled_copy__is_the_same_at_every_layer(atlas: xr.Dataset, measure: str, layer: str) -> None:
    score = atlas["score"].sel(measure=measure)

    there = float(score.sel(source=f"mlp_s0/{layer}", target=f"mlp_s0_permuted/{layer}"))
    back = float(score.sel(source=f"mlp_s0_permuted/{layer}", target=f"mlp_s0/{layer}"))

    assert min(there, back) >= 0.999


def test_locally_scaled_overlap__finds_the_same_layer_of_another_seed_more_often_than_not(atlas: xr.Dataset) -> None:
    score = atlas["score"].sel(measure="overlap")
    hits = []
    for source in SEEDS:
        for target in SEEDS:
            if source == target:
                continue
            block = score.sel(source=[f"{source}/{x}" for x in LAYERS], target=[f"{target}/{x}" for x in LAYERS]).values
            hits += list(match_layers(block).matched == np.arange(len(LAYERS)))

    assert len(hits) == 30
    assert np.mean(hits) > 0.5


def test_calibrated_overlap__at_the_last_hidden_layer_is_lowest_against_the_untrained_network(
    atlas: xr.Dataset,
) -> None:
    calibrated = atlas["calibrated"].sel(measure="overlap")
    for model in TRAINED:
        last = f"{model}/{'tanh4' if model == 'tanh_s0' else 'relu4'}"
        untrained = float(calibrated.sel(source=last, target="mlp_untrained/relu4"))
        seeds = [float(calibrated.sel(source=last, target=f"{seed}/relu4")) for seed in SEEDS if seed != model]

        assert untrained < min(seeds), model


def test_every_cell__has_a_score_and_a_status(atlas: xr.Dataset) -> None:
    assert bool(np.isfinite(atlas["score"]).all())
    assert bool((atlas["status"] == 0).all())
    assert bool((atlas["p_value"] > 0).all())
    assert bool((atlas["ci_low"] <= atlas["score"]).all())
    assert bool((atlas["score"] <= atlas["ci_high"]).all())
    width = (atlas["ci_high"] - atlas["ci_low"]).sel(measure="overlap")
    assert 0.01 < float(width.median()) < 0.1


def test_scores__are_firm_enough_to_tell_pairs_apart(atlas: xr.Dataset) -> None:
    assert float(atlas["split_half_reliability"].min()) > 0.9


def test_copy__is_closer_than_any_unrelated_pair(atlas: xr.Dataset) -> None:
    rank = atlas["unrelated_rank"].sel(measure="overlap", source="mlp_s0/relu1")
    assert float(rank.sel(target="mlp_s0_permuted/relu1")) == 0
    assert float(rank.sel(target="mlp_untrained/logits")) > 0.5


def test_overlap__is_symmetric_and_1_with_itself(atlas: xr.Dataset) -> None:
    overlap = atlas["score"].sel(measure="overlap").values

    np.testing.assert_allclose(overlap, overlap.T, rtol=1e-12)
    np.testing.assert_allclose(np.diag(overlap), 1, rtol=1e-9)


def test_spaces__carry_their_self_checks(atlas: xr.Dataset) -> None:
    assert atlas.sizes["source"] == 40
    assert bool((atlas["n_components"] >= 1).all())
    assert bool((atlas["n_zero_eigenvalues"] == 1).all())
    assert bool((atlas["recall"] == 1).all())
    assert float(atlas["residual"].max()) < 1e-8
    assert float(atlas["orthonormality"].max()) < 1e-8
    assert bool((atlas["n_points"] == 797).all())


def test_summary__counts_what_is_there(zoo_folder_built: Path) -> None:
    summary = read_json(zoo_folder_built / "atlas" / "summary.json")

    assert summary["counts"] == {
        "models": 8,
        "spaces": 40,
        "directed_pairs": 1560,
        "failures": 0,
        "directed_pairs_without_score": 0,
        "values_without_score": 0,
    }
    assert summary["failures"] == []
