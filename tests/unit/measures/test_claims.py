"""What every measure claims of itself holds: invariances, symmetry, range, the triangle inequality."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm_tasks.measures.cka import MEASURES as CKA
from lfm_tasks.measures.cka import compare_linear, prepare_linear
from lfm_tasks.measures.measure import Measure
from lfm_tasks.measures.neighborhoods import nearest_by_cosine, shared_counts
from lfm_tasks.measures.registry import MEASURES

ROW_MEASURES = sorted(MEASURES)
METRICS = sorted(name for name, measure in MEASURES.items() if measure.is_metric)


def spaces(seed: int, n_points: int = 60, widths: tuple[int, ...] = (12, 15)) -> list[np.ndarray]:
    """Return related spaces, so that no value sits at the end of its range."""
    generator = np.random.default_rng(seed)
    latent = generator.standard_normal((n_points, 4))
    return [
        np.tanh(latent @ generator.standard_normal((4, width)) + 0.4 * generator.standard_normal((n_points, width)))
        + 0.3
        for width in widths
    ]


def changed(rows: np.ndarray, change: str, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    width = rows.shape[1]
    if change == "rotation":
        return rows @ np.linalg.qr(generator.standard_normal((width, width)))[0]
    if change == "permutation":
        return rows[:, generator.permutation(width)]
    if change == "scaling":
        return rows * generator.uniform(0.2, 5)
    if change == "translation":
        return rows + generator.standard_normal(width)
    return rows @ (np.eye(width) + 0.3 * generator.standard_normal((width, width)))


@pytest.mark.parametrize("change", ["rotation", "permutation", "scaling", "translation", "invertible"])
@pytest.mark.parametrize("name", ROW_MEASURES)
def test_measure__is_invariant_to_what_it_claims_and_to_nothing_else(name: str, change: str) -> None:
    measure = MEASURES[name]
    moved = []
    for seed in range(3):
        source, target = spaces(seed)
        before = measure(source, target)
        after = measure(changed(source, change, seed), changed(target, change, seed + 50))
        moved.append(abs(after - before) / max(1.0, abs(before)))
    if change in measure.invariances:
        assert max(moved) < 1e-7
    else:
        assert max(moved) > 1e-5


@pytest.mark.parametrize("name", ROW_MEASURES)
def test_measure__does_not_care_for_the_order_of_the_points(name: str) -> None:
    source, target = spaces(1)
    order = np.random.default_rng(0).permutation(len(source))
    assert MEASURES[name](source[order], target[order]) == pytest.approx(MEASURES[name](source, target), abs=1e-9)


@pytest.mark.parametrize("name", [name for name in ROW_MEASURES if MEASURES[name].permute is not None])
def test_permuted_space__is_the_prepared_space_of_permuted_rows(name: str) -> None:
    source, target = spaces(1)
    measure = MEASURES[name]
    order = np.random.default_rng(3).permutation(len(target))
    assert measure.permute is not None
    permuted = measure.permute(measure.prepare(target), order)
    expected = measure(source, target[order])
    assert measure.compare(measure.prepare(source), permuted) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("name", ROW_MEASURES)
def test_measure__tells_matched_rows_from_shuffled_ones(name: str) -> None:
    source, target = spaces(2, n_points=80)
    shuffled = target[np.random.default_rng(1).permutation(len(target))]
    matched, chance = MEASURES[name](source, target), MEASURES[name](source, shuffled)
    assert matched > chance if MEASURES[name].kind == "similarity" else matched < chance


@pytest.mark.parametrize("name", ROW_MEASURES)
def test_measure__is_symmetric_exactly_when_it_says_so(name: str) -> None:
    source, target = spaces(3)
    difference = abs(MEASURES[name](source, target) - MEASURES[name](target, source))
    assert difference < 1e-9 if MEASURES[name].is_symmetric else difference > 1e-5


@pytest.mark.parametrize("name", ROW_MEASURES)
def test_measure__of_a_space_with_itself_is_the_best_there_is(name: str) -> None:
    measure = MEASURES[name]
    [source] = spaces(4, widths=(7,))
    expected = 1.0 if measure.kind == "similarity" else 0.0
    # A cosine that misses 1 by rounding has an angle of its root; CKNNA's denominator has 1e-6 added.
    assert measure(source, source) == pytest.approx(expected, abs=1e-3 if name == "cknna_10_l2" else 2e-6)


@pytest.mark.parametrize("name", ROW_MEASURES)
@given(seed=st.integers(0, 10**6), n_points=st.integers(12, 30), width=st.integers(2, 12))
@settings(max_examples=12, deadline=None)
def test_measure__stays_in_its_range(name: str, seed: int, n_points: int, width: int) -> None:
    generator = np.random.default_rng(seed)
    value = MEASURES[name](generator.standard_normal((n_points, width)), generator.standard_normal((n_points, 5)))
    low, high = MEASURES[name].value_range
    assert low - 1e-9 <= value <= high + 1e-9


@pytest.mark.parametrize("name", METRICS)
@given(seed=st.integers(0, 10**6), noise=st.floats(0, 2))
@settings(max_examples=25, deadline=None)
def test_metric__obeys_the_triangle_inequality(name: str, seed: int, noise: float) -> None:
    generator = np.random.default_rng(seed)
    first, last = generator.standard_normal((2, 25, 4))
    # The middle space lies between the two, where the inequality is tight.
    middle = generator.uniform() * first + generator.uniform() * last + noise * generator.standard_normal((25, 4))
    measure: Measure = MEASURES[name]
    assert measure(first, last) <= measure(first, middle) + measure(middle, last) + 1e-7


def test_debiased_cka__of_unrelated_spaces_is_zero_on_average_and_the_biased_one_is_not() -> None:
    generator = np.random.default_rng(5)
    pairs = [(generator.standard_normal((30, 20)), generator.standard_normal((30, 20))) for _ in range(200)]
    debiased = [CKA["cka_linear_debiased_song"](*pair) for pair in pairs]
    assert abs(np.mean(debiased)) < 4 * np.std(debiased) / np.sqrt(200)
    assert np.mean([CKA["cka_linear"](*pair) for pair in pairs]) > 0.3


def test_linear_cka__is_the_same_through_features_and_through_points() -> None:
    generator = np.random.default_rng(6)
    for n_points, widths in ((50, (10, 20)), (15, (30, 40)), (25, (10, 60))):
        source, target = (generator.standard_normal((n_points, width)) for width in widths)
        kernels = [m @ m.T for m in (rows - rows.mean(axis=0) for rows in (source, target))]
        expected = np.vdot(*kernels) / (np.linalg.norm(kernels[0]) * np.linalg.norm(kernels[1]))
        assert compare_linear(prepare_linear(source), prepare_linear(target)) == pytest.approx(expected, abs=1e-12)


def test_single_precision__is_summed_in_double() -> None:
    source, target = spaces(7)
    for name in ROW_MEASURES:
        wide = MEASURES[name](source + 1000, target + 1000)
        narrow = MEASURES[name]((source + 1000).astype(np.float32), (target + 1000).astype(np.float32))
        rounded = MEASURES[name](*(r.astype(np.float32).astype(np.float64) for r in (source + 1000, target + 1000)))
        assert narrow == pytest.approx(rounded, rel=1e-9, abs=1e-9), name
        assert np.isfinite(wide), name


def test_shared_neighbors__are_counted_for_every_point() -> None:
    source, target = (nearest_by_cosine(rows, 5) for rows in spaces(8))
    expected = [len(set(a) & set(b)) for a, b in zip(source.indices.tolist(), target.indices.tolist(), strict=True)]
    assert shared_counts(source, target).tolist() == expected


def test_spaces_of_different_points__are_refused() -> None:
    with pytest.raises(ValueError, match="found 60 and 59 rows, needs the same points in the same order"):
        MEASURES["cka_linear"](spaces(9)[0], spaces(9)[1][:-1])
