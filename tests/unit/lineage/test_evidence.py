"""Evidence of a common origin: planted relatives stand out in mixed zoos, strangers of one kind do not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm_tasks.lineage.evidence import pair_evidence, probability

LAYERS = 4


def mixed_zoo(
    kinds: list[int], relatives: dict[tuple[int, int], list[float]], seed: int = 0, alike: float = 0.7
) -> np.ndarray:
    """Return similarities of layers: .7 between models of one kind, .4 else, .6 between neighbors of one model."""
    generator = np.random.default_rng(seed)
    n_models = len(kinds)
    values = np.empty((n_models, LAYERS, n_models, LAYERS))
    for first in range(n_models):
        for second in range(n_models):
            same = alike if kinds[first] == kinds[second] else 0.4
            apart = np.abs(np.arange(LAYERS)[:, None] - np.arange(LAYERS))
            block = (same if first != second else 1.0) * 0.6**apart
            if (first, second) in relatives or (second, first) in relatives:
                block = np.where(apart == 0, relatives.get((first, second), relatives.get((second, first))), block)
            values[first, :, second] = block
    flat = values.reshape(n_models * LAYERS, -1)
    noise = generator.normal(0, 0.02, flat.shape)
    return np.clip(flat + np.where(flat == 1, 0, (noise + noise.T) / 2), -1, 1)


def groups(n_models: int, n_layers: int = LAYERS) -> list[np.ndarray]:
    return [np.arange(model * n_layers, (model + 1) * n_layers) for model in range(n_models)]


TUNED = [0.99, 0.95, 0.85, 0.75]  # further training changes late layers most


@pytest.mark.parametrize("kinds", [[0] * 5, [0, 0, 1, 1, 2], [0, 1] * 10, [0] * 10 + [1] * 5 + [2] * 5])
def test_fine_tune__is_found_in_zoos_of_one_and_of_several_kinds_and_no_stranger_is(kinds: list[int]) -> None:
    values = mixed_zoo(kinds, {(0, 1): TUNED})

    odds = probability(pair_evidence(values, groups(len(kinds))).log_odds, len(kinds), np.array(False))

    strangers = ~np.eye(len(kinds), dtype=bool)
    strangers[0, 1] = strangers[1, 0] = False
    assert odds[0, 1] > 0.98
    assert odds[strangers].max() < 0.5


def test_relatives__do_not_hide_each_other() -> None:
    little = [0.995, 0.98, 0.96, 0.93]
    relatives = {(a, b): little for a in range(6) for b in range(a)} | {(8, 9): little}

    odds = probability(pair_evidence(mixed_zoo([0] * 10, relatives), groups(10)).log_odds, 10, np.array(False))

    assert min(odds[pair] for pair in relatives) > 0.98
    assert odds[6, 7] < 0.5


def test_only_two_models_of_a_kind__are_a_family_and_no_proof_of_lineage() -> None:
    found = pair_evidence(mixed_zoo([0, 0, 1, 2, 3, 4, 5, 6], {}, alike=0.6), groups(8))

    assert found.family[0, 1] > 2.5
    assert probability(found.log_odds, 8, np.array(False))[0, 1] < 0.98


def test_two_models__are_judged_by_their_own_layers() -> None:
    tuned, strangers = (pair_evidence(mixed_zoo([0, 0], pairs), groups(2)) for pairs in ({(0, 1): TUNED}, {}))

    assert np.isnan(tuned.others[0, 1])
    assert tuned.own_layers[0, 1] > 4
    assert strangers.own_layers[0, 1] == 0


def test_two_models_of_one_layer__cannot_be_judged() -> None:
    found = pair_evidence(np.array([[1.0, 0.9], [0.9, 1.0]]), groups(2, 1))

    assert np.isnan(found.log_odds[0, 1])


def test_declared_relatives__are_no_background_of_others() -> None:
    relatives = {(a, b): TUNED for a in range(4) for b in range(a)}
    values = mixed_zoo([0, 0, 0, 0, 0, 1], relatives)
    declared = np.zeros((6, 6), dtype=bool)
    for a, b in relatives:
        declared[a, b] = declared[b, a] = True

    found = pair_evidence(values, groups(6), declared)

    assert found.others[0, 1] > pair_evidence(values, groups(6)).others[0, 1] > 0
    assert found.others[0, 4] < 1


def test_missing_similarities__leave_what_the_others_say() -> None:
    values = mixed_zoo([0, 0, 1, 1, 2], {(0, 1): TUNED})
    values[2 * LAYERS : 3 * LAYERS, 4 * LAYERS :] = np.nan
    values[4 * LAYERS :, 2 * LAYERS : 3 * LAYERS] = np.nan

    found = pair_evidence(values, groups(5))

    assert np.isnan(found.log_odds[2, 4])
    assert found.log_odds[0, 1] > 6
    assert np.isfinite(np.delete(np.delete(found.log_odds, 4, 0), 4, 1)).all()


@given(st.permutations(range(6)), st.permutations(range(LAYERS)))
def test_evidence__does_not_depend_on_the_order_of_models_and_layers(models: list[int], layers: list[int]) -> None:
    values = mixed_zoo([0, 0, 1, 1, 2, 2], {(0, 1): TUNED})
    rows = np.concatenate([np.array(layers) + LAYERS * model for model in models])

    moved = pair_evidence(values[np.ix_(rows, rows)], groups(6)).log_odds

    np.testing.assert_allclose(moved, pair_evidence(values, groups(6)).log_odds[np.ix_(models, models)])


def test_probability__is_half_where_evidence_equals_what_was_to_expect() -> None:
    assert probability(np.array(np.log(9.0)), 10, np.array(False)) == pytest.approx(0.5)
    assert probability(np.array(0.0), 10, np.array(True)) == pytest.approx(0.5)
    assert np.isnan(probability(np.array(np.nan), 10, np.array(True)))
