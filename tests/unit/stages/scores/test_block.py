"""What the parts of a block share: settings, sizes of parts, statistics of a score."""

import numpy as np
import pytest

from lfm_tasks.errors import DataError
from lfm_tasks.stages.scores.block import (
    PART_SIDE,
    STATISTICS,
    BlockScores,
    ScoreSettings,
    against_chance,
    part_side,
    resampled,
)


def test_settings__hold_the_same_rest_with_fewer_measures() -> None:
    stored = ScoreSettings("rest", ("lfm", "overlap"))
    assert stored.hold(ScoreSettings("rest", ("overlap",)))
    assert stored.hold(stored)
    assert not stored.hold(ScoreSettings("rest", ("cka_linear", "overlap")))
    assert not stored.hold(ScoreSettings("other", ("overlap",)))


def test_part__has_one_base_on_a_side_at_least_and_32_at_most() -> None:
    assert part_side(100, 50, 0) == PART_SIDE == 64
    assert part_side(2000, 40, 768) == 32
    assert part_side(10**9, 50, 768) == 1
    assert 32 > part_side(200_000, 50, 0) > part_side(200_000, 50, 100) > 1


def test_scores__have_a_code_wherever_they_are_no_number_or_the_same_for_all_permutations() -> None:
    n_pairs, measures = 6, ("cka_linear", "overlap")
    values = np.full((n_pairs, 2, 2, len(STATISTICS)), np.nan)
    values[..., STATISTICS.index("score")] = 0.5
    values[..., STATISTICS.index("null_mean")] = 0.1
    values[..., STATISTICS.index("null_q95")] = 0.2
    values[0, 1, 1, 0] = np.nan  # a score that is there one way only, of a map
    values[1, :, 0, 0] = np.inf
    values[2:, :, 0, 1:3] = 0.5 + 1e-9
    values[2:, :, 0, STATISTICS.index("p_value")] = 1
    values[3, :, 0, 1:] = np.nan  # no chance is known
    values[3, :, 1, 1:3] = 0.5 - 1e-8  # a score in large units that differs from chance all the same
    values[3, :, 1, STATISTICS.index("p_value")] = 1e-6
    values[4:, :, :, 0] = np.nan
    scores = BlockScores(values, np.zeros((n_pairs, 2, 2)), np.zeros(n_pairs, dtype=np.int32), {"overlap": 1})
    scores.refusals[4] = scores.unmapped[5] = DataError("no_overlap", "got none")
    scores.refuse(5, 0, DataError("zero_rows", "got all-zero rows", "b"))
    scores.codes[1, 0] = "rank_deficient"  # a reservation about a value that is not there

    scores.settle()

    undefined = dict.fromkeys([(0, 1), (1, 0)], "undefined")
    assert scores.codes == undefined | {(2, 0): "saturated", (5, 0): "zero_rows"}
    assert scores.causes == {(0, "zero_rows", "b"): "got all-zero rows"}
    assert measures[0] not in scores.of_maps


@pytest.mark.parametrize(("is_distance", "calibrated"), [(False, 0.5), (True, -0.5)])
def test_chance__is_calibrated_towards_the_best_value(is_distance: bool, calibrated: float) -> None:
    chance = np.array([0.4, 0.5, 0.6])
    mean, _, found, p = against_chance(0.75, chance, is_distance=is_distance)
    assert (mean, found) == (pytest.approx(0.5), pytest.approx(calibrated))
    assert (p < 0.5) is not is_distance


def test_chance__without_permutations_or_of_no_score_is_nan() -> None:
    assert np.isnan(against_chance(0.5, np.empty(0))).all()
    assert np.isnan(against_chance(np.nan, np.ones(3))).all()


def test_interval__stays_inside_the_range_and_holds_the_score() -> None:
    scores = np.array([0.99, np.nan])
    halves = np.tile([0.9, 1.0, 0.8, 1.0], (2, 1))
    low, high, *of_halves = resampled(scores, halves).T
    assert 0 <= low[0] < 0.99 < high[0] == 1
    assert np.isnan([low[1], high[1]]).all()
    np.testing.assert_array_equal(np.transpose(of_halves), halves)
    assert np.isnan(resampled(scores, np.empty((2, 0)))).all()
