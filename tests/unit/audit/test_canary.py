"""The canary: which rows moved since their first vectors, how far, and what cannot be told."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr
from pydantic import ValidationError

from lfm_tasks.audit import canary as module
from lfm_tasks.audit import first_vectors
from lfm_tasks.audit.canary import CanaryFiles, judge_canary
from lfm_tasks.audit.first_vectors import FirstVectors, read_first_vectors, write_first_vectors
from lfm_tasks.catalog.sections import Canary, CatalogText
from lfm_tasks.checks import Measurement, PublishedAtlas, Skipped, Unjudged
from lfm_tasks.errors import DataError

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


def turned_by(degrees: float) -> np.ndarray:
    """Return the rows, each turned by an angle in the plane of its own and another direction."""
    lengths = np.linalg.norm(ROWS, axis=1, keepdims=True)
    beside = np.random.default_rng(1).standard_normal(ROWS.shape)
    beside -= (beside * ROWS).sum(axis=1, keepdims=True) / lengths**2 * ROWS
    beside *= lengths / np.linalg.norm(beside, axis=1, keepdims=True)
    return np.cos(np.radians(degrees)) * ROWS + np.sin(np.radians(degrees)) * beside


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give a store of recordings by content: as it was, one row turned, in another order of rows, ..."""
    turned = ROWS.copy()
    turned[7] = -2 * turned[7]
    zero = np.where(np.arange(12)[:, None] == 2, 0.0, ROWS)
    factors = np.where(np.arange(12)[:, None] == 5, 1.04, 1.06)
    more = np.concatenate([ROWS, [[1.0, 2.0, 3.0, 4.0, 5.0]]])
    contents = {"was": (ROWS, IDS), "turned": (turned, IDS), "reordered": (ROWS[::-1], IDS[::-1]),
                "wider": (np.hstack([ROWS, ROWS]), IDS), "longer": (factors * ROWS, IDS), "zero": (zero, IDS),
                "fewer": (ROWS[:10], IDS[:10]), "others": (ROWS, np.char.add("x", IDS)),
                "more": (more, np.append(IDS, "c12"))}  # fmt: skip
    contents["last turned"] = (np.where(np.arange(13)[:, None] == 12, -more, more), np.append(IDS, "c12"))
    contents |= {f"night {number}": (turned_by(1.5 * number), IDS) for number in range(6)}
    monkeypatch.setattr(module, "_rows", lambda store, key: contents[key])
    return SimpleNamespace(receipts=lambda kind: [SimpleNamespace(facts={"content": one}, key=one) for one in contents])


def judge(
    store: Any,
    folder: Path,
    now: str,
    before: str | None = "was",
    canary: Canary = CANARY,
    *,
    restart: bool = False,
    version: str = "1",
) -> Any:
    baseline = None if before is None else atlas((before, "was"))
    files = CanaryFiles(store, folder / "canary.json")
    return judge_canary(canary, files, atlas((now, "was"), version), baseline, restart=restart)


@pytest.fixture
def evaluate(store: Any, tmp_path: Path) -> Any:
    """Give the judgement of one night, after a baseline and without first vectors."""

    def evaluate(now: str, before: str = "was", **more: Any) -> Any:
        (tmp_path / "canary.json").unlink(missing_ok=True)
        return judge(store, tmp_path, now, before, **more)

    return evaluate


def test_a_row_that_moved__is_named_with_how_far(evaluate: Any) -> None:
    found = evaluate("turned")
    assert isinstance(found, Measurement)
    assert found.is_broken
    assert found.findings == [
        {"space": "provider/out", "id": "c07", "cosine": -1.0, "norm": 2.0, "distance": 3.0, "limit": 0.999}
    ]  # fmt: skip
    assert "1 vectors moved since " in found.message
    assert "the farthest provider/out c07 (cosine -1.000000, length 2.000000" in found.message
    assert found.message.endswith("another model answers under the same name and version")
    (drawn,) = found.null["histograms"]
    assert (drawn["limit"], drawn["low"], drawn["lowest"], drawn["found"]) == (0.999, -1, -1, [-1])


