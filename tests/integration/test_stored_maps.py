"""Kept maps: which pairs, what they hold, and that distortion shows where two spaces differ."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy.stats import mannwhitneyu

from lfm_atlas.pipeline import Outcome
from lfm_tasks.catalog import read_catalog
from lfm_tasks.spectral.bases.eigenbasis import spectral_basis
from lfm_tasks.spectral.bases.full_map import full_map, whitened_rows
from lfm_tasks.spectral.bases.graph import affinity_graph, join_components
from lfm_tasks.spectral.neighbors.centering import spatial_median
from lfm_tasks.spectral.neighbors.search import exact_neighbors
from lfm_tasks.stages.inventory import cost as kept_size
from lfm_tasks.stages.inventory.stage import validate_catalog
from lfm_tasks.stores.atlas.files import read_atlas, read_groups

Related = Callable[..., dict[str, Any]]
WriteZoo = Callable[..., Path]
Build = Callable[..., Outcome]


def kept(folder: Path) -> xr.Dataset:
    return read_groups(folder / "atlas")["maps/probe"]


def named_pairs(group: xr.Dataset) -> list[tuple[str, str]]:
    return list(zip(group["source"].values.tolist(), group["target"].values.tolist(), strict=True))


def basis_of(rows: np.ndarray) -> np.ndarray:
    rows = rows - spatial_median(rows)
    neighbors = exact_neighbors(rows, 10, metric="angular")
    graph, _ = join_components(affinity_graph(neighbors, kernel="binary"), rows, metric="angular")
    return spectral_basis(graph, 8).eigenvectors


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory, write_zoo: WriteZoo, build: Build) -> Path:
    """Give the atlas of a space of six classes, a turned copy, and one in which class 2 is scattered over the others.

    Rows of each come in another order; the labels are in that of the ids.
    """
    generator = np.random.default_rng(0)
    ids = np.array([f"p{number:03}" for number in range(240)])
    labels = np.arange(240) % 6
    rows = 2.0 * generator.standard_normal((6, 10))[labels] + generator.standard_normal((240, 10))
    other = rows.copy()
    other[labels == 2] = rows[generator.choice(np.flatnonzero(labels != 2), 40)] + 0.1
    turned = 3 * rows @ np.linalg.qr(generator.standard_normal((10, 10)))[0]
    orders = [generator.permutation(240) for _ in range(3)]
    spaces = {"clean": rows, "moved": other, "turned": turned}
    models = {name: ({"x": own[o]}, ids[o]) for (name, own), o in zip(spaces.items(), orders, strict=True)}
    folder = write_zoo(tmp_path_factory.mktemp("moved"), models, dataset={"labels": labels}, n_eigenpairs=16)
    build(folder)
    return folder


def test_distortion__is_largest_on_the_class_that_was_moved(moved: Path) -> None:
    group = kept(moved)
    assert named_pairs(group) == [("clean/x", "moved/x"), ("clean/x", "turned/x"), ("moved/x", "turned/x")]
    assert group["label"].values.tolist() == [str(number % 6) for number in range(240)]
    scattered = group["label"].values == "2"
    for pair, name in ((0, "source_distortion"), (2, "target_distortion")):
        distortion = group[name].values[pair]
        auc = mannwhitneyu(distortion[scattered], distortion[~scattered]).statistic / (40 * 200)
        # .98 here; .89 to .98 over ten draws of the classes.
        assert auc > 0.95, (pair, name, auc)
    for name in ("source_distortion", "target_distortion"):
        np.testing.assert_allclose(group[name].values[1], 0, atol=1e-6)


def test_map__is_that_of_the_bases_and_its_distortion_averages_to_what_is_lost(
    tmp_path: Path, related_spaces: Related, write_zoo: WriteZoo, build: Build
) -> None:
    models = related_spaces(2, n_layers=1)
    models["model1"] = ({"layer0": models["model1"][0]["layer0"][10:]}, models["model1"][1][10:])
    folder = write_zoo(tmp_path, models)
    build(folder)
    group = kept(folder)
    sides = []
    common = np.intersect1d(models["model0"][1], models["model1"][1])
    for name in ("model0", "model1"):
        layers, ids = models[name]
        order = np.argsort(ids)
        basis = basis_of(layers["layer0"][order])
        sides.append(whitened_rows(basis[np.isin(ids[order], common)]))

    [found] = group["functional_map"].values

    assert group["functional_map"].dtype == np.float32
    np.testing.assert_allclose(found, full_map(*sides), atol=1e-6)
    assert group["point"].values.tolist() == common.tolist()
    for name in ("source_distortion", "target_distortion"):
        np.testing.assert_allclose(group[name].values.mean(), 1 - np.square(found).sum() / 8, rtol=1e-3)
    assert (group["label"].values == "").all()
    assert group.attrs == {"map_back": "transpose"}


def test_best__keeps_the_most_alike_layers_of_each_two_models(
    tmp_path: Path, related_spaces: Related, write_zoo: WriteZoo, build: Build
) -> None:
    folder = write_zoo(tmp_path, related_spaces(3), measures=["lfm", "overlap"])
    build(folder)
    overlap = read_atlas(folder / "atlas")["calibrated"].sel(dataset="probe", measure="overlap")
    expected = []
    for a, b in ((0, 1), (0, 2), (1, 2)):
        sides = [[f"model{m}/layer{number}" for number in range(2)] for m in (a, b)]
        block = overlap.sel(source=sides[0], target=sides[1]).values
        first, second = np.unravel_index(block.argmax(), block.shape)
        expected.append((sides[0][first], sides[1][second]))

    assert named_pairs(kept(folder)) == expected


def test_all__keeps_every_pair_once_and_none__keeps_nothing(
    tmp_path: Path, related_spaces: Related, write_zoo: WriteZoo, build: Build
) -> None:
    models = related_spaces(2)
    build(write_zoo(tmp_path, models))
    best = kept(tmp_path)

    outcome = build(write_zoo(tmp_path, models, keep_maps="all"))

    everything = kept(tmp_path)
    assert outcome.computed["maps"] == 5
    names = [f"model{m}/layer{number}" for m in range(2) for number in range(2)]
    assert named_pairs(everything) == [(a, b) for a in names for b in names if a < b]
    row = named_pairs(everything).index(named_pairs(best)[0])
    for name in ("functional_map", "source_distortion", "target_distortion"):
        np.testing.assert_array_equal(everything[name].values[row], best[name].values[0])
    build(write_zoo(tmp_path, models, keep_maps="none"))
    assert "maps/probe" not in read_groups(tmp_path / "atlas")


def test_best_without_overlap__goes_by_the_first_score_of_maps(
    tmp_path: Path, related_spaces: Related, write_zoo: WriteZoo, build: Build
) -> None:
    folder = write_zoo(tmp_path, related_spaces(2), measures=["cka_linear", "lfm_raw", "lfm"])
    build(folder)
    scores = read_atlas(folder / "atlas")["score"].sel(dataset="probe", measure="lfm_raw")
    block = scores.sel(source=["model0/layer0", "model0/layer1"], target=["model1/layer0", "model1/layer1"]).values
    first, second = np.unravel_index(block.argmax(), block.shape)

    assert named_pairs(kept(folder)) == [(f"model0/layer{first}", f"model1/layer{second}")]


def test_measures_of_activations_alone__keep_no_map(
    tmp_path: Path, related_spaces: Related, write_zoo: WriteZoo, build: Build
) -> None:
    build(write_zoo(tmp_path, related_spaces(2, n_layers=1), measures=["cka_linear"]))
    assert "maps/probe" not in read_groups(tmp_path / "atlas")


def test_too_many_bytes__are_refused_before_anything_is_computed(
    tmp_path: Path, related_spaces: Related, write_zoo: WriteZoo, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_zoo(tmp_path, related_spaces(2), keep_maps="all")
    catalog = read_catalog(folder / "data_catalog.yaml")
    # 4 bytes an entry of the map, 8 a point: six pairs of 8 eigenpairs on 120 points.
    monkeypatch.setattr(kept_size, "MOST_BYTES", 6 * (4 * 64 + 8 * 120))
    assert validate_catalog(catalog, lambda *_: None).failures == ()
    monkeypatch.setattr(kept_size, "MOST_BYTES", 6 * (4 * 64 + 8 * 120) - 1)

    [failure] = build(folder).failures

    assert (failure.model, failure.stage, failure.reason) == ("atlas.keep_maps", "validate", "too_large")
    assert failure.message == (
        "got 6 maps of 120 points to keep, 0.0 GiB, expected at most 6.794e-06 GiB. "
        "Set atlas.keep_maps to best or none, or compare fewer models, or set atlas.max_points to at most 119."
    )
    assert "maps/probe" not in read_groups(tmp_path / "atlas")


def test_kept_maps_of_the_shipped_zoo__are_small(zoo_folder_built: Path) -> None:
    folder = zoo_folder_built / "atlas" / "atlas.zarr" / "maps"
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 400_000
    group = read_groups(zoo_folder_built / "atlas")["maps/digits"]
    assert group.sizes == {"pair": 28, "target_eigenpair": 33, "source_eigenpair": 33, "point": 797}
    assert set(group["label"].values.tolist()) == set("0123456789")
    copy = named_pairs(group).index(("mlp_s0/logits", "mlp_s0_permuted/logits"))
    np.testing.assert_allclose(group["target_distortion"].values[copy], 0, atol=1e-6)


def test_damaged_base__is_told_and_made_again_for_a_map(
    tmp_path: Path, related_spaces: Related, write_zoo: WriteZoo, build: Build
) -> None:
    models = related_spaces(2, n_layers=1)
    build(write_zoo(tmp_path, models, keep_maps="none"))
    [damaged, _] = sorted((tmp_path / ".lfm-atlas" / "units" / "bases").iterdir())
    (damaged / "arrays.zip").write_bytes(b"nothing")
    folder = write_zoo(tmp_path, models)

    outcome = build(folder)

    assert (len(outcome.quarantined), outcome.computed["bases"], outcome.failures) == (1, 1, ())
    assert f"bases/{damaged.name}: arrays.zip is damaged" in outcome.quarantined[0]
    assert named_pairs(kept(folder)) == [("model0/layer0", "model1/layer0")]
