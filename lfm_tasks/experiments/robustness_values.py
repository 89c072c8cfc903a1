"""The numbers of moved spaces: curves of every measure, and how well distortions tell the moved class."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from lfm_tasks.figures.charts import Dot
from lfm_tasks.statistics.bootstrap import mean_interval
from lfm_tasks.statistics.ranking import area_under_curve

# The atlases on the paper's graph, and what their measures are called: by its number of neighbours, or its share.
AS_MANY, SAME_SHARE = "as_many", "same_share"
_GRAPHS = {AS_MANY: ", 299 neighbours", SAME_SHARE: ", 3 % neighbours"}


@dataclass(frozen=True)
class Moved:
    """A moved space: the class (or, where that is empty, the point) that was moved, how far, what a classifier says."""

    network: str
    label: str
    shift: float
    name: str = ""
    probe_accuracy: float = float("nan")
    is_separable: bool = True
    inside: Mapping[str, bool] = field(default_factory=dict)
    unit: str = ""

    @property
    def source(self) -> str:
        """What was drawn independently: a class or a point of a network."""
        return f"{self.network} {self.label or self.unit}"


Curve = Mapping[float, Dot]
Curves = Mapping[str, Curve]


def scored_values(atlases: Mapping[str, xr.Dataset], moved: Sequence[Moved]) -> Iterator[dict[str, Any]]:
    """Yield a row for each moved space and measure."""
    for stem, atlas in atlases.items():
        for measure in map(str, atlas["measure"].values):
            statistic = "calibrated" if measure in atlas.attrs["distances"] else "score"
            layers = {str(name).partition("/")[0]: str(name) for name in atlas["source"].values}
            cells = atlas[statistic].sel(measure=measure).isel(dataset=0)
            for one in moved:
                if one.shift:
                    value = float(cells.sel(source=layers[one.network], target=layers[one.name]))
                    shown = measure + _GRAPHS.get(stem, "")
                    yield {
                        "measure": shown, "network": one.network, "label": one.label, "source": one.source,
                        "shift": one.shift, "value": value,
                    }  # fmt: skip


def curves(rows: Iterable[Mapping[str, Any]]) -> Curves:
    """Return the mean and interval of every measure at every shift; measures with a missing value are left out."""
    found: dict[str, list[tuple[float, str, float]]] = {}
    for row in rows:
        found.setdefault(row["measure"], []).append((row["shift"], row["source"], row["value"]))
    whole = {name: points for name, points in found.items() if all(np.isfinite(value) for *_, value in points)}
    return {name: curve_of(points) for name, points in whole.items()}


def curve_of(points: Iterable[tuple[float, str, float]]) -> dict[float, Dot]:
    """Return the mean and interval of (shift, source, value) at every shift."""
    by_shift: dict[float, list[float]] = {}
    for shift, _, value in sorted(points):
        by_shift.setdefault(shift, []).append(value)
    return {shift: Dot(float(np.mean(values)), *mean_interval(np.array(values))) for shift, values in by_shift.items()}


def localised(maps: xr.Dataset, classes: Sequence[Moved]) -> list[dict[str, Any]]:
    """Return for each moved space how well the distortions of its map tell the moved class."""
    layer = str(maps["source"].values[0]).partition("/")[2]
    pairs = list(zip(maps["source"].values.tolist(), maps["target"].values.tolist(), strict=True))
    rows = []
    for one in classes:
        if not one.shift:
            continue
        ends = (f"{one.network}/{layer}", f"{one.name}/{layer}")
        is_forward = ends in pairs
        pair = maps.isel(pair=pairs.index(ends if is_forward else ends[::-1]))
        sides = ("source_distortion", "target_distortion") if is_forward else ("target_distortion", "source_distortion")
        inside = np.array([one.inside[str(name)] for name in maps["point"].values])
        original, other = (area_under_curve(pair[side].values.astype(float), inside) for side in sides)
        rows.append({"shift": one.shift, "source": one.source, "original": original, "moved": other})
    return rows
