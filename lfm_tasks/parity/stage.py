"""Comparison of two networks layer by layer: where they diverge, for which inputs, and by what transformation."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Shaped

from lfm_tasks.catalog.sections import Port
from lfm_tasks.errors import DataError
from lfm_tasks.measures.cka import compare_linear, prepare_linear
from lfm_tasks.parity.differences import PRECISIONS, Precision, RowDifferences, coarser, precision_of, row_differences
from lfm_tasks.parity.layers import LayerPairs, pairs_by_likeness, pairs_by_name, pairs_by_table
from lfm_tasks.parity.sides import JoinedRows, Side, join_rows
from lfm_tasks.parity.transformations import (
    clipped_at,
    exchanged_rows,
    layer_that_it_is,
    layer_that_it_resembles,
    name_transformation,
    quantized_to,
    rounded_off,
)
from lfm_tasks.spectral.bases.full_map import full_map, overlap
from lfm_tasks.spectral.bases.space import spectral_space
from lfm_tasks.statistics.resampling import FEWEST_IN_HALF, halves_of, interval_reach

# Number of rows for transformations and geometry, evenly spread; differences are of all rows.
_MOST_ROWS = 1000
# Fewer where a network is so wide that the samples of all its layers would take more memory than this (bytes).
_SAMPLE_BYTES, _FEWEST_ROWS = 2**30, 60
# The geometry is compared on so many of them, by so many eigenpairs: a third of a second a layer.
_GEOMETRY_ROWS, _N_EIGENPAIRS = 400, 20
# Inputs that a report names.
_N_NAMED = 10
# Where fewer rows than this share differ and all others agree, the inputs are at fault and not the layer.
_FEW_ROWS = 0.5
# Spaces whose overlap and CKA both reach this, at the lower end of their intervals, have the same geometry.
_SAME_GEOMETRY = 0.9
# Layers whose largest number is outside are compared and not explained: the squares of such numbers are none.
_SMALLEST, _LARGEST = 1e-100, 1e100
# A difference that grows by this factor from one layer to the next did not come by rounding alone.
_JUMP = 20.0

# Begins the words of what happened to a layer's update and not to its output.
OF_AN_UPDATE = "what the layer adds to its input"
# Kinds of faults beside those of `KINDS`, which one layer's numbers tell by themselves.
FAULTS = ("width", "overflow", "not_finite", "clipped", "rows", "inputs", "swapped", "quantized", "rounding")

Verdict = Literal["equal", "within", "beyond", "failed"]


@dataclass(frozen=True)
class Geometry:
    """How alike two spaces are whatever their coordinates: overlap of their bases and linear CKA, with reaches."""

    overlap: float
    overlap_reach: float
    cka: float
    cka_reach: float

    @property
    def is_same(self) -> bool:
        """Whether both are high even at the lower ends of their 95 % intervals."""
        return min(self.overlap - self.overlap_reach, self.cka - self.cka_reach) >= _SAME_GEOMETRY


@dataclass(frozen=True)
class LayerParity:
    """One layer of the reference beside one of the candidate.

    ``status``: ``equal`` to the last bit, ``within`` the tolerance, ``beyond`` it, or ``failed``: no values to compare.
    ``kind`` and ``words`` name what happened, where that is known, and ``kind`` the reason of a failure; ``inputs`` are
    those that differ most.
    """

    reference: str
    candidate: str
    status: Verdict
    precision: str = ""
    tolerance: float = np.nan
    n_rows: int = 0
    n_features: int = 0
    largest_absolute: float = np.nan
    typical_absolute: float = np.nan
    largest_relative: float = np.nan
    typical_relative: float = np.nan
    largest_ulps: float = np.nan
    typical_ulps: float = np.nan
    least_cosine: float = np.nan
    share_beyond: float = np.nan
    norm_ratio: float = np.nan
    n_not_finite: tuple[int, int] = (0, 0)
    inputs: tuple[tuple[str, float], ...] = ()
    kind: str = ""
    words: str = ""
    geometry: Geometry | None = None
    message: str = ""

    @property
    def is_broken(self) -> bool:
        """Whether the layer is beyond tolerance or could not be compared."""
        return self.status in ("beyond", "failed")


@dataclass(frozen=True)
class Parity:
    """All layers of a comparison in the order of the depth, and notes about rows and layers that are left out."""

    reference: str
    candidate: str
    layers: tuple[LayerParity, ...]
    n_common: int
    notes: tuple[str, ...]

    @property
    def first_broken(self) -> LayerParity | None:
        """The first layer that is beyond tolerance; None if none is."""
        return next((layer for layer in self.layers if layer.is_broken), None)

    @property
    def first_jump(self) -> LayerParity | None:
        """The first layer whose typical difference is many times the largest of all layers before; None if none."""
        largest = 0.0
        for layer in self.layers:
            floor = PRECISIONS[layer.precision].tolerance / 100 if layer.precision else 0.0
            if np.isfinite(layer.largest_relative) and layer.largest_relative > _JUMP * max(largest, floor):
                return layer
            largest = max(largest, layer.largest_relative if np.isfinite(layer.largest_relative) else 0.0)
        return None


@dataclass(frozen=True)
class ParityOptions:
    """How two models are compared.

    Parameters
    ----------
    match
        How layers are paired: ``name``, ``table`` or ``likeness``.
    table
        The pairs of ``table``: layers of the reference, layers of the candidate.
    tolerance
        How far a row may be off, relative to the largest magnitude in it; None: by the coarser type of the two.
    n_explained
        For how many layers beyond tolerance the kind of the fault is searched: the first, the last, and others evenly
        between.
    with_geometry
        Whether these are compared by the overlap of their bases and CKA, too.
    """

    match: Literal["name", "table", "likeness"] = "name"
    table: Mapping[str, str] | None = None
    tolerance: float | None = None
    n_explained: int = 8
    with_geometry: bool = True


def options_of_port(port: Port, options: ParityOptions = ParityOptions()) -> ParityOptions:
    """Return the options with what an entry of the catalog's section ``parity`` says, where they do not say otherwise.

    Parameters
    ----------
    port
        The entry: its table of layers, its tolerance.
    options
        What somebody else has chosen, such as who gives a command.
    """
    if port.layers and options.match == "name":
        options = replace(options, match="table", table=port.layers)
    return replace(options, tolerance=port.tolerance if options.tolerance is None else options.tolerance)


def compare_sides(reference: Side, candidate: Side, options: ParityOptions | None = None) -> Parity:
    """Return how far the candidate is from the reference, layer by layer and row by row.

    Raises
    ------
    DataError
        ``bad_ids`` or ``no_overlap`` where rows cannot be joined, ``unknown_layer`` where layers cannot be paired.
    """
    options = options or ParityOptions()
    joined = join_rows(reference, candidate)
    pairs, notes = _paired(reference, candidate, joined, options)
    row_bytes = 16 * sum(reference.n_features(first) + candidate.n_features(second) for first, second in pairs)
    most = min(_MOST_ROWS, max(_FEWEST_ROWS, _SAMPLE_BYTES // max(1, row_bytes)))
    sampled = np.unique(np.linspace(0, len(joined.ids) - 1, min(len(joined.ids), most)).astype(np.int64))
    depth = _Depth(joined.ids[sampled])
    layers = []
    for first, second in pairs:
        try:
            rows = reference.rows(first, joined.reference), candidate.rows(second, joined.candidate)
        except DataError as error:
            message = f"{error} [{error.reason}]"
            layers.append(LayerParity(first, second, "failed", kind=error.reason, message=message))
            continue
        compared = _compare_layer(first, second, rows, joined.ids, options.tolerance)
        samples = rows[0][sampled].astype(np.float64), rows[1][sampled].astype(np.float64)
        depth.add(first, samples, is_broken=compared.is_broken)
        layers.append(compared)
    broken = [place for place, layer in enumerate(layers) if layer.status == "beyond"]
    spread = np.linspace(0, max(0, len(broken) - 1), min(len(broken), options.n_explained)).astype(np.int64)
    for place in (broken[index] for index in spread):
        layers[place] = _explained(layers[place], depth, with_geometry=options.with_geometry)
    return Parity(reference.name, candidate.name, tuple(layers), len(joined.ids), (*joined.notes, *notes))


def _paired(
    reference: Side, candidate: Side, joined: JoinedRows, options: ParityOptions
) -> tuple[LayerPairs, tuple[str, ...]]:
    names = tuple(reference.layers), tuple(candidate.layers)
    if options.match == "table":
        return pairs_by_table(options.table or {}, *names), ()
    if options.match == "name":
        return pairs_by_name(*names)
    few = np.unique(np.linspace(0, len(joined.ids) - 1, min(len(joined.ids), _MOST_ROWS)).astype(np.int64))
    sides = (reference, joined.reference[few]), (candidate, joined.candidate[few])
    first, second = (_finite_layers(side, rows) for side, rows in sides)
    return pairs_by_likeness(first, second), ("layers were matched by the overlap of their spaces",)


def _finite_layers(side: Side, rows: np.ndarray) -> dict[str, Float[np.ndarray, "points _"]]:
    found = {name: side.rows(name, rows).astype(np.float64) for name, one in side.layers.items()
             if not isinstance(one, DataError)}  # fmt: skip
    return {name: values for name, values in found.items() if np.isfinite(values).all()}


def _compare_layer(
    first: str,
    second: str,
    rows: tuple[Shaped[np.ndarray, "points _"], Shaped[np.ndarray, "points _"]],
    ids: Shaped[np.ndarray, " points"],
    tolerance: float | None,
) -> LayerParity:
    precision = coarser(precision_of(rows[0]), precision_of(rows[1]))
    limit = precision.tolerance if tolerance is None else tolerance
    layer = LayerParity(first, second, "beyond", precision.name, limit, *rows[0].shape)
    if rows[0].shape != rows[1].shape:
        widths = f"{rows[0].shape[1]:,} and {rows[1].shape[1]:,} features"
        return replace(layer, share_beyond=1.0, kind="width", words=f"the two sides have {widths}")
    apart = row_differences(rows[0], rows[1], precision)
    return _summarized(layer, apart, ids)


def _summarized(layer: LayerParity, apart: RowDifferences, ids: Shaped[np.ndarray, " points"]) -> LayerParity:
    beyond = apart.beyond(layer.tolerance)
    worst = np.argsort(-apart.relative, kind="stable")[:_N_NAMED]
    named = tuple((str(ids[row]), float(apart.relative[row])) for row in worst if apart.relative[row] > 0)
    norms = apart.reference_norm > 0
    ratio = np.median(apart.candidate_norm[norms] / apart.reference_norm[norms]) if norms.any() else np.nan
    status: Verdict = "beyond" if beyond.any() else "within" if named else "equal"
    not_finite = apart.n_not_finite.sum(axis=0)
    return replace(
        layer,
        status=status,
        largest_absolute=float(apart.absolute.max()),
        typical_absolute=float(np.median(apart.absolute)),
        largest_relative=float(apart.relative.max()),
        typical_relative=float(np.median(apart.relative)),
        largest_ulps=float(apart.largest_ulps.max()),
        typical_ulps=float(np.median(apart.typical_ulps)),
        least_cosine=float(apart.cosine.min()),
        share_beyond=float(beyond.mean()),
        norm_ratio=float(ratio),
        n_not_finite=(int(not_finite[0]), int(not_finite[1])),
        inputs=named,
    )


class _Depth:
    """The sampled rows of the layers so far: what a layer took in is what the layer before gave out."""

    def __init__(self, ids: Shaped[np.ndarray, " points"]) -> None:
        self.ids = ids
        self.samples: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self.broken: list[str] = []

    def add(self, name: str, samples: tuple[np.ndarray, np.ndarray], *, is_broken: bool) -> None:
        self.samples[name] = samples
        self.broken += [name] if is_broken else []

    def before(self, name: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the nearest earlier layer of the same width; None if there is none."""
        earlier = list(self.samples)[: list(self.samples).index(name)]
        width = self.samples[name][0].shape
        return next((self.samples[one] for one in reversed(earlier) if self.samples[one][0].shape == width), None)


