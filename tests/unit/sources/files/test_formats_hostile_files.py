"""Small files that claim or unpack to far more than they hold, and damages that make libraries crash or hang."""

import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numcodecs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

from lfm_tasks.errors import DataError
from lfm_tasks.sources.files import hdf5_files, stored_array
from lfm_tasks.sources.files.formats import open_array

Make = Callable[[Path], object]


def npy_of_1e15_rows(path: Path) -> None:
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (10**15, 4)})


def unclosed_npy(path: Path) -> None:
    header = b"{'descr': ('<f4', 'fortran_order': False, 'shape': (1,), }\n"
    path.write_bytes(b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + b"\0" * 4)


def npz_of_zeros(path: Path) -> None:
    np.savez_compressed(path, x=np.zeros(2_000_000, np.float32))


def hdf5_of_zeros(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.zeros((2_000_000,), np.float32), chunks=(100_000,), compression="gzip")


def hdf5_of_1e12_rows(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (10**12, 5), "f4", chunks=(1000, 5))[:10] = 1


def hdf5_without_values(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (30, 5), "f4")


def hdf5_of_huge_chunks(path: Path) -> None:
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("x", data=np.zeros(3, "f4"), maxshape=(None,), chunks=(2**21,), compression="gzip")


def zarr_of_zeros(path: Path) -> None:
    zarr.create_array(
        path, data=np.zeros(2_000_000, np.float32), chunks=(100_000,), config={"write_empty_chunks": True}
    )


def zarr_of_1e15_rows(path: Path) -> None:
    zarr.create_array(path, shape=(10**15, 4), chunks=(10**5, 4), dtype="f4")


def zarr_of_huge_chunks(path: Path) -> None:
    zarr.create_array(path, shape=(30,), chunks=(2**40,), dtype="f4")


def parquet_of_one_value(path: Path) -> None:
    pq.write_table(pa.table({"x": np.zeros(2_000_000, np.float32)}), path)


def parquet_of_one_text(path: Path) -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(20_000, np.int32)), ["a" * 100_000])
    pq.write_table(pa.table({"x": texts}), path)


def arrow(column: pa.Array, compression: str | None = None) -> Make:
    def write(path: Path) -> None:
        table = pa.table({"x": column})
        options = pa.ipc.IpcWriteOptions(compression=compression)
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema, options=options) as writer:
            writer.write_table(table)

    return write


def arrow_with_wild_offsets(path: Path) -> None:
    arrow(pa.array(["id0", "id1", "id2"]))(path)
    content = path.read_bytes()
    offsets = struct.pack("<4i", 0, 3, 6, 9)
    assert offsets in content
    path.write_bytes(content.replace(offsets, struct.pack("<4i", 0, 3, 2**30, 9)))


def lines(path: Path) -> None:
    path.write_text("a\n" * 20_000 + "b" * 100_000, encoding="utf-8")


def pt(change: Callable[[str, bytes], bytes] = lambda name, content: content, *, packed: bool = False) -> Make:
    def write(path: Path) -> None:
        torch = pytest.importorskip("torch")
        torch.save({"x": torch.zeros(2)}, path)
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
            for name, content in members.items():
                archive.writestr(name, change(name, content))

    return write


def expanded_pt(path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"x": torch.zeros(1).expand(10**9, 10**6)}, path)


def pt_with_byte_array(name: str, content: bytes) -> bytes:
    """Put a byte array of 2 GB beside the tensor."""
    made = b"X\x01\0\0\0bcbuiltins\nbytearray\nJ" + struct.pack("<i", 2 * 10**9) + b"\x85Rs"
    return content[:-1] + made + b"." if name.endswith(".pkl") else content


BOMBS: dict[str, tuple[str, Make, str]] = {
    "npy": ("a.npy", npy_of_1e15_rows, r"got 0 bytes of values, expected 16,000,000,000,000,000"),
    "npz": ("a.npz", npz_of_zeros, r"got 8,000,128 bytes packed \d+ : 1, expected 200 : 1 at most"),
    "hdf5 zeros": ("a.h5", hdf5_of_zeros, r"got 8,000,000 bytes packed \d+ : 1"),
    "hdf5 rows": ("a.h5", hdf5_of_1e12_rows, r"got 1 of 1,000,000,000 chunks, the others would be read as 0\.0"),
    "hdf5 nothing": ("a.h5", hdf5_without_values, r"got 0 of 1 chunks, .*. Write all of the dataset"),
    "hdf5 chunks": ("a.h5", hdf5_of_huge_chunks, "got more bytes than fit into memory"),
    "zarr zeros": ("a.zarr", zarr_of_zeros, r"got 8,000,000 bytes packed \d+ : 1"),
    "zarr rows": ("a.zarr", zarr_of_1e15_rows, r"got 1 of 10,000,000,000 chunks"),
    "zarr chunks": ("a.zarr", zarr_of_huge_chunks, "got more bytes than fit into memory"),
    "parquet value": ("a.parquet", parquet_of_one_value, "got more bytes than fit into memory"),
    "parquet text": ("a.parquet", parquet_of_one_text, "got more bytes than fit into memory"),
    "arrow zeros": ("a.arrow", arrow(pa.array(np.zeros(2_000_000)), "zstd"), r"got 16,000,\d+ bytes packed \d+ : 1"),
    "arrow text": ("a.arrow", arrow(pa.array(["a" * 100_000] + ["b"] * 20_000)), "got 20,001 texts, one of 100,000"),
    "arrow dictionary": (
        "a.arrow",
        arrow(pa.DictionaryArray.from_arrays(pa.array(np.zeros(20_000, np.int32)), ["a" * 100_000])),
        "got more bytes than fit into memory",
    ),
    "lines": ("a.txt", lines, r"got 20,001 texts, one of 100,000 characters, expected short ones: are these ids"),
    "pt packed": ("a.pt", pt(packed=True), "got a packed archive, expected what torch.save writes today"),
    "pt bytes": ("a.pt", pt(pt_with_byte_array), "got byte arrays, expected what torch.save writes today"),
    "pt repeats": ("a.pt", expanded_pt, r"got \(1000000000, 1000000\) values, of which the file holds a part"),
}  # fmt: skip


