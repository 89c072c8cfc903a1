"""Groups, strata and intervals: what a dataset says of its rows decides what chance is and what halves are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from lfm_tasks.catalog import CatalogError, read_catalog
from lfm_tasks.stores.atlas.files import read_atlas

WriteZoo = Callable[..., Path]
Build = Callable[..., Any]
MEASURES = ["overlap", "lfm", "cka_linear", "procrustes_centered_unit_norm"]


def pair(atlas: xr.Dataset, name: str, measure: str) -> float:
    place = {"dataset": "probe", "measure": measure, "source": "model0/layer0", "target": "model1/layer0"}
    return float(atlas[name].sel(place))


def models_of(*spaces: np.ndarray) -> dict[str, Any]:
    """Return a model a space, rows in another order each."""
    ids = np.array([f"p{number:03}" for number in range(len(spaces[0]))])
    orders = [np.random.default_rng(number).permutation(len(ids)) for number in range(len(spaces))]
    return {f"model{n}": ({"layer0": rows[o]}, ids[o]) for n, (rows, o) in enumerate(zip(spaces, orders, strict=True))}


def test_near_duplicates_in_groups__are_not_taken_for_likeness(
    tmp_path: Path, write_zoo: WriteZoo, build: Build
) -> None:
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 4)
    spaces = [
        np.repeat(generator.standard_normal((30, 3)), 4, axis=0) + 0.02 * generator.standard_normal((120, 3))
        for _ in range(2)
    ]
    settings = {"measures": MEASURES, "null": {"n_permutations": 99}}
    for name, dataset in (("rows", {}), ("groups", {"groups": groups})):
        build(write_zoo(tmp_path / name, models_of(*spaces), dataset, **settings))
    fooled, honest = (read_atlas(tmp_path / name / "atlas") for name in ("rows", "groups"))
    for measure in ("overlap", "lfm", "cka_linear"):
        # Sums by other parts round the eighth digit in another way.
        assert pair(fooled, "score", measure) == pytest.approx(pair(honest, "score", measure), abs=1e-7)
        assert pair(honest, "p_value", measure) > 0.05
    # lfm asks for a diagonal, which copies of rows alone do not give: over seeds its p lies at .04 to .8 either way.
    for measure in ("overlap", "cka_linear"):
        assert pair(fooled, "p_value", measure) < 0.05
    assert fooled.attrs["resampling"] == {"probe": "rows"}
    assert honest.attrs["resampling"] == {"probe": "groups"}


def test_strata__ask_for_likeness_beyond_class(tmp_path: Path, write_zoo: WriteZoo, build: Build) -> None:
    generator = np.random.default_rng(1)
    labels = np.repeat(np.arange(3), 40)
    centers = 3 * np.eye(3)
    spaces = [centers[labels] @ generator.standard_normal((3, 4)) + generator.standard_normal((120, 4)) for _ in "ab"]
    settings = {"measures": ["overlap", "cka_linear"], "null": {"n_permutations": 99}}
    build(write_zoo(tmp_path / "rows", models_of(*spaces), {"labels": labels}, **settings))
    build(write_zoo(tmp_path / "strata", models_of(*spaces), {"labels": labels, "strata": "labels"}, **settings))
    plain, within = (read_atlas(tmp_path / name / "atlas") for name in ("rows", "strata"))
    for measure in settings["measures"]:
        assert pair(plain, "p_value", measure) < 1e-3
        assert pair(within, "p_value", measure) > 0.03
        assert pair(within, "null_mean", measure) > pair(plain, "null_mean", measure)


def test_changed_groups__are_scored_again_and_the_same_ones_are_not(
    tmp_path: Path, related_spaces: Any, write_zoo: WriteZoo, build: Build
) -> None:
    models = related_spaces(2)
    first = build(write_zoo(tmp_path, models, {"groups": np.repeat(np.arange(60), 2)}))
    again = build(write_zoo(tmp_path, models, {"groups": np.repeat(np.arange(60), 2)}))
    other = build(write_zoo(tmp_path, models, {"groups": np.repeat(np.arange(40), 3)}))
    assert (first.computed["scores"], again.computed["scores"], other.computed["scores"]) == (10, 0, 10)
    assert other.computed["bases"] == 0


@pytest.mark.parametrize(
    ("dataset", "atlas", "message"),
    [
        ({"groups": np.repeat(np.arange(2), [50, 70])}, {}, "got 2 groups that all differ in size"),
        ({"strata": np.arange(120)}, {}, "got 120 strata of one row each"),
        ({"groups": np.zeros(7, dtype=int)}, {}, "got 7 groups and 120 ids"),
        ({"groups": np.repeat(np.arange(60), 2)}, {"max_points": 100}, "got groups and atlas.max_points"),
    ],
)
def test_groups_that_cannot_be_used__are_said_before_work_starts(
    tmp_path: Path, related_spaces: Any, write_zoo: WriteZoo, build: Build, dataset: Any, atlas: Any, message: str
) -> None:
    outcome = build(write_zoo(tmp_path, related_spaces(2), dataset, **atlas))
    assert outcome.n_spaces == 0
    assert {failure.reason for failure in outcome.failures} == {"bad_groups"}
    assert message in outcome.failures[0].message


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ({"strata": "labels"}, "got strata: labels, but no labels"),
        ({"groups": np.zeros(120), "strata": np.zeros(120)}, "got groups and strata, expected one of them"),
    ],
)
def test_groups_and_strata_that_contradict__are_refused_with_their_line(
    tmp_path: Path, related_spaces: Any, write_zoo: WriteZoo, dataset: Any, message: str
) -> None:
    folder = write_zoo(tmp_path, related_spaces(2), dataset)
    with pytest.raises(CatalogError, match=message):
        read_catalog(folder / "data_catalog.yaml")


def test_intervals__can_be_left_out(tmp_path: Path, related_spaces: Any, write_zoo: WriteZoo, build: Build) -> None:
    build(write_zoo(tmp_path, related_spaces(2), measures=MEASURES, intervals={"n_splits": 0}))
    atlas = read_atlas(tmp_path / "atlas")
    assert np.isnan(atlas["ci_low"]).all()
    assert np.isnan(atlas["split_half_reliability"]).all()
    assert atlas.attrs["intervals"] == "not_computed"
