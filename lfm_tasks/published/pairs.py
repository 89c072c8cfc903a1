"""All that an atlas says of a pair, with the reasons where it says nothing."""

import numpy as np
import xarray as xr

from lfm_tasks.published.names import Names
from lfm_tasks.reasons import REASONS

_OTHERS = {"ok": "", "not_computed": "no run has computed it"}


def pair(scores: xr.Dataset, names: Names, source: str | list[str], target: str | list[str]) -> xr.Dataset:
    """Return the numbers of spaces (a name: without its dim) by measure; status and reason are text."""
    chosen = scores.sel(dataset=names.dataset, source=source, target=target)
    # Facts of single spaces have no target, and facts of the whole no source.
    of_pairs = [name for name, values in scores.data_vars.items() if {"source", "target"} <= set(values.dims)]
    told = chosen[of_pairs].load()
    statuses = np.array(chosen["status"].attrs["flag_meanings"].split(), dtype=object)
    status = statuses[told["status"].values.astype(int)]
    texts = _OTHERS | REASONS
    reason = np.vectorize(lambda name: texts.get(name, ""), otypes=[object])(status)
    dims = told["status"].dims
    return told.assign(status=(dims, status), reason=(dims, reason))
