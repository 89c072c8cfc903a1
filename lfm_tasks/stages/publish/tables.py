"""The tables of an atlas: edges, models, layers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from lfm_tasks.stages.publish.assemble import PUBLISHED, STATUS
from lfm_tasks.statistics.model_pairs import (
    best_match,
    best_match_p_values,
    depth_aligned,
    match_layers,
    mean_match,
    pairs_of_models,
)

# Rows at a time: of 2,000 spaces there are 4 million a measure, which as Python's numbers would take gigabytes.
_PART_ROWS = 1 << 18


def edges(atlas: xr.Dataset) -> Iterator[dict[str, Any]]:
    """Yield the long table in parts: rows of directed pairs of two different spaces, by dataset, measure and source."""
    names = np.array([str(name) for name in atlas["source"].values], dtype=object)
    step = max(1, _PART_ROWS // max(1, len(names)))
    n_parts = 0
    for d, dataset in enumerate(atlas["dataset"].values):
        present = atlas["n_points"].values[d] > 0
        for m, measure in enumerate(atlas["measure"].values):
            status = atlas["status"].values[d, m]
            wanted = (
                (status != STATUS.index("not_asked")) & present[:, None] & present & ~np.eye(len(names), dtype=bool)
            )
            for start in range(0, len(names), step):
                sources, targets = np.nonzero(wanted[start : start + step])
                if len(sources) or not n_parts:
                    n_parts += 1
                    yield _part(atlas, (d, m), (sources + start, targets), (str(dataset), str(measure)))


def _part(
    atlas: xr.Dataset, place: tuple[int, int], rows: tuple[np.ndarray, np.ndarray], said: tuple[str, str]
) -> dict[str, Any]:
    """Return the columns of some pairs, given as numbers of sources and targets."""
    names = np.array([str(name) for name in atlas["source"].values], dtype=object)
    sources, targets = names[rows[0]], names[rows[1]]
    dataset, measure = said
    columns: dict[str, Any] = {
        "source": sources,
        "target": targets,
        "dataset": np.full(len(sources), dataset, dtype=object),
        "measure": np.full(len(sources), measure, dtype=object),
    }
    columns |= {name: atlas[name].values[place][rows] for name in PUBLISHED}
    columns["status"] = np.array(STATUS, dtype=object)[atlas["status"].values[place][rows]]
    columns["n_common"] = atlas["n_common"].values[place[0]][rows]
    columns["overlap_share"] = atlas["overlap_share"].values[place[0]][rows]
    own = {
        name: (set(facts["sources"]), set(facts["targets"]))
        for name, facts in atlas.attrs["comparisons"].items()
        if facts["dataset"] == dataset and measure in facts["measures"]
    }
    columns["comparisons"] = [
        [name for name, (ours, theirs) in own.items() if source in ours and target in theirs]
        for source, target in zip(sources, targets, strict=True)
    ]
    return columns


MODEL_TEXTS = ("dataset", "measure", "source", "target", "target_model")


def model_rows(atlas: xr.Dataset) -> dict[str, np.ndarray]:
    """Return a long table: a row for each directed pair of two different models.

    ``score`` is summarized for similarities; for distances ``calibrated``, so that high is alike everywhere.
    """
    parts = []
    for own in _models(atlas):
        found = {name: np.full((len(own.models),) * 2, np.nan) for name in ("best_match", "depth_aligned", "mean")}
        for pairs in pairs_of_models(own.rows):
            place, values = (pairs.source, pairs.targets), pairs.of(own.values)
            found["best_match"][place] = best_match(values)
            depths = own.depths[pairs.source_rows], own.depths[pairs.target_rows]
            found["depth_aligned"][place] = depth_aligned(values, *depths)
            found["mean"][place] = mean_match(values)
        sources, targets = np.nonzero(~np.eye(len(own.models), dtype=bool))
        names = {"source": own.models[sources], "target": own.models[targets]}
        parts.append(names | {name: values[sources, targets] for name, values in found.items()} | own.said(sources))
    return _joined(parts, ("dataset", "measure", "source", "target", "best_match", "depth_aligned", "mean"))


def layer_rows(atlas: xr.Dataset) -> dict[str, np.ndarray]:
    """Return a long table: a row for each layer and other model whose counterpart of it is known."""
    parts = []
    for own in _models(atlas):
        target = np.full((len(own.values), len(own.models)), -1)
        margin, p_best = np.full(target.shape, np.nan), np.full(target.shape, np.nan)
        for pairs in pairs_of_models(own.rows):
            place, matching = np.ix_(pairs.source_rows, pairs.targets), match_layers(pairs.of(own.values))
            rows = np.take_along_axis(pairs.target_rows, np.maximum(matching.matched, 0), axis=1)
            target[place] = np.where(matching.matched < 0, -1, rows).T
            margin[place] = matching.margin.T
            p_best[place] = best_match_p_values(pairs.of(own.p_values)).T
            target[pairs.source_rows, pairs.source] = -1
        place = np.nonzero(target >= 0)
        names = {
            "source": own.names[place[0]],
            "target_model": own.models[place[1]],
            "target": own.names[target[place]],
        }
        parts.append(names | {"margin": margin[place], "p_best": p_best[place]} | own.said(place[0]))
    return _joined(parts, ("dataset", "measure", "source", "target_model", "target", "margin", "p_best"))


@dataclass(frozen=True)
class _Models:
    """The spaces of one dataset by one measure, by model and depth: their values, and which rows each model has."""

    dataset: str
    measure: str
    names: np.ndarray
    models: np.ndarray
    rows: list[np.ndarray]
    depths: np.ndarray
    values: np.ndarray
    p_values: np.ndarray

    def said(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return the columns that say where these rows are from."""
        return {name: np.full(len(rows), getattr(self, name), dtype=object) for name in ("dataset", "measure")}


def _models(atlas: xr.Dataset) -> Iterator[_Models]:
    of_space, names = (np.array([str(name) for name in atlas[of].values]) for of in ("source_model", "source"))
    depths = atlas["source_depth"].values
    for d, dataset in enumerate(atlas["dataset"].values):
        present = np.flatnonzero(atlas["n_points"].values[d] > 0)
        order = present[np.lexsort((depths[present], of_space[present]))]
        models, starts = np.unique(of_space[order], return_index=True)
        rows = np.split(np.arange(len(order)), starts[1:])
        for m, measure in enumerate(map(str, atlas["measure"].values)):
            told = "calibrated" if measure in atlas.attrs["distances"] else "score"
            values, p_values = (atlas[name].values[d, m][np.ix_(order, order)] for name in (told, "p_value"))
            own = names[order].astype(object), models.astype(object), rows, depths[order]
            yield _Models(str(dataset), measure, *own, values, p_values)


def _joined(parts: list[dict[str, np.ndarray]], names: tuple[str, ...]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts] or [np.empty(0, dtype=object)]) for name in names}
