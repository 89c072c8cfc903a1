"""Memory of blocks of pairs, and the time of measures: from the cost table, or timed where the table has no row."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm_tasks.catalog import read_catalog
from lfm_tasks.measures import MEASURES, Measure
from lfm_tasks.planning import load_seconds, missing_work, plan_run, timed_measures
from lfm_tasks.runtime.load import SECONDS, SpaceSize
from lfm_tasks.stages.inventory.stage import validate_catalog
from lfm_tasks.stages.scores.cost import PairWork, block_load, has_coefficients, measure_work, time_measure


def test_memory_of_a_block__grows_with_its_bases_and_never_with_all_pairs() -> None:
    sizes, how = [SpaceSize("net/layer", 10_000, 100)] * 32, PairWork(["lfm", "overlap"], 100, 20, 50)
    assert block_load(sizes, 256, how).peak_bytes < 12 * 32 * 10_000 * 50 * 8
    assert block_load(sizes[:2], 1, how).peak_bytes < block_load(sizes, 256, how).peak_bytes


def test_blocks_of_large_bases__are_read_by_parts_that_fit() -> None:
    how = PairWork(["lfm", "overlap"], 0, 20, 50)
    assert block_load([SpaceSize("net/layer", 1_000_000, 768)] * 32, 256, how).peak_bytes < 4 << 30
    assert block_load([SpaceSize("net/layer", 100_000, 768)] * 32, 256, how).peak_bytes < 6 << 30


def slow_mean(rows: np.ndarray) -> np.ndarray:
    return np.asarray([np.linalg.svd(rows, compute_uv=False).sum() for _ in range(3)])


TOY = Measure(slow_mean, lambda source, target: float(source @ target), "sums of singular values")


@pytest.fixture(params=[False, True], ids=["linear", "quadratic"])
def toy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give the name of a measure that the cost table does not know."""
    measure = Measure(TOY.prepare, TOY.compare, TOY.convention, is_quadratic=request.param)
    monkeypatch.setitem(MEASURES.by_name, "toy", measure)
    return "toy"


def scores_of_toy(n_pairs: int, n_points: int = 500, n_permutations: int = 0) -> float:
    load = block_load([SpaceSize("net/layer", n_points, 20)] * 4, n_pairs, PairWork(["toy"], n_permutations, 0, 10))
    seconds = {**SECONDS, "toy prepare": 1e-4, "toy compare": 1e-5}
    return load_seconds(load, seconds) - load_seconds(load)


def test_seconds_of_a_measure_without_a_row__grow_with_pairs_points_and_permutations(toy: str) -> None:
    one = scores_of_toy(1)
    assert 0 < one < scores_of_toy(8) < scores_of_toy(64)
    assert scores_of_toy(1, n_permutations=50) > 10 * one
    share = 4 if MEASURES[toy].is_quadratic else 2
    assert scores_of_toy(1, n_points=1000) == pytest.approx(share * one)


@pytest.mark.parametrize("name", sorted(MEASURES))
def test_every_measure__costs_time_in_the_plan(name: str) -> None:
    seconds = SECONDS if has_coefficients(name) else {**SECONDS, **time_measure(name, 20)}
    work = measure_work(name, (500, 20), (4, 6), 20, 0)
    assert sum(seconds.get(amount, 0.0) * number for amount, number in work.items()) > 0


def test_measure_without_a_row__is_timed(toy: str) -> None:
    work = measure_work(toy, (500, 20), (4, 6), 20, 0)
    timed = time_measure(toy, 20)
    assert timed.keys() == work.keys()
    assert all(seconds > 0 for seconds in timed.values())
    # A second for each of the points that it was timed on would be seen.
    assert timed["toy prepare"] < 0.1
    assert time_measure(toy, 10_000).keys() == timed.keys()


def test_plan__times_what_the_table_does_not_know_and_says_so(
    toy: str, tmp_path: Path, write_zoo: Callable[..., Path], related_spaces: Callable[..., Any]
) -> None:
    def plan(n_models: int) -> tuple[list[str], float]:
        folder = write_zoo(tmp_path / str(n_models), related_spaces(n_models), measures=["overlap", toy])
        catalog = read_catalog(folder / "data_catalog.yaml")
        zoo = validate_catalog(catalog, lambda *_: None)
        [scores] = [stage for stage in missing_work(catalog, zoo) if stage.stage == "scores"]
        assert load_seconds(scores.load, timed_measures(catalog, zoo)[toy]) > 0
        return plan_run(catalog, zoo), load_seconds(scores.load, {"toy prepare": 1e-6, "toy compare": 1e-6})

    lines, seconds = plan(2)
    _, of_more = plan(4)

    assert 0 < 2 * seconds < of_more
    assert any(line.startswith("measured     toy: timed here") for line in lines)


def test_plan_of_known_measures__times_none(
    tmp_path: Path, write_zoo: Callable[..., Path], related_spaces: Callable[..., Any]
) -> None:
    folder = write_zoo(tmp_path, related_spaces(2), measures=["overlap", "cka_linear", "distance_correlation"])
    catalog = read_catalog(folder / "data_catalog.yaml")
    zoo = validate_catalog(catalog, lambda *_: None)

    assert timed_measures(catalog, zoo) == {}
    assert not any(line.startswith("measured") for line in plan_run(catalog, zoo))
