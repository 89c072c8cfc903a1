"""Small published atlases, as the checks of an audit see them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import xarray as xr

from lfm_tasks.checks import PublishedAtlas


@pytest.fixture(scope="session")
def publish_atlas() -> Callable[..., PublishedAtlas]:
    """Make an atlas of models of one layer each, from their similarities and ``meta``."""

    def make(
        values: np.ndarray,
        meta: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        names: Sequence[str] = (),
        key: str = "key",
        days: float = 0.0,
        content: Sequence[str] = (),
        n_points: int = 500,
        q_value: float = 1e-4,
        reliability: float = 0.95,
        failures: int = 0,
        settings: Mapping[str, Any] | None = None,
    ) -> PublishedAtlas:
        models = list(names) or [f"m{index}" for index in range(len(values))]
        spaces = np.array([f"{model}/layer" for model in models], dtype=object)
        cells = np.asarray(values, dtype=float)[None, None]
        dims = ("dataset", "measure", "source", "target")
        of_space = np.array([content or [f"digest of {name}" for name in models]], dtype=object)
        atlas = xr.Dataset(
            {
                "score": (dims, cells),
                "calibrated": (dims, cells),
                "q_value": (dims, np.where(np.isfinite(cells), q_value, np.nan)),
                "ci_low": (dims, cells - 0.01),
                "ci_high": (dims, cells + 0.01),
                "split_half_reliability": (("dataset", "measure"), np.array([[reliability]])),
                "n_points": (("dataset", "source"), np.full((1, len(models)), n_points)),
                "depth": (("dataset", "source"), np.zeros((1, len(models)))),
                "content": (("dataset", "source"), of_space),
                "ids": (("dataset", "source"), np.full((1, len(models)), "ids", dtype=object)),
            },
            {
                "dataset": np.array(["probe"], dtype=object),
                "measure": np.array(["overlap"], dtype=object),
                "source": spaces,
                "target": spaces,
                "source_model": ("source", np.array(models, dtype=object)),
                "source_layer": ("source", np.full(len(models), "layer", dtype=object)),
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
        return PublishedAtlas(atlas, summary, days)

    return make


@pytest.fixture(scope="session")
def similarities() -> Callable[..., np.ndarray]:
    """Make similarities of unrelated models, .50 to .60, and of some pairs as given."""

    def make(n_models: int = 8, pairs: Mapping[tuple[int, int], float] | None = None) -> np.ndarray:
        values = np.random.default_rng(0).uniform(0.5, 0.6, (n_models, n_models))
        values = (values + values.T) / 2
        np.fill_diagonal(values, 1)
        for (first, second), value in (pairs or {}).items():
            values[first, second] = values[second, first] = value
        return values

    return make
