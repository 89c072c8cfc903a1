"""Histograms of the numbers of a check, with its limit: the evidence that the page of an audit draws."""

from collections.abc import Sequence
from typing import Any

import numpy as np

_N_BARS = 20
# Findings that a histogram marks.
_MOST_MARKED = 200


def histogram(
    values: Sequence[float] | np.ndarray,
    of: str,
    *,
    limit: float,
    found: Sequence[float | None] = (),
    ends: tuple[float, float] = (0.0, 1.0),
) -> list[dict[str, Any]]:
    """Return a histogram as ``audit.json`` holds it, in a list; an empty list where no value is a number.

    Parameters
    ----------
    values
        The numbers that the limit is about. Those beyond ``ends`` count in the first or the last bar.
    of
        What the numbers are, in words.
    limit
        The limit of the check, in the unit of the values.
    found
        The values of the findings, which are marked.
    ends
        The lowest and the highest place of the axis.
    """
    numbers = np.asarray(values, dtype=np.float64).ravel()
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers):
        return []
    low, high = ends
    counts = np.histogram(np.clip(numbers, low, high), bins=_N_BARS, range=ends)[0]
    marked = {float(f"{min(max(value, low), high):.4g}") for value in found if value is not None}
    facts = {"of": of, "n": len(numbers), "median": _short(np.median(numbers)), "lowest": _short(numbers.min())}
    facts |= {"highest": _short(numbers.max()), "low": low, "high": high, "counts": counts.tolist(), "limit": limit}
    return [facts | {"found": sorted(marked)[:_MOST_MARKED]}]


def _short(value: float) -> float:
    return float(f"{value:.4g}")
