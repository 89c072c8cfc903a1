"""Maps of embeddings that are fitted on pairs: linear ones, low-rank, a residual network, functional maps."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.errors import DataError
from lfm_tasks.spectral.bases.space import SpectralSpace, spectral_space
from lfm_tasks.spectral.maps.descriptors import Anchors
from lfm_tasks.spectral.maps.fit import fit_from_anchors
from lfm_tasks.spectral.maps.refinement import MapFit, Start
from lfm_tasks.spectral.transfer.alignment import (
    Alignment,
    fit_coordinates,
    refined_alignments,
)

# Drift-Adapter's sizes: rank of the affine map, hidden units of the network.
RANK, N_HIDDEN = 64, 256
# A network of so many parameters learns nothing from fewer pairs.
_FEWEST_FOR_NETWORK = 50
# The low modes that a functional map starts from mean nothing in a graph of fewer points.
_FEWEST_FOR_BASIS = 60
_N_ROUNDS = 10
N_EIGENPAIRS = 50
# What a pair of rows that the functional map matched counts beside one that is known: on kin encoders .01 was best of
# .01 to .3 wherever there were 10 to 200 pairs, and from 1,000 on it is all the same.
_WEIGHT_OF_MATCHES = 0.01
# Penalties of a correction, in mean squared singular values of the pairs; an infinite one leaves what is corrected.
_STRENGTHS = (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, np.inf)


@dataclass(frozen=True)
class ResidualLayer:
    """A residual network on carried rows z: max(0, z W₁ + b₁) W₂ + b₂."""

    first_matrix: Float[np.ndarray, "features hidden"]
    first_shift: Float[np.ndarray, " hidden"]
    second_matrix: Float[np.ndarray, "hidden features"]
    second_shift: Float[np.ndarray, " features"]


@dataclass(frozen=True)
class Adapter:
    """A map from one model's embeddings to another's: x ↦ z = x W + c, and then what a network adds to z, if any.

    ``takes_directions``: it was fitted on rows of length 1, and rows of any length are brought to it first: x/‖x‖.
    """

    matrix: Float[np.ndarray, "source_features target_features"]
    shift: Float[np.ndarray, " target_features"]
    residual: ResidualLayer | None = None
    takes_directions: bool = False

    def carry(self, rows: Float[np.ndarray, "points source_features"]) -> Float[np.ndarray, "points target_features"]:
        """Return the rows in the target's coordinates, in the type of the rows."""
        linear = _as(self.matrix, rows.dtype), _as(self.shift, rows.dtype)
        carried = (unit_rows(rows) if self.takes_directions else rows) @ linear[0] + linear[1]
        if self.residual is None:
            return carried
        part = self.residual
        hidden = carried @ _as(part.first_matrix, rows.dtype) + _as(part.first_shift, rows.dtype)
        np.maximum(hidden, 0, out=hidden)
        return carried + hidden @ _as(part.second_matrix, rows.dtype) + _as(part.second_shift, rows.dtype)