@pytest.mark.parametrize("case", BOMBS)
def test_bomb__is_refused(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, make, message = BOMBS[case]
    monkeypatch.setattr(stored_array, "MAX_MEMORY_BYTES", 10**9 if "packed" in message else 7_000_000)
    monkeypatch.setattr(stored_array, "_MAX_BYTES_AT_ANY_RATIO", 2**16)
    make(tmp_path / name)

    with pytest.raises(DataError, match=message):
        open_array(tmp_path / name, name, None if name.endswith((".npy", ".txt", ".zarr")) else "x").load()


def parquet_of_two_numbers_of_rows(path: Path) -> None:
    pq.write_table(pa.table({"x": np.ones(7777)}), path)
    content = path.read_bytes()
    # As Thrift writes 7,777 (zigzag, 7 bits a byte): rows of the file, values of the column, last the row group's rows.
    rows = bytes([0xC2, 0x79])
    assert content.count(rows) >= 2
    place = content.rindex(rows)
    path.write_bytes(content[:place] + bytes([0xFF, 0x79]) + content[place + 2 :])


def zarr_of_a_negative_size(path: Path) -> None:
    zarr.create_array(path, data=np.ones((3, 4)), chunks=(3, 4), zarr_format=2, compressors=numcodecs.Blosc())
    chunk = bytearray((path / "0.0").read_bytes())
    chunk[4:8] = b"\xff" * 4
    (path / "0.0").write_bytes(chunk)


@pytest.mark.parametrize(
    ("name", "make", "key"),
    [
        ("a.npy", unclosed_npy, None),
        ("a.arrow", arrow_with_wild_offsets, "x"),
        ("a.zarr", zarr_of_a_negative_size, None),
        ("a.parquet", parquet_of_two_numbers_of_rows, "x"),
    ],
)
def test_damage_that_a_library_takes__is_refused(name: str, make: Make, key: str | None, tmp_path: Path) -> None:
    make(tmp_path / name)
    with pytest.raises(DataError, match=f"{name}.*cannot be read"):
        open_array(tmp_path / name, name, key).load()


def write_hanging_text(path: Path) -> None:
    """Write HDF5 text in which the library goes round and round."""
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=["id0", "id1"], dtype=h5py.string_dtype())
    assert open_array(path, "a.h5", "x").load().tolist() == ["id0", "id1"]
    content = bytearray(path.read_bytes())
    place = content.index(b"GCOL") + 16 + 2 * 24  # after two objects: what is free, number 0
    assert struct.unpack_from("<HHI", content, place) == (0, 0, 0)
    content[place + 8 : place + 16] = bytes(8)
    path.write_bytes(content)


def test_hdf5_text__that_hangs_the_library_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.h5"
    write_hanging_text(path)
    monkeypatch.setattr(hdf5_files, "_SECONDS", 2.0)

    with pytest.raises(DataError, match=r"a\.h5#x: cannot be read \(the HDF5 library reads its text for more than 2"):
        open_array(path, "a.h5", "x").load()


def test_hdf5_text__ends_by_itself_when_its_run_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_hanging_text(path)
    program = "import sys\nfrom pathlib import Path\nfrom lfm_tasks.sources.files import hdf5_files\n"
    program += "hdf5_files._SECONDS = 2.0\nhdf5_files.read_texts(Path(sys.argv[1]), 'x', 9)"

    def readers() -> list[Path]:
        commands = ((entry, _bytes(entry).split(b"\0")) for entry in Path("/proc").glob("[0-9]*/cmdline"))
        return [entry for entry, command in commands if str(path).encode() in command and b"-P" in command]

    with subprocess.Popen([sys.executable, "-c", program, path]) as run:
        wait_until(readers)
        run.kill()

    assert readers()
    wait_until(lambda: not readers())


def wait_until(holds: Callable[[], object]) -> None:
    """Return as soon as something holds; fail after 20 seconds."""
    until = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
