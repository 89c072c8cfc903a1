"""Rows: the spaces of a dataset in the order of the page, and their numbers."""

from dataclasses import dataclass

import numpy as np
import xarray as xr


@dataclass(frozen=True)
class Rows:
    """The spaces of one dataset in the order of the page: by model, then by depth."""

    dataset: str
    names: list[str]
    models: list[str]
    layers: list[str]

    @property
    def groups(self) -> list[list[int]]:
        """The row numbers of each model."""
        found: dict[str, list[int]] = {}
        for row, model in enumerate(self.models):
            found.setdefault(model, []).append(row)
        return list(found.values())

    def pairs_of(self, group: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
        """Return where in a group of pairs both spaces are rows of the page, and these rows (pair, 2)."""
        row_of = {name: row for row, name in enumerate(self.names)}
        ends = [
            (row_of.get(str(source), -1), row_of.get(str(target), -1))
            for source, target in zip(group["source"].values, group["target"].values, strict=True)
        ]
        rows = np.array(ends, dtype=int).reshape(-1, 2)
        kept = np.flatnonzero((rows >= 0).all(axis=1))
        return kept, rows[kept]


def dataset_rows(atlas: xr.Dataset, dataset: str) -> Rows:
    """Return the spaces that the dataset has."""
    present = np.flatnonzero(atlas["n_points"].sel(dataset=dataset).values > 0)
    models = [str(name) for name in atlas["source_model"].values]
    depths = atlas["source_depth"].values
    order = sorted(present, key=lambda row: (models[row], float(depths[row])))
    names = [str(atlas["source"].values[row]) for row in order]
    layers = [str(atlas["source_layer"].values[row]) for row in order]
    return Rows(dataset, names, [models[row] for row in order], layers)


def cells(atlas: xr.Dataset, rows: Rows, statistic: str, measure: str | None = None) -> np.ndarray:
    """Return (source, target) values of one statistic in the order of ``rows``; NaN where the atlas has no such."""
    if statistic not in atlas:
        return np.full((len(rows.names), len(rows.names)), np.nan)
    place = {"dataset": rows.dataset, "source": rows.names, "target": rows.names}
    chosen = atlas[statistic].sel(place | ({} if measure is None else {"measure": measure}))
    return np.asarray(chosen.values, dtype=np.float64)


def calibrated_ends(atlas: xr.Dataset, rows: Rows, measure: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the intervals on the scale of the calibrated values; the lower end of a distance is its better one."""
    chance = cells(atlas, rows, "null_mean", measure)
    is_distance = measure in atlas.attrs["distances"]
    room = (0.0 if is_distance else 1.0) - chance
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = ((cells(atlas, rows, end, measure) - chance) / room for end in ("ci_low", "ci_high"))
    return (high, low) if is_distance else (low, high)
