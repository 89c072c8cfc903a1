"""Memory of blocks of pairs, and the time of measures: operations that are counted, or seconds that are timed."""

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm_tasks.catalog import read_catalog
from lfm_tasks.config import AtlasConfig, NullConfig
from lfm_tasks.measures import MEASURES, Measure
from lfm_tasks.planning import missing_work, plan_run, timed_measures
from lfm_tasks.runtime.load import KINDS, Load, SpaceSize
from lfm_tasks.runtime.rates import RATES, load_seconds
from lfm_tasks.stages.inventory.correspondence import resampling
from lfm_tasks.stages.inventory.stage import validate_catalog
from lfm_tasks.stages.scores.block import tile_side
from lfm_tasks.stages.scores.cost import PairWork, block_load
from lfm_tasks.stages.scores.measure_cost import is_counted, measure_work, n_read, time_measure
from lfm_tasks.stages.scores.pairwise_measures import Activations
from lfm_tasks.stages.scores.row_measures import score_rows


def test_memory_of_a_block__grows_with_its_bases_and_never_with_all_pairs() -> None:
    sizes, how = [SpaceSize("net/layer", 10_000, 100)] * 32, PairWork(["lfm", "overlap"], 100, 20, 50)
    assert block_load(sizes, 256, how).peak_bytes < 12 * 32 * 10_000 * 50 * 8
    assert block_load(sizes[:2], 1, how).peak_bytes < block_load(sizes, 256, how).peak_bytes


def test_blocks_of_large_bases__are_read_by_parts_that_fit() -> None:
    how = PairWork(["lfm", "overlap"], 0, 20, 50)
    assert block_load([SpaceSize("net/layer", 1_000_000, 768)] * 32, 256, how).peak_bytes < 4 << 30
    assert block_load([SpaceSize("net/layer", 100_000, 768)] * 32, 256, how).peak_bytes < 6 << 30


@pytest.mark.parametrize("width", [100, 300], ids=["singular vectors", "factors"])
@pytest.mark.parametrize(
    "name", ["gulp_lambda_1", "linear_regression_r2", "cca_mean", "pwcca_textbook_x_to_y", "soft_match"]
)
def test_memory_of_spaces_that_are_crossed__is_planned(name: str, width: int) -> None:
    rows = {key: np.random.default_rng(seed).standard_normal((1200, width)) for seed, key in enumerate("abcd")}
    pairs = [(first, second) for first in "abcd" for second in "abcd" if first < second]
    how = resampling(np.array([f"{index:04}" for index in range(1200)]), None, AtlasConfig())
    planned = block_load([SpaceSize(key, 1200, width, itemsize=8) for key in rows], 6, PairWork([name], 100, 2, 50))
    tracemalloc.start()
    score_rows(name, Activations(rows, {}), pairs, how, NullConfig())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < planned.peak_bytes


def slow_mean(rows: np.ndarray) -> np.ndarray:
    return np.asarray([np.linalg.svd(rows, compute_uv=False).sum() for _ in range(3)])


TOY = Measure(slow_mean, lambda source, target: float(source @ target), "sums of singular values")


