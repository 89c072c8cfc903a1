"""``measures``: functions by name, with the numbers of a run."""

import numpy as np
import pytest

from lfm_atlas import compare, measures
from lfm_tasks.errors import DataError
from lfm_tasks.measures.registry import shipped_measures
from lfm_tasks.spectral.bases.full_map import MAP_SCORES

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(80, 6))
Y = np.tanh(X @ GENERATOR.normal(size=(6, 9)))


def test_every_measure__gives_what_a_run_gives() -> None:
    names = [*MAP_SCORES, *shipped_measures()]
    without = {"null": {"n_permutations": 0}, "intervals": {"n_splits": 0}}
    of_run = compare(X, Y, measures=names, **without)

    found = {name: measures[name](X, Y) for name in names}

    # A run counts ranks in bins, which of few points is right to five digits.
    ranked = "rsa_pearson_rdm_spearman"
    assert found.pop(ranked) == pytest.approx(of_run[ranked].score, abs=5e-6)
    assert found == pytest.approx({name: of_run[name].score for name in found}, abs=1e-6)


def test_list__has_a_line_for_each_and_names_for_tab() -> None:
    assert {*MAP_SCORES, *shipped_measures()} <= set(measures)
    assert len(repr(measures).splitlines()) == len(measures)
    assert "cka_linear_debiased_song" in dir(measures)
    assert "gulp_lambda_0.01" not in dir(measures)
    assert repr(measures.cka_linear).startswith("cka_linear(x, y): linear kernels, centered")
    assert "<th" in measures._repr_html_()


def test_unknown_name__has_a_suggestion() -> None:
    with pytest.raises(AttributeError, match="did you mean 'cka_linear'"):
        measures.cka_liner  # noqa: B018
    with pytest.raises(KeyError, match="did you mean 'cka_linear'"):
        measures["cka_liner"]


def test_arrays_that_have_no_value__are_told() -> None:
    with pytest.raises(DataError, match="got 80 rows of x and 79 of y"):
        measures.cka_linear(X, Y[1:])
    with pytest.raises(DataError, match="got all-zero rows"):
        measures.mutual_knn_10_cosine(0 * X, Y)
    with pytest.raises(DataError, match="cka_linear: got no number for these arrays"):
        measures.cka_linear(0 * X, Y)
