"""What the whole zoo says: false discoveries, ranks among the unrelated."""

import numpy as np

from lfm_tasks.stages.publish.assemble import q_values, unrelated_ranks
from lfm_tasks.statistics.model_pairs import false_discovery_rates


def test_q_values__count_each_pair_of_a_symmetric_measure_once() -> None:
    p = np.array([[0.0, 0.01, 0.2], [0.01, 0.0, 0.03], [0.2, 0.03, 0.0]])
    found = q_values(p, is_symmetric=True)
    np.testing.assert_allclose(found[[0, 0, 1], [1, 2, 2]], false_discovery_rates(np.array([0.01, 0.2, 0.03])))
    np.testing.assert_array_equal(found, found.T)
    assert np.isnan(np.diag(found)).all()
    directed = q_values(p, is_symmetric=False)
    np.testing.assert_allclose(directed[0, 1], 0.01 * 6 / 2)


def test_ranks__are_among_unrelated_pairs_without_the_pair_itself() -> None:
    values = np.arange(36.0).reshape(6, 6)
    family = np.array([0, 0, 1, 2, 3, 4])
    unrelated = family[:, None] != family
    found = unrelated_ranks(values, unrelated)
    known = np.sort(values[unrelated])
    assert found[5, 4] == 0
    assert found[0, 1] == np.mean(known >= 1)
    assert found[2, 3] == np.mean(known[known != values[2, 3]] > values[2, 3])
    assert np.isnan(unrelated_ranks(values, np.zeros((6, 6), dtype=bool))).all()
