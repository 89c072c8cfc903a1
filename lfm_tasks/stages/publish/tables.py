"""The tables of an atlas: edges, models, layers, and across where spaces of two datasets are compared."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool

from lfm_tasks.stages.publish.pair_entries import STATUS
from lfm_tasks.statistics.model_pairs import (
    best_match,
    best_match_p_values,
    depth_aligned,
    match_layers,
    mean_match,
    pairs_of_models,
)
from lfm_tasks.stores.atlas.files import Coded
from lfm_tasks.stores.atlas.schema import column_names

# Rows at a time: of 2,000 spaces there are 4 million a measure, which as Python's numbers would take gigabytes.
_PART_ROWS = 1 << 18


def edges(atlas: xr.Dataset) -> Iterator[dict[str, Any]]:
    """Yield the long table in parts: rows of directed pairs of two different spaces, by dataset, measure and source."""
    names = [str(name) for name in atlas["source"].values]
    step = max(1, _PART_ROWS // max(1, len(names)))
    n_parts = 0
    for d in range(atlas.sizes["dataset"]):
        present = atlas["n_points"].values[d] > 0
        for m in range(atlas.sizes["measure"]):
            status, sides = atlas["status"].values[d, m], _sides(atlas, (d, m), names)
            for start in range(0, len(names), step):
                of_sources = np.arange(start, min(start + step, len(names)))
                wanted = (status[of_sources] != STATUS.index("not_asked")) & present[of_sources, None] & present
                wanted[np.arange(len(of_sources)), of_sources] = False
                sources, targets = np.nonzero(wanted)
                if len(sources) or not n_parts:
                    n_parts += 1
                    yield _part(atlas, (d, m), (sources + start, targets), names, sides)


def _part(
    atlas: xr.Dataset,
    place: tuple[int, int],
    rows: tuple[np.ndarray, np.ndarray],
    names: list[str],
    sides: Mapping[str, tuple[np.ndarray, np.ndarray]],
) -> dict[str, Any]:
    """Return the columns of some pairs of a dataset and a measure, given as indices of sources and targets."""
    index = dict(zip(("dataset", "measure", "source", "target"), (*place, *rows), strict=True))
    dataset, measure = ([str(atlas[dim].values[at])] for dim, at in zip(("dataset", "measure"), place, strict=True))
    none = np.zeros(len(rows[0]), dtype=np.intp)
    texts = {
        "source": Coded(names, rows[0]),
        "target": Coded(names, rows[1]),
        "dataset": Coded(dataset, none),
        "measure": Coded(measure, none),
        "status": Coded(STATUS, _cells(atlas["status"], index)),
        "comparisons": _comparisons(rows, sides),
    }
    return {name: texts[name] if name in texts else _cells(atlas[name], index) for name in column_names("edges")}


def _cells(array: xr.DataArray, index: Mapping[str, Any]) -> np.ndarray:
    """Return the value of an array for each pair of an index by dim."""
    cells: np.ndarray = array.values[tuple(index[str(dim)] for dim in array.dims)]
    return cells


def _sides(
    atlas: xr.Dataset, place: tuple[int, int], names: list[str]
) -> dict[str, tuple[Bool[np.ndarray, " spaces"], Bool[np.ndarray, " spaces"]]]:
    """Return which spaces are sources, and which are targets, of each comparison of a dataset by a measure."""
    dataset, measure = (str(atlas[dim].values[at]) for dim, at in zip(("dataset", "measure"), place, strict=True))
    return {
        name: (np.isin(names, facts["sources"]), np.isin(names, facts["targets"]))
        for name, facts in atlas.attrs["comparisons"].items()
        if facts["dataset"] == dataset and measure in facts["measures"]
    }


def _comparisons(rows: tuple[np.ndarray, np.ndarray], sides: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Coded:
    """Return the comparisons that ask for each pair."""
    codes, combinations = np.zeros(len(rows[0]), dtype=np.intp), list[list[str]]([[]])
    for name, (sources, targets) in sides.items():
        of_both, codes = np.unique(2 * codes + (sources[rows[0]] & targets[rows[1]]), return_inverse=True)
        combinations = [combinations[code // 2] + [name] * (code % 2) for code in of_both.tolist()]
    return Coded(combinations, codes)


def model_rows(atlas: xr.Dataset) -> dict[str, np.ndarray]:
    """Return a long table: a row for each directed pair of two different models.

    ``score`` is summarized for similarities; for distances ``calibrated``, so that high is alike everywhere.
    """
    parts = []
    for zoo in _models(atlas):
        columns = {name: np.full((len(zoo.models),) * 2, np.nan) for name in ("best_match", "depth_aligned", "mean")}
        for pairs in pairs_of_models(zoo.rows):
            place, values = (pairs.source, pairs.targets), pairs.of(zoo.values)
            columns["best_match"][place] = best_match(values)
            depths = zoo.depths[pairs.source_rows], zoo.depths[pairs.target_rows]
            columns["depth_aligned"][place] = depth_aligned(values, *depths)
            columns["mean"][place] = mean_match(values)
        sources, targets = np.nonzero(~np.eye(len(zoo.models), dtype=bool))
        names = {"source": zoo.models[sources], "target": zoo.models[targets]}
        parts.append(names | {name: values[sources, targets] for name, values in columns.items()} | zoo.labels(sources))
    return _joined(parts, column_names("models"))


def layer_rows(atlas: xr.Dataset) -> dict[str, np.ndarray]:
    """Return a long table: a row for each layer and other model whose counterpart of it is known."""
    parts = []
    for zoo in _models(atlas):
        target = np.full((len(zoo.values), len(zoo.models)), -1)
        margin, p_best = np.full(target.shape, np.nan), np.full(target.shape, np.nan)
        for pairs in pairs_of_models(zoo.rows):
            place, matching = np.ix_(pairs.source_rows, pairs.targets), match_layers(pairs.of(zoo.alike))
            rows = np.take_along_axis(pairs.target_rows, np.maximum(matching.matched, 0), axis=1)
            target[place] = np.where(matching.matched < 0, -1, rows).T
            margin[place] = matching.margin.T
            p_best[place] = best_match_p_values(pairs.of(zoo.p_values)).T
            target[pairs.source_rows, pairs.source] = -1
        place = np.nonzero(target >= 0)
        names = {
            "source": zoo.names[place[0]],
            "target_model": zoo.models[place[1]],
            "target": zoo.names[target[place]],
        }
        parts.append(names | {"margin": margin[place], "p_best": p_best[place]} | zoo.labels(place[0]))
    return _joined(parts, column_names("layers"))


def across_rows(groups: Mapping[str, xr.Dataset]) -> dict[str, np.ndarray]:
    """Return a long table: a row for each directed pair of spaces of two datasets, and measure."""
    parts = []
    for path, group in sorted(groups.items()):
        if not path.startswith("across/"):
            continue
        shape = tuple(group.sizes[dim] for dim in ("direction", "measure", "source", "target"))
        is_back, measure, first, second = (index.ravel() for index in np.indices(shape))
        ends = [group[side].values.astype(object)[at] for side, at in (("source", first), ("target", second))]
        datasets = [np.full(len(first), group.attrs[f"{side}_dataset"], dtype=object) for side in ("source", "target")]
        (source, target), (of_source, of_target) = (
            (np.where(is_back, two[1], two[0]), np.where(is_back, two[0], two[1])) for two in (ends, datasets)
        )
        columns = {
            "comparison": np.full(len(first), group.attrs["comparison"], dtype=object),
            "source": source,
            "source_dataset": of_source,
            "target": target,
            "target_dataset": of_target,
            "measure": group["measure"].values.astype(object)[measure],
            "map_residual": np.full(len(first), np.nan),
            "status": group["status"].values.astype(object)[first, second],
        }
        columns |= {name: group[name].values.ravel() for name in column_names("across") if name not in columns}
        if "map_residual" in group:
            columns["map_residual"] = group["map_residual"].values[is_back, first, second]
        parts.append(columns)
    return _joined(parts, column_names("across"))


@dataclass(frozen=True)
class _Models:
    """The spaces of one dataset by one measure, by model and depth: their values, and which rows each model has.

    ``alike``: scores, of distances with their sign changed; unlike calibrated values they need no chance level.
    """

    dataset: str
    measure: str
    names: np.ndarray
    models: np.ndarray
    rows: list[np.ndarray]
    depths: np.ndarray
    values: np.ndarray
    alike: np.ndarray
    p_values: np.ndarray

    def labels(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return the columns ``dataset`` and ``measure`` of so many rows."""
        return {name: np.full(len(rows), getattr(self, name), dtype=object) for name in ("dataset", "measure")}


def _models(atlas: xr.Dataset) -> Iterator[_Models]:
    of_space, names = (np.array([str(name) for name in atlas[of].values]) for of in ("source_model", "source"))
    for d, dataset in enumerate(atlas["dataset"].values):
        present, depths = np.flatnonzero(atlas["n_points"].values[d] > 0), atlas["depth"].values[d]
        order = present[np.lexsort((depths[present], of_space[present]))]
        models, starts = np.unique(of_space[order], return_index=True)
        rows = np.split(np.arange(len(order)), starts[1:])
        for m, measure in enumerate(map(str, atlas["measure"].values)):
            is_distance = measure in atlas.attrs["distances"]
            summarized = "calibrated" if is_distance else "score"
            values, score, p_values = (
                atlas[array].values[d, m][np.ix_(order, order)] for array in (summarized, "score", "p_value")
            )
            layers = names[order].astype(object), models.astype(object), rows, depths[order]
            alike = -score if is_distance else score
            yield _Models(str(dataset), measure, *layers, values, alike, p_values)


def _joined(parts: list[dict[str, np.ndarray]], names: tuple[str, ...]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts] or [np.empty(0, dtype=object)]) for name in names}
