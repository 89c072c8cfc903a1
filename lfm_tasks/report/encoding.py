"""Numbers as the page holds them: the rows of a dataset, matrices of models, packed arrays."""

import base64
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from lfm_tasks.statistics.model_pairs import match_layers, pairs_of_models, symmetrized
from lfm_tasks.statistics.resampling import Margin, calibrated_halves, interval_reach, margin

# Rows that are calibrated together, so that of thousands of spaces few arrays of all pairs are in memory.
_ROWS_AT_ONCE = 1024


def model_similarity(values: np.ndarray, groups: list[list[int]]) -> np.ndarray:
    """Return (model, model): each layer's best match in the other model, averaged over layers and both directions.

    Equals `lfm_tasks.statistics.model_pairs.best_match` of every pair of models. ``groups``: the rows of each model,
    in order and without a gap.
    """
    return symmetrized(_means(np.fmax.reduceat(values, [rows[0] for rows in groups], axis=1), groups))


def _means(of_spaces: np.ndarray, groups: list[list[int]]) -> np.ndarray:
    """Return (model, column): the mean over the spaces of each model that have a value, NaN where none has."""
    starts = [rows[0] for rows in groups]
    has = np.isfinite(of_spaces)
    count = np.add.reduceat(has.astype(np.intp), starts, axis=0)
    total = np.add.reduceat(np.where(has, of_spaces, 0.0), starts, axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def matches_on_page(values: np.ndarray, halves: Iterable[np.ndarray], groups: list[list[int]]) -> np.ndarray:
    """Return `best_matches`, as −2 − layer where a half of the points has another one: not clearly ahead.

    ``halves``: the values on each half; where a pair has none, its matches stay as they are.
    """
    matches = best_matches(values, groups)
    found = matches.copy()
    for half in halves:
        on_half = best_matches(half, groups)
        found = np.where((on_half >= 0) & (matches >= 0) & (on_half != matches), -2 - matches, found)
    return found


def best_matches(values: np.ndarray, groups: list[list[int]]) -> np.ndarray:
    """Return (space, model): which layer of the model, counted from 0, matches the space; −1: none."""
    matches = np.full((len(values), len(groups)), -1)
    for pairs in pairs_of_models(groups):
        matches[np.ix_(pairs.source_rows, pairs.targets)] = match_layers(pairs.of(values)).matched.T
    return matches


@dataclass(frozen=True)
class Rows:
    """The spaces of one dataset in the order of the page: by model, then by depth."""

    dataset: str
    names: list[str]
    models: list[str]
    layers: list[str]

    @property
    def groups(self) -> list[list[int]]:
        """Return the rows of each model, counted from 0."""
        rows_of: dict[str, list[int]] = {}
        for row, model in enumerate(self.models):
            rows_of.setdefault(model, []).append(row)
        return list(rows_of.values())

    def pairs_of(self, group: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
        """Return which pairs of a group are between rows of the page, and their two rows (pair, 2)."""
        row_of = {name: row for row, name in enumerate(self.names)}
        ends = [
            (row_of.get(str(source), -1), row_of.get(str(target), -1))
            for source, target in zip(group["source"].values, group["target"].values, strict=True)
        ]
        rows = np.array(ends, dtype=int).reshape(-1, 2)
        kept = np.flatnonzero((rows >= 0).all(axis=1))
        return kept, rows[kept]


def dataset_rows(atlas: xr.Dataset, dataset: str) -> Rows:
    """Return the spaces of ``dataset`` in the order of the page."""
    present = np.flatnonzero(atlas["n_points"].sel(dataset=dataset).values > 0)
    models = [str(name) for name in atlas["source_model"].values]
    depths = atlas["depth"].sel(dataset=dataset).values
    order = sorted(present, key=lambda row: (models[row], float(depths[row])))
    names = [str(atlas["source"].values[row]) for row in order]
    layers = [str(atlas["source_layer"].values[row]) for row in order]
    return Rows(dataset, names, [models[row] for row in order], layers)


def statistic_matrix(atlas: xr.Dataset, rows: Rows, statistic: str, measure: str | None = None) -> np.ndarray:
    """Return one statistic as (source, target) in the order of ``rows``; NaN if the atlas does not have it."""
    if statistic not in atlas:
        return np.full((len(rows.names), len(rows.names)), np.nan)
    place = {"dataset": rows.dataset, "source": rows.names, "target": rows.names}
    chosen = atlas[statistic].sel(place | ({} if measure is None else {"measure": measure}))
    return np.asarray(chosen.values, dtype=np.float64)


def similarity_of_halves(
    atlas: xr.Dataset, rows: Rows, measure: str, statistic: str
) -> Float[np.ndarray, "models models halves"]:
    """Return `model_similarity` on each half of the points, with its own best matches; no halves where there are none.

    ``statistic``: ``score``, or ``calibrated`` by the chance level of all points.
    """
    if "half_scores" not in atlas:
        return np.empty((len(rows.groups), len(rows.groups), 0))
    is_known = np.isfinite(statistic_matrix(atlas, rows, "score", measure))
    is_distance = measure in atlas.attrs["distances"]
    chance = statistic_matrix(atlas, rows, "null_mean", measure) if statistic == "calibrated" else None
    by_half, is_partial = [], np.zeros(is_known.shape, dtype=bool)
    for half in half_matrices(atlas, rows, measure):
        if chance is not None:
            for start in range(0, len(half), _ROWS_AT_ONCE):
                part = slice(start, start + _ROWS_AT_ONCE)
                half[part] = calibrated_halves(half[part, :, None], chance[part], is_distance=is_distance)[..., 0]
        by_half.append(model_similarity(half, rows.groups))
        is_partial |= is_known & ~np.isfinite(half)
    found = np.stack(by_half, axis=-1)
    # A half of some of the layers only would be compared with the score of all: it is none, then.
    found[model_similarity(is_partial.astype(float), rows.groups) > 0] = np.nan
    return found


def half_matrices(atlas: xr.Dataset, rows: Rows, measure: str) -> Iterator[np.ndarray]:
    """Yield the scores on each half of the points as `statistic_matrix`; none where there are none.

    One after the other: of thousands of spaces each takes a gigabyte.
    """
    for half in range(atlas.sizes.get("half", 0)):
        yield statistic_matrix(atlas[["half_scores"]].isel(half=half), rows, "half_scores", measure)


def interval_ends(
    similarity: Float[np.ndarray, "models models"], halves: Float[np.ndarray, "models models halves"]
) -> tuple[Float[np.ndarray, "models models"], Float[np.ndarray, "models models"]]:
    """Return the ends of the 95 % intervals of `model_similarity`, at most 1; NaN without halves."""
    if not halves.shape[-1]:
        return np.full(similarity.shape, np.nan), np.full(similarity.shape, np.nan)
    reach = interval_reach(halves)
    return similarity - reach, np.maximum(np.minimum(similarity + reach, 1.0), similarity)


@dataclass(frozen=True)
class Lead:
    """The model that is nearest to another one, and by how much it is ahead of the second; None without a second."""

    nearest: int
    second: int | None
    margin: Margin | None

    @property
    def is_clear(self) -> bool | None:
        """Whether the interval of the margin is above 0; None where there is no second or no interval."""
        if self.margin is None or not np.isfinite(self.margin.low):
            return None
        return bool(self.margin.low > 0)


def leads(
    similarity: Float[np.ndarray, "models models"], halves: Float[np.ndarray, "models models halves"]
) -> Iterator[Lead | None]:
    """Yield the lead of the nearest of each model; None where it has no similarity to any."""
    for model, row in enumerate(similarity):
        others = np.where(np.arange(len(row)) == model, np.nan, row)
        if not np.isfinite(others).any():
            yield None
            continue
        # Rounded, so that equals stand in the order of their names and not of their last bits.
        falling = np.argsort(-np.nan_to_num(others, nan=-np.inf).round(6), kind="stable")
        first, second = int(falling[0]), int(falling[1])
        if not np.isfinite(others[second]):
            yield Lead(first, None, None)
            continue
        value = max(0.0, float(others[first] - others[second]))
        yield Lead(first, second, margin(value, halves[model, first] - halves[model, second]))


# int16; the smallest number stands for NaN.
_NAN_STEP = -(2**15)
_LARGEST = 2**15 - 1


def pack_matrix(values: np.ndarray, digits: int = 3) -> dict[str, Any]:
    """Return a matrix in steps of one unit: ``digits`` decimals, or fewer where the largest value needs more room.

    Rows of int16, the lower bytes of all before the higher ones; of a symmetric matrix the lower triangle.
    """
    finite = np.isfinite(values)
    largest = float(np.abs(values[finite]).max()) if finite.any() else 0.0
    unit = max(10.0**-digits, largest / _LARGEST)
    steps = np.where(finite, np.rint(np.where(finite, values, 0) / unit), _NAN_STEP).astype("<i2")
    is_symmetric = steps.shape[0] == steps.shape[1] and bool((steps == steps.T).all())
    kept = steps[np.tril_indices(len(steps))] if is_symmetric else steps.ravel()
    planes = kept.view(np.uint8).reshape(-1, 2).T
    return {"unit": unit, "columns": values.shape[1], "symmetric": is_symmetric, "steps": deflate(planes)}


def pack_matrix_if_any(values: np.ndarray, digits: int = 3) -> dict[str, Any] | None:
    """Return a packed matrix; None if no value of it is finite."""
    return pack_matrix(values, digits) if np.isfinite(values).any() else None


def pack_bytes(values: np.ndarray) -> dict[str, Any]:
    """Return an array in which each entry of the first dimension has 127 steps to its largest absolute value."""
    largest = np.nan_to_num(np.abs(values)).reshape(len(values), -1).max(axis=1, initial=0.0)
    units = np.where(largest > 0, largest / 127, 1.0)
    scaled = np.nan_to_num(values) / units.reshape(-1, *[1] * (values.ndim - 1))
    return {"units": [float(f"{unit:.4g}") for unit in units], "steps": deflate(np.rint(scaled).astype(np.int8))}


def deflate(array: np.ndarray) -> str:
    """Return the bytes of an array, compressed by zlib, as base64."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 6)).decode()
