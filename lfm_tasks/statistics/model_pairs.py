"""Similarities of models from those of their layers: summaries, matched layers, distances, related models."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # its parts are imported when they are first used
from jaxtyping import Bool, Float, Int, Shaped


def best_of(p_values: Float[np.ndarray, "... layers"]) -> Float[np.ndarray, "..."]:
    """Return 1 − (1 − min p)^m over the last axis: what the smallest of m p-values is worth (Šidák 1967).

    Exact for independent layers, on the safe side for layers that go together.
    """
    n_layers = p_values.shape[-1]
    return np.asarray(-np.expm1(n_layers * np.log1p(-np.minimum(p_values.min(axis=-1), 1 - 1e-16))))


def false_discovery_rates(p_values: Float[np.ndarray, " pairs"]) -> Float[np.ndarray, " pairs"]:
    """Return for each pair the share of chance finds to expect if it, and all with a smaller p-value, are named.

    Benjamini and Hochberg (1995). NaN, a pair without a p-value, stays NaN and counts for nothing.
    """
    rates = np.full(len(p_values), np.nan)
    present = ~np.isnan(p_values)
    if present.any():
        from scipy.stats import false_discovery_control  # half a second to import

        rates[present] = false_discovery_control(p_values[present])
    return rates


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
    for model, group_rows in enumerate(rows):
        alike.setdefault(len(group_rows), []).append(model)
    targets = [(np.array(models), np.stack([rows[model] for model in models])) for models in alike.values()]
    for source, group_rows in enumerate(rows):
        for models, target_rows in targets:
            yield Against(source, models, group_rows, target_rows)


@dataclass(frozen=True)
class LayerMatching:
    """For each layer of the source its layer in the target, counted from 0, and by how much it beats the second best.

    Both are of the `locally_scaled` matrix; -1 and NaN where a value of the pair is missing, NaN also where the target
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
    """Return which layer is whose counterpart, of the `locally_scaled` values; none where a value is missing.

    ``values``: the higher, the more alike; distances with their sign changed.
    """
    is_whole = np.isfinite(values).all(axis=(-2, -1), keepdims=True)
    scaled = locally_scaled(np.where(is_whole, values, 0.0))
    matched = np.where(is_whole[..., 0], scaled.argmax(axis=-1), -1)
    if values.shape[-1] < 2:
        return LayerMatching(matched, np.full(matched.shape, np.nan))
    falling = -np.sort(-scaled, axis=-1)
    return LayerMatching(matched, np.where(is_whole[..., 0], falling[..., 0] - falling[..., 1], np.nan))


def locally_scaled(values: Layers) -> Layers:
    """Return s_ij − (max_j s_ij + max_i s_ij)/2: how alike two layers are, measured by the best match of each.

    A layer that is like everything would else be everybody's match; here it has to be nearer than it is to others. It
    needs the two models only, any layers of them, and no two of equal number; what other models are in the zoo changes
    nothing. In all comparisons of docs/evidence.md it found more layers than the values themselves, and where two
    models do not have the same layers more than double centering, which forces an order on them.

    Examples
    --------
    The second layer is like everything, and nearest to itself all the same:

    >>> locally_scaled(np.array([[0.5, 0.6], [0.2, 0.9]])).round(2).tolist()
    [[-0.05, -0.15], [-0.5, 0.0]]

    References
    ----------
    Conneau et al. (2018), "Word translation without parallel data", section 2.3: with one neighbor, halved.
    """
    return values - (values.max(axis=-1, keepdims=True) + values.max(axis=-2, keepdims=True)) / 2


def same_layer_share(values: Float[np.ndarray, "layers layers"], *, is_scaled: bool) -> float:
    """Return the share of source layers whose best match is the target layer of the same number, in [0, 1].

    Layer s counts 1/m if it is one of m equal best matches, so that a constant matrix gets what guessing would.
    ``is_scaled``: of the `locally_scaled` values. NaN where a value is missing.

    Examples
    --------
    The second layer is like everything; measured by its best match it is not:

    >>> values = np.array([[0.6, 0.7, 0.1], [0.5, 0.9, 0.4], [0.1, 0.7, 0.6]])
    >>> float(round(same_layer_share(values, is_scaled=False), 3)), same_layer_share(values, is_scaled=True)
    (0.333, 1.0)
    """
    if not np.isfinite(values).all():
        return float("nan")
    compared = locally_scaled(values) if is_scaled else values
    best = compared >= compared.max(axis=1, keepdims=True) - _TIED
    return float((np.diag(best) / best.sum(axis=1)).mean())


def best_match_p_values(p_values: Layers) -> Float[np.ndarray, "*pairs source_layers"]:
    """Return for each source layer the p-value of its best match, corrected for choosing among the target's layers."""
    worst = np.where(np.isnan(p_values), 1.0, p_values)
    return np.where(np.isnan(p_values).all(axis=-1), np.nan, best_of(worst))


def symmetrized(directed: Float[np.ndarray, "models models"]) -> Float[np.ndarray, "models models"]:
    """Return the mean of both directions."""
    return (directed + directed.T) / 2


def model_distances(similarity: Float[np.ndarray, "models models"]) -> Float[np.ndarray, "models models"]:
    """Return 1 − calibrated similarity, from 0 up, for clustering and scaling: 1 is chance; no metric.

    Calibrated distances are similarities in this sense. A missing value counts as chance; the diagonal is 0.
    """
    distance = np.clip(1 - np.nan_to_num(similarity, nan=0.0), 0, None)
    np.fill_diagonal(distance, 0)
    return distance


