"""Matrices of models: from layers to models, the order in which alike models stand together."""

import numpy as np
from scipy.cluster.hierarchy import dendrogram as draw_tree
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform

from lfm_tasks.statistics.model_pairs import match_layers, model_distances, pairs_of_models, symmetrised


def model_similarity(values: np.ndarray, groups: list[list[int]]) -> np.ndarray:
    """Return (model, model): each layer's best match in the other model, averaged over layers and both directions.

    What `best_match` gives for each pair of models, for all of them at once. ``groups``: the rows of each model, in
    order and without a gap.
    """
    return symmetrised(_means(np.fmax.reduceat(values, [rows[0] for rows in groups], axis=1), groups))


def at_best_match(others: np.ndarray, values: np.ndarray, groups: list[list[int]]) -> np.ndarray:
    """Return (model, model): ``others`` where ``values`` have their best match, averaged as `model_similarity` does."""
    known = np.nan_to_num(values, nan=-np.inf)
    every = np.arange(len(values))
    at_best = np.stack([others[every, rows[0] + known[:, rows].argmax(axis=1)] for rows in groups], axis=1)
    return symmetrised(_means(at_best, groups))


def _means(of_spaces: np.ndarray, groups: list[list[int]]) -> np.ndarray:
    """Return (model, column): the mean over the spaces of each model that have a value, NaN where none has."""
    starts = [rows[0] for rows in groups]
    has = np.isfinite(of_spaces)
    count = np.add.reduceat(has.astype(np.intp), starts, axis=0)
    total = np.add.reduceat(np.where(has, of_spaces, 0.0), starts, axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def best_matches(values: np.ndarray, groups: list[list[int]]) -> np.ndarray:
    """Return (space, model): which layer of the model, counted from 0, matches the space; −1: none."""
    matches = np.full((len(values), len(groups)), -1)
    for own in pairs_of_models(groups):
        matches[np.ix_(own.source_rows, own.targets)] = match_layers(own.of(values)).matched.T
    return matches


def dendrogram(similarity: np.ndarray) -> tuple[list[int], list[list[float]], list[list[float]]]:
    """Return the order of the leaves and the lines of the tree: average linkage of 1 − similarity.

    Along the leaves one unit a model, the first at 0.5; across from 0 (alike) to 1 (the last join).
    """
    n_models = len(similarity)
    if n_models < 3:
        return list(range(n_models)), [], []
    joined = linkage(squareform(model_distances(similarity), checks=False), method="average", optimal_ordering=True)
    tree = draw_tree(joined, no_plot=True)
    highest = max(max(line) for line in tree["dcoord"]) or 1.0
    along = [[position / 10 for position in line] for line in tree["icoord"]]
    across = [[height / highest for height in line] for line in tree["dcoord"]]
    return [int(leaf) for leaf in tree["leaves"]], across, along
