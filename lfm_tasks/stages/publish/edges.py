"""The atlas as a long table: a row for each directed pair, dataset and measure."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from lfm_tasks.stages.publish.assemble import PUBLISHED
from lfm_tasks.stages.publish.pair_entries import STATUS

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
