"""The canary: which rows moved since the baseline, how far, and what cannot be told."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr
from pydantic import ValidationError

from lfm_tasks.audit import canary as module
from lfm_tasks.audit.canary import evaluate_canary_of
from lfm_tasks.catalog.sections import Canary, CatalogText
from lfm_tasks.checks import Measurement, PublishedAtlas, Skipped, Unjudged

ROWS = np.random.default_rng(0).standard_normal((12, 5))
IDS = np.array([f"c{number:02}" for number in range(12)])
SPACES = ("provider/out", "other/out")


def atlas(contents: tuple[str, ...], version: str = "1") -> PublishedAtlas:
    dims = ("dataset", "source")
    scores = xr.Dataset(
        {"content": (dims, np.array([contents])), "n_points": (dims, np.full((1, 2), 12))},
        coords={"dataset": ["canary"], "source": list(SPACES), "source_model": ("source", ["provider", "other"])},
    )
    models = [{"name": name, "meta": {"version": version}} for name in ("provider", "other")]
    return PublishedAtlas(scores, {"models": models, "key": "k"})


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give a store of three recordings by content: as it was, one row turned, in another order of rows."""
    turned = ROWS.copy()
    turned[7] = -2 * turned[7]
    contents = {"was": (ROWS, IDS), "turned": (turned, IDS), "reordered": (ROWS[::-1], IDS[::-1]),
                "wider": (np.hstack([ROWS, ROWS]), IDS)}  # fmt: skip
    monkeypatch.setattr(module, "_rows", lambda store, key: contents[key])
    return SimpleNamespace(receipts=lambda kind: [SimpleNamespace(facts={"content": one}, key=one) for one in contents])


def evaluate(store: Any, now: str, before: str = "was", **more: Any) -> Any:
    current = atlas((now, "was"), **more)
    return evaluate_canary_of(Canary(dataset="canary"), store, current, atlas((before, "was")))


def test_a_row_that_moved__is_named_with_how_far(store: Any) -> None:
    found = evaluate(store, "turned")
    assert isinstance(found, Measurement)
    assert found.is_broken
    assert found.findings == [
        {"space": "provider/out", "id": "c07", "cosine": -1.0, "distance": 3.0, "limit": 0.999}
    ]  # fmt: skip
    assert "1 vectors moved, the farthest provider/out c07 (cosine -1.000000)" in found.message


@pytest.mark.parametrize("now", ["was", "reordered"])
def test_vectors_that_stay__pass_in_any_order(store: Any, now: str) -> None:
    found = evaluate(store, now)
    assert isinstance(found, Measurement)
    assert (found.is_broken, found.observed) == (False, pytest.approx(1.0))


def test_another_width__is_a_change_of_all_rows(store: Any) -> None:
    found = evaluate(store, "wider")
    assert found.is_broken
    assert found.findings[0]["limit"] == "5 features in the baseline, 10 now"


def test_a_new_version__is_meant_to_differ(store: Any) -> None:
    assert isinstance(evaluate(store, "turned", version="2"), Skipped)


def test_vectors_that_were_removed__cannot_be_judged(store: Any) -> None:
    found = evaluate(store, "was", before="pruned")
    assert isinstance(found, Unjudged)
    assert "Promote a new baseline." in found.message


def test_a_dataset_that_is_new__is_skipped(store: Any) -> None:
    both = atlas(("was", "was"))
    assert isinstance(evaluate_canary_of(Canary(dataset="elsewhere"), store, both, both), Skipped)


def test_a_dataset_that_the_catalog_lacks__is_refused() -> None:
    catalog = {"version": 1, "datasets": {"probe": {"builtin": "digits"}}, "audit": {"canary": {"dataset": "prob"}}}
    with pytest.raises(ValidationError, match=r"audit\.canary: got the dataset 'prob', expected one of the catalog"):
        CatalogText.model_validate(catalog)
