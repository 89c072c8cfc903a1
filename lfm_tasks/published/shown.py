"""What an atlas shows in a few tables: neighbours, a pair, the whole, what changed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from lfm_tasks.published import matrices
from lfm_tasks.published.atlas import Atlas
from lfm_tasks.stores.atlas.schema import AtlasError

_PAIR = ("score", "calibrated", "p_value", "q_value", "ci_low", "ci_high", "null_mean", "unrelated_rank")
_NEAREST = ("name", "value", "margin", "source", "target", "score", "ci_low", "ci_high", "q_value", "status")


@dataclass(frozen=True)
class Table:
    """Rows of plain values; ``name`` is for programs, ``title`` and which columns are ``shown`` (all) for people."""

    name: str
    title: str
    rows: list[dict[str, Any]]
    shown: tuple[str, ...] = ()


def nearest_tables(atlas: Atlas, name: str, n: int, measure: str | None, dataset: str | None) -> list[Table]:
    """Return the neighbours of a model or space."""
    rows = atlas.nearest(name, n=n, measure=measure, dataset=dataset)
    return [Table("nearest", f"nearest to {name} by {measure or atlas.default_measure}", rows, _NEAREST)]


def pair_tables(atlas: Atlas, source: str, target: str, dataset: str | None) -> list[Table]:
    """Return the numbers of a pair of spaces; of two models their summaries, and which layer is whose counterpart."""
    pair = atlas.pair(source, target, dataset=dataset)
    if "source" in pair["status"].dims and "target" in pair["status"].dims:
        return [Table("models", f"{source} -> {target}", _model_rows(atlas, source, target, pair))]
    rows = []
    stacked = pair.stack(cell=list(pair["status"].dims), create_index=False)
    for number in range(stacked.sizes["cell"]):
        one = stacked.isel(cell=number)
        names = {side: str(one[side].values) for side in ("measure", "source", "target")}
        rows.append(names | _numbers(one) | {"status": str(one["status"].values), "reason": str(one["reason"].values)})
    return [Table("pair", f"{source} -> {target}", rows)]


def summary_tables(atlas: Atlas) -> list[Table]:
    """Return the counts, the models, what failed, and the pairs without a score."""
    models = [
        {"model": entry["name"], **{key: value for key, value in entry["meta"].items() if np.isscalar(value)}}
        for entry in atlas.summary["models"]
    ]
    counts = [{"datasets": ", ".join(atlas.datasets), "measures": ", ".join(atlas.measures), **atlas.summary["counts"]}]
    tables = [Table("counts", str(atlas.summary["title"]), counts), Table("models", "models", models)]
    for name, title in (("failures", "spaces that failed"), ("pairs_without_score", "pairs without a score")):
        if atlas.summary[name]:
            tables.append(Table(name, title, list(atlas.summary[name])))
    return tables


def difference_tables(found: Mapping[str, Any]) -> list[Table]:
    """Return what `differences` found."""
    tables = []
    for kind in ("added", "removed", "changed", "unknown"):
        rows = found["spaces"][kind]
        if rows or kind != "unknown":
            title = "spaces of which an atlas does not tell the content" if kind == "unknown" else f"spaces {kind}"
            tables.append(Table(f"spaces_{kind}", f"{title}: {len(rows)}", rows))
    if found["settings"]:
        tables.append(Table("settings", "settings that differ, so scores may", list(found["settings"])))
    for kind in ("added", "removed"):
        if names := found["measures"][kind]:
            tables.append(Table(f"measures_{kind}", f"measures {kind}: {', '.join(names)}", []))
    tables.append(Table("pairs", "directed pairs that both have", [dict(found["pairs"])]))
    if found["largest_changes"]:
        tables.append(Table("largest_changes", "largest changes", list(found["largest_changes"])))
    return tables


def _model_rows(atlas: Atlas, source: str, target: str, pair: xr.Dataset) -> list[dict[str, Any]]:
    rows = []
    dataset = str(pair["dataset"].values)
    for measure in atlas.measures:
        row: dict[str, Any] = {"measure": measure}
        for reduce in matrices.REDUCTIONS:
            try:
                matrix = atlas.matrix(measure, reduce, dataset=dataset)  # type: ignore[arg-type]
            except AtlasError:  # a distance whose chance nobody sampled
                continue
            row |= {reduce: _known(matrix.sel(source=source, target=target))}
            row |= {f"{reduce}_back": _known(matrix.sel(source=target, target=source))}
        statuses = [str(status) for status in np.unique(pair["status"].sel(measure=measure).values.astype(str))]
        rows.append(row | {"status": ", ".join(statuses)})
    return rows


def _numbers(cell: xr.Dataset) -> dict[str, Any]:
    return {name: _known(cell[name]) for name in _PAIR} | {"n_common": int(cell["n_common"])}


def _known(value: xr.DataArray) -> float | None:
    return float(value) if np.isfinite(float(value)) else None
