"""The arrays of a unit: described, whole or NaN; packed into one file they read like a folder."""

import json
from pathlib import Path

import numpy as np
import pytest

from lfm_tasks.errors import CorruptUnitError
from lfm_tasks.stores.units.arrays import LAYOUTS, PackedGroup
from lfm_tasks.stores.units.store import UnitStore

KEY = "a" * 64
ARRAYS = {
    "eigenvalues": np.arange(5.0),
    "eigenvectors": np.arange(60.0).reshape(12, 5),
    "ids": np.array([f"p{number}" for number in range(12)]),
}


def committed(root: Path) -> UnitStore:
    store = UnitStore(root)
    with store.commit("bases", KEY) as writer:
        for name, values in ARRAYS.items():
            writer.arrays.write(name, values)
    return store


def files(root: Path) -> dict[str, bytes]:
    """Return the units and receipts of a store."""
    paths = [path for part in ("units", "receipts") for path in (root / part).rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def test_a_base__is_three_files_that_give_its_arrays_back(tmp_path: Path) -> None:
    store = committed(tmp_path)

    unit = f"units/bases/{KEY}"
    assert files(tmp_path).keys() == {f"{unit}/arrays.zip", f"{unit}/manifest.json", f"receipts/bases/{KEY}.json"}
    with store.open("bases", KEY) as reader:
        for name, values in ARRAYS.items():
            np.testing.assert_array_equal(reader.read(name), values)
        assert [len(batch) for batch in reader.batches("eigenvectors")] == [12]


def test_the_same_arrays__are_the_same_bytes(tmp_path: Path) -> None:
    committed(tmp_path / "first")
    committed(tmp_path / "second")

    assert files(tmp_path / "first") == files(tmp_path / "second")


@pytest.mark.parametrize("place", [40, -40])
def test_a_flipped_bit_of_the_archive__is_told(tmp_path: Path, place: int) -> None:
    store = committed(tmp_path)
    archive = tmp_path / "units" / "bases" / KEY / "arrays.zip"
    content = bytearray(archive.read_bytes())
    content[place] ^= 1
    archive.write_bytes(content)

    with (
        pytest.raises(CorruptUnitError, match=r"arrays.zip is damaged; it was put into quarantine"),
        store.open("bases", KEY),
    ):
        pass


def test_an_array_of_many_chunks__is_moved_a_chunk_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    move = PackedGroup.move
    monkeypatch.setattr(PackedGroup, "move", lambda group: held.append(len(group._entries)) or move(group))
    values = np.random.default_rng(0).standard_normal((200, 3, 3)).astype(np.float32)
    store = UnitStore(tmp_path)
    with store.commit("kept_maps", KEY) as writer:
        writer.arrays.write("functional_maps", values)
        writer.arrays.write("ids", np.array([], dtype=object))

    # The group's own note, the chunk, and in the beginning the array's.
    assert max(held) == 3
    assert len(held) == 4 + 2 + 1
    with store.open("kept_maps", KEY) as reader:
        np.testing.assert_array_equal(reader.read("functional_maps"), values)
        assert [len(batch) for batch in reader.batches("functional_maps")] == [64, 64, 64, 8]
        assert reader.read("ids").size == 0


def test_a_writer_that_fails__leaves_nothing(tmp_path: Path) -> None:
    store = UnitStore(tmp_path)

    def write() -> None:
        with store.commit("bases", KEY) as writer:
            writer.arrays.write("eigenvalues", ARRAYS["eigenvalues"])
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        write()
    assert files(tmp_path) == {}
    assert not store.has("bases", KEY)


@pytest.fixture
def store(tmp_path: Path) -> UnitStore:
    return UnitStore(tmp_path / "store")


def test_array_not_written_to__reads_as_nan_not_as_numbers(store: UnitStore) -> None:
    with store.commit("activations", KEY) as unit:
        unit.arrays.lay_out("activations", (3000, 2), np.dtype(np.float32))[:2048] = 1

    with store.open("activations", KEY) as opened:
        rows = opened.read("activations")

    assert np.isnan(rows[2048:]).all()
    assert (rows[:2048] == 1).all()


def test_array_without_a_layout__cannot_be_stored(store: UnitStore) -> None:
    with pytest.raises(KeyError, match="surprise"), store.commit("activations", KEY) as unit:
        unit.arrays.write("surprise", np.ones(3))


def test_stored_arrays__say_their_dims_and_meaning(store: UnitStore) -> None:
    with store.commit("activations", KEY) as unit:
        unit.arrays.write("activations", np.zeros((5, 3), np.float32))

    folder = store.root / "units" / "activations" / KEY
    metadata = json.loads((folder / "activations" / "zarr.json").read_text())

    assert metadata["dimension_names"] == ["point", "feature"]
    assert metadata["attributes"]["meaning"] == LAYOUTS["activations"]["activations"].meaning
    assert metadata["fill_value"] == "NaN"
    assert "crc32c" in [codec["name"] for codec in metadata["codecs"]]


def test_unit_of_another_version__says_which_array_it_lacks_and_what_to_do(
    store: UnitStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        layouts = {"neighbours": LAYOUTS["bases"]["neighbors"], "ids": LAYOUTS["bases"]["ids"]}
        older.setitem(LAYOUTS, "bases", layouts)
        with store.commit("bases", KEY) as unit:
            unit.arrays.write("neighbours", np.zeros((5, 2), np.int32))
            unit.arrays.write("ids", ARRAYS["ids"][:5])

    with store.open("bases", KEY) as opened:
        message = rf"without the array neighbors \(bases/{KEY} has ids, neighbours\): it was written by another version"
        with pytest.raises(CorruptUnitError, match=rf"{message}.*; remove the store {store.root} and run again"):
            opened.read("neighbors")
        with pytest.raises(CorruptUnitError, match=message):
            next(opened.batches("neighbors"))
        with pytest.raises(KeyError, match="surprise"):
            opened.read("surprise")
