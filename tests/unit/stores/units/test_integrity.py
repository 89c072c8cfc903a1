"""What is not as it was committed is told and put aside; what nobody touched is not read again."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lfm_tasks.stores.units import durable
from lfm_tasks.stores.units.integrity import find_corruption, quarantine_corrupt, quarantine_unfinished
from lfm_tasks.stores.units.store import UnitStore

KEY, OTHER = "ab" * 32, "cd" * 32


@pytest.fixture
def store(tmp_path: Path) -> UnitStore:
    store = UnitStore(tmp_path / "store")
    for seed, key in enumerate((KEY, OTHER)):
        with store.commit("labels", key) as unit:
            unit.arrays.write("classes", np.full(5, seed, dtype=np.int32))
    assert not quarantine_corrupt(store)
    return store


def flip(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])


def to_file(path: Path) -> None:
    path.rename(path.with_name("aside"))
    path.with_name("aside").rename(path.parents[3] / "aside")
    path.write_bytes(b"")


def to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


UNIT, RECEIPT = f"units/labels/{KEY}", f"receipts/labels/{KEY}.json"
CASES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "chunk": (lambda root: flip(root / UNIT / "arrays.zip"), UNIT, "arrays.zip is damaged"),
    "chunk is a folder": (lambda root: to_folder(root / UNIT / "arrays.zip"), UNIT, "arrays.zip is missing"),
    "manifest is a folder": (lambda root: to_folder(root / UNIT / "manifest.json"), UNIT, "manifest.json cannot be"),
    "receipt": (lambda root: flip(root / RECEIPT), UNIT, "receipt labels/abab.* is damaged: it is no sealed file"),
    "receipt of another": (
        lambda root: (root / RECEIPT).write_bytes((root / RECEIPT.replace(KEY, OTHER)).read_bytes()),
        UNIT,
        "it is that of another unit",
    ),
    "unit is lost": (lambda root: (root / UNIT).rename(root / "x"), UNIT, "it is missing, and its receipt is there"),
    "unit is a file": (lambda root: to_file(root / UNIT), UNIT, "it is no folder of a unit"),
    "receipt is a folder": (lambda root: to_folder(root / RECEIPT), RECEIPT, "it is no receipt"),
    "stray file": (lambda root: (root / "units" / "notes.txt").write_text(""), "units/notes.txt", "no folder of units"),
}


@pytest.mark.parametrize("case", CASES)
def test_damage__is_told_put_aside_and_gone(case: str, store: UnitStore) -> None:
    damage, place, found = CASES[case]
    damage(store.root)

    told = [one for one in find_corruption(store) if one.place == place]

    assert re.search(found, " ".join(one.description for one in told))
    assert place in [one.place for one in quarantine_corrupt(store)]
    assert list((store.root / "quarantine").iterdir())
    assert quarantine_corrupt(store) == ()
    # What has its place taken is made again.
    with store.commit("labels", KEY) as unit:
        unit.arrays.write("classes", np.zeros(5, dtype=np.int32))
    assert list(find_corruption(store)) == []
    store.check("labels", OTHER)


def test_unit_without_a_receipt__is_told_and_stays_for_the_next_commit(store: UnitStore) -> None:
    (store.root / RECEIPT).unlink()

    assert [(one.place, one.description[:20]) for one in find_corruption(store)] == [(UNIT, "it has no receipt: l")]
    assert quarantine_corrupt(store) == ()


def test_unit_that_nobody_touched__is_not_read_again(store: UnitStore, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr(durable, "file_digest", lambda path: read.append(path) or "")

    assert quarantine_corrupt(store) == ()
    assert read == []
    (store.root / "checked.json").write_text("[")
    assert len(quarantine_corrupt(store)) == 2
    assert read


def test_folder_without_a_receipt__is_put_aside_at_the_end_of_a_run(store: UnitStore) -> None:
    (store.root / UNIT).rename(store.root / "units" / "labels" / ("ef" * 32))
    (store.root / RECEIPT).unlink()

    quarantine_unfinished(store)

    assert not list(find_corruption(store))
    assert [path.name for path in (store.root / "quarantine").glob("*/unit")] == ["unit"]
