"""From layers to models: summaries, corrections and distances whose answer is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import pdist, squareform
from sklearn.manifold import ClassicalMDS

from lfm_tasks.statistics.model_pairs import (
    area_under_curve,
    best_match,
    best_match_p_values,
    best_of,
    classical_scaling,
    closeness,
    depth_aligned,
    false_discovery_rates,
    families,
    match_layers,
    mean_match,
    model_distances,
    robust_scale,
    same_layer_share,
)


def test_layers__are_matched_in_spite_of_a_hub() -> None:
    # Layers of the target in the order 2, 0, 1, and the source's layer 1 is like everything.
    values = np.eye(3)[[2, 0, 1]] * 0.3 + 0.4
    values[:, 1] += 0.35
    assert list(values.argmax(axis=1)) == [1, 1, 1]
    matching = match_layers(values)
    assert list(matching.matched) == [2, 0, 1]
    np.testing.assert_allclose(matching.margin, [0.125, 0.125, 0.475])


def test_layers_without_all_values__are_not_matched_and_one_layer_has_no_margin() -> None:
    missing = match_layers(np.array([[0.3, np.nan]]))
    assert list(missing.matched) == [-1]
    assert np.isnan(missing.margin).all()
    single = match_layers(np.array([[0.3], [0.4]]))
    assert list(single.matched) == [0, 0]
    assert np.isnan(single.margin).all()


def test_summaries__of_a_known_matrix() -> None:
    values = np.array([[0.9, 0.1, np.nan], [0.2, 0.4, 0.6]])
    assert best_match(values) == pytest.approx(0.75)
    assert mean_match(values) == pytest.approx(np.mean([0.9, 0.1, 0.2, 0.4, 0.6]))
    assert depth_aligned(values, np.array([0.0, 1.0]), np.array([0.0, 0.5, 1.0])) == pytest.approx(0.75)
    assert np.isnan(best_match(np.full((2, 2), np.nan)))


def test_p_values_of_best_matches__pay_for_the_choice() -> None:
    found = best_match_p_values(np.array([[0.01, 0.5, 0.9], [np.nan, 0.01, 0.5], [np.nan] * 3]))
    np.testing.assert_allclose(found[0], 1 - 0.99**3)
    np.testing.assert_allclose(found[1], 1 - 0.99**3)
    assert np.isnan(found[2])


def test_distances__are_one_at_chance_and_zero_with_itself() -> None:
    found = model_distances(np.array([[0.99, 0.0, np.nan], [0.0, 1.0, 1.2], [np.nan, 1.2, 1.0]]))
    np.testing.assert_allclose(found, [[0, 1, 1], [1, 0, 0], [1, 0, 0]])


def test_families__follow_base_models_in_and_out_of_the_zoo() -> None:
    family = families(
        {
            "a": {},
            "a_tuned": {"base_model": "a"},
            "merged": {"base_model": ["a_tuned", "c"]},
            "c": {},
            "x": {"base_model": "elsewhere"},
            "y": {"base_model": "elsewhere"},
            "alone": {"license": "mit"},
        }
    )
    assert family["a"] == family["a_tuned"] == family["merged"] == family["c"]
    assert family["x"] == family["y"]
    assert len({family["a"], family["x"], family["alone"]}) == 3


def test_best_of_layers__is_uniform_when_all_are_chance() -> None:
    found = best_of(np.random.default_rng(3).uniform(size=(5000, 12)))
    assert np.abs(np.sort(found) - np.linspace(0, 1, 5000)).max() < 1.95 / np.sqrt(5000)
    assert best_of(np.array([1e-12, 0.5])) == pytest.approx(2e-12, rel=1e-6)


def test_false_discovery_rates__hold_and_ignore_pairs_without_p_value() -> None:
    generator = np.random.default_rng(4)
    shares = []
    for _ in range(200):
        p_values = np.concatenate([generator.uniform(size=80), generator.uniform(0, 1e-4, 20), [np.nan]])
        rates = false_discovery_rates(p_values)
        assert np.isnan(rates[-1])
        named = rates <= 0.05
        shares.append(named[:80].sum() / max(named.sum(), 1))
    assert np.mean(shares) < 0.055
    assert np.isnan(false_discovery_rates(np.full(3, np.nan))).all()


def hub_matrix(n_layers: int = 6) -> np.ndarray:
    """Return layers that are each like their own counterpart, and one target that all are more alike to still."""
    values = 0.2 + 0.3 * np.eye(n_layers)
    values[:, 2] += 0.5
    return values


def test_same_layer_share__is_misled_by_a_hub_unless_values_are_scaled() -> None:
    assert same_layer_share(hub_matrix(), is_scaled=False) == pytest.approx(1 / 6)
    assert same_layer_share(hub_matrix(), is_scaled=True) == 1


def test_layers_that_two_models_do_not_share__mislead_no_match() -> None:
    # Layers 2 and 3 of one model, 3 and 4 of the other: of all, only layer 3 has a counterpart.
    alike = np.array([[1.0, 0.95, 0.6], [0.95, 1.0, 0.95], [0.6, 0.95, 1.0]])
    values = alike[np.ix_([0, 1], [1, 2])]
    assert match_layers(values).matched[1] == 0
    double_centered = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True)
    assert double_centered.argmax(axis=1)[1] == 1


def test_matches_of_distances__need_no_chance_level() -> None:
    distances = np.array([[0.1, 2.0], [1.5, 0.3]])
    assert match_layers(-distances).matched.tolist() == [0, 1]


def test_same_layer_share__of_permuted_layers_is_the_share_of_fixed_points() -> None:
    order = np.array([0, 1, 3, 4, 5, 2])  # two stay where they are

    for is_scaled in (False, True):
        assert same_layer_share(np.eye(6)[order], is_scaled=is_scaled) == pytest.approx(2 / 6)


def test_same_layer_share__does_not_care_about_scale_and_offset() -> None:
    values = np.random.default_rng(0).random((7, 7))
    assert same_layer_share(3 * values - 1, is_scaled=True) == same_layer_share(values, is_scaled=True)


def test_same_layer_share__of_equal_values_is_what_guessing_gets() -> None:
    assert same_layer_share(np.full((5, 5), 0.3), is_scaled=False) == pytest.approx(0.2)
    assert same_layer_share(np.full((5, 5), 0.3), is_scaled=True) == pytest.approx(0.2)


def test_same_layer_share__has_none_where_a_value_is_missing() -> None:
    values = np.eye(3)
    values[0, 1] = np.nan
    assert np.isnan(same_layer_share(values, is_scaled=True))


def test_area_under_curve__is_what_counting_all_pairs_gives() -> None:
    generator = np.random.default_rng(1)
    values, inside = generator.integers(0, 8, 60).astype(float), generator.random(60) < 0.3
    ours, others = values[inside][:, None], values[~inside]

    assert area_under_curve(values, inside) == pytest.approx(((ours > others) + 0.5 * (ours == others)).mean())
    assert area_under_curve(-values, inside) == pytest.approx(1 - area_under_curve(values, inside))


def test_area_under_curve__has_none_without_both_kinds() -> None:
    assert np.isnan(area_under_curve(np.arange(3.0), np.ones(3, dtype=bool)))


def test_robust_scale__of_a_normal_sample_is_its_mean_and_deviation() -> None:
    sample = np.random.default_rng(0).normal(3, 2, 20_000)

    scale = robust_scale(sample)

    assert (scale.median, scale.deviation) == (pytest.approx(3, abs=0.05), pytest.approx(2, rel=0.02))
    np.testing.assert_allclose(scale.z(np.array([3.0, 9.0])), [0, 3], atol=0.1)


def test_robust_scale__does_not_follow_a_few_outliers() -> None:
    sample = np.random.default_rng(0).normal(0, 1, 100)

    spoilt = robust_scale(np.concatenate([sample, np.full(10, 1e6)]))

    assert spoilt.deviation < 1.5


def test_robust_scale__of_equals_lets_everything_else_stand_out() -> None:
    assert robust_scale(np.full(30, 0.5)).z(np.array([0.5, 0.6])).tolist() == [0, pytest.approx(1e8)]


def test_closeness__keeps_the_order_and_holds_at_one() -> None:
    values = closeness(np.array([-0.2, 0.0, 0.5, 0.9, 0.99, 1.0, 1.0 + 1e-12]))

    assert (np.diff(values[:-1]) > 0).all()
    assert np.isfinite(values).all()
    assert values[-1] == values[-2]


def test_classical_scaling__keeps_distances_and_has_no_more_axes_than_they_need() -> None:
    points = np.random.default_rng(0).standard_normal((30, 3))
    distances = np.linalg.norm(points[:, None] - points, axis=2)

    found = classical_scaling(distances, 5)

    np.testing.assert_allclose(pdist(found.points), pdist(points), atol=1e-9)
    assert found.stress < 1e-9
    assert (found.points[:, 3:] == 0).all()
    assert 0 < classical_scaling(distances, 2).stress < 0.5
    assert classical_scaling(np.zeros((3, 3)), 2).points.tolist() == [[0, 0]] * 3


def test_classical_scaling__of_points_in_the_plane_is_these_points_without_stress() -> None:
    points = np.random.default_rng(0).standard_normal((9, 2))

    found = classical_scaling(squareform(pdist(points)), 2)

    np.testing.assert_allclose(pdist(found.points), pdist(points))
    assert found.stress < 1e-12


def test_classical_scaling__is_that_of_scikit_learn_and_kruskal() -> None:
    distances = squareform(pdist(np.random.default_rng(1).standard_normal((12, 6))))

    found = classical_scaling(distances, 2)

    other = ClassicalMDS(n_components=2, metric="precomputed").fit_transform(distances)
    np.testing.assert_allclose(np.abs(found.points), np.abs(other), atol=1e-9)
    drawn, given_distances = pdist(other), squareform(distances)
    assert found.stress == pytest.approx(np.sqrt(((drawn - given_distances) ** 2).sum() / (drawn**2).sum()))


@given(st.permutations(range(7)))
def test_classical_scaling__does_not_depend_on_the_order_of_the_points(order: list[int]) -> None:
    distances = squareform(pdist(np.random.default_rng(2).standard_normal((7, 4))))

    shuffled = classical_scaling(distances[np.ix_(order, order)], 2)

    np.testing.assert_allclose(shuffled.points, classical_scaling(distances, 2).points[order], atol=1e-7)


@pytest.mark.parametrize("n_points", [1, 2])
def test_classical_scaling__of_few_points_has_no_stress(n_points: int) -> None:
    found = classical_scaling(0.5 * (1 - np.eye(n_points)), 2)

    assert found.points.shape == (n_points, 2)
    assert found.stress == pytest.approx(0, abs=1e-12)
