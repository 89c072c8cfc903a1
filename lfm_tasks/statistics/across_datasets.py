"""Models on several datasets: how similar two models are on each, and how far the datasets agree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float
from scipy.stats import spearmanr

# Pairs of models from which a rank correlation says anything.
FEWEST_PAIRS = 3


@dataclass(frozen=True)
class Similarities:
    """The similarity of models to each other on one dataset; symmetric, NaN where it is not known."""

    models: Sequence[str]
    values: Float[np.ndarray, "models models"]

    def of(self, first: str, second: str) -> float:
        """Return the similarity of two models; NaN if one of them is not on the dataset."""
        if first not in self.models or second not in self.models:
            return np.nan
        return float(self.values[self.models.index(first), self.models.index(second)])


@dataclass(frozen=True)
class PairOnDatasets:
    """The similarity of two models on each dataset, in the order of the datasets; NaN where it is not known."""

    first: str
    second: str
    values: tuple[float, ...]

    @property
    def spread(self) -> float:
        """The highest minus the lowest similarity."""
        known = [value for value in self.values if np.isfinite(value)]
        return max(known) - min(known)


def side_by_side(similarities: Mapping[str, Similarities]) -> list[PairOnDatasets]:
    """Return each pair of models that has a similarity on two datasets or more, the largest spread first.

    Parameters
    ----------
    similarities
        By dataset.

    Examples
    --------
    >>> on = {
    ...     "a": Similarities(["x", "y", "z"], np.array([[1, 0.9, 0.2], [0.9, 1, 0.3], [0.2, 0.3, 1]])),
    ...     "b": Similarities(["x", "y"], np.array([[1, 0.4], [0.4, 1]])),
    ... }
    >>> [(pair.first, pair.second, pair.values, round(pair.spread, 6)) for pair in side_by_side(on)]
    [('x', 'y', (0.9, 0.4), 0.5)]
    """
    models = sorted({model for one in similarities.values() for model in one.models})
    place = {dataset: {model: row for row, model in enumerate(one.models)} for dataset, one in similarities.items()}
    # Rows and columns of models that a dataset lacks stay NaN.
    stacked = np.full((len(similarities), len(models), len(models)), np.nan)
    for index, (dataset, one) in enumerate(similarities.items()):
        rows = np.array([row for row, model in enumerate(models) if model in place[dataset]], dtype=np.intp)
        own = np.array([place[dataset][models[row]] for row in rows], dtype=np.intp)
        stacked[index][np.ix_(rows, rows)] = one.values[np.ix_(own, own)]
    has = np.triu(np.isfinite(stacked).sum(axis=0) > 1, 1)
    pairs = [
        PairOnDatasets(models[first], models[second], tuple(stacked[:, first, second].tolist()))
        for first, second in np.argwhere(has).tolist()
    ]
    # Rounded, so that equals stand in the order of their names and not of their last bits.
    return sorted(pairs, key=lambda pair: -round(pair.spread, 6))


@dataclass(frozen=True)
class Agreement:
    """How two datasets order the pairs of models that are on both: Spearman's rank correlation, in [-1, 1]."""

    first: str
    second: str
    n_pairs: int
    correlation: float


def agreements(datasets: Sequence[str], pairs: Sequence[PairOnDatasets]) -> list[Agreement]:
    """Return the agreement of each two datasets that share at least 3 pairs of models.

    Parameters
    ----------
    datasets
        In the order of the values of the pairs.
    pairs
        As `side_by_side` returns them.

    Examples
    --------
    >>> pairs = [PairOnDatasets("x", name, (value, 2 * value)) for name, value in (("p", 0.1), ("q", 0.3), ("r", 0.2))]
    >>> agreements(["a", "b"], pairs)
    [Agreement(first='a', second='b', n_pairs=3, correlation=1.0)]
    """
    values = np.array([pair.values for pair in pairs], dtype=float).reshape(len(pairs), len(datasets))
    found = []
    for first, second in combinations(range(len(datasets)), 2):
        both = values[np.isfinite(values[:, [first, second]]).all(axis=1)][:, [first, second]]
        if len(both) < FEWEST_PAIRS or np.ptp(both, axis=0).min() == 0:
            continue
        correlation = float(spearmanr(both[:, 0], both[:, 1]).statistic)
        found.append(Agreement(datasets[first], datasets[second], len(both), round(correlation, 6)))
    return found
