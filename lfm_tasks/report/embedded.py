"""Embeddings: spaces as pictures in the plane, with the distortion of kept maps on their points."""

from typing import Any

import numpy as np
import xarray as xr

from lfm_tasks.report.kept import SIDES, class_names, is_turned, point_labels
from lfm_tasks.report.packing import packed, packed_bytes, packed_if_any
from lfm_tasks.report.rows import Rows

# The page holds the distortions of so many points of pairs; it says so where there are more.
MOST_DISTORTIONS = 1_000_000


def embedding_facts(group: xr.Dataset, rows: Rows, maps: xr.Dataset | None) -> dict[str, Any] | None:
    """Return what the page draws of the embeddings of one dataset: t-SNE by space, and the probes' accuracies."""
    row_of = {name: row for row, name in enumerate(rows.names)}
    spaces = [str(name) for name in group["space"].values]
    kept = [place for place, name in enumerate(spaces) if name in row_of]
    if not kept:
        return None
    drawn = np.asarray(group["tsne"].values[kept], dtype=np.float64)
    labels = point_labels(group)
    names = class_names(labels)
    on_page = [row_of[spaces[place]] for place in kept]
    return {
        "spaces": on_page,
        "points": [str(point) for point in group["point"].values],
        "labels": names,
        "label": [names.index(label) if label else -1 for label in labels],
        "x": packed(drawn[..., 0], 2),
        "y": packed(drawn[..., 1], 2),
        "probe": _probes(group, rows, kept),
        "no_probe": str(group.attrs.get("no_probe_because", "")),
        "after": _after_transfer(group, rows),
        "distortion": None if maps is None else _on_points(group, rows, maps, set(on_page)),
    }


def _probes(group: xr.Dataset, rows: Rows, kept: list[int]) -> list[float | None] | None:
    if "probe_accuracy" not in group:
        return None
    values = group["probe_accuracy"].values[kept]
    return [round(float(value), 4) if np.isfinite(value) else None for value in values]


def _after_transfer(group: xr.Dataset, rows: Rows) -> dict[str, Any] | None:
    """Return (source, target) accuracies of the target's probe on the source's points, in the page's rows."""
    if "probe_after_transfer" not in group:
        return None
    transfer = group["probe_after_transfer"]
    values = transfer.assign_coords({side: [str(name) for name in transfer[side].values] for side in SIDES})
    return packed_if_any(np.asarray(values.reindex(source=rows.names, target=rows.names).values, dtype=np.float64), 4)


def _on_points(group: xr.Dataset, rows: Rows, maps: xr.Dataset, on_page: set[int]) -> dict[str, Any] | None:
    """Return distortions on the embedded points, for kept maps between two embedded spaces."""
    place_of = {str(point): place for place, point in enumerate(maps["point"].values)}
    points = np.array([place_of.get(str(point), -1) for point in group["point"].values])
    kept, pairs = rows.pairs_of(maps)
    both = [pair for pair, ends in enumerate(pairs.tolist()) if set(ends) <= on_page]
    n_pairs, both = len(both), both[: MOST_DISTORTIONS // (2 * max(len(points), 1))]
    if not n_pairs or (points < 0).all():
        return None
    found: dict[str, Any] = {"pairs": pairs[both].tolist(), "n_pairs": n_pairs, "turns": is_turned(maps)}
    for side in SIDES:
        values = maps[f"{side}_distortion"].values[kept[both]][:, points].astype(np.float64)
        values[:, points < 0] = np.nan
        # −1 stands for a point without a value: distortions are never below 0.
        found[side] = packed_bytes(np.where(np.isfinite(values), values, -np.nanmax(values, initial=0.0) / 127))
    return found
