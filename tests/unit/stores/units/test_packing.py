"""A packed unit: one file of arrays that reads like a folder of them, the same bytes whenever it is written."""

from pathlib import Path

import numpy as np
import pytest

from lfm_tasks.stores.units.arrays import PackedGroup
from lfm_tasks.stores.units.store import CorruptUnitError, UnitStore

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
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


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
