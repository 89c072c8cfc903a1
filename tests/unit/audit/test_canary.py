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
CANARY = Canary(dataset="canary")
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
    zero = np.where(np.arange(12)[:, None] == 2, 0.0, ROWS)
    factors = np.where(np.arange(12)[:, None] == 5, 1.04, 1.06)
    contents = {"was": (ROWS, IDS), "turned": (turned, IDS), "reordered": (ROWS[::-1], IDS[::-1]),
                "wider": (np.hstack([ROWS, ROWS]), IDS), "longer": (factors * ROWS, IDS), "zero": (zero, IDS),
                "fewer": (ROWS[:10], IDS[:10]), "others": (ROWS, np.char.add("x", IDS))}  # fmt: skip
    monkeypatch.setattr(module, "_rows", lambda store, key: contents[key])
    return SimpleNamespace(receipts=lambda kind: [SimpleNamespace(facts={"content": one}, key=one) for one in contents])


def evaluate(store: Any, now: str, before: str = "was", canary: Canary = CANARY, **more: Any) -> Any:
    current = atlas((now, "was"), **more)
    return evaluate_canary_of(canary, store, current, atlas((before, "was")))


def test_a_row_that_moved__is_named_with_how_far(store: Any) -> None:
    found = evaluate(store, "turned")
    assert isinstance(found, Measurement)
    assert found.is_broken
    assert found.findings == [
        {"space": "provider/out", "id": "c07", "cosine": -1.0, "norm": 2.0, "distance": 3.0, "limit": 0.999}
    ]  # fmt: skip
    assert "1 vectors moved, the farthest provider/out c07 (cosine -1.000000, length 2.000000" in found.message
    assert found.message.endswith("another model answers under the same name and version")
    (drawn,) = found.null["histograms"]
    assert (drawn["limit"], drawn["low"], drawn["lowest"], drawn["found"]) == (0.999, -1, -1, [-1])


@pytest.mark.parametrize("now", ["was", "reordered"])
def test_vectors_that_stay__pass_in_any_order(store: Any, now: str) -> None:
    found = evaluate(store, now)
    assert isinstance(found, Measurement)
    assert (found.is_broken, found.observed) == (False, pytest.approx(1.0))


def test_lengths_that_changed__are_found_though_no_row_turned(store: Any) -> None:
    found = evaluate(store, "longer")
    assert found.is_broken
    assert len(found.findings) == 11  # the row at 1.04 stays within the 4.47 % of a cosine of .999
    assert "c05" not in {finding["id"] for finding in found.findings}
    assert found.findings[0]["norm"] == pytest.approx(1.06)
    assert found.findings[0]["limit"] == "length within 0.04472"
    assert found.message.endswith("vectors of other lengths come under the same name and version")


@pytest.mark.parametrize(("within", "n_moved"), [(0.0, 12), (0.05, 11), (0.1, 0), (1e9, 0)])
def test_lengths__may_change_as_far_as_the_catalog_says(store: Any, within: float, n_moved: int) -> None:
    assert len(evaluate(store, "longer", canary=Canary(dataset="canary", norm_within=within)).findings) == n_moved


def test_rows_of_zeros__are_found_and_are_numbers_for_json(store: Any) -> None:
    gone, back, stays = evaluate(store, "zero"), evaluate(store, "was", before="zero"), evaluate(store, "zero", "zero")
    assert (gone.findings[0]["id"], gone.findings[0]["norm"], gone.findings[0]["distance"]) == ("c02", 0.0, 1.0)
    assert (back.findings[0]["id"], back.findings[0]["norm"], back.findings[0]["distance"]) == ("c02", None, None)
    assert not stays.is_broken


@pytest.mark.parametrize(("now", "n_gone"), [("fewer", 2), ("others", 12)])
def test_rows_that_are_not_there_any_more__are_found(store: Any, now: str, n_gone: int) -> None:
    found = evaluate(store, now)
    assert found.is_broken
    assert [finding["limit"] for finding in found.findings] == ["no vector now"] * n_gone
    assert "inputs of the baseline have no vector under the same name" in found.message


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
