"""The atlas as a long table: a row for each directed pair, dataset and measure."""

from typing import Any

import numpy as np
import xarray as xr

from lfm_tasks.stages.atlas import PUBLISHED, STATUS


def edges(atlas: xr.Dataset) -> dict[str, Any]:
    """Return the long table: a row for each directed pair of two different spaces, dataset and measure."""
    columns: dict[str, list[Any]] = {name: [] for name in ("source", "target", "dataset", "measure", *PUBLISHED)}
    columns |= {"status": [], "n_common": [], "overlap_share": [], "comparisons": []}
    chosen = atlas.attrs["comparisons"]
    sides = {name: (set(facts["sources"]), set(facts["targets"])) for name, facts in chosen.items()}
    names = [str(name) for name in atlas["source"].values]
    for d, dataset in enumerate(atlas["dataset"].values):
        present = atlas["n_points"].values[d] > 0
        for m, measure in enumerate(atlas["measure"].values):
            own = [
                name
                for name, facts in chosen.items()
                if facts["dataset"] == str(dataset) and str(measure) in facts["measures"]
            ]
            asked = atlas["status"].values[d, m] != STATUS.index("not_asked")
            for s, t in zip(*np.nonzero(asked & present[:, None] & present), strict=True):
                if s == t:
                    continue
                for column, value in (
                    ("source", names[s]), ("target", names[t]), ("dataset", str(dataset)), ("measure", str(measure)),
                    ("status", STATUS[int(atlas["status"].values[d, m, s, t])]),
                    ("n_common", int(atlas["n_common"].values[d, s, t])),
                ):  # fmt: skip
                    columns[column].append(value)
                share = float(atlas["overlap_share"].values[d, s, t])
                columns["overlap_share"].append(None if np.isnan(share) else share)
                columns["comparisons"].append([n for n in own if names[s] in sides[n][0] and names[t] in sides[n][1]])
                for name in PUBLISHED:
                    value = float(atlas[name].values[d, m, s, t])
                    columns[name].append(None if np.isnan(value) else value)
    return columns
