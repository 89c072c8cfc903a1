"""Names the transformation between two layers: scaled, shifted, permuted, rotated, or an unrelated layer.

Each candidate explanation predicts the other side's rows from the reference's. It is fitted on one half of the rows and
judged on the other by the share of the squared difference that it explains, so that a flexible one wins nothing by
having many parameters. The simplest one that explains nearly all is named.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import scipy  # its parts are imported when they are first used
from jaxtyping import Float, Int

from lfm_tasks.errors import DataError
from lfm_tasks.spectral.transfer.alignment import fit_coordinates, transfer_coordinates

# The share of the squared difference that an explanation has to account for to be named.
_EXPLAINED = 0.98
# A layer whose update is so much more like another layer's than like its own (cosines) has the other one's weights.
_LEAST_COSINE, _LEAST_LEAD = 0.5, 0.3
_ROUNDS = 60
# int8 has 256 values, one for a whole layer.
_MOST_STEPS = 256
# Rounding moves a row by less than this share of its length, and the worst rows a few times as far as the typical one.
_SMALL, _MOST_UNEVEN = 0.05, 4.0
_LARGEST_HALF = 65504.0
# A factor this near to 1 is rounding, and not named beside what else happened.
_SAME_FACTOR = 1e-3


@dataclass(frozen=True)
class Transformation:
    """The transformation from the reference's rows to the candidate's: one of `KINDS`, words, the share it explains."""

    kind: str
    words: str
    explained: float


def name_transformation(
    reference: Float[np.ndarray, "points features"], candidate: Float[np.ndarray, "points other_features"]
) -> Transformation | None:
    """Return the simplest transformation that explains how finite rows differ; None if none explains nearly all.

    Examples
    --------
    >>> rows = np.random.default_rng(0).standard_normal((40, 6))
    >>> name_transformation(rows, 2.5 * rows).words
    'every number is 2.5 times as large'
    >>> name_transformation(rows, rows[:, [1, 0, 2, 3, 4, 5]]).words
    '2 of 6 units are in another order, all among units 0 to 1'
    """
    half = len(reference) // 2
    if half < 2:
        return None
    fit, judge = slice(0, None, 2), slice(1, None, 2)
    same_width = reference.shape[1] == candidate.shape[1]
    for kind, explain in KINDS.items():
        if not same_width and kind not in _ANY_WIDTH:
            continue
        for predicted, words in _explanations(explain, reference, candidate, fit):
            start = reference if same_width else np.zeros_like(candidate)
            explained = _explained(candidate - start, candidate - predicted, judge, is_moved=kind in _FIT_A_SHIFT)
            if explained >= _EXPLAINED:
                return Transformation(kind, words, explained)
    return None


def _explanations(
    explain: Callable[[np.ndarray, np.ndarray, slice], "Explanations"], a: np.ndarray, b: np.ndarray, fit: slice
) -> "Explanations":
    """Yield the predictions of an explanation; none where it cannot be fitted, as to rows that are all one point."""
    try:
        yield from explain(a, b, fit)
    except DataError:
        return


def _explained(whole: np.ndarray, left: np.ndarray, judge: slice, *, is_moved: bool) -> float:
    """Return the share of a squared difference that an explanation leaves nothing of.

    ``is_moved``: it fits a shift of all rows, so what it explains by that does not count.
    """
    apart = whole[judge] - whole[judge].mean(axis=0) if is_moved else whole[judge]
    total = float(np.square(apart).sum())
    return 1 - float(np.square(left[judge]).sum()) / total if total > 0 else 0.0


Explanations = Iterator[tuple[np.ndarray, str]]


def _scale(a: np.ndarray, b: np.ndarray, fit: slice) -> Explanations:
    factor = _quotient((a[fit] * b[fit]).sum(), np.square(a[fit]).sum())
    yield factor * a, f"every number is {factor:.6g} times as large"


def _translation(a: np.ndarray, b: np.ndarray, fit: slice) -> Explanations:
    shift = (b[fit] - a[fit]).mean(axis=0)
    yield a + shift, f"every row is moved by one vector of length {np.linalg.norm(shift):.4g}"


def _row_scale(a: np.ndarray, b: np.ndarray, fit: slice) -> Explanations:
    """Explain b_i − β = c_i (a_i − β): a normalization that divides each row by another number; β is its shift."""
    difference = b - a
    shift = np.zeros(a.shape[1])
    factors = np.zeros(len(a))
    for _ in range(_ROUNDS):
        centered = a - shift
        factors = (difference * centered).sum(axis=1) / np.maximum(np.square(centered).sum(axis=1), 1e-300)
        total = np.square(factors).sum()
        if total == 0:
            break
        shift = (factors[:, None] * (factors[:, None] * a - difference)).sum(axis=0) / total
    low, high = 1 + factors.min(), 1 + factors.max()
    # A shift far outside the rows turns any difference along one direction into factors of the rows.
    if low <= 0 or np.linalg.norm(shift) > np.median(np.linalg.norm(a, axis=1)):
        return
    words = f"each row has a factor of its own, {low:.6g} to {high:.6g}. Look at the epsilon of its normalization"
    yield a + factors[:, None] * (a - shift), words


def _unit_scale(a: np.ndarray, b: np.ndarray, fit: slice) -> Explanations:
    mean_a, mean_b = a[fit].mean(axis=0), b[fit].mean(axis=0)
    centered = a[fit] - mean_a
    factors = (centered * (b[fit] - mean_b)).sum(axis=0) / np.maximum(np.square(centered).sum(axis=0), 1e-300)
    changed = int((~np.isclose(factors, 1, rtol=1e-3)).sum())
    words = f"{changed} of {len(factors)} units have a factor of their own, {factors.min():.4g} to {factors.max():.4g}"
    yield (a - mean_a) * factors + mean_b, words


def _permutation(a: np.ndarray, b: np.ndarray, fit: slice) -> Explanations:
    order, signs = _matched_units(a[fit], b[fit])
    moved = a[:, order] * signs
    factor = _quotient((moved[fit] * b[fit]).sum(), np.square(moved[fit]).sum())
    scaled = "" if abs(factor - 1) < _SAME_FACTOR else f", and every number is {factor:.4g} times as large"
    yield factor * moved, f"{_order_in_words(order, signs)}{scaled}"


def _matched_units(a: np.ndarray, b: np.ndarray) -> tuple[Int[np.ndarray, " units"], Float[np.ndarray, " units"]]:
    """Return for each unit of b the unit of a that it is up to sign and scale, and its sign."""
    directions = [side / np.maximum(np.linalg.norm(side, axis=0), 1e-300) for side in (a, b)]
    cosines = directions[0].T @ directions[1]
    costs = -np.abs(cosines)
    # A unit that could be itself stays so.
    costs[np.diag_indices(len(costs))] -= 1e-9
    rows, columns = scipy.optimize.linear_sum_assignment(costs.T)
    order = np.empty(len(rows), dtype=np.int64)
    order[rows] = columns
    return order, np.where(cosines[order, np.arange(len(order))] < 0, -1.0, 1.0)


def _order_in_words(order: Int[np.ndarray, " units"], signs: Float[np.ndarray, " units"]) -> str:
    n_units, flipped = len(order), int((signs < 0).sum())
    moved = int((order != np.arange(n_units)).sum())
    turned = f"{flipped} of {n_units} units have the other sign"
    if not moved:
        return turned
    also = f", and {turned}" if flipped else ""
    for n_heads in range(2, n_units // 2 + 1):
        if n_units % n_heads:
            continue
        size = n_units // n_heads
        grid = np.arange(n_units).reshape(n_heads, size)
        if np.array_equal(order, grid.T.ravel()):
            return f"units are transposed: ({n_heads}, {size}) is read as ({size}, {n_heads}){also}"
        heads = order.reshape(n_heads, size)
        if size > 1 and np.array_equal(heads, grid[heads[:, 0] // size]) and size == _longest_block(order):
            return f"{n_heads} heads of {size} units are in another order{also}"
    places = np.flatnonzero(order != np.arange(n_units))
    span = f", all among units {places[0]} to {places[-1]}" if places[-1] - places[0] < n_units - 1 else ""
    return f"{moved} of {n_units} units are in another order{span}{also}"


def _longest_block(order: Int[np.ndarray, " units"]) -> int:
    """Return the largest size of blocks that move as a whole: the greatest common divisor of where runs break."""
    breaks = np.flatnonzero(np.diff(order) != 1) + 1
    return int(np.gcd.reduce([*breaks.tolist(), len(order)]))


def _rotation(a: np.ndarray, b: np.ndarray, fit: slice) -> Explanations:
    alignment = fit_coordinates(a[fit], b[fit], method="orthogonal")
    factor = np.linalg.norm(alignment.source_matrix, 2)
    also = "" if abs(factor - 1) < _SAME_FACTOR else f" and scaled by {factor:.4g}"
    yield transfer_coordinates(alignment, a), f"the rows are rotated{also}"


def _linear(a: np.ndarray, b: np.ndarray, fit: slice) -> Explanations:
    if len(a[fit]) < 2 * a.shape[1]:
        return  # as many parameters as numbers explain anything
    alignment = fit_coordinates(a[fit], b[fit], method="affine")
    yield transfer_coordinates(alignment, a), "the rows went through a linear map that is no rotation"


def _quotient(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else 0.0


# From the simplest on; a further kind is a row here.
KINDS: dict[str, Callable[[np.ndarray, np.ndarray, slice], Explanations]] = {
    "scale": _scale,
    "translation": _translation,
    "permutation": _permutation,
    "row_scale": _row_scale,
    "unit_scale": _unit_scale,
    "rotation": _rotation,
    "linear": _linear,
}
_ANY_WIDTH = {"rotation", "linear"}
_FIT_A_SHIFT = {"unit_scale", "rotation", "linear"}
# After these, neighbors and angles are the same: other numbers, same space.
SAME_SPACE = ("scale", "translation", "permutation", "rotation")


def layer_that_it_is(
    name: str,
    candidate: Float[np.ndarray, "points features"],
    references: Mapping[str, Float[np.ndarray, "points _"]],
    tolerance: float,
) -> str | None:
    """Return the other layer of the reference whose numbers the candidate's layer ``name`` has; None if none."""
    for other, rows in references.items():
        if other == name or rows.shape != candidate.shape:
            continue
        if np.abs(rows - candidate).max() <= tolerance * np.abs(rows).max():
            return other
    return None


