"""Kept maps: functional maps as pictures, and where the two spaces of each differ."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from lfm_tasks.report.packing import packed, packed_bytes
from lfm_tasks.report.rows import Rows

SIDES = ("source", "target")
# Maps are drawn whole while all of them together have so many entries, else their low corner.
_WHOLE_ENTRIES = 1_000_000
_CORNER = 20
# The page holds so many pairs; it says so where the atlas has more.
MOST_PAIRS = 2_000
_N_WORST = 5


def map_facts(group: xr.Dataset, rows: Rows) -> dict[str, Any] | None:
    """Return what the page draws of the kept maps of one dataset."""
    kept, pairs = rows.pairs_of(group)
    n_pairs, kept, pairs = len(kept), kept[:MOST_PAIRS], pairs[:MOST_PAIRS]
    if not n_pairs:
        return None
    maps = np.asarray(group["functional_map"].values[kept], dtype=np.float32)
    low = maps if maps.size <= _WHOLE_ENTRIES else maps[:, :_CORNER, :_CORNER]
    squares = np.nan_to_num(maps.astype(np.float64)) ** 2
    energy = squares.sum(axis=(1, 2))
    on_diagonal = np.trace(squares, axis1=1, axis2=2) / np.where(energy > 0, energy, 1)
    return {
        "pairs": pairs.tolist(),
        "n_pairs": n_pairs,
        "turns": is_turned(group),
        "size": list(maps.shape[1:]),
        "drawn": list(low.shape[1:]),
        "maps": packed_bytes(low),
        "on_diagonal": on_diagonal.round(3).tolist(),
        "distortion": _distortion(group, kept),
    }


def _distortion(group: xr.Dataset, kept: np.ndarray) -> dict[str, Any]:
    """Return distortions by class, and the points that differ most, for the maps in ``kept``."""
    labels = point_labels(group)
    names = class_names(labels)
    of_class = np.array([[label == name for label in labels] for name in names], dtype=float).reshape(-1, len(labels))
    found: dict[str, Any] = {"labels": names, "n_points": of_class.sum(axis=1).astype(int).tolist()}
    worst_points: dict[str, int] = {}
    ids = [str(point) for point in group["point"].values]
    for side in SIDES:
        values = np.asarray(group[f"{side}_distortion"].values[kept], dtype=np.float64)
        has, known = np.isfinite(values), np.nan_to_num(values)
        counted = has @ of_class.T
        sums = known @ of_class.T
        means = np.where(counted > 0, sums / np.where(counted > 0, counted, 1), np.nan)
        worst = np.argsort(-np.where(has, values, -np.inf).round(6), axis=1, kind="stable")[:, :_N_WORST]
        overall = known.sum(axis=1) / np.maximum(has.sum(axis=1), 1)
        found[side] = {
            "mean": packed(overall[:, None]),
            "by_class": packed(means) if names else None,
            "worst": [
                [worst_points.setdefault(ids[point], len(worst_points)) for point in points if has[pair, point]]
                for pair, points in enumerate(worst)
            ],
            "worst_values": packed(np.take_along_axis(values, worst, axis=1)),
        }
    label_of: Mapping[str, str] = dict(zip(ids, labels, strict=True))
    return found | {"points": list(worst_points), "point_labels": [label_of[point] for point in worst_points]}


def is_turned(group: xr.Dataset) -> bool:
    """Return whether a map read the other way round is the map back, so that a pair is kept in one direction."""
    return bool(group.attrs.get("map_back") == "transpose")


def class_names(labels: list[str]) -> list[str]:
    """Return the classes among labels, numbers in the order of numbers."""
    return sorted(set(labels) - {""}, key=lambda name: (not name.isdecimal(), len(name) * name.isdecimal(), name))


def point_labels(group: xr.Dataset) -> list[str]:
    """Return the label of every point of a group; "" where there is none."""
    if "label" not in group.variables:
        return [""] * group.sizes["point"]
    return [str(label) for label in group["label"].values]