def _explained(layer: LayerParity, depth: _Depth, *, with_geometry: bool) -> LayerParity:
    """Return a layer beyond tolerance with the kind of its fault and, where wanted, the geometry that it kept."""
    a, b = depth.samples[layer.reference]
    if not all(
        _SMALLEST < np.abs(side[np.isfinite(side)]).max(initial=0.0) < _LARGEST for side in (a, b) if side.any()
    ):
        return layer if layer.kind else replace(layer, words="its numbers are too large or too small to be explained")
    if with_geometry:
        layer = replace(layer, geometry=_geometry(a, b, depth.ids))
    if layer.kind:
        return layer
    kind, words = _fault(layer, depth)
    return replace(layer, kind=kind, words=words)


def _fault(layer: LayerParity, depth: _Depth) -> tuple[str, str]:
    """Return the kind of a fault and what happened, in words; ("", "") if it is unknown."""
    name = layer.reference
    a, b = depth.samples[name]
    if layer.n_not_finite[1] > layer.n_not_finite[0]:
        return _overflow(layer, a)
    if np.isfinite(a).all() and np.isfinite(b).all():
        if words := clipped_at(a, b, layer.tolerance):
            return "clipped", words
        exchanged = exchanged_rows(a, b, layer.tolerance)
        if exchanged is not None and len(exchanged):
            shown = f"first those of {depth.ids[exchanged[0]]}"
            return "rows", f"rows have the numbers of other inputs, {shown}. Look at the order of rows, or at ids"
    if layer.share_beyond < _FEW_ROWS and _others_agree(a, b, layer.tolerance):
        n_rows = round(layer.share_beyond * layer.n_rows)
        words = f"{n_rows:,} of {layer.n_rows:,} inputs differ, all others agree. Look at how these are prepared"
        if depth.broken[0] == name:
            return "inputs", words
    differ = np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1)
    differ &= np.abs(b - a).max(axis=1, initial=0) > layer.tolerance * np.abs(a).max(axis=1, initial=0)
    if differ.sum() < 4:
        return "", ""
    a, b = a[differ], b[differ]
    references = {one: rows[0][differ] for one, rows in depth.samples.items()}
    if other := layer_that_it_is(name, b, references, layer.tolerance):
        return "swapped", f"these are the numbers of the layer {other}"
    found = name_transformation(a, b)
    if found is not None and found.kind != "linear":
        return found.kind, found.words
    # A fault of a layer whose input is already wrong cannot be found.
    if depth.broken[0] == name:
        if fault := _fault_of_update(name, depth, differ, references):
            return fault
        if words := quantized_to(*depth.samples[name]):
            return "quantized", words
        if words := rounded_off(a, b):
            return "rounding", words
    return ("", "") if found is None else (found.kind, found.words)


