"""Small atlases written out, as the checks see them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import xarray as xr

from lfm_tasks.audit.files import Published

Publish = Callable[..., Published]


@pytest.fixture(scope="session")
def publish() -> Publish:
    """Make an atlas of models of one layer each: their similarities, what the catalog says, and the rest as usual."""

    def make(
        similarities: np.ndarray,
        meta: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        names: Sequence[str] = (),
        key: str = "key",
        days: float = 0.0,
        content: Sequence[str] = (),
        n_points: int = 500,
        reliability: float = 0.95,
        failures: int = 0,
        settings: Mapping[str, Any] | None = None,
    ) -> Published:
        models = list(names) or [f"m{number}" for number in range(len(similarities))]
        spaces = np.array([f"{model}/layer" for model in models], dtype=object)
        cells = np.asarray(similarities, dtype=float)[None, None]
        dims = ("dataset", "measure", "source", "target")
        of_space = np.array([content or [f"digest of {name}" for name in models]], dtype=object)
        atlas = xr.Dataset(
            {
                "score": (dims, cells),
                "calibrated": (dims, cells),
                "ci_low": (dims, cells - 0.01),
                "ci_high": (dims, cells + 0.01),
                "split_half_reliability": (("dataset", "measure"), np.array([[reliability]])),
                "n_points": (("dataset", "source"), np.full((1, len(models)), n_points)),
                "content": (("dataset", "source"), of_space),
                "ids": (("dataset", "source"), np.full((1, len(models)), "ids", dtype=object)),
            },
            {
                "dataset": np.array(["probe"], dtype=object),
                "measure": np.array(["overlap"], dtype=object),
                "source": spaces,
                "target": spaces,
                "source_model": ("source", np.array(models, dtype=object)),
                "target_model": ("target", np.array(models, dtype=object)),
            },
            {"convention": "2", "distances": []},
        )
        summary = {
            "key": key,
            "models": [{"name": model, "meta": dict((meta or {}).get(model, {}))} for model in models],
            "counts": {"failures": failures, "directed_pairs_without_score": 0},
            "settings": {"n_eigenpairs": 50, "measures": ["overlap"]} | dict(settings or {}),
        }
        return Published(atlas, summary, days)

    return make


@pytest.fixture(scope="session")
def zoo() -> Callable[..., np.ndarray]:
    """Make similarities of unrelated models, .50 to .60, with those of some pairs written in."""

    def make(n_models: int = 8, pairs: Mapping[tuple[int, int], float] | None = None) -> np.ndarray:
        values = np.random.default_rng(0).uniform(0.5, 0.6, (n_models, n_models))
        values = (values + values.T) / 2
        np.fill_diagonal(values, 1)
        for (first, second), value in (pairs or {}).items():
            values[first, second] = values[second, first] = value
        return values

    return make