@pytest.mark.parametrize("now", ["was", "reordered"])
def test_vectors_that_stay__pass_in_any_order(evaluate: Any, now: str) -> None:
    found = evaluate(now)
    assert isinstance(found, Measurement)
    assert (found.is_broken, found.observed) == (False, pytest.approx(1.0))


def test_lengths_that_changed__are_found_though_no_row_turned(evaluate: Any) -> None:
    found = evaluate("longer")
    assert found.is_broken
    assert len(found.findings) == 11  # the row at 1.04 stays within the 4.47 % of a cosine of .999
    assert "c05" not in {finding["id"] for finding in found.findings}
    assert found.findings[0]["norm"] == pytest.approx(1.06)
    assert found.findings[0]["limit"] == "length within 0.04472"
    assert found.message.endswith("vectors of other lengths come under the same name and version")


@pytest.mark.parametrize(("within", "n_moved"), [(0.0, 12), (0.05, 11), (0.1, 0), (1e9, 0)])
def test_lengths__may_change_as_far_as_the_catalog_says(evaluate: Any, within: float, n_moved: int) -> None:
    assert len(evaluate("longer", canary=Canary(dataset="canary", norm_within=within)).findings) == n_moved


def test_rows_of_zeros__are_found_and_are_numbers_for_json(evaluate: Any) -> None:
    gone, back, stays = evaluate("zero"), evaluate("was", before="zero"), evaluate("zero", "zero")
    assert (gone.findings[0]["id"], gone.findings[0]["norm"], gone.findings[0]["distance"]) == ("c02", 0.0, 1.0)
    assert (back.findings[0]["id"], back.findings[0]["norm"], back.findings[0]["distance"]) == ("c02", None, None)
    assert not stays.is_broken


@pytest.mark.parametrize(("now", "n_gone"), [("fewer", 2), ("others", 12)])
def test_rows_that_are_not_there_any_more__are_found(evaluate: Any, now: str, n_gone: int) -> None:
    found = evaluate(now)
    assert found.is_broken
    assert [finding["limit"] for finding in found.findings] == ["no vector now"] * n_gone
    assert "inputs of the first vectors have none now under the same name" in found.message


def test_another_width__is_a_change_of_all_rows(evaluate: Any) -> None:
    found = evaluate("wider")
    assert found.is_broken
    assert found.findings[0]["limit"] == "5 features at first, 10 now"


def test_a_new_version__is_meant_to_differ(evaluate: Any) -> None:
    assert isinstance(evaluate("turned", version="2"), Skipped)


def test_vectors_that_were_removed__cannot_be_judged(evaluate: Any) -> None:
    found = evaluate("was", before="pruned")
    expected = (
        "got a store without the vectors of provider/out, expected those of the baseline. Promote a new baseline."
    )
    assert found == Unjudged(expected)
    assert isinstance(evaluate("pruned"), Unjudged)


def test_a_dataset_that_is_new__is_skipped(store: Any, tmp_path: Path) -> None:
    assert isinstance(judge(store, tmp_path, "was", canary=Canary(dataset="elsewhere")), Skipped)


def test_slow_drift__is_found_though_no_two_nights_differ_by_much(store: Any, tmp_path: Path) -> None:
    """1.5° a night are a cosine of .9997: every night is within .999 of the one before, which is the baseline."""
    nights = [judge(store, tmp_path, f"night {number}", f"night {max(0, number - 1)}") for number in range(6)]
    assert [night.is_broken for night in nights] == [False, False, True, True, True, True]
    assert nights[5].observed == pytest.approx(np.cos(np.radians(7.5)))
    assert len(nights[5].findings) == 12


def test_first_vectors__are_kept_when_there_is_nothing_to_compare_with(store: Any, tmp_path: Path) -> None:
    first = judge(store, tmp_path, "was", None)
    assert isinstance(first, Skipped)
    assert first.message.endswith("the vectors of 2 spaces are kept from now on")
    assert judge(store, tmp_path, "turned", None).is_broken
    assert not judge(store, tmp_path, "reordered", None).is_broken


