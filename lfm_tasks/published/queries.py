"""Queries of an atlas: nearest models and spaces, matrices, pairs, and the names of models and spaces."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from lfm_tasks.catalog.names import describe, did_you_mean
from lfm_tasks.errors import REASONS
from lfm_tasks.statistics.model_pairs import best_match, depth_aligned, mean_match, pairs_of_models, symmetrized
from lfm_tasks.statistics.resampling import calibrated_halves, margin
from lfm_tasks.stores.atlas.schema import AtlasError

if TYPE_CHECKING:
    import xarray as xr


def require_one_of(name: str, known: Iterable[str], what: str) -> str:
    """Return ``name`` if it is among ``known``; raise `AtlasError` with the closest matches if it is not."""
    names = list(known)
    if name not in names:
        raise AtlasError(f"got {describe(name)}, expected a {what} of the atlas{did_you_mean(str(name), names)}")
    return name


@dataclass(frozen=True)
class Names:
    """The spaces of one dataset, ``model_of`` each in the order of models and depths; and the spaces that failed."""

    dataset: str
    model_of: Mapping[str, str]
    failures: Sequence[Mapping[str, Any]]

    @property
    def models(self) -> list[str]:
        """Return the models, each once."""
        return list(dict.fromkeys(self.model_of.values()))

    def is_model(self, name: str) -> bool:
        """Return whether ``name`` is a model that has spaces."""
        return name in self.model_of.values()

    def space(self, name: str) -> str:
        """Return ``name`` if it is a space; raise `AtlasError` if it is not."""
        if name in self.model_of:
            return name
        if self.is_model(name):
            layers = ", ".join(self.layers(name)[:12])
            raise AtlasError(f"got the model {name!r}, expected a space, which is one of its layers: {layers}")
        raise self._unknown(name, "a space")

    def layers(self, model: str) -> list[str]:
        """Return the spaces of a model, by depth."""
        return [space for space, of_model in self.model_of.items() if of_model == model]

    def spaces_of(self, name: str) -> str | list[str]:
        """Return the space ``name``, or the spaces of the model ``name``; raise `AtlasError` if it is neither."""
        if name in self.model_of:
            return name
        if self.is_model(name):
            return self.layers(name)
        raise self._unknown(name, "a model or a space")

    def _unknown(self, name: str, needed: str) -> AtlasError:
        for failure in self.failures:
            failed = f"{failure['model']}/{failure['layer']}" if failure["layer"] else failure["model"]
            if name == failed or (not failure["layer"] and str(name).startswith(f"{failed}/")):
                return AtlasError(f"got {name!r}, which failed: {failure['message']} [{failure['reason']}]")
        known = [*self.models, *self.model_of]
        for failure in self.failures:
            if "count" in failure and name not in known:
                others = f"one of the {failure['count']} that failed like {failure['model']}"
                found = f"got {describe(name)}, which is no space of the dataset {self.dataset}, or {others}"
                return AtlasError(f"{found}: {failure['message']} [{failure['reason']}]")
        hint = did_you_mean(str(name), known)
        return AtlasError(f"got {describe(name)}, expected {needed} of the dataset {self.dataset}{hint}")


Reduction = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
REDUCTIONS: Mapping[str, Reduction] = {
    "best_match": lambda values, source_depths, target_depths: best_match(values),
    "depth_aligned": depth_aligned,
    "mean": lambda values, source_depths, target_depths: mean_match(values),
}


def matrix(
    scores: "xr.Dataset", names: Names, measure: str, reduce: str | None, statistic: str | None = None
) -> "xr.DataArray":
    """Return a statistic of one measure as (source, target): of models, or of spaces if ``reduce`` is None."""
    import xarray as xr  # tables of ``show`` do without it

    spaces = list(names.model_of)
    chosen = scores.sel(dataset=names.dataset, measure=measure, source=spaces, target=spaces)
    name = statistic or default_statistic(chosen)
    if reduce is None:
        return chosen[name].load()
    cells = model_values(scores, names, measure, reduce, name)
    labels: dict[str, Any] = {"source": names.models, "target": names.models}
    attributes = {"dataset": names.dataset, "measure": measure, "statistic": name, "reduce": reduce}
    return xr.DataArray(cells, labels, ("source", "target"), reduce, attributes)


def model_values(
    scores: "xr.Dataset", names: Names, measure: str, reduce: str, statistic: str | None = None
) -> Float[np.ndarray, "models models"]:
    """Return a statistic of one measure, reduced to (source model, target model) in the order of ``names.models``."""
    spaces = list(names.model_of)
    chosen = scores.sel(dataset=names.dataset, measure=measure, source=spaces, target=spaces)
    name = statistic or default_statistic(chosen)
    refuse_distances(scores, measure, name)
    values, depths = chosen[name].values, chosen["depth"].values
    of_space = np.array(list(names.model_of.values()))
    rows = [np.flatnonzero(of_space == model) for model in names.models]
    cells = np.empty((len(rows), len(rows)))
    for pairs in pairs_of_models(rows):
        reduced = REDUCTIONS[reduce](pairs.of(values), depths[pairs.source_rows], depths[pairs.target_rows])
        cells[pairs.source, pairs.targets] = reduced
    return cells


def refuse_distances(scores: "xr.Dataset", measure: str, statistic: str) -> None:
    """Raise `AtlasError` if a higher value of this statistic means less alike: distances, unless calibrated."""
    if statistic != "calibrated" and measure in scores.attrs["distances"]:
        raise AtlasError(
            f"got the {statistic} of {measure}, a distance, where the higher value has to be the more alike. Use the "
            "calibrated value (it needs atlas.null.n_permutations above 0), or another measure"
        )


def default_statistic(chosen: "xr.Dataset") -> str:
    """Return ``calibrated``, or ``score`` where chance was not sampled."""
    return "calibrated" if bool(np.isfinite(chosen["calibrated"].values).any()) else "score"


_STATISTICS = ("score", "ci_low", "ci_high", "p_value", "q_value", "unrelated_rank")


def nearest_models(
    scores: "xr.Dataset", names: Names, model: str, measure: str, similarity: np.ndarray | None = None
) -> Iterator[dict[str, Any]]:
    """Yield a row for each other model, nearest first, with the pair of layers that is most alike.

    Parameters
    ----------
    scores
        The scores of an atlas.
    names
        The spaces of the dataset.
    model
        The model whose neighbors to find.
    measure
        The measure that decides.
    similarity
        Similarity of all models, (model, model), if the caller has it already; computed from ``scores`` if not.
    """
    if similarity is None:
        similarity = symmetrized(model_values(scores, names, measure, "best_match"))
    to_model = dict(zip(names.models, similarity[names.models.index(model)], strict=True))
    sources = names.layers(model)

    def halves_to(other: str) -> Float[np.ndarray, " halves"]:
        targets = names.layers(other)
        there = scores.sel(dataset=names.dataset, measure=measure, source=sources, target=targets)
        back = scores.sel(dataset=names.dataset, measure=measure, source=targets, target=sources)
        both = [np.moveaxis(_halves(cells, measure), -1, 0) for cells in (there, back)]
        return np.asarray((best_match(both[0]) + best_match(both[1])) / 2)

    for row in _ranked([other for other in names.models if other != model], to_model, halves_to):
        targets = names.layers(row["name"])
        block = scores.sel(dataset=names.dataset, measure=measure, source=sources, target=targets)
        values = _similarities(block, measure)
        best: dict[str, Any] = {}
        if np.isfinite(values).any():
            source, target = np.unravel_index(np.nanargmax(values), values.shape)
            best = {"source": sources[source], "target": targets[target]}
            best |= _statistics({name: block[name].values[source, target] for name in _STATISTICS})
        yield row | best


def nearest_spaces(scores: "xr.Dataset", names: Names, space: str, measure: str) -> Iterator[dict[str, Any]]:
    """Yield a row for each other space, nearest first."""
    spaces = [name for name in names.model_of if name != space]
    row = scores.sel(dataset=names.dataset, measure=measure, source=space, target=spaces)
    values = dict(zip(spaces, _similarities(row, measure), strict=True))
    statuses, columns = status_names(row), {name: row[name].values for name in _STATISTICS}
    halves = dict(zip(spaces, _halves(row, measure), strict=True))
    for ranked in _ranked(spaces, values, lambda other: halves[other]):
        place = spaces.index(ranked["name"])
        numbers = _statistics({name: column[place] for name, column in columns.items()})
        yield ranked | numbers | {"status": statuses[place]}


def _similarities(cells: "xr.Dataset", measure: str) -> np.ndarray:
    """Return the default statistic of ``cells``; raise `AtlasError` if a higher value means less alike."""
    statistic = default_statistic(cells)
    refuse_distances(cells, measure, statistic)
    values: np.ndarray = cells[statistic].values
    return values


def _halves(cells: "xr.Dataset", measure: str) -> Float[np.ndarray, "*cells halves"]:
    """Return the scores on each half of the points, on the scale of `_similarities`; no halves where there are none."""
    if "half_scores" not in cells:
        return np.empty((*cells["score"].shape, 0))
    halves = cells["half_scores"].values.astype(np.float64)
    # A half of some of the layers only would be compared with the score of all: it is none, then.
    is_partial = np.isfinite(cells["score"].values) & ~np.isfinite(halves).all(axis=-1)
    if is_partial.any() and cells["score"].ndim > 1:
        return np.full(halves.shape, np.nan)
    if default_statistic(cells) == "score":
        return halves
    return calibrated_halves(halves, cells["null_mean"].values, is_distance=measure in cells.attrs["distances"])


def _ranked(
    names: list[str], values: dict[str, float], halves_of: Callable[[str], Float[np.ndarray, " halves"]]
) -> Iterator[dict[str, Any]]:
    """Yield name and value of each name that has a value, the highest first, and the margin over the next one."""
    # Rounded, so that equals stand in the order of their names and not of their last bits.
    known = [name for name in names if np.isfinite(values[name])]
    known.sort(key=lambda name: (-round(float(values[name]), 6), name))
    # Those of each name are read once: it is behind one and ahead of the next.
    ahead = halves_of(known[0]) if len(known) > 1 else np.empty(0)
    for name, following in zip_longest(known, known[1:]):
        row: dict[str, Any] = {"name": name, "value": float(values[name])}
        if following is None:
            yield row | dict.fromkeys(("margin", "margin_low", "margin_high", "margin_p"))
            continue
        behind = halves_of(following)
        lead = margin(max(0.0, float(values[name] - values[following])), ahead - behind)
        ahead = behind
        ends = {"margin_low": lead.low, "margin_high": lead.high, "margin_p": lead.p_value}
        yield row | {"margin": lead.value} | {name: end if np.isfinite(end) else None for name, end in ends.items()}


def _statistics(cell: Mapping[str, float]) -> dict[str, float | None]:
    return {name: float(value) if np.isfinite(value) else None for name, value in cell.items()}


def status_names(cells: "xr.Dataset") -> np.ndarray:
    """Return the status of each of ``cells`` as text."""
    statuses = np.array(cells["status"].attrs["flag_meanings"].split(), dtype=object)
    return np.asarray(statuses[cells["status"].values.astype(int)])


def reason_of(status: str) -> str:
    """Return the meaning of a status in words; "" for ``ok``."""
    return {"ok": "", "not_computed": "no run has computed it", **REASONS}.get(status, "")


def pair(scores: "xr.Dataset", names: Names, source: str | list[str], target: str | list[str]) -> "xr.Dataset":
    """Return all arrays of a pair of spaces, or of lists of spaces, by measure; status and reason are text.

    A single name loses its dim, a list keeps it.
    """
    chosen = scores.sel(dataset=names.dataset, source=source, target=target)
    # Facts of single spaces have no target, and facts of the whole no source.
    of_pairs = [name for name, values in scores.data_vars.items() if {"source", "target"} <= set(values.dims)]
    loaded = chosen[of_pairs].load()
    status = status_names(loaded)
    reason = np.vectorize(reason_of, otypes=[object])(status)
    dims = loaded["status"].dims
    return loaded.assign(status=(dims, status), reason=(dims, reason))
