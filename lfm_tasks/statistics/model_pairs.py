"""From pairs of layers to pairs of models: summaries, the matching of layers, distances between models."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from lfm_tasks.statistics.centring import doubly_centred
from lfm_tasks.statistics.many_pairs import best_of

# One pair of models, or many whose numbers of layers are the same.
Layers = Float[np.ndarray, "*pairs source_layers target_layers"]
# Values nearer than this are equal: rounding must not decide which layer matches.
_TIED = 1e-9


@dataclass(frozen=True)
class Against:
    """One model against all those that have equally many layers: numbers of the models, and the rows of their layers.

    A zoo has few numbers of layers and many pairs of models: those of one number are taken together.
    """

    source: int
    targets: Int[np.ndarray, " targets"]
    source_rows: Int[np.ndarray, " source_layers"]
    target_rows: Int[np.ndarray, "targets target_layers"]

    def of(self, values: Shaped[np.ndarray, "spaces spaces"]) -> Shaped[np.ndarray, "targets source target"]:
        """Return the values of the layers of each pair of models."""
        return values[self.source_rows[:, None], self.target_rows[:, None, :]]


def pairs_of_models(groups: Sequence[Sequence[int] | Int[np.ndarray, " _"]]) -> Iterator[Against]:
    """Yield every model against every model, also against itself; ``groups``: the rows of each.

    Examples
    --------
    >>> [(own.source, own.targets.tolist()) for own in pairs_of_models([[0, 1], [2], [3, 4]])][:2]
    [(0, [0, 2]), (0, [1])]
    """
    rows = [np.asarray(group, dtype=np.intp) for group in groups]
    alike: dict[int, list[int]] = {}
    for model, own in enumerate(rows):
        alike.setdefault(len(own), []).append(model)
    targets = [(np.array(models), np.stack([rows[model] for model in models])) for models in alike.values()]
    for source, own in enumerate(rows):
        for models, theirs in targets:
            yield Against(source, models, own, theirs)


@dataclass(frozen=True)
class LayerMatching:
    """For each layer of the source its layer in the target, counted from 0, and by how much it beats the second best.

    Both are of the double-centred matrix; -1 and NaN where a value of the pair is missing, NaN also where the target
    has one layer only.
    """

    matched: Int[np.ndarray, "*pairs source_layers"]
    margin: Float[np.ndarray, "*pairs source_layers"]


def best_match(values: Layers) -> Float[np.ndarray, "*pairs"]:
    """Return the best of each source layer's values, averaged over source layers; NaN where there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a row of NaN only has no best match
        return np.asarray(np.nanmean(np.nanmax(values, axis=-1), axis=-1))


def mean_match(values: Layers) -> Float[np.ndarray, "*pairs"]:
    """Return the mean over all pairs of layers; symmetric where the measure is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmean(values, axis=(-2, -1)))


def depth_aligned(
    values: Layers,
    source_depths: Float[np.ndarray, " source_layers"],
    target_depths: Float[np.ndarray, "*pairs target_layers"],
) -> Float[np.ndarray, "*pairs"]:
    """Return the mean over source layers of the value at the target layer of nearest relative depth.

    Depths are in [0, 1], first to last layer; of two layers equally near, the earlier counts.
    """
    nearest = np.abs(source_depths[:, None] - target_depths[..., None, :]).argmin(axis=-1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmean(np.take_along_axis(values, nearest[..., None], axis=-1)[..., 0], axis=-1))


def match_layers(values: Layers) -> LayerMatching:
    """Return which layer is whose counterpart; none where a value is missing.

    Row and column means are subtracted first (double centring): a layer that is like everything would else be
    everybody's match. On Fashion and CIFAR networks this lifts `overlap` from .83-.97 to .99-1.00 of the layers.
    """
    is_whole = np.isfinite(values).all(axis=(-2, -1), keepdims=True)
    known = np.where(is_whole, values, 0.0)
    centred = known - known.mean(axis=-2, keepdims=True) - known.mean(axis=-1, keepdims=True)
    matched = np.where(is_whole[..., 0], centred.argmax(axis=-1), -1)
    if values.shape[-1] < 2:
        return LayerMatching(matched, np.full(matched.shape, np.nan))
    falling = -np.sort(-centred, axis=-1)
    return LayerMatching(matched, np.where(is_whole[..., 0], falling[..., 0] - falling[..., 1], np.nan))


def same_layer_share(values: Float[np.ndarray, "layers layers"], *, is_centred: bool) -> float:
    """Return the share of source layers whose best match is the target layer of the same number, in [0, 1].

    Layer s counts 1/m if it is one of m equal best matches, so that a constant matrix gets what guessing would.
    ``is_centred``: row and column means are subtracted first (double centring). NaN where a value is missing.

    Examples
    --------
    The second layer is like everything; what is left without the means tells the first two apart:

    >>> values = np.array([[0.6, 0.7, 0.1], [0.5, 0.9, 0.4], [0.1, 0.7, 0.6]])
    >>> float(round(same_layer_share(values, is_centred=False), 3)), same_layer_share(values, is_centred=True)
    (0.333, 1.0)
    """
    if not np.isfinite(values).all():
        return float("nan")
    compared = doubly_centred(values) if is_centred else values
    best = compared >= compared.max(axis=1, keepdims=True) - _TIED
    return float((np.diag(best) / best.sum(axis=1)).mean())


def best_match_p_values(p_values: Layers) -> Float[np.ndarray, "*pairs source_layers"]:
    """Return for each source layer the p-value of its best match, corrected for choosing among the target's layers."""
    worst = np.where(np.isnan(p_values), 1.0, p_values)
    return np.where(np.isnan(p_values).all(axis=-1), np.nan, best_of(worst))


def symmetrised(directed: Float[np.ndarray, "models models"]) -> Float[np.ndarray, "models models"]:
    """Return the mean of both directions."""
    return (directed + directed.T) / 2


def model_distances(similarity: Float[np.ndarray, "models models"]) -> Float[np.ndarray, "models models"]:
    """Return 1 − calibrated similarity, from 0 up, for clustering and scaling: 1 is chance; no metric.

    Calibrated distances are similarities in this sense. A missing value counts as chance; the diagonal is 0.
    """
    distance = np.clip(1 - np.nan_to_num(similarity, nan=0.0), 0, None)
    np.fill_diagonal(distance, 0)
    return distance
