"""Evidence of a common origin of two models, from the similarities of their layers, each against its own background.

Two witnesses. *Other models*: a layer's best match in the other model, compared with its best matches in all other
models of the zoo; how far pairs usually stand out in this zoo is the unit. *Own layers*: networks that were trained on
their own match each other's layers less well than neighboring layers of one network match each other, relatives better.

All similarities are taken as −log(1 − s), `closeness`. Numbers were fitted by logistic regression, and rounded, on zoos
of the networks that ``tests/benchmarks/lineage_zoos.py`` trains; ``bench_lineage.py`` measures them on others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from lfm_tasks.statistics.model_pairs import closeness, robust_scale

# Log-odds: intercept, and the weight of each witness.
_INTERCEPT, _OWN_LAYERS, _OTHERS_BEST, _OTHERS_MEAN = -2.3, 4.3, 3.4, 2.6
# Own layers: neighbors in a network are at least this close, and independent networks not so much closer than they.
_LEAST_OWN, _USUAL_OWN = 1.0, 0.8
# Other models: how far the nearest model of each stands out. This quantile over models, of which so many are made up,
# whose nearest stand out by `_PRIOR`; within `_USUAL`, since most models may have a relative, or none another of its
# kind; and what is added to it. Of the best layer, and of the mean over layers.
_QUANTILE, _N_PRIOR = 0.33, 3
_PRIOR, _USUAL, _ADDED = (1.0, 0.5), ((0.3, 0.85), (0.17, 0.5)), (0.1, 0.05)
_MOST = 8.0
# Layers that were not recorded cannot contradict: of one layer, other models count half.
_ONE_LAYER = 0.5
# Deviations of what is usual between unrelated models are at least this; closeness.
_LEAST_SPREAD = 0.02


@dataclass(frozen=True)
class Evidence:
    """Evidence for a common origin of each pair of models; NaN where there is none.

    ``log_odds`` of a common origin if it were as likely as not beforehand; ``own_layers`` and ``others`` the two
    witnesses' parts; ``family``: deviations above what is usual for the two models.
    """

    log_odds: Float[np.ndarray, "models models"]
    own_layers: Float[np.ndarray, "models models"]
    others: Float[np.ndarray, "models models"]
    family: Float[np.ndarray, "models models"]


def pair_evidence(
    values: Float[np.ndarray, "spaces spaces"],
    groups: Sequence[Int[np.ndarray, " _"]],
    declared: Bool[np.ndarray, "models models"] | None = None,
) -> Evidence:
    """Return the evidence of a common origin of every pair of models.

    Parameters
    ----------
    values
        Calibrated similarities of all layers, 0 chance and 1 the same; NaN where there is none.
    groups
        The rows of each model, in order and without a gap.
    declared
        Pairs that say that they are related; none is in the background of the others.
    """
    n_models, n_layers = len(groups), np.array([len(group) for group in groups])
    is_excluded = np.eye(n_models, dtype=bool) if declared is None else declared | np.eye(n_models, dtype=bool)
    starts = np.cumsum(n_layers) - n_layers
    owner = np.repeat(np.arange(n_models), n_layers)
    best = closeness(np.fmax.reduceat(values, starts, axis=1))
    usual = _usual(np.where(is_excluded[owner], np.nan, best), best)
    own = _own_layers(values, groups)
    above_own = _symmetrized(_best_layer(best - own[:, None], starts))
    is_single = (n_layers[:, None] == 1) | (n_layers == 1)
    witness = np.where(is_single, 0.0, _above(above_own, _USUAL_OWN))
    best_layer, mean_layer = (_symmetrized(reduce(best - usual, starts)) for reduce in (_best_layer, _mean_layer))
    weight = np.where(is_single, _ONE_LAYER, 1.0)
    others = _OTHERS_BEST * _stands_out(best_layer, is_excluded, 0) + _OTHERS_MEAN * _stands_out(
        mean_layer, is_excluded, 1
    )
    own_part, others_part = _OWN_LAYERS * witness, weight * others
    without_both = np.isnan(others) & (is_single | np.isnan(above_own))
    log_odds = _INTERCEPT + np.nan_to_num(own_part) + np.nan_to_num(others_part)
    return Evidence(np.where(without_both, np.nan, log_odds), own_part, others_part, _family(mean_layer, is_excluded))


def probability(
    log_odds: Float[np.ndarray, "*pairs"], n_models: int, declared: Bool[np.ndarray, "*pairs"]
) -> Float[np.ndarray, "*pairs"]:
    """Return the probability of a common origin.

    Beforehand a pair that declares it is as likely as not related; else each model has about one relative.

    Examples
    --------
    >>> probability(np.array([3.0, 3.0]), 21, np.array([True, False])).round(2).tolist()
    [0.95, 0.5]
    """
    before = np.where(declared, 0.0, np.log(max(n_models - 1, 1)))
    return np.asarray(1 / (1 + np.exp(-np.clip(log_odds - before, -500, 500))))


def _usual(
    background: Float[np.ndarray, "spaces models"], best: Float[np.ndarray, "spaces models"]
) -> Float[np.ndarray, "spaces models"]:
    """Return the median of each row of ``background`` without the column itself; NaN where nothing is left."""
    ordered = np.sort(background, axis=1)  # NaN last
    n_known = np.isfinite(background).sum(axis=1, keepdims=True)
    is_known = np.isfinite(background)
    rank = np.argsort(np.argsort(background, axis=1, kind="stable"), axis=1, kind="stable")
    n_left = n_known - is_known
    low, high = (n_left - 1) // 2, n_left // 2
    middle = []
    for place in (low, high):
        shifted = place + (is_known & (rank <= place))
        middle.append(np.take_along_axis(ordered, np.clip(shifted, 0, best.shape[1] - 1), axis=1))
    return np.where(n_left > 0, (middle[0] + middle[1]) / 2, np.nan)


def _own_layers(
    values: Float[np.ndarray, "spaces spaces"], groups: Sequence[Int[np.ndarray, " _"]]
) -> Float[np.ndarray, " spaces"]:
    """Return how close the nearest other layer of the same model is to each layer."""
    own = np.full(len(values), np.nan)
    for rows in groups:
        block = values[np.ix_(rows, rows)].copy()
        np.fill_diagonal(block, np.nan)
        own[rows] = closeness(np.fmax.reduce(block, axis=1))
    return np.fmax(own, _LEAST_OWN)


def _best_layer(values: Float[np.ndarray, "spaces models"], starts: np.ndarray) -> Float[np.ndarray, "models models"]:
    return np.asarray(np.fmax.reduceat(values, starts, axis=0))


def _mean_layer(values: Float[np.ndarray, "spaces models"], starts: np.ndarray) -> Float[np.ndarray, "models models"]:
    count = np.add.reduceat(np.isfinite(values).astype(float), starts, axis=0)
    total = np.add.reduceat(np.nan_to_num(values), starts, axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _symmetrized(values: Float[np.ndarray, "models models"]) -> Float[np.ndarray, "models models"]:
    return (values + values.T) / 2


def _above(values: Float[np.ndarray, "*pairs"], limit: float) -> Float[np.ndarray, "*pairs"]:
    return np.maximum(values - limit, 0.0)


def _stands_out(
    values: Float[np.ndarray, "models models"], is_excluded: Bool[np.ndarray, "models models"], which: int
) -> Float[np.ndarray, "models models"]:
    """Return by how many units a pair stands out, above 1, at most 8."""
    nearest = np.fmax.reduce(np.where(is_excluded, np.nan, values), axis=1)
    known = np.concatenate([nearest[np.isfinite(nearest)], np.full(_N_PRIOR, _PRIOR[which])])
    unit = _ADDED[which] + float(np.clip(np.quantile(known, _QUANTILE), *_USUAL[which]))
    return _above(np.minimum(np.maximum(values, 0.0) / unit, _MOST), 1.0)


def _family(
    values: Float[np.ndarray, "models models"], is_excluded: Bool[np.ndarray, "models models"]
) -> Float[np.ndarray, "models models"]:
    """Return how many robust deviations each pair lies above 0, which is usual for its two models."""
    known = values[np.triu(~is_excluded) & np.isfinite(values)]
    if not len(known):
        return np.full(values.shape, np.nan)
    return np.asarray(values / (robust_scale(known).deviation + _LEAST_SPREAD))
