"""Activations from files: the rows that were saved, under the names that people chose, or a reason."""

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lfm_tasks.errors import DataError
from lfm_tasks.sources import source as files
from lfm_tasks.sources.files import stored_array
from lfm_tasks.sources.files.formats import open_array
from lfm_tasks.sources.source import FilePattern, FileSource, ReadOptions

N = 30
IDS = np.array([f"id{number:02}" for number in range(N)])
ROWS = np.random.default_rng(0).standard_normal((N, 5)).astype(np.float32)


def values(source: FileSource, layer: str, rows: np.ndarray | None = None) -> np.ndarray:
    chosen = np.arange(len(source.ids)) if rows is None else rows
    return np.concatenate([batch[layer] for batch in source.batches([layer], chosen)])


def save_npy(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


STORED: dict[str, np.ndarray] = {
    "float32": ROWS,
    "float64": ROWS.astype(np.float64) / 3,
    "float16": ROWS.astype(np.float16),
    "big endian": ROWS.astype(">f4"),
    "column-wise": np.asfortranarray(ROWS),
    "int8": (ROWS * 50).astype(np.int8),
    "int64": (ROWS * 1e12).astype(np.int64),
    "bool": ROWS > 0,
}


@pytest.mark.parametrize("kind", STORED)
@pytest.mark.parametrize("form", ["npy", "npz", "packed npz"])
def test_rows__come_back_as_saved(kind: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_BATCH_BYTES", 200)  # several batches
    stored = STORED[kind]
    if form == "npy":
        np.save(tmp_path / "a.npy", stored)
        source = FileSource(FilePattern(tmp_path, "a.npy"), IDS)
    else:
        (np.savez if form == "npz" else np.savez_compressed)(tmp_path / "a.npz", a=stored)
        source = FileSource(FilePattern(tmp_path, "a.npz"), IDS)
    order = np.random.default_rng(1).permutation(N)[:20]

    back = values(source, "a", order)

    kept = {"float64": np.float64, "int64": np.float64, "float16": np.float16}
    assert back.dtype == kept.get(kind, np.float32)
    np.testing.assert_array_equal(back, stored[order].astype(back.dtype))
    assert source.shape("a") == (N, 5)


@pytest.mark.parametrize(
    ("saved", "pattern", "key"),
    [
        (["zoo/m/layer2.npy", "zoo/m/layer10.npy", "zoo/m/layer1.npy"], "zoo/m/{layer}.npy", None),
        (["zoo/m_layer2.npy", "zoo/m_layer10.npy", "zoo/m_layer1.npy"], "zoo/m_{layer}.npy", None),
        (["m/layer2/acts.npy", "m/layer10/acts.npy", "m/layer1/acts.npy"], "m/{layer}/acts.npy", None),
    ],
)
def test_layers__are_found_in_paths_numbers_in_order(
    saved: list[str], pattern: str, key: str | None, tmp_path: Path
) -> None:
    for number, name in enumerate(saved):
        save_npy(tmp_path / name, ROWS + number)

    source = FileSource(FilePattern(tmp_path, pattern, key), IDS)

    assert source.layer_names() == ("layer1", "layer2", "layer10")
    np.testing.assert_array_equal(values(source, "layer10"), ROWS + 1)


def test_layers__are_found_in_keys_in_the_order_of_the_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{"acts_b": ROWS, "labels": np.arange(N), "acts_a": ROWS + 1})

    source = FileSource(FilePattern(tmp_path, "a.npz", "acts_{layer}"), IDS)

    assert source.layer_names() == ("b", "a")
    np.testing.assert_array_equal(values(source, "a"), ROWS + 1)
    assert FileSource(FilePattern(tmp_path, "a.npz"), IDS).layer_names() == ("acts_b", "labels", "acts_a")
    assert FileSource(FilePattern(tmp_path, "a.npz", "acts_a"), IDS).layer_names() == ("acts_a",)


def test_file_a_layer_with_one_key__reads_that_array_of_each(tmp_path: Path) -> None:
    for layer in ("one", "two"):
        np.savez(tmp_path / f"{layer}.npz", x=ROWS, y=ROWS + 1)
    source = FileSource(FilePattern(tmp_path, "{layer}.npz", "y"), IDS)
    assert source.layer_names() == ("one", "two")
    np.testing.assert_array_equal(values(source, "two"), ROWS + 1)


def test_without_ids__rows_are_numbered(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ROWS)
    assert FileSource(FilePattern(tmp_path, "a.npy"), None).ids.tolist() == [str(number) for number in range(N)]


def test_identity__is_that_of_the_bytes_and_the_pooling(tmp_path: Path) -> None:
    tokens = np.random.default_rng(2).standard_normal((N, 3, 5)).astype(np.float32)
    np.save(tmp_path / "a.npy", tokens)
    np.savez(tmp_path / "a.npz", a=tokens)
    np.save(tmp_path / "b.npy", tokens + 1)

    def identity(name: str, pool: str = "mean", layer: str = "a") -> dict[str, str]:
        return dict(FileSource(FilePattern(tmp_path, name), IDS, ReadOptions(pool)).identity(layer))

    first = identity("a.npy")
    os.utime(tmp_path / "a.npy", (0, 0))
    assert identity("a.npy") == first
    assert identity("a.npz") == first
    assert identity("a.npy", "max") != first
    assert identity("b.npy", layer="b") != first
    assert not any(str(tmp_path) in value for value in first.values())


def pickled(folder: Path) -> None:
    np.save(folder / "a.npy", np.array([{}, "x"], dtype=object), allow_pickle=True)


def truncated(folder: Path) -> None:
    np.save(folder / "a.npy", ROWS)
    os.truncate(folder / "a.npy", 300)


def longer(folder: Path) -> None:
    np.save(folder / "a.npy", ROWS)
    with (folder / "a.npy").open("ab") as file:
        file.write(b"\0" * 4)


def many_records(folder: Path) -> None:
    np.save(folder / "a.npy", np.zeros(N, dtype=[("x", "f4"), ("y", "f4")]))


def header_of_code(folder: Path) -> None:
    text = b"{'descr': __import__('os').getcwd(), 'fortran_order': False, 'shape': (30, 5)}".ljust(117) + b"\n"
    (folder / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)


BAD_FILES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "pickle": (pickled, "wrong_dtype", r"a\.npy: got pickled Python objects, which are never loaded. Save numbers"),
    "truncated": (truncated, "damaged_source", r"expected 600 for \(30, 5\) float32: the file is truncated or damaged"),
    "too long": (longer, "damaged_source", r"got 604 bytes of values, expected 600"),
    "records": (many_records, "wrong_dtype", r"got records .* expected numbers. Save one field"),
    "text": (lambda folder: (folder / "a.npy").write_text("1, 2"), "damaged_source", r"a\.npy: cannot be read"),
    "empty": (lambda folder: (folder / "a.npy").touch(), "damaged_source", r"a\.npy: cannot be read"),
    "code": (header_of_code, "damaged_source", r"a\.npy: cannot be read"),
    "complex": (lambda folder: np.save(folder / "a.npy", ROWS * 1j), "wrong_dtype", r"expected real numbers"),
    "dates": (lambda folder: np.save(folder / "a.npy", ROWS.astype("M8[s]")), "wrong_dtype", r"got datetime64"),
    "one-d": (lambda folder: np.save(folder / "a.npy", ROWS[:, 0]), "wrong_shape", r"got a 1-D array"),
    "no features": (lambda folder: np.save(folder / "a.npy", ROWS[:, :0]), "wrong_shape", r"got no features"),
    "fewer rows": (lambda folder: np.save(folder / "a.npy", ROWS[1:]), "bad_ids", r"got 29 rows and 30 ids"),
    "folder": (lambda folder: (folder / "a.npy").mkdir(), "missing_source", r"a\.npy: no such file"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file__is_refused_with_its_reason(case: str, tmp_path: Path) -> None:
    make, reason, message = BAD_FILES[case]
    make(tmp_path)

    with pytest.raises(DataError, match=message) as caught:
        values(FileSource(FilePattern(tmp_path, "a.npy"), IDS), "a")

    assert caught.value.reason == reason


def test_values_that_are_not_finite__are_told_with_their_place(tmp_path: Path) -> None:
    rows = ROWS.copy()
    rows[7, 2] = np.nan
    rows[9, 4] = np.inf
    np.save(tmp_path / "a.npy", rows)
    source = FileSource(FilePattern(tmp_path, "a.npy"), IDS)

    with pytest.raises(DataError, match=r"got 2 NaN or .* first in row 9 \(id id09\), column 4") as caught:
        values(source, "a", np.arange(N)[::-1])

    assert caught.value.reason == "not_finite"


PATTERNS = {
    "missing": ("b.npy", None, r"b\.npy: no such file; (did you mean|there is) '?a\.npy"),
    "folder": ("zoo/a.npy", None, r"zoo/a\.npy: no such file; there is no folder 'zoo' either"),
    "suffix": ("a.bin", None, r"a\.bin: got a \.bin file, expected one of \.npy, .*like one of them. Say format: npy"),
    "no suffix": ("c", None, r"c: got a nameless file, .* say format: if it is one of them"),
    "nothing": ("a", None, r"a: no such file; there is a.bin, a.npy, a.npz, c"),
    "no file": ("b_{layer}.npy", None, r"b_\{layer\}\.npy: no file matches"),
    "no folder": ("zoo/{layer}.npy", None, r"zoo/\{layer\}\.npy: no such folder"),
    "key": ("a.npz", "y", r"a\.npz#y: no such array; there is x"),
    "keys": ("a.npz", "y_{layer}", r"a\.npz: no array matches the key 'y_\{layer\}'; there is x"),
    "key of npy": ("a.npy", "x", r"a\.npy: got key: x for a file of one array. Remove the key"),
}


@pytest.mark.parametrize("case", PATTERNS)
def test_pattern_that_finds_nothing__names_what_is_there(case: str, tmp_path: Path) -> None:
    path, key, message = PATTERNS[case]
    np.save(tmp_path / "a.npy", ROWS)
    (tmp_path / "a.bin").write_bytes((tmp_path / "a.npy").read_bytes())
    (tmp_path / "c").write_bytes(b"something else")
    np.savez(tmp_path / "a.npz", x=ROWS)

    with pytest.raises(DataError, match=message) as caught:
        values(FileSource(FilePattern(tmp_path, path, key), IDS), "x" if key == "x" else key or "a")

    assert caught.value.reason == "missing_source"


def test_unknown_layer__names_the_nearest(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", conv1=ROWS)
    with pytest.raises(DataError, match="no layer 'conv2'; did you mean 'conv1'") as caught:
        FileSource(FilePattern(tmp_path, "a.npz"), IDS).identity("conv2")
    assert caught.value.reason == "unknown_layer"


def test_archives__that_are_damaged_or_empty_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK\x05\x06" + b"\0" * 18)
    with pytest.raises(DataError, match=r"no array matches the key '\{layer\}'; the file holds no arrays"):
        FileSource(FilePattern(tmp_path, "a.npz"), IDS)
    (tmp_path / "b.npz").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(DataError, match=r"b\.npz: cannot be read"):
        FileSource(FilePattern(tmp_path, "b.npz"), IDS)


def test_flipped_bit_in_an_archive__is_found_by_its_checksum(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", a=ROWS)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[300] ^= 4
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npz.*cannot be read") as caught:
        values(FileSource(FilePattern(tmp_path, "a.npz"), IDS), "a")
    assert caught.value.reason == "damaged_source"


def test_archive_that_unpacks_to_far_more__is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_array, "_MAX_BYTES_AT_ANY_RATIO", 2**16)
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros((N, 10_000), np.float32))
    with pytest.raises(DataError, match=r"bytes packed \d+ : 1, expected 200 : 1 at most. Store it unpacked"):
        values(FileSource(FilePattern(tmp_path, "a.npz"), IDS), "a")


def test_array_that_must_be_held_whole__has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_array, "MAX_MEMORY_BYTES", 500)
    np.save(tmp_path / "a.npy", np.asfortranarray(ROWS))
    with pytest.raises(DataError, match="got more bytes than fit into memory, expected at most 500"):
        values(FileSource(FilePattern(tmp_path, "a.npy"), IDS), "a")


def test_two_arrays_of_one_name__are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, ROWS)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", buffer.getvalue())
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.npy", buffer.getvalue())
    with pytest.raises(DataError, match="got two arrays of one name"):
        FileSource(FilePattern(tmp_path, "a.npz"), IDS)


def test_file_that_changes_while_it_is_read__is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ROWS)
    array = open_array(tmp_path / "a.npy", "a.npy")
    np.save(tmp_path / "a.npy", np.vstack([ROWS, ROWS]))
    with pytest.raises(DataError, match=r"a\.npy: the file changed while it was read. Start again"):
        array.load()


def test_file_without_rights__is_told(tmp_path: Path) -> None:
    (tmp_path / "a.npy").symlink_to(tmp_path / "a.npy")  # a loop: root, too, cannot read it
    with pytest.raises(DataError, match=r"a\.npy: (cannot be read|no such file)") as caught:
        values(FileSource(FilePattern(tmp_path, "a.npy"), IDS), "a")
    assert caught.value.reason == "missing_source"
