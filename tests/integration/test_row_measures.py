"""Measures of activations in an atlas: the kernels' numbers on joined ids, with chance, distances and reservations."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from lfm_tasks.measures.measure import centered
from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.report import render_report
from lfm_tasks.stores.atlas.files import read_atlas, read_json

CHOSEN = ["overlap", "cka_linear", "procrustes_centered_unit_norm", "pwcca_textbook_x_to_y", "mutual_knn_10_cosine"]


def reason(atlas: xr.Dataset, **cell: str) -> str:
    return str(atlas["status"].attrs["flag_meanings"].split()[int(atlas["status"].sel(dataset="probe", **cell))])


@pytest.fixture(scope="module")
def built(
    tmp_path_factory: pytest.TempPathFactory, related_spaces: Any, write_zoo: Callable[..., Path], build: Any
) -> tuple[dict[str, Any], xr.Dataset, Path]:
    """Return the models, rows in another order each, one of them on fewer ids; their atlas; its folder."""
    models = related_spaces(3)
    layers, ids = models["model2"]
    models["model2"] = ({name: rows[:100] for name, rows in layers.items()}, ids[:100])
    folder = write_zoo(tmp_path_factory.mktemp("rows"), models, measures=CHOSEN)
    build(folder)
    return models, read_atlas(folder / "atlas"), folder


def joined(models: dict[str, Any], source: str, target: str) -> list[np.ndarray]:
    (source_layers, source_ids), (target_layers, target_ids) = (models[name.split("/")[0]] for name in (source, target))
    common = np.intersect1d(source_ids, target_ids)
    places = [[int(np.flatnonzero(ids == name)[0]) for name in common] for ids in (source_ids, target_ids)]
    return [source_layers[source.split("/")[1]][places[0]], target_layers[target.split("/")[1]][places[1]]]


@pytest.mark.parametrize("measure", CHOSEN[1:])
@pytest.mark.parametrize(
    ("source", "target"),
    [("model0/layer0", "model1/layer1"), ("model1/layer1", "model0/layer0"), ("model0/layer1", "model2/layer0")],
)
def test_scores__are_the_kernels_on_joined_ids(built: Any, measure: str, source: str, target: str) -> None:
    models, atlas, _ = built
    cell = {"dataset": "probe", "measure": measure, "source": source, "target": target}
    expected = MEASURES[measure](*joined(models, source, target))
    assert float(atlas["score"].sel(cell)) == pytest.approx(expected, abs=1e-6)
    pair = {name: cell[name] for name in ("dataset", "source", "target")}
    assert int(atlas["n_common"].sel(pair)) == (100 if "model2" in target else 120)
    assert float(atlas["overlap_share"].sel(pair)) == 1  # of the smaller space


def test_chance__is_near_zero_once_calibrated_and_best_is_one(built: Any) -> None:
    _, atlas, _ = built
    for measure in CHOSEN:
        own = atlas.sel(dataset="probe", measure=measure, source="model0/layer0", target="model0/layer0")
        assert float(own["calibrated"]) == pytest.approx(1, abs=1e-6), measure
        assert float(own["p_value"]) <= 1 / 20
    assert atlas.attrs["distances"] == ["procrustes_centered_unit_norm"]


def test_exact_chance_of_linear_cka__is_that_of_many_permutations(built: Any) -> None:
    models, atlas, _ = built
    source, target = (centered(rows) for rows in joined(models, "model0/layer0", "model1/layer0"))
    generator = np.random.default_rng(0)
    drawn = [MEASURES["cka_linear"](source, target[generator.permutation(120)]) for _ in range(2000)]
    cell = atlas.sel(dataset="probe", measure="cka_linear", source="model0/layer0", target="model1/layer0")
    assert float(cell["null_mean"]) == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / np.sqrt(2000))
    assert float(cell["null_q95"]) == pytest.approx(np.quantile(drawn, 0.95), abs=0.3 * np.std(drawn))
    assert 0 < float(cell["p_value"]) < 1e-6


def test_page__draws_distances_by_their_calibrated_value(built: Any) -> None:
    _, atlas, folder = built
    page = render_report(atlas, read_json(folder / "atlas" / "summary.json"))
    for measure in CHOSEN:
        assert measure in page


def test_value_that_any_two_spaces_have__carries_its_reason(
    tmp_path: Path, related_spaces: Any, write_zoo: Callable[..., Path], build: Any
) -> None:
    generator = np.random.default_rng(1)
    models = {
        name: ({"wide": (rows @ generator.standard_normal((12 + number, 200)))}, ids)
        for number, (name, (layers, ids)) in enumerate(related_spaces(2).items())
        for rows in [layers["layer0"]]
    }
    build(write_zoo(tmp_path, models, measures=["overlap", "cca_mean", "cka_linear_debiased_song"]))

    atlas = read_atlas(tmp_path / "atlas")

    pair = {"source": "model0/wide", "target": "model1/wide"}
    assert reason(atlas, measure="cca_mean", **pair) == "degenerate"
    assert np.isfinite(float(atlas["score"].sel(dataset="probe", measure="cca_mean", **pair)))
    assert reason(atlas, measure="overlap", **pair) == "ok"
    assert reason(atlas, measure="cka_linear_debiased_song", **pair) == "ok"


def test_dead_feature__makes_measures_that_divide_by_scale_rank_deficient(
    tmp_path: Path, related_spaces: Any, write_zoo: Callable[..., Path], build: Any
) -> None:
    models = related_spaces(2)
    layers, ids = models["model1"]
    dead = layers["layer0"].copy()
    dead[:, 2] = 0
    models["model1"] = ({"layer0": dead}, ids)
    build(write_zoo(tmp_path, models, measures=["overlap", "cca_mean", "cka_linear"]))

    atlas = read_atlas(tmp_path / "atlas")

    pair = {"source": "model0/layer0", "target": "model1/layer0"}
    assert reason(atlas, measure="cca_mean", **pair) == "rank_deficient"
    assert np.isfinite(float(atlas["score"].sel(dataset="probe", measure="cca_mean", **pair)))
    assert reason(atlas, measure="cca_mean", source="model0/layer0", target="model0/layer1") == "ok"
    assert reason(atlas, measure="cka_linear", **pair) == reason(atlas, measure="overlap", **pair) == "ok"


def test_graph_in_pieces__is_said_beside_the_scores_of_maps_only(
    tmp_path: Path, related_spaces: Any, write_zoo: Callable[..., Path], build: Any
) -> None:
    models = related_spaces(2)
    layers, ids = models["model1"]
    moved = layers["layer0"] + np.where(ids < "p060", 50.0, 0.0)[:, None].astype(np.float32)
    models["model1"] = ({"layer0": moved}, ids)
    graph = {"metric": "euclidean", "n_neighbors": 10}
    build(write_zoo(tmp_path, models, measures=["overlap", "cka_linear"], graph=graph))

    atlas = read_atlas(tmp_path / "atlas")

    pair = {"source": "model0/layer0", "target": "model1/layer0"}
    assert reason(atlas, measure="overlap", **pair) == "joined"
    assert np.isfinite(float(atlas["score"].sel(dataset="probe", measure="overlap", **pair)))
    assert reason(atlas, measure="cka_linear", **pair) == "ok"


def test_measure_without_a_value__leaves_the_others_theirs(
    tmp_path: Path, related_spaces: Any, write_zoo: Callable[..., Path], build: Any
) -> None:
    models = related_spaces(2)
    layers, ids = models["model1"]
    zeroed = layers["layer0"].copy()
    zeroed[4] = 0
    models["model1"] = ({"layer0": zeroed}, ids)
    folder = write_zoo(
        tmp_path,
        models,
        measures=["cka_linear", "mutual_knn_10_cosine"],
        graph={"metric": "euclidean", "n_neighbors": 10},
    )
    build(folder)

    atlas = read_atlas(tmp_path / "atlas")

    pair = {"source": "model0/layer0", "target": "model1/layer0"}
    assert reason(atlas, measure="mutual_knn_10_cosine", **pair) == "zero_rows"
    assert np.isnan(float(atlas["score"].sel(dataset="probe", measure="mutual_knn_10_cosine", **pair)))
    assert reason(atlas, measure="cka_linear", **pair) == "ok"
    assert np.isfinite(float(atlas["score"].sel(dataset="probe", measure="cka_linear", **pair)))
