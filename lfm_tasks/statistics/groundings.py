"""Agreement of similarities of networks with known facts about the networks; all draws of a bootstrap at once.

All functions take ``counts``: a row a draw, how often each network is in it. A pair of networks counts the product of
both, and no network is compared with itself. A draw that leaves nothing to compare has NaN.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float, Int

Draws = Float[np.ndarray, " draws"]
OfPairs = Float[np.ndarray, " pairs"]
Weights = Float[np.ndarray, "draws pairs"]
Counts = Float[np.ndarray, "draws networks"]
Similarities = Float[np.ndarray, "networks networks"]


@dataclass(frozen=True)
class Separation:
    """How well similarities tell pairs of networks of one group from pairs across groups, in [0, 1]."""

    auprc: Draws
    conformity: Draws


def network_counts(
    units: Int[np.ndarray, " networks"], strata: Sequence[object], n_draws: int, *, seed: int = 0
) -> Counts:
    """Return how often each network is drawn: units with replacement within each stratum; the first row is all ones.

    Parameters
    ----------
    units
        The unit of each network, numbered from 0 without gaps: what is drawn together, such as a family.
    strata
        The stratum of each unit.
    n_draws
        How many rows follow the first one.
    """
    generator = np.random.default_rng(seed)
    of_units = np.zeros((n_draws, len(strata)))
    for stratum in sorted(set(map(str, strata))):
        members = [unit for unit, own in enumerate(strata) if str(own) == stratum]
        shares = np.full(len(members), 1 / len(members))
        of_units[:, members] = generator.multinomial(len(members), shares, n_draws)
    return np.concatenate([np.ones((1, len(units))), of_units[:, units]])


def group_separation(similarities: Similarities, groups: Int[np.ndarray, " networks"], counts: Counts) -> Separation:
    """Return AUPRC and conformity: of each group with two networks or more, then the mean over groups.

    For a group, pairs of its networks are compared with pairs of one of its networks and one of another group.
    *AUPRC* is the average precision, *conformity* the share of (pair within, pair across) whose first is more alike.

    Examples
    --------
    >>> similarities = np.array([[1, 0.9, 0.2, 0.3], [0.9, 1, 0.1, 0.4], [0.2, 0.1, 1, 0.5], [0.3, 0.4, 0.5, 1]])
    >>> found = group_separation(similarities, np.array([0, 0, 1, 1]), np.ones((1, 4)))
    >>> found.auprc.tolist(), found.conformity.tolist()
    ([1.0], [1.0])

    References
    ----------
    Klabunde et al. (2025), "ReSi: a comprehensive benchmark for representational similarity measures", section 3.
    """
    by_group = []
    for group in np.unique(groups):
        inside, outside = np.flatnonzero(groups == group), np.flatnonzero(groups != group)
        if len(inside) < 2 or not len(outside):
            continue
        pairs = np.array([*combinations(inside, 2), *((one, other) for one in inside for other in outside)])
        is_within = np.arange(len(pairs)) < len(inside) * (len(inside) - 1) // 2
        values, weights = similarities[pairs[:, 0], pairs[:, 1]], counts[:, pairs[:, 0]] * counts[:, pairs[:, 1]]
        if not np.isfinite(values).all():
            return Separation(*np.full((2, len(counts)), np.nan))
        by_group.append((average_precision(values, is_within, weights), _conformity(values, is_within, weights)))
    if not by_group:
        return Separation(*np.full((2, len(counts)), np.nan))
    return Separation(*_mean(np.array(by_group), axis=0))


def average_precision(
    values: Float[np.ndarray, " pairs"],
    is_positive: Bool[np.ndarray, " pairs"],
    weights: Float[np.ndarray, "draws pairs"],
) -> Draws:
    """Return Σ (R_n − R_{n−1}) P_n over falling values, equal ones together; precision P, recall R by weight."""
    order = np.argsort(-values, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(values[order]) != 0, True))
    found = weights[:, order].cumsum(axis=1)[:, ends]
    hits = (weights[:, order] * is_positive[order]).cumsum(axis=1)[:, ends]
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(found > 0, hits / found, 0.0)
        recall = hits / hits[:, -1:]
    return np.asarray((np.diff(recall, axis=1, prepend=0) * precision).sum(axis=1))


def _conformity(
    values: Float[np.ndarray, " pairs"],
    is_within: Bool[np.ndarray, " pairs"],
    weights: Float[np.ndarray, "draws pairs"],
) -> Draws:
    is_higher = values[is_within][:, None] > values[~is_within]
    within, across = weights[:, is_within], weights[:, ~is_within]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(((within @ is_higher) * across).sum(axis=1) / within.sum(axis=1) / across.sum(axis=1))


def difference_correlation(similarities: Similarities, differences: Similarities, counts: Counts) -> Draws:
    """Return Spearman's correlation, over pairs of networks, of distance (similarity, sign changed) and difference.

    Examples
    --------
    >>> similarities = np.array([[1, 0.9, 0.1], [0.9, 1, 0.5], [0.1, 0.5, 1]])
    >>> difference_correlation(similarities, 1 - similarities, np.ones((1, 3))).round(6).tolist()
    [1.0]
    """
    first, second = np.triu_indices(len(similarities), k=1)
    values, known = -similarities[first, second], differences[first, second]
    if not np.isfinite(values).all():
        return np.full(len(counts), np.nan)
    return weighted_spearman(values, known, counts[:, first] * counts[:, second])


def weighted_spearman(first: OfPairs, second: OfPairs, weights: Weights) -> Draws:
    """Return the correlation of mean ranks, each pair there as often as its weight says; NaN where one is constant."""
    total = weights.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        sides = [_ranks(values, weights) for values in (first, second)]
        moved = [ranks - (weights * ranks).sum(axis=1, keepdims=True) / total for ranks in sides]
        variances = [(weights * side * side).sum(axis=1) for side in moved]
        product = (weights * moved[0] * moved[1]).sum(axis=1) / np.sqrt(variances[0] * variances[1])
    is_constant = np.minimum(*variances) <= 1e-12 * np.maximum(total[:, 0], 1) ** 3
    return np.where(is_constant, np.nan, product)


def _ranks(values: OfPairs, weights: Weights) -> Weights:
    """Return the weight below each pair and half of that of its equals."""
    order = np.argsort(values, kind="stable")
    run = np.concatenate([[0], np.cumsum(np.diff(values[order]) != 0)])
    by_run = np.zeros((len(weights), run[-1] + 1))
    for draw, of_draw in enumerate(weights[:, order]):
        by_run[draw] = np.bincount(run, of_draw, minlength=by_run.shape[1])
    ranks = np.empty_like(weights)
    ranks[:, order] = (by_run.cumsum(axis=1) - by_run / 2)[:, run]
    return ranks


def order_of_layers(values: Float[np.ndarray, "layers layers"]) -> tuple[float, float]:
    """Return conformity and Spearman of the layers of one network: nearer layers should be more alike.

    *Conformity*: the share of layers i < j < k, and i > j > k, in which j is at least as alike to i as k is.
    *Spearman*: of distance and number of layers between, of each layer with those after it and with those before it,
    averaged. NaN where a value is missing, or for fewer than three layers.

    Examples
    --------
    >>> order_of_layers(np.array([[1, 0.9, 0.2], [0.9, 1, 0.8], [0.2, 0.8, 1]]))
    (1.0, 1.0)
    """
    n_layers = len(values)
    if n_layers < 3 or not np.isfinite(values).all():
        return float("nan"), float("nan")
    conforms, correlations = [], []
    for layer in range(n_layers):
        for others in (values[layer, layer + 1 :], values[layer, :layer][::-1]):
            conforms += [others[near] >= others[far] for near, far in combinations(range(len(others)), 2)]
            if len(others) > 1:
                steps = np.arange(len(others), dtype=float)
                correlations.append(weighted_spearman(-others, steps, np.ones((1, len(others))))[0])
    return float(np.mean(conforms)), float(_mean(np.array(correlations), axis=0))


def mean_of_networks(values: Float[np.ndarray, " networks"], counts: Counts) -> Draws:
    """Return the mean over networks; NaN where a value is missing."""
    return np.asarray(counts @ values / counts.sum(axis=1))


def mean_of_pairs(values: Similarities, counts: Counts) -> Draws:
    """Return the mean over pairs of different networks; NaN where a value is missing."""
    first, second = np.triu_indices(len(values), k=1)
    weights = counts[:, first] * counts[:, second]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(weights @ values[first, second] / weights.sum(axis=1))


def mean_ranks(figures: Float[np.ndarray, "groundings entries draws"]) -> Float[np.ndarray, "entries draws"]:
    """Return the mean over groundings of the rank by figure, 1 the best: equal ones share ranks, NaN ranks last.

    Examples
    --------
    >>> mean_ranks(np.array([[[0.9], [0.5], [np.nan]], [[0.2], [0.2], [0.1]]])).ravel().tolist()
    [1.25, 1.75, 3.0]
    """
    from scipy.stats import rankdata  # half a second to import

    # Figures that differ by rounding only are equal.
    falling = -np.nan_to_num(figures.round(9), nan=-np.inf)
    return np.asarray(rankdata(falling, axis=1).mean(axis=0))


def _mean(values: Float[np.ndarray, "..."], axis: int) -> Float[np.ndarray, "..."]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # nothing to compare: NaN
        return np.asarray(np.nanmean(values, axis=axis))
