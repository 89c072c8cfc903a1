"""Multi-scale CKA and distance correlation, fused layers and manifold kernels against their definitions."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from lfm_tasks.config import NullConfig
from lfm_tasks.measures import diffusion
from lfm_tasks.measures.diffusion import (
    PowerFactor,
    centered_distances,
    centered_products,
    fused_operator,
    leading_factor,
)
from lfm_tasks.measures.manifold_kernels import ManifoldKernel, manifold_kernel
from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.stages.inventory.correspondence import Resampling
from lfm_tasks.stages.scores import point_pair_measures
from lfm_tasks.stages.scores.block import STATISTICS
from lfm_tasks.stages.scores.pairwise_measures import Activations
from lfm_tasks.stages.scores.row_measures import score_rows
from lfm_tasks.statistics.exchange_moments import aligned_trace_moments, trace_sums_of_factor, trace_sums_of_matrix
from lfm_tasks.statistics.resampling import Exchange, of_groups, within_strata


def spaces(n_points: int = 40, widths: tuple[int, ...] = (6, 9, 5, 7)) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    latent = generator.standard_normal((n_points, 3))
    return [np.tanh(latent @ generator.standard_normal((3, width))) + 0.2 for width in widths]


def inner_products(rows: np.ndarray) -> np.ndarray:
    return rows @ rows.T


def distances(rows: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(rows[:, None] - rows, axis=2))


def markov(matrix: np.ndarray) -> np.ndarray:
    """Return the Markov matrix of a doubly centered matrix, as it is defined: shifted, rows divided by their sums."""
    center = np.eye(len(matrix)) - 1 / len(matrix)
    moved = center @ matrix @ center
    moved = moved - moved.min()
    return np.asarray(moved / moved.sum(axis=1, keepdims=True))


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    center = np.eye(len(first)) - 1 / len(first)
    sides = [center @ side @ center for side in (first, second)]
    return float(np.vdot(*sides) / np.linalg.norm(sides[0]) / np.linalg.norm(sides[1]))


@pytest.mark.parametrize("power", [2, 4])
def test_multiscale_measures__are_those_of_powers_of_markov_matrices(power: int) -> None:
    source, target, *_ = spaces()
    for name, matrix_of, of_cosine in (
        ("multiscale_cka", inner_products, float),
        ("multiscale_distance_correlation", distances, np.sqrt),
    ):
        walks = [np.linalg.matrix_power(markov(matrix_of(rows)), power) for rows in (source, target)]
        assert min(walk.min() for walk in walks) >= 0
        assert MEASURES[f"{name}_t_{power}"](source, target) == pytest.approx(of_cosine(cosine(*walks)), abs=1e-10)


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize(("matrix_of", "plain"), [(centered_products, inner_products), (centered_distances, distances)])
def test_fused_operator__is_the_product_of_the_markov_matrices(
    matrix_of: Callable[[np.ndarray], np.ndarray], plain: Callable[[np.ndarray], np.ndarray], power: int
) -> None:
    first, second = spaces()[:2], spaces()[1:]
    walks = []
    for layers in (first, second):
        walk = np.eye(len(layers[0]))
        for rows in layers:
            walk = markov(plain(rows)) @ walk
        walks.append(np.linalg.matrix_power(walk, power))
    fused = [fused_operator(layers, matrix_of, power=power) for layers in (first, second)]

    assert float(np.vdot(*fused)) == pytest.approx(cosine(*walks), abs=1e-9)
    assert float(np.vdot(fused[0], fused[0])) == pytest.approx(1, abs=1e-12)


def test_fused_operator__does_not_depend_on_units_origins_and_axes_but_on_the_order_of_layers() -> None:
    layers = spaces()
    turned = [-3e9 * rows[:, ::-1] + 1e9 for rows in layers]
    fused = fused_operator(layers, centered_distances)
    assert float(np.vdot(fused, fused_operator(turned, centered_distances))) == pytest.approx(1, abs=1e-6)
    assert float(np.vdot(fused, fused_operator(layers[::-1], centered_distances))) < 0.999


def test_fused_operator__of_a_constant_layer_has_no_value() -> None:
    assert np.isnan(fused_operator([spaces()[0], np.ones((40, 3))], centered_products)).all()


@pytest.mark.parametrize("power", [2, 4])
def test_leading_factor__gives_the_value_of_the_whole_matrix(power: int) -> None:
    first, second = (np.concatenate([rows, 0.3 * rows[::-1] ** 2]) for rows in spaces(150)[:2])
    order = np.random.default_rng(0).permutation(300)
    values = []
    for n_most in (300, 40):
        factors = [leading_factor(rows, power, n_most) for rows in (first, second)]
        energies = [np.square(of.factor.T @ of.factor).sum() for of in factors]
        assert energies == pytest.approx([of.energy for of in factors])
        values.append(np.sqrt(np.square(factors[1].factor.T @ factors[0].factor).sum() / np.sqrt(np.prod(energies))))
    expected = MEASURES[f"multiscale_distance_correlation_t_{power}"](first, second)
    assert values[0] == pytest.approx(expected, abs=1e-7)
    assert values[1] == pytest.approx(expected, abs=1e-4)
    moved = leading_factor(-7.0 * first[order] + 3, power)
    again = leading_factor(second[order], power)
    cosine = np.square(again.factor.T @ moved.factor).sum() / np.sqrt(again.energy * moved.energy)
    assert np.sqrt(cosine) == pytest.approx(expected, abs=1e-7)


def test_more_points_than_a_whole_matrix_is_held_for__have_the_same_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = spaces(90)[:2]
    order = np.random.default_rng(0).permutation(90)
    measure = MEASURES["multiscale_distance_correlation_t_2"]
    expected = measure(first, second), measure(first, second[order])
    monkeypatch.setattr(diffusion, "MOST_WHOLE", 50)
    source, target = measure.prepare(first), measure.prepare(second)
    assert isinstance(source, PowerFactor)
    assert measure.permute is not None
    found = measure.compare(source, target), measure.compare(source, measure.permute(target, order))
    assert found == pytest.approx(expected, abs=1e-7)
    assert np.isnan(measure.compare(source, measure.prepare(np.ones((90, 3)))))


def dense(kernel: ManifoldKernel) -> np.ndarray:
    matrix = np.zeros((len(kernel.indices),) * 2)
    np.put_along_axis(matrix, kernel.indices, kernel.values, axis=1)
    return matrix


def test_manifold_kernel__has_rows_that_sum_to_the_logarithm_of_the_neighbors() -> None:
    kernel = manifold_kernel(spaces()[0])
    assert kernel.sums == pytest.approx(1 + np.log2(15), abs=1e-9)
    assert (np.diagonal(dense(kernel)) == 1).all()
    # The nearest point weighs 1, whatever the scale.
    nearest = distances(spaces()[0]) + np.diag(np.full(40, np.inf))
    assert dense(kernel)[np.arange(40), nearest.argmin(axis=1)] == pytest.approx(1, abs=1e-9)


def test_manifold_kernel__of_points_that_lie_together_keeps_the_nearest_only() -> None:
    rows = np.repeat(spaces(10)[0], 6, axis=0)  # five copies of each point: more than the logarithm of 15
    weights = dense(manifold_kernel(rows))
    same = np.equal.outer(np.repeat(np.arange(10), 6), np.repeat(np.arange(10), 6))
    assert weights[same] == pytest.approx(1)
    assert weights[~same].max() < 1e-12
    assert np.isfinite(MEASURES["mka_15"](rows, rows[:, ::-1]))


def test_constant_spaces__have_no_value() -> None:
    rows, constant = spaces()[0], np.ones((40, 3))
    for name in ("multiscale_cka_t_2", "multiscale_distance_correlation_t_2"):
        assert np.isnan(MEASURES[name](rows, constant)), name


@pytest.mark.parametrize("power", [2, 4])
@pytest.mark.parametrize(
    "exchange",
    [Exchange(48), of_groups(np.repeat(np.arange(32), 2))],
    ids=["all", "groups"],
)
def test_chance_of_powers_of_distances__is_that_of_permutations(power: int, exchange: Exchange) -> None:
    generator, measure = np.random.default_rng(2), MEASURES[f"multiscale_distance_correlation_t_{power}"]
    shared = generator.standard_normal((exchange.n_points, 6))
    rows = {key: np.tanh(shared @ generator.standard_normal((6, 8))) for key in "ab"}
    given = Activations(rows, {}), [("a", "b")], Resampling(exchange, None), NullConfig()
    ((values, back),) = score_rows(f"multiscale_distance_correlation_t_{power}", *given).values
    np.testing.assert_array_equal(values, back)
    source, target = (measure.prepare(one) for one in rows.values())
    assert measure.permute is not None
    drawn = np.array(
        [measure.compare(source, measure.permute(target, exchange.permutation(draw))) for draw in range(4000)]
    )
    assert values[STATISTICS.index("null_mean")] == pytest.approx(drawn.mean(), abs=0.06 * drawn.std())
    assert values[STATISTICS.index("null_q95")] == pytest.approx(np.quantile(drawn, 0.95), abs=0.15 * drawn.std())
    share = float((drawn >= values[0] - 1e-9).mean())
    assert values[STATISTICS.index("p_value")] == pytest.approx(share, rel=0.3, abs=3e-3)


def test_chance_of_powers_of_distances__is_drawn_where_both_spaces_live_on_few_points() -> None:
    generator, name = np.random.default_rng(3), "multiscale_distance_correlation_t_4"
    rows = {key: generator.standard_normal((60, 5)) for key in "abcd"}
    for key in "ab":
        rows[key][:2] += 500 * np.eye(2, 5)
    given = Activations(rows, {}), [("a", "b"), ("c", "d")], Resampling(Exchange(60), None)
    found = score_rows(name, *given, NullConfig(n_permutations=60))
    assert found.localized == {0}
    assert np.isfinite(found.values[:, :, :5]).all()
    without = score_rows(name, *given, NullConfig(n_permutations=0)).values
    assert np.isfinite(without[1, :, :5]).all()
    assert np.isnan(without[0, :, 1:5]).all()


def test_sums_for_chance__are_the_same_of_a_matrix_and_of_its_factor() -> None:
    factor = np.random.default_rng(4).standard_normal((40, 3))
    factor -= factor.mean(axis=0)
    for exchange in (Exchange(40), of_groups(np.repeat(np.arange(40), 1))):
        of_factor, of_matrix = (
            trace_sums_of_factor(factor, exchange),
            trace_sums_of_matrix(factor @ factor.T, exchange),
        )
        one = aligned_trace_moments([of_factor], [of_factor], 40)
        other = aligned_trace_moments([of_matrix], [of_matrix], 40)
        for name in ("mean", "deviation", "skewness"):
            np.testing.assert_allclose(getattr(other, name), getattr(one, name), rtol=1e-7)
        assert of_factor.concentration == pytest.approx(of_matrix.concentration)


def test_many_large_spaces__are_each_prepared_once_a_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    measure = MEASURES["multiscale_distance_correlation_t_2"]

    def prepare(rows: np.ndarray) -> object:
        made.append(len(rows))
        return measure.prepare(rows)

    monkeypatch.setitem(MEASURES.by_name, "counted", replace(measure, prepare=prepare))
    rows = {f"{place:02}": one for place, one in enumerate(np.random.default_rng(5).standard_normal((12, 40, 3)))}
    pairs = [(first, second) for first in rows for second in rows if first < second]
    for n_held, n_made in ((12, 12), (4, 20)):
        made.clear()
        monkeypatch.setattr(point_pair_measures, "MOST_PREPARED", 2 * n_held * 8 * 40 * 40)
        found = score_rows("counted", Activations(rows, {}), pairs, Resampling(Exchange(40), None), NullConfig())
        assert len(made) <= n_made
        if n_held == 12:
            expected = found.values
    np.testing.assert_array_equal(found.values, expected)


def test_chance_of_powers_of_distances_within_strata__is_drawn() -> None:
    # Rows of unlike lengths: their effects have most of the skewness.
    generator, exchange = np.random.default_rng(34), within_strata(np.arange(100) % 3)
    rows = {
        "lengths": np.exp(generator.standard_normal((100, 1))),
        "classes": generator.standard_normal((100, 1)) + 4 * (np.arange(100) % 3)[:, None],
    }
    given = Activations(rows, {}), [("classes", "lengths")], Resampling(exchange, None)
    found = score_rows("multiscale_distance_correlation_t_4", *given, NullConfig(n_permutations=100))
    assert found.values[0, 0, STATISTICS.index("p_value")] > 0.01
    assert np.isfinite(found.values[:, :, :5]).all()
    assert not found.localized
