"""The parts of the page that show what lies beside the scores: functional maps, transfers, embeddings."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import xarray as xr

from lfm_tasks.report.encoding import Rows, pack_bytes, pack_matrix, pack_matrix_if_any

SIDES = ("source", "target")
# The page holds whole maps up to this many entries in all, else only their low corner.
_MAX_ENTRIES = 1_000_000
_CORNER = 20
# Pairs that the page holds; where the atlas has more, the page counts them.
MAX_PAIRS = 2_000
_N_WORST = 5


def map_facts(group: xr.Dataset, rows: Rows, first: Collection[frozenset[str]] = ()) -> dict[str, Any] | None:
    """Return the kept maps of one dataset as the page draws them; None if there are none between its spaces.

    ``first``: pairs of models whose maps are on the page even where not all are.
    """
    kept, pairs = rows.pairs_of(group)
    n_pairs = len(kept)
    if n_pairs > MAX_PAIRS:
        is_later = [frozenset((rows.models[s], rows.models[t])) not in first for s, t in pairs.tolist()]
        on_page = np.sort(np.argsort(is_later, kind="stable")[:MAX_PAIRS])
        kept, pairs = kept[on_page], pairs[on_page]
    if not n_pairs:
        return None
    maps = np.asarray(group["functional_map"].values[kept], dtype=np.float32)
    low = maps if maps.size <= _MAX_ENTRIES else maps[:, :_CORNER, :_CORNER]
    squares = np.nan_to_num(maps.astype(np.float64)) ** 2
    energy = squares.sum(axis=(1, 2))
    on_diagonal = np.trace(squares, axis1=1, axis2=2) / np.where(energy > 0, energy, 1)
    return {
        "pairs": pairs.tolist(),
        "n_pairs": n_pairs,
        "turns": is_turned(group),
        "size": list(maps.shape[1:]),
        "drawn": list(low.shape[1:]),
        "maps": pack_bytes(low),
        "on_diagonal": on_diagonal.round(3).tolist(),
        "distortion": _distortion(group, kept),
    }


def _distortion(group: xr.Dataset, kept: np.ndarray) -> dict[str, Any]:
    """Return distortions by class, and the points that differ most, for the maps in ``kept``."""
    labels = point_labels(group)
    names = class_names(labels)
    of_class = np.array([[label == name for label in labels] for name in names], dtype=float).reshape(-1, len(labels))
    facts: dict[str, Any] = {"labels": names, "n_points": of_class.sum(axis=1).astype(int).tolist()}
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
        facts[side] = {
            "mean": pack_matrix(overall[:, None]),
            "by_class": pack_matrix(means) if names else None,
            "worst": [
                [worst_points.setdefault(ids[point], len(worst_points)) for point in points if has[pair, point]]
                for pair, points in enumerate(worst)
            ],
            "worst_values": pack_matrix(np.take_along_axis(values, worst, axis=1)),
        }
    label_of: Mapping[str, str] = dict(zip(ids, labels, strict=True))
    return facts | {"points": list(worst_points), "point_labels": [label_of[point] for point in worst_points]}


def is_turned(group: xr.Dataset) -> bool:
    """Return whether the transpose of a map is the map back, so that the atlas keeps one direction of a pair."""
    return bool(group.attrs.get("map_back") == "transpose")


def class_names(labels: list[str]) -> list[str]:
    """Return the classes among labels, numbers in the order of numbers."""
    return sorted(set(labels) - {""}, key=lambda name: (not name.isdecimal(), len(name) * name.isdecimal(), name))


def point_labels(group: xr.Dataset) -> list[str]:
    """Return the label of every point of a group; "" where there is none."""
    if "label" not in group.variables:
        return [""] * group.sizes["point"]
    return [str(label) for label in group["label"].values]


def preview_facts(group: xr.Dataset, rows: Rows, maps: xr.Dataset | None) -> dict[str, Any] | None:
    """Return the previews of points, for the pairs of a dataset between spaces of the page; None without any."""
    kept, pairs = rows.pairs_of(group)
    if not len(kept):
        return None
    points = [str(point) for point in group["point"].values]
    labels: dict[str, str] = {}
    if maps is not None:
        labels = dict(zip((str(point) for point in maps["point"].values), point_labels(maps), strict=True))
    return {
        "kind": str(group.attrs["kind"]),
        "points": points,
        "labels": [labels.get(point, "") for point in points],
        "previews": [str(text) for text in group["preview"].values],
        "pairs": pairs.tolist(),
        "worst": group["worst"].values[kept].tolist(),
        "neighbors": group["neighbors"].values[kept].tolist(),
    }


CANDIDATE_COLUMNS = {
    "held_out": "Held-out anchors (MRR)",
    "accuracy": "Accuracy",
    "mrr": "MRR",
    "stitched_accuracy": "Stitched accuracy",
    "round_trip": "Round trip",
}
PAIR_COLUMNS = {"own_accuracy": "Own accuracy", "all_pairs_accuracy": "With all pairs known"}


def transfer_tables(groups: Mapping[str, xr.Dataset]) -> list[dict[str, Any]]:
    """Return the tables of transfers, one for each dataset."""
    return [
        {
            "dataset": path.partition("/")[2],
            "columns": {name: word for name, word in CANDIDATE_COLUMNS.items() if name in group},
            "pairs": [_transfer_row(group, pair) for pair in range(group.sizes["pair"])],
        }
        for path, group in sorted(groups.items())
        if path.startswith("transfers/") and group.sizes["pair"]
    ]


def _transfer_row(group: xr.Dataset, pair: int) -> dict[str, Any]:
    at = group.isel(pair=pair)
    chosen = _text(at, "chosen")
    candidates = [
        {"name": str(name), "is_chosen": str(name) == chosen}
        | {column: _number(at, column, place) for column in CANDIDATE_COLUMNS}
        for place, name in enumerate(group["candidate"].values)
    ]
    tried = [
        row for row in candidates if row["is_chosen"] or any(row[column] is not None for column in CANDIDATE_COLUMNS)
    ]
    n_anchors = _number(at, "n_anchors")
    return {
        "source": _text(at, "source"),
        "target": _text(at, "target"),
        "comparison": _text(at, "comparison"),
        "message": _text(at, "message"),
        "n_anchors": None if n_anchors is None else int(n_anchors),
        "candidates": tried,
    } | {column: _number(at, column) for column in PAIR_COLUMNS}


def _text(at: xr.Dataset, name: str) -> str:
    return str(at[name].values) if name in at.variables else ""


def _number(at: xr.Dataset, column: str, candidate: int | None = None) -> float | None:
    if column not in at.variables:
        return None
    value = float(at[column].values if candidate is None else at[column].values[candidate])
    return value if np.isfinite(value) else None


# Distortions, points times pairs, that the page holds; where the atlas has more, the page counts the pairs.
MAX_DISTORTIONS = 1_000_000


def embedding_facts(group: xr.Dataset, rows: Rows, maps: xr.Dataset | None) -> dict[str, Any] | None:
    """Return the embeddings of one dataset as the page draws them: t-SNE by space, and the accuracies of probes."""
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
        "x": pack_matrix(drawn[..., 0], 2),
        "y": pack_matrix(drawn[..., 1], 2),
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
    return pack_matrix_if_any(
        np.asarray(values.reindex(source=rows.names, target=rows.names).values, dtype=np.float64), 4
    )


def _on_points(group: xr.Dataset, rows: Rows, maps: xr.Dataset, on_page: set[int]) -> dict[str, Any] | None:
    """Return distortions on the embedded points, for kept maps between two embedded spaces."""
    place_of = {str(point): place for place, point in enumerate(maps["point"].values)}
    points = np.array([place_of.get(str(point), -1) for point in group["point"].values])
    kept, pairs = rows.pairs_of(maps)
    both = [pair for pair, ends in enumerate(pairs.tolist()) if set(ends) <= on_page]
    n_pairs, both = len(both), both[: MAX_DISTORTIONS // (2 * max(len(points), 1))]
    if not n_pairs or (points < 0).all():
        return None
    facts: dict[str, Any] = {"pairs": pairs[both].tolist(), "n_pairs": n_pairs, "turns": is_turned(maps)}
    for side in SIDES:
        values = maps[f"{side}_distortion"].values[kept[both]][:, points].astype(np.float64)
        values[:, points < 0] = np.nan
        # −1 stands for a point without a value: distortions are never below 0.
        facts[side] = pack_bytes(np.where(np.isfinite(values), values, -np.nanmax(values, initial=0.0) / 127))
    return facts
