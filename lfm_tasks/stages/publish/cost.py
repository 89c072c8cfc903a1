"""The cost of publishing an atlas, by the coefficients of `lfm_tasks.runtime.load`."""

from lfm_tasks.runtime.load import Load


def atlas_load(n_spaces: int, n_models: int, n_measures: int, kept_bytes: int) -> Load:
    """Return the cost of putting the atlas together and drawing its page; in the process of the run itself."""
    cells = n_spaces**2 * n_measures
    work = {
        "atlas": 1.0,
        "atlas cells": float(cells),
        "atlas models": float(n_models**2),
        "atlas bytes": float(kept_bytes),
    }
    peak = 420 * cells + 24 * 8 * n_spaces**2 + 3 * kept_bytes
    written = 150_000 + 100 * cells + 8 * 8 * n_spaces**2 + kept_bytes
    return Load(1, {name: float(amount) for name, amount in work.items()}, peak, "the atlas", written)