def _others_agree(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    """Return whether rows within the tolerance are far within it: a fault of the layer moves all rows, some less."""
    with np.errstate(invalid="ignore"):
        off = np.abs(b - a).max(axis=1) / np.maximum(np.abs(a).max(axis=1), np.finfo(np.float64).tiny)
    within = off[off <= tolerance]
    return len(within) > 0 and bool(np.quantile(within, 0.9) <= tolerance / 5)


def _fault_of_update(
    name: str, depth: _Depth, differ: np.ndarray, references: Mapping[str, np.ndarray]
) -> tuple[str, str] | None:
    """Return the kind of a fault, and what happened, that shows in what a layer adds to what it takes in."""
    before = depth.before(name)
    if before is None:
        return None
    a, b = (side[differ] for side in depth.samples[name])
    update, own = b - before[1][differ], a - before[0][differ]
    found = name_transformation(own, update)
    if found is not None and found.kind != "linear":
        return found.kind, f"{OF_AN_UPDATE}: {found.words}"
    updates = {}
    for one in depth.samples:
        earlier = depth.before(one)
        if earlier is not None:
            updates[one] = references[one] - earlier[0][differ]
    for does, rows, others in (("gives", b, references), ("adds to its input", update, updates)):
        if likest := layer_that_it_resembles(name, rows, others):
            other, cosine, own_cosine = likest
            words = f"it {does} what the layer {other} {does} (cosine {cosine:.2f}, with its own {own_cosine:.2f})"
            return "swapped", words
    return None


def _overflow(layer: LayerParity, reference: np.ndarray) -> tuple[str, str]:
    largest = float(np.abs(reference[np.isfinite(reference)]).max(initial=0.0))
    half: Precision = PRECISIONS["float16"]
    counted = f"{layer.n_not_finite[1]:,} numbers are NaN or infinite"
    if largest > half.largest:
        return "overflow", f"{counted}: float16 ends at 65,504, the reference reaches {largest:,.0f}"
    return "not_finite", f"{counted}, the largest of the reference is {largest:.4g}"


def _geometry(a: np.ndarray, b: np.ndarray, ids: Shaped[np.ndarray, " points"]) -> Geometry | None:
    """Return how alike the spaces are, from rows that are finite on both sides; None without a graph."""
    finite = np.flatnonzero(np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1))
    finite = finite[:: -(-len(finite) // _GEOMETRY_ROWS) or 1]
    a, b, names = a[finite], b[finite], ids[finite]
    splits = halves_of(map(str, names.tolist()))
    halves = [half for in_second in splits for half in (~in_second, in_second)]
    if min(int(half.sum()) for half in halves) < FEWEST_IN_HALF:
        return None
    try:
        whole, parts = _likeness(a, b), [_likeness(a[half], b[half]) for half in halves]
    except DataError:
        return None  # constant, zero or too few rows
    reach = interval_reach(np.array(parts).T)
    return Geometry(whole[0], float(reach[0]), whole[1], float(reach[1]))


def _likeness(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    n_eigenpairs = min(_N_EIGENPAIRS, len(a) // 3)
    bases = [spectral_space(rows, n_eigenpairs=n_eigenpairs).basis.eigenvectors for rows in (a, b)]
    score = float(overlap(full_map(*bases)))
    return score, compare_linear(prepare_linear(a), prepare_linear(b))