def _as(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return values.astype(dtype, copy=False)


def from_alignment(alignment: Alignment) -> Adapter:
    """Return a linear alignment, of which the target's coordinates are the common ones, as an adapter."""
    return Adapter(alignment.source_matrix, alignment.target_mean - alignment.source_mean @ alignment.source_matrix)


@dataclass(frozen=True)
class KnownPairs:
    """Rows of both models that a map may be fitted on, and which of them are the same input.

    Rows without a partner show the shape of their space. ``source_rows`` and ``target_rows`` begin with those that the
    functional maps use; pairs beyond these serve the other maps.
    """

    source: Float[np.ndarray, "source_points source_features"]
    target: Float[np.ndarray, "target_points target_features"]
    pairs: Anchors

    @property
    def source_rows(self) -> Float[np.ndarray, "pairs source_features"]:
        """The rows of the source that have partners."""
        return self.source[self.pairs.source]

    @property
    def target_rows(self) -> Float[np.ndarray, "pairs target_features"]:
        """Their partners."""
        return self.target[self.pairs.target]

    def without(self, held_out: Int[np.ndarray, " held_out"]) -> "KnownPairs":
        """Return these rows without some pairs, whose source rows are gone, so that no query has a twin among them.

        Their partners stay among the target rows, as stored vectors do.
        """
        left_out = self.pairs.source[held_out]
        kept = self.pairs.take(np.setdiff1d(np.arange(len(self.pairs)), held_out))
        places = np.cumsum(~np.isin(np.arange(len(self.source)), left_out)) - 1
        return KnownPairs(
            np.delete(self.source, left_out, axis=0), self.target, Anchors(places[kept.source], kept.target)
        )


def orthogonal(known: KnownPairs) -> Adapter:
    """Return the rotation and scale that carries the pairs best (Procrustes), after centering."""
    return from_alignment(fit_coordinates(known.source_rows, known.target_rows, method="orthogonal"))


def ridge(known: KnownPairs) -> Adapter:
    """Return the linear map that carries the pairs best, its size penalized."""
    return from_alignment(fit_coordinates(known.source_rows, known.target_rows, method="ridge"))


def low_rank(known: KnownPairs) -> Adapter:
    """Return the best affine map of rank `RANK`: the ridge map, projected on the main directions of what it predicts.

    References
    ----------
    Reinsel and Velu (1998), "Multivariate reduced-rank regression", section 2.2; Drift-Adapter (arXiv 2509.23471).
    """
    full = fit_coordinates(known.source_rows, known.target_rows, method="ridge")
    predicted = (known.source_rows - full.source_mean) @ full.source_matrix
    directions = np.linalg.svd(predicted, full_matrices=False)[2][:RANK]
    matrix = full.source_matrix @ directions.T @ directions
    return from_alignment(Alignment(full.source_mean, full.target_mean, matrix))


def residual_network(known: KnownPairs) -> Adapter | None:
    """Return the ridge map with a network of one hidden layer that learns what it leaves; None for too few pairs."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor  # takes a second to import

    if len(known.pairs) < _FEWEST_FOR_NETWORK:
        return None
    start = ridge(known)
    carried = start.carry(known.source_rows)
    left = known.target_rows - carried
    scale = float(np.abs(left).mean()) or 1.0
    network = MLPRegressor(
        hidden_layer_sizes=(N_HIDDEN,), alpha=1e-2, batch_size=min(256, len(carried) * 4 // 5),
        learning_rate_init=2e-3, max_iter=60, early_stopping=True, n_iter_no_change=6, random_state=0,
    )  # fmt: skip
    with warnings.catch_warnings():
        # Rounds are limited on purpose: it stops early where held-out pairs get no better.
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(carried, left / scale)
    first, second = network.coefs_
    return Adapter(
        start.matrix, start.shift,
        ResidualLayer(first, network.intercepts_[0], second * scale, network.intercepts_[1] * scale),
    )  # fmt: skip


def unchanged(known: KnownPairs) -> Adapter | None:
    """Return the map that leaves rows as they are: a fine-tuned model often keeps its axes; None for unequal widths."""
    n_features, n_results = known.source.shape[1], known.target.shape[1]
    return Adapter(np.eye(n_features), np.zeros(n_features)) if n_features == n_results else None


def corrected(start: Adapter, known: KnownPairs) -> Adapter:
    """Return a linear map with a ridge map added to it that learns what it leaves of the pairs.

    The penalty is that of `_STRENGTHS` under which each pair is carried best, by its cosine, when it is left out.
    """
    rows, left = known.source_rows, known.target_rows - start.carry(known.source_rows)
    row_mean, left_mean = rows.mean(axis=0), left.mean(axis=0)
    directions, singular, axes = np.linalg.svd(rows - row_mean, full_matrices=False)
    projected = directions.T @ (left - left_mean)
    unit = np.square(singular).sum() / rows.shape[1]
    targets = unit_rows(known.target_rows)

    def shares(strength: float) -> np.ndarray:
        return np.square(singular) / (np.square(singular) + strength * unit) if np.isfinite(strength) else 0 * singular

    def cosine_of_left_out(strength: float) -> float:
        kept = shares(strength)
        leverage = np.square(directions) @ kept + 1 / len(rows)
        misses = (left - left_mean - directions @ (kept[:, None] * projected)) / np.maximum(1 - leverage, 1e-3)[:, None]
        return float(np.einsum("ij,ij->i", unit_rows(known.target_rows - misses), targets).mean())

    best = max(_STRENGTHS, key=cosine_of_left_out)
    matrix = axes.T @ ((shares(best) / np.maximum(singular, np.finfo(np.float64).tiny))[:, None] * projected)
    return Adapter(start.matrix + matrix, start.shift + left_mean - row_mean @ matrix)


def _unchanged_corrected(known: KnownPairs) -> Adapter | None:
    start = unchanged(known)
    return None if start is None else corrected(start, known)


class FunctionalMaps:
    """The maps that start from the functional map between two spaces, whose graphs are made when first needed.

    Parameters
    ----------
    known
        The pairs, and the rows of both spaces.
    n_rows
        How many rows of each space are used, the first ones.
    whole
        The maps of all pairs, where ``known`` lacks some of them: the target's graph and the start are theirs.
    """

    def __init__(self, known: KnownPairs, n_rows: int, whole: "FunctionalMaps | None" = None) -> None:
        self._rows = min(n_rows, len(known.source)), min(n_rows, len(known.target))
        self._known = known
        self._whole = whole
        self._start: Start | None = None

    @cached_property
    def _source(self) -> SpectralSpace | None:
        return _space(self._known.source[: self._rows[0]])

    @cached_property
    def _target(self) -> SpectralSpace | None:
        return _space(self._known.target[: self._rows[1]]) if self._whole is None else self._whole._target

    def fit(self) -> Iterator[tuple[str, Adapter]]:
        """Yield the functional map's own alignment, what mutual pairs make of it, and what the known pairs do."""
        anchors = self._anchors(self._known)
        if len(anchors) < 2:
            return
        source, target = self._known.source[: self._rows[0]], self._known.target[: self._rows[1]]
        fit = self._fit(anchors)
        if fit is None:
            return
        plain = fit_coordinates(source[fit.matches], target, method="orthogonal")
        yield "functional map", from_alignment(plain)
        mutual, by_ridge = refined_alignments(plain, source, target, _N_ROUNDS)
        yield "functional map, mutual", from_alignment(mutual)
        yield "functional map, mutual ridge", from_alignment(by_ridge)
        with_pairs = _with_pairs(self._known, source[fit.matches], target)
        yield "functional map, pairs", with_pairs
        yield "functional map, pairs, corrected", corrected(with_pairs, self._known)

    def _anchors(self, known: KnownPairs) -> Anchors:
        """Return the pairs whose rows the spaces hold."""
        inside = (known.pairs.source < self._rows[0]) & (known.pairs.target < self._rows[1])
        return known.pairs.take(np.flatnonzero(inside))

    def _fit(self, anchors: Anchors) -> MapFit | None:
        if self._source is None or self._target is None:
            return None
        start = self._start if self._whole is None else self._whole._start
        try:
            if start is not None:
                return fit_from_anchors(self._source, self._target, anchors, starts=(start,))
            fit = fit_from_anchors(self._source, self._target, anchors)
        except DataError:
            return None  # pairs that the graph cannot tell apart
        self._start = fit.start
        return fit


def _with_pairs(
    known: KnownPairs,
    matched: Float[np.ndarray, "matched source_features"],
    target: Float[np.ndarray, "matched target_features"],
) -> Adapter:
    """Return the rotation and scale that carries known pairs and, at a small weight, matched rows best."""
    root = np.sqrt(_WEIGHT_OF_MATCHES)
    x, y = (
        (np.concatenate([of_pairs, of_matches]), of_pairs.sum(axis=0) + _WEIGHT_OF_MATCHES * of_matches.sum(axis=0))
        for of_pairs, of_matches in ((known.source_rows, matched), (known.target_rows, target))
    )
    weights = np.concatenate([np.ones(len(known.pairs)), np.full(len(matched), root)])[:, None]
    total = len(known.pairs) + _WEIGHT_OF_MATCHES * len(matched)
    means = x[1] / total, y[1] / total
    centered, images = weights * (x[0] - means[0]), weights * (y[0] - means[1])
    left, singular, right = np.linalg.svd(centered.T @ images, full_matrices=False)
    matrix = (left @ right) * (singular.sum() / max(float(np.square(centered).sum()), np.finfo(np.float64).tiny))
    return Adapter(matrix, means[1] - means[0] @ matrix)


def _space(rows: Float[np.ndarray, "points features"]) -> SpectralSpace | None:
    """Return the space of rows; None if they are few or have no graph, so that no map starts from it."""
    if len(rows) < _FEWEST_FOR_BASIS:
        return None
    try:
        return spectral_space(rows, n_eigenpairs=min(N_EIGENPAIRS, len(rows) // 3))
    except DataError:
        return None


# What is fitted on the pairs alone; a further one is a function and a row here. The first ones are in common use.
_COMMON: dict[str, Callable[[KnownPairs], Adapter | None]] = {
    "orthogonal": orthogonal,
    "ridge": ridge,
    "low rank": low_rank,
    "residual network": residual_network,
}
BASELINES = tuple(_COMMON)
ADAPTERS = _COMMON | {"unchanged": unchanged, "unchanged, corrected": _unchanged_corrected}


def fit_adapters(known: KnownPairs, maps: FunctionalMaps) -> dict[str, Adapter]:
    """Return every map that can be fitted on the pairs, by name."""
    fitted = {}
    for name, fit in ADAPTERS.items():
        adapter = fit(known)
        if adapter is not None:
            fitted[name] = adapter
    return fitted | dict(maps.fit())


def unit_rows(rows: Float[np.ndarray, "points features"]) -> Float[np.ndarray, "points features"]:
    """Return the rows at length 1; rows of zeros stay."""
    tiny = np.finfo(rows.dtype).tiny
    with np.errstate(over="ignore", under="ignore"):
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    # Squares of very large or very small numbers are no numbers of the type: these rows are scaled first.
    beyond = ~(np.isfinite(lengths[:, 0]) & (lengths[:, 0] > np.sqrt(tiny)))
    if beyond.any():
        largest = np.abs(rows[beyond]).max(axis=1, keepdims=True, initial=0)
        scaled = rows.copy()
        scaled[beyond] /= np.maximum(largest, tiny)
        return scaled / np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), tiny)
    return rows / np.maximum(lengths, tiny)
