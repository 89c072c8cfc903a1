"""Matrices of models: from layers to models, and the order in which alike models stand together."""

import warnings

import numpy as np
from scipy.cluster.hierarchy import dendrogram as draw_tree
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform


def model_similarity(values: np.ndarray, groups: list[list[int]]) -> np.ndarray:
    """Return (model, model): each layer's best match in the other model, averaged over layers and both directions."""
    directed = np.full((len(groups), len(groups)), np.nan)
    for source, source_rows in enumerate(groups):
        for target, target_rows in enumerate(groups):
            block = values[np.ix_(source_rows, target_rows)]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # a row of NaN only has no best match
                directed[source, target] = np.nanmean(np.nanmax(block, axis=1))
    return (directed + directed.T) / 2


def best_matches(values: np.ndarray, groups: list[list[int]]) -> np.ndarray:
    """Return (space, model): which layer of the model, counted from 0, matches the space; −1: none.

    Row and column means of the layer × layer matrix are subtracted first: a layer that is like everything would else
    be everybody's match.
    """
    matches = np.full((len(values), len(groups)), -1)
    for source_rows in groups:
        for target, target_rows in enumerate(groups):
            block = values[np.ix_(source_rows, target_rows)]
            if not np.isfinite(block).all():
                continue
            centred = block - block.mean(axis=0) - block.mean(axis=1, keepdims=True)
            matches[source_rows, target] = centred.argmax(axis=1)
    return matches


def dendrogram(similarity: np.ndarray) -> tuple[list[int], list[list[float]], list[list[float]]]:
    """Return the order of the leaves and the lines of the tree: average linkage of 1 − similarity.

    Along the leaves one unit a model, the first at 0.5; across from 0 (alike) to 1 (the last join).
    """
    n_models = len(similarity)
    if n_models < 3:
        return list(range(n_models)), [], []
    distance = np.clip(1 - np.nan_to_num(similarity, nan=0.0), 0, None)
    np.fill_diagonal(distance, 0)
    joined = linkage(squareform(distance, checks=False), method="average", optimal_ordering=True)
    tree = draw_tree(joined, no_plot=True)
    highest = max(max(line) for line in tree["dcoord"]) or 1.0
    along = [[position / 10 for position in line] for line in tree["icoord"]]
    across = [[height / highest for height in line] for line in tree["dcoord"]]
    return [int(leaf) for leaf in tree["leaves"]], across, along