@pytest.fixture(params=[False, True], ids=["linear", "quadratic"])
def toy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give the name of a measure whose operations nobody has counted."""
    measure = Measure(TOY.prepare, TOY.compare, TOY.convention, is_quadratic=request.param)
    monkeypatch.setitem(MEASURES.by_name, "toy", measure)
    return "toy"


def scores_of_toy(n_pairs: int, n_points: int = 500, n_permutations: int = 0) -> float:
    """Return the seconds of a plug-in measure that takes 100 µs to prepare a point, 10 to compare one, .1 a pair."""
    load = block_load([SpaceSize("net/layer", n_points, 20)] * 4, n_pairs, PairWork(["toy"], n_permutations, 0, 10))
    none = {**dict.fromkeys(KINDS, 0.0), "toy prepare pairs": 0.0}
    return load_seconds(load, {**none, "toy prepare": 1e-4, "toy compare": 1e-5, "toy compare pairs": 1e-7})


def test_seconds_of_a_measure_that_is_not_counted__grow_with_pairs_points_and_permutations(toy: str) -> None:
    one = scores_of_toy(1)
    assert 0 < one < scores_of_toy(8) < scores_of_toy(64)
    assert scores_of_toy(1, n_permutations=50) > 10 * one
    # Between that of points and that of pairs of points.
    assert 2 * one < scores_of_toy(1, n_points=1000) < 4 * one


@pytest.mark.parametrize("name", sorted(MEASURES))
def test_every_measure__costs_time_in_the_plan(name: str) -> None:
    rates = RATES if is_counted(name) else {**RATES, **time_measure(name, 20)}
    work = measure_work(name, (500, 20), (4, 6), 20, 0)
    assert sum(rates[kind] * amount for kind, amount in work.items()) > 1e-6


def test_measure_that_is_not_counted__is_timed(toy: str) -> None:
    work = measure_work(toy, (500, 20), (4, 6), 20, 0)
    timed = time_measure(toy, 20)
    assert timed.keys() == work.keys()
    assert timed["toy prepare"] + timed["toy prepare pairs"] > 0
    assert timed["toy compare"] + timed["toy compare pairs"] > 0
    # A second for each of the points that it was timed on would be seen.
    assert timed["toy prepare"] < 0.1
    assert time_measure(toy, 10_000).keys() == timed.keys()


def test_plan__times_what_is_not_counted_and_says_so(
    toy: str, tmp_path: Path, write_zoo: Callable[..., Path], related_spaces: Callable[..., Any]
) -> None:
    def plan(n_models: int) -> tuple[list[str], float]:
        folder = write_zoo(tmp_path / str(n_models), related_spaces(n_models), measures=["overlap", toy])
        catalog = read_catalog(folder / "data_catalog.yaml")
        zoo = validate_catalog(catalog, lambda *_: None)
        [scores] = [stage for stage in missing_work(catalog, zoo) if stage.stage == "scores"]
        none = dict.fromkeys(KINDS, 0.0)
        assert load_seconds(scores.load, none | timed_measures(catalog, zoo)[toy]) > 0
        fixed = dict.fromkeys(measure_work(toy, (500, 20), (4, 6), 20, 0), 1e-6)
        return plan_run(catalog, zoo), load_seconds(scores.load, none | fixed)

    lines, seconds = plan(2)
    _, of_more = plan(4)

    assert 0 < 2 * seconds < of_more
    assert any(line.startswith("measured     toy: timed here") for line in lines)


def test_timing__tells_apart_what_grows_with_points_and_with_pairs_of_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """A measure that takes a second for each of 100 points and 150 for each of 10,000 pairs, by a clock of its own."""
    clock = [0.0]

    def prepare(rows: np.ndarray) -> np.ndarray:
        clock[0] += len(rows) / 100 + 150 * len(rows) ** 2 / 10_000
        return rows

    monkeypatch.setitem(MEASURES.by_name, "toy", Measure(prepare, lambda source, target: 0.0, "its clock"))
    monkeypatch.setattr("lfm_tasks.runtime.rates.time.thread_time", lambda: clock[0])
    timed = time_measure("toy", 20)
    assert timed["toy prepare"] == pytest.approx(0.01)
    assert timed["toy prepare pairs"] == pytest.approx(0.015)


def test_operation_of_an_unknown_kind__is_an_error_and_not_free() -> None:
    with pytest.raises(KeyError, match="prodcuts"):
        load_seconds(Load(1, {"prodcuts": 1e9}))


def test_plan_of_known_measures__times_none(
    tmp_path: Path, write_zoo: Callable[..., Path], related_spaces: Callable[..., Any]
) -> None:
    folder = write_zoo(tmp_path, related_spaces(2), measures=["overlap", "cka_linear", "distance_correlation"])
    catalog = read_catalog(folder / "data_catalog.yaml")
    zoo = validate_catalog(catalog, lambda *_: None)

    assert timed_measures(catalog, zoo) == {}
    assert not any(line.startswith("measured") for line in plan_run(catalog, zoo))


@pytest.mark.parametrize("name", ["multiscale_distance_correlation_t_2", "distance_correlation", "cka_linear"])
def test_measures_of_many_points__are_counted_and_hold_no_matrix_of_all_pairs(name: str) -> None:
    sizes = [SpaceSize(f"m{number}/x", 20_000, 64) for number in range(10)]
    load = block_load(sizes, 45, PairWork([name], 100, 2, 40))
    assert load_seconds(load) > 1
    assert load.peak_bytes < 8 * 20_000**2


@pytest.mark.parametrize(("n_spaces", "n_pairs", "n_expected"), [(8, 16, 8), (8, 36, 16), (80, 1600, 800), (3, 3, 3)])
def test_spaces_of_a_block__are_read_once_a_part(n_spaces: int, n_pairs: int, n_expected: int) -> None:
    # Parts of 4 spaces a side.
    assert n_read(n_spaces, n_pairs, 4) == n_expected


def test_matrices_that_do_not_fit_into_memory_together__are_made_once_a_part() -> None:
    how, side = PairWork(["cka_linear"], 100, 2, 40), tile_side(20_000, 768)
    small, large = (
        load_seconds(block_load([SpaceSize(f"m{number}/x", 20_000, 768) for number in range(n)], (n // 2) ** 2, how))
        for n in (2 * side, 20 * side)
    )
    # Each of ten times as many spaces is in ten parts; of both, some passes are made once a run.
    assert large > 45 * small


def test_drawn_chance_in_groups__is_counted() -> None:
    sizes = [SpaceSize(f"m{number}/x", 1000, 20) for number in range(8)]
    how = PairWork(["distance_correlation"], 100, 2, 40)
    free, small_groups, large_groups = (
        load_seconds(block_load(sizes, 28, replace(how, is_grouped=is_grouped, has_moments=has_moments)))
        for is_grouped, has_moments in ((False, True), (True, True), (True, False))
    )
    assert free < small_groups
    assert large_groups > 3 * free


def test_matched_features_of_wide_spaces__are_products_that_are_planned() -> None:
    load = block_load(
        [SpaceSize(f"m{number}/x", 100, 3000) for number in range(2)], 1, PairWork(["soft_match"], 100, 2, 40)
    )
    # Four classes of points and five sets.
    assert load.peak_bytes > 9 * 8 * 3000**2