def area_under_curve(values: Float[np.ndarray, " points"], inside: Bool[np.ndarray, " points"]) -> float:
    """Return how often a point inside has a higher value than one outside, ties counted half, in [0, 1].

    The area under the ROC curve; .5 where the values carry no information. NaN where one of the two kinds is missing.

    Examples
    --------
    >>> area_under_curve(np.array([0.1, 0.4, 0.4, 0.9]), np.array([False, False, True, True]))
    0.875

    References
    ----------
    Mann, Whitney (1947), "On a test of whether one of two random variables is stochastically larger".
    """
    n_inside = int(inside.sum())
    n_outside = len(inside) - n_inside
    if not n_inside or not n_outside:
        return float("nan")
    from scipy.stats import rankdata  # half a second to import

    ranks = rankdata(values)[inside].sum()
    return float((ranks - n_inside * (n_inside + 1) / 2) / (n_inside * n_outside))


# The median absolute deviation of a normal distribution, in standard deviations, is 1 / 1.4826.
_NORMAL = 1.4826
# A similarity of 1 would be infinitely close; this one counts as equal.
_EQUAL = 1e-4


@dataclass(frozen=True)
class RobustScale:
    """Median and median absolute deviation (scaled to standard deviations of a normal sample)."""

    median: float
    deviation: float

    def z(self, values: Float[np.ndarray, " values"]) -> Float[np.ndarray, " values"]:
        """Return how many deviations each value lies above the median."""
        return (values - self.median) / self.deviation


def robust_scale(sample: Float[np.ndarray, " sample"], *, least: float = 1e-9) -> RobustScale:
    """Return median and deviation of a sample, at least ``least``: up to half of the sample may be outliers.

    Examples
    --------
    >>> robust_scale(np.array([1.0, 2.0, 3.0, 4.0, 100.0])).median
    3.0
    """
    median = float(np.median(sample))
    deviation = _NORMAL * float(np.median(np.abs(sample - median)))
    return RobustScale(median, max(deviation, least))


def closeness(similarities: Float[np.ndarray, "*values"]) -> Float[np.ndarray, "*values"]:
    """Return −log(1 − s) of calibrated similarities: steps near 1 count as much as they are rare.

    Unrelated models spread over tenths, relatives over hundredths below 1: on this scale both are separated by one
    width.

    Examples
    --------
    >>> closeness(np.array([0.0])).tolist()
    [-0.0]
    """
    return -np.log(np.maximum(1 - similarities, _EQUAL))


@dataclass(frozen=True)
class Scaling:
    """Points, and Kruskal's stress-1 of all their axes: √(Σ (d − δ)² / Σ d²), δ the given distances, d the points'."""

    points: Float[np.ndarray, "points axes"]
    stress: float


def classical_scaling(distances: Float[np.ndarray, "points points"], n_axes: int) -> Scaling:
    """Return the leading eigenvectors of −½ J D² J with J = I − 11ᵀ/n, each times the root of its eigenvalue.

    Axes fall in importance and have their largest entry positive. Distances that are no metric leave negative
    eigenvalues, which no axis can show: there are fewer axes then, the others are 0.

    Examples
    --------
    >>> corners = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    >>> between = np.linalg.norm(corners[:, None] - corners, axis=2)
    >>> found = classical_scaling(between, 2)
    >>> bool(np.allclose(np.linalg.norm(found.points[:, None] - found.points, axis=2), between)), round(found.stress, 9)
    (True, 0.0)

    References
    ----------
    Borg & Groenen (2005), "Modern multidimensional scaling", chapter 12. Kruskal (1964), "Multidimensional scaling by
    optimizing goodness of fit to a nonmetric hypothesis".
    """
    squared = distances**2
    centered = squared - squared.mean(axis=0) - squared.mean(axis=1, keepdims=True) + squared.mean()
    values, vectors = np.linalg.eigh(-centered / 2)
    values, vectors = values[::-1][:n_axes], vectors[:, ::-1][:, :n_axes]
    # What rounding left of an eigenvalue 0 is no axis.
    values = np.where(values > 1e-12 * max(values.max(initial=0.0), 1e-300), values, 0.0)
    largest = np.abs(vectors).round(9).argmax(axis=0)
    signs = np.where(vectors[largest, np.arange(vectors.shape[1])] < 0, -1.0, 1.0)
    points = np.zeros((len(distances), n_axes))
    points[:, : len(values)] = vectors * signs * np.sqrt(values)
    drawn, given = scipy.spatial.distance.pdist(points), scipy.spatial.distance.squareform(distances, checks=False)
    size = float((drawn**2).sum())
    return Scaling(points, float(np.sqrt(((drawn - given) ** 2).sum() / size)) if size else 0.0)


# With fewer pairs of unrelated models, a rank among them or a deviation from them says little.
FEWEST_UNRELATED = 20


def base_models(meta: Mapping[str, Any]) -> list[str]:
    """Return the models that a model was made from: ``base_model`` in its ``meta`` names one, several or none."""
    base = meta.get("base_model")
    if base is None:
        return []
    return [str(name) for name in base] if isinstance(base, list | tuple) else [str(base)]


def families(meta: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Return model → family: models are related where ``base_model`` (one name or several) leads from one to another.

    Two models of the same base are related, also where the base is not in the zoo.
    """
    links = [(model, base) for model, facts in meta.items() for base in base_models(facts)]
    names = sorted({*meta, *(base for _, base in links)})
    place = {name: index for index, name in enumerate(names)}
    ends = np.array([[place[a], place[b]] for a, b in links]).reshape(-1, 2)
    graph = scipy.sparse.coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(names), len(names)))
    _, family = scipy.sparse.csgraph.connected_components(graph, directed=False)
    return {model: int(family[place[model]]) for model in meta}