def clipped_at(
    reference: Float[np.ndarray, "points features"], candidate: Float[np.ndarray, "points features"], tolerance: float
) -> str | None:
    """Return in words where the candidate's numbers end, if it is the reference but for that; None otherwise."""
    end, largest = float(np.abs(candidate).max()), float(np.abs(reference).max())
    if end >= largest or np.abs(np.clip(reference, -end, end) - candidate).max() > tolerance * end:
        return None
    also = ", the largest number of float16" if end == _LARGEST_HALF else ""
    return f"numbers end at {end:,.6g}{also}; the reference reaches {largest:,.6g}"


def quantized_to(
    reference: Float[np.ndarray, "points features"], candidate: Float[np.ndarray, "points features"]
) -> str | None:
    """Return in words how few values the candidate's numbers take, as int8 has them; None if the reference does too."""
    values = np.unique(candidate)
    if len(values) > _MOST_STEPS or len(np.unique(reference)) < 2 * len(values):
        return None
    return f"its numbers take {len(values)} values, {np.diff(values).min():.3g} apart at least: integers with a scale"


def rounded_off(
    reference: Float[np.ndarray, "points features"], candidate: Float[np.ndarray, "points features"]
) -> str | None:
    """Return in words how large a difference is that is small in all rows and has no directions; None if it is not.

    Directions: a change of few of them, such as an adapter makes, has a lower effective rank than the rows themselves.
    """
    apart = candidate - reference
    shares = np.linalg.norm(apart, axis=1) / np.maximum(np.linalg.norm(reference, axis=1), 1e-300)
    typical = float(np.median(shares))
    is_even = np.quantile(shares, 0.95) < _MOST_UNEVEN * typical
    if typical > _SMALL or not is_even or _effective_rank(apart) < _effective_rank(reference) / 2:
        return None
    bits = max(1, round(-np.log2(typical)))
    words = f"all rows are off by about {typical:.2g} of their length, in no direction"
    return f"{words}: as from weights or sums in fewer bits, {bits} or so"


