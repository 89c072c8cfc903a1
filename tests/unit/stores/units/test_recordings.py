"""Rows that come in another order than that of the ids end in the unit of rows that come in order, stopped or not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm_tasks.errors import DataError
from lfm_tasks.stores.units.recordings import Recording, ScatteredRecording
from lfm_tasks.stores.units.store import UnitStore

N_POINTS = 5000
ROWS = np.random.default_rng(0).standard_normal((N_POINTS, 3)).astype(np.float32)
IDS = np.array([f"{number:05}" for number in range(N_POINTS)])
ORDER = np.random.default_rng(1).permutation(N_POINTS)
BATCHES = [ORDER[start : start + 64] for start in range(0, N_POINTS, 64)]
KEY = "ab" * 32


def record_in_order(store: UnitStore) -> None:
    with store.commit("activations", KEY) as unit:
        recording = Recording(unit, IDS)
        recording.add(ROWS)
        recording.finish()


def record(store: UnitStore, stop: int | None = None, keep: int | None = None) -> int:
    """Record all batches that are missing; return how many were stored already."""
    with store.resume("activations", KEY) as unit:
        recording = ScatteredRecording(unit, IDS)
        n_stored = recording.n_batches
        if keep is not None:
            recording.keep(keep)
        for index in range(recording.n_batches, len(BATCHES)):
            if index == stop:
                raise KeyboardInterrupt
            recording.add(BATCHES[index], ROWS[BATCHES[index]])
        recording.finish()
    return n_stored


def unit(store: UnitStore) -> Any:
    receipt = store.receipt("activations", KEY)
    return receipt.manifest, receipt.facts


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Any:
    store = UnitStore(tmp_path_factory.mktemp("in_order"))
    record_in_order(store)
    return unit(store)


def test_scattered_rows__end_in_the_unit_of_rows_in_order(tmp_path: Path, expected: Any) -> None:
    store = UnitStore(tmp_path)
    assert record(store) == 0
    assert unit(store) == expected


DAMAGES = ["none", "row", "torn line", "cut rows", "more rows", "other line", "half a unit", "no rows"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_stopped_recording__goes_on_after_the_last_sound_batch(damage: str, tmp_path: Path, expected: Any) -> None:
    store = UnitStore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        record(store, stop=50)
    partial = store.root / "partial" / f"activations-{KEY}"
    rows, journal = partial / "unit" / "scattered" / "rows", partial / "journal"
    n_sound = 50
    if damage == "row":
        content = bytearray(rows.read_bytes())
        content[64 * 3 * 4 * 20] ^= 1
        rows.write_bytes(content)
        n_sound = 20
    elif damage == "torn line":
        journal.write_bytes(journal.read_bytes()[:-5])
        n_sound = 49
    elif damage == "cut rows":
        rows.write_bytes(rows.read_bytes()[:-5])
        n_sound = 49
    elif damage == "more rows":
        rows.write_bytes(rows.read_bytes() + b"\x00" * 100)
    elif damage == "other line":
        lines = journal.read_text().splitlines(keepends=True)
        journal.write_text("".join([*lines[:10], "<f4 3 1,2 abc\n", *lines[11:]]))
        n_sound = 10
    elif damage == "half a unit":
        (partial / "unit" / "activations").mkdir()
        (partial / "unit" / "activations" / "zarr.json").write_text("{}")
    elif damage == "no rows":
        rows.unlink()
        n_sound = 0

    assert record(store) == n_sound

    assert unit(store) == expected
    assert not partial.exists()


def test_layers_of_one_network__go_on_together(tmp_path: Path, expected: Any) -> None:
    store = UnitStore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        record(store, stop=30)
    with pytest.raises(KeyboardInterrupt):
        record(store, stop=20, keep=10)
    assert record(store) == 20
    assert unit(store) == expected


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "the source gave 0 rows for 5000 ids"),
        (BATCHES[1:], "the source gave 4936 rows for 5000 ids"),
        ([*BATCHES[1:], BATCHES[2]], "the source gave 5000 rows for 5000 ids"),
    ],
)
def test_rows_that_are_missing_or_come_twice__are_told(batches: list[Any], message: str, tmp_path: Path) -> None:
    def add_all() -> None:
        with UnitStore(tmp_path).resume("activations", KEY) as unit_writer:
            recording = ScatteredRecording(unit_writer, IDS)
            for positions in batches:
                recording.add(positions, ROWS[positions])
            recording.finish()

    with pytest.raises(DataError, match=message):
        add_all()


@pytest.mark.parametrize("second", [ROWS[:4, :2], ROWS[:4].astype(np.float64)])
def test_batches_that_differ__are_told(second: np.ndarray, tmp_path: Path) -> None:
    def add_both() -> None:
        with UnitStore(tmp_path).resume("activations", KEY) as unit_writer:
            recording = ScatteredRecording(unit_writer, IDS)
            recording.add(np.arange(4), ROWS[:4])
            recording.add(np.arange(4, 8), second)

    with pytest.raises(DataError, match="after float32 of 3: batches must be alike"):
        add_both()