def test_first_vectors__outlive_the_store_and_the_baseline(store: Any, tmp_path: Path) -> None:
    judge(store, tmp_path, "was")
    assert judge(store, tmp_path, "turned", before="pruned").is_broken
    files = CanaryFiles(store, tmp_path / "canary.json")
    damaged = DataError("missing_source", "a damaged baseline")
    assert judge_canary(CANARY, files, atlas(("turned", "was")), damaged).is_broken  # type: ignore[union-attr]
    (tmp_path / "canary.json").unlink()
    assert judge_canary(CANARY, files, atlas(("turned", "was")), damaged) == Unjudged("a damaged baseline")


def test_first_vectors__are_those_of_now_after_a_promotion(store: Any, tmp_path: Path) -> None:
    judge(store, tmp_path, "was")
    assert judge(store, tmp_path, "turned", restart=True).is_broken  # it says what was accepted
    assert not judge(store, tmp_path, "turned").is_broken
    assert judge(store, tmp_path, "was").is_broken


def test_a_new_version__has_first_vectors_of_its_own(store: Any, tmp_path: Path) -> None:
    judge(store, tmp_path, "was")
    assert isinstance(judge(store, tmp_path, "turned", version="2"), Skipped)
    assert not judge(store, tmp_path, "turned", version="2").is_broken
    assert judge(store, tmp_path, "was", version="2").is_broken
    assert not judge(store, tmp_path, "was", version="1").is_broken


def test_new_inputs__are_compared_from_then_on(store: Any, tmp_path: Path) -> None:
    judge(store, tmp_path, "was")
    assert not judge(store, tmp_path, "more").is_broken
    found = judge(store, tmp_path, "last turned")
    assert [finding["id"] for finding in found.findings] == ["c12"]


def test_first_vectors__are_read_as_they_were_written(tmp_path: Path) -> None:
    for dtype in (np.float32, np.float64):
        one = FirstVectors("canary", "a/b", {"v": 1}, "2026-01-01", "digest", IDS, ROWS.astype(dtype))
        write_first_vectors(tmp_path / "canary.json", {one.key: one})
        back = read_first_vectors(tmp_path / "canary.json")[one.key]
        assert (back.rows.dtype, back.version, back.since, list(back.ids)) == (dtype, {"v": 1}, "2026-01-01", list(IDS))
        assert np.array_equal(back.rows, one.rows)


@pytest.mark.parametrize("damage", ["", "[]", '{"spaces": [{}]}', "flipped", "fewer ids"])
def test_damaged_first_vectors__are_an_error_until_a_promotion(store: Any, tmp_path: Path, damage: str) -> None:
    judge(store, tmp_path, "was")
    path = tmp_path / "canary.json"
    content = json.loads(path.read_text())
    if damage == "flipped":
        content["spaces"][0]["vectors"] = "A" + content["spaces"][0]["vectors"][1:]
    if damage == "fewer ids":
        content["spaces"][0]["ids"].pop()
    path.write_text(json.dumps(content) if damage in ("flipped", "fewer ids") else damage)
    before = path.read_bytes()
    found = judge(store, tmp_path, "was")
    assert isinstance(found, Unjudged)
    assert "got a file without whole vectors" in found.message
    assert "lfm-atlas audit --promote" in found.message
    assert path.read_bytes() == before
    judge(store, tmp_path, "was", restart=True)
    assert not judge(store, tmp_path, "was").is_broken


def test_a_canary_of_many_inputs__is_refused(store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_vectors, "MOST_BYTES", 100)
    found = judge(store, tmp_path, "was")
    assert isinstance(found, Unjudged)
    assert "MB of vectors to keep, expected 0 MB at most. Choose a dataset of a few fixed inputs" in found.message
    assert not (tmp_path / "canary.json").exists()


def test_a_dataset_that_the_catalog_lacks__is_refused() -> None:
    catalog = {"version": 1, "datasets": {"probe": {"builtin": "digits"}}, "audit": {"canary": {"dataset": "prob"}}}
    with pytest.raises(ValidationError, match=r"audit\.canary: got the dataset 'prob', expected one of the catalog"):
        CatalogText.model_validate(catalog)