def _effective_rank(rows: Float[np.ndarray, "points features"]) -> float:
    """Return (Σσ²)²/Σσ⁴ of the centered rows: how many directions share their variance."""
    squares = np.square(np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False))
    return float(squares.sum() ** 2 / max(float(np.square(squares).sum()), 1e-300))


def exchanged_rows(
    reference: Float[np.ndarray, "points features"], candidate: Float[np.ndarray, "points features"], tolerance: float
) -> Int[np.ndarray, " moved"] | None:
    """Return for each row that differs the row of the reference that it is; None unless they changed places."""
    apart = np.abs(candidate - reference).max(axis=1)
    moved = np.flatnonzero(apart > tolerance * np.abs(reference).max(axis=1))
    among = reference[moved]
    nearest = (np.square(among).sum(axis=1) - 2 * candidate[moved] @ among.T).argmin(axis=1)
    off = np.abs(candidate[moved] - among[nearest]).max(axis=1)
    is_exchange = (
        len(np.unique(nearest)) == len(moved) and (off <= tolerance * np.abs(among[nearest]).max(axis=1)).all()
    )
    return moved[nearest] if is_exchange else None


def layer_that_it_resembles(
    name: str,
    rows: Float[np.ndarray, "points features"],
    others: Mapping[str, Float[np.ndarray, "points _"]],
) -> tuple[str, float, float] | None:
    """Return the layer of the reference that does what the candidate's layer ``name`` does, by its output or update.

    Two neighboring layers take in nearly the same, so each with the other's weights gives nearly what the other gives,
    or adds to its input what that one adds. Returned with the cosine of the two, and that with the layer's own; None
    where the own one is as alike.

    Parameters
    ----------
    name
        The layer.
    rows
        What it gives, or adds to its input, on the candidate's side.
    others
        The same of every layer of the reference; those of another width take no part.
    """
    cosines = {other: _cosine(values, rows) for other, values in others.items() if values.shape == rows.shape}
    own = cosines.pop(name, 0.0)
    if not cosines:
        return None
    best = max(cosines, key=lambda other: cosines[other])
    if cosines[best] < _LEAST_COSINE or cosines[best] < own + _LEAST_LEAD:
        return None
    return best, cosines[best], own


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    return _quotient(float((a * b).sum()), float(np.linalg.norm(a) * np.linalg.norm(b)))
