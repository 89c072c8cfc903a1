"""What is wrong with a file is said, with its name; nothing in it is run, and no other file is opened for it."""

import base64
import json
import os
import pickle
import re
import signal
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as encryption
import pytest
import zarr
from safetensors.numpy import save, save_file

from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.formats import open_array
from lfm_tasks.sources.source import FilePattern, FileSource

N = 30
IDS = np.array([f"id{number:02}" for number in range(N)])
ROWS = np.random.default_rng(0).standard_normal((N, 5)).astype(np.float32)

Make = Callable[[Path], object]


def cut(make: Make, keep: float) -> Make:
    def cut_short(path: Path) -> None:
        make(path)
        os.truncate(path, int(path.stat().st_size * keep))

    return cut_short


def lists(values: Any, kind: pa.DataType | None = None) -> Make:
    return lambda path: pq.write_table(pa.table({"x": pa.array(values, kind)}), path)


class Keys(encryption.KmsClient):
    """Wraps keys in nothing."""

    def wrap_key(self, key: bytes, master: str) -> str:
        return base64.b64encode(key).decode()


def encrypted(values: Any, *, footer: bool) -> Make:
    """Write a Parquet whose column is encrypted, its footer too or not: the latter opens without a key."""
    keys = {"footer_key": "f", "column_keys": {"k": ["x.list.element"]}, "plaintext_footer": not footer}

    def write(path: Path) -> None:
        table = pa.table({"x": pa.array(values, pa.list_(pa.float32()))})
        factory = encryption.CryptoFactory(lambda config: Keys())
        config = encryption.EncryptionConfiguration(**keys)
        properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), config)
        with pq.ParquetWriter(path, table.schema, encryption_properties=properties) as writer:
            writer.write_table(table)

    return write


def arrow(path: Path) -> None:
    column = pa.table({"x": pa.FixedSizeListArray.from_arrays(pa.array(ROWS.ravel()), 5)})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, column.schema) as writer:
        writer.write_table(column)


def dictionary_stream(path: Path) -> None:
    column = pa.table({"x": pa.array(["a", "b"]).dictionary_encode()})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, column.schema) as writer:
        writer.write_table(column)


def header(tensors: dict[str, Any], n_bytes: int) -> Make:
    text = json.dumps(tensors).encode()
    return lambda path: path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * n_bytes)


def tensor(start: int, stop: int, shape: list[Any], kind: str = "F32") -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": [start, stop]}


def hdf5(fill: Callable[[h5py.File], object]) -> Make:
    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            fill(file)

    return write


def linked_hdf5(path: Path) -> None:
    hdf5(lambda file: file.create_dataset("x", data=ROWS))(path.with_name("other.h5"))
    hdf5(lambda file: file.__setitem__("x", h5py.ExternalLink("other.h5", "/x")))(path)


def soft_linked_hdf5(file: h5py.File) -> None:
    file["there"] = h5py.ExternalLink("other.h5", "/")
    file["x"] = h5py.SoftLink("/there/x")


def virtual_hdf5(file: h5py.File) -> None:
    layout = h5py.VirtualLayout(shape=ROWS.shape, dtype="f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", shape=ROWS.shape)
    file.create_virtual_dataset("x", layout)


def filtered_hdf5(file: h5py.File) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((5, 5))
    plist.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))  # zstd, by a plugin
    h5py.h5d.create(file.id, b"x", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple(ROWS.shape), plist)


def zarr_with(metadata: dict[str, Any], version: int = 3) -> Make:
    def write(path: Path) -> None:
        zarr.create_array(path, data=ROWS, chunks=(10, 5), zarr_format=version)
        file = path / ("zarr.json" if version == 3 else ".zarray")
        file.write_text(json.dumps(json.loads(file.read_text()) | metadata))

    return write


def zarr_without_a_chunk(path: Path) -> None:
    zarr.create_array(path, data=ROWS, chunks=(10, 5))
    (path / "c/1/0").unlink()


def damaged_zarr(path: Path) -> None:
    zarr.create_array(path, data=ROWS, chunks=(10, 5))
    os.truncate(path / "c/1/0", 20)


def saved(state: Any, marker: str = "state.json") -> Make:
    def write(path: Path) -> None:
        path.mkdir()
        (path / marker).write_text(json.dumps(state))

    return write


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


def torch_save(value: Callable[[Any], object]) -> Make:
    def write(path: Path) -> None:
        torch = pytest.importorskip("torch")
        torch.save(value(torch), path)

    return write


def evil_pickle(path: Path) -> None:
    pytest.importorskip("torch")
    path.write_bytes(pickle.dumps(Evil()))


X = "x"
SHORT = "the file is truncated"
CASES: dict[str, tuple[str, Make, str | None, str]] = {
    "npz cut": ("a.npz", cut(lambda path: np.savez(path, x=ROWS), 0.5), X, r"a\.npz: cannot be read"),
    "npy in npz": ("a.npz", lambda path: path.write_bytes(b"\x93NUMPY"), X, r"a\.npz.*cannot be read"),
    "safetensors cut": ("a.safetensors", cut(lambda path: save_file({"x": ROWS}, path), 0.8), X, SHORT),
    "safetensors in its header": ("a.safetensors", lambda path: path.write_bytes(save({"x": ROWS})[:30]), X, SHORT),
    "safetensors empty": ("a.safetensors", Path.touch, X, SHORT),
    "safetensors huge header": (
        "a.safetensors",
        lambda path: path.write_bytes(b"\xff" * 7 + b"\x00" + b"{}"),
        X,
        r"got a header of [\d,]+ bytes in a file of 10, expected at most 100,000,000",
    ),
    "safetensors overlap": (
        "a.safetensors", header({"x": tensor(0, 8, [2]), "y": tensor(4, 12, [2])}, 12), X,
        r"got the tensor 'y' at 4 to 12, over bytes of another",
    ),
    "safetensors backwards": ("a.safetensors", header({"x": tensor(8, 0, [2])}, 8), X, "over bytes of another"),
    "safetensors shape": ("a.safetensors", header({"x": tensor(0, 8, [3])}, 8), X, r"got 8 bytes for F32 of shape"),
    "safetensors negative": ("a.safetensors", header({"x": tensor(0, 8, [-2])}, 8), X, "describes no tensors"),
    "safetensors no dict": ("a.safetensors", header({"x": 3}, 8), X, "describes no tensors"),
    "safetensors float8": ("a.safetensors", header({"x": tensor(0, 8, [8], "F8_E4M3")}, 8), X, "got values of type"),
    "safetensors other": ("a.safetensors", lambda path: save_file({"y": ROWS}, path), X, "got no tensor 'x'.*y"),
    "hdf5 cut": ("a.h5", cut(hdf5(lambda file: file.create_dataset("x", data=ROWS)), 0.6), X, r"a\.h5: cannot be read"),
    "hdf5 text": ("a.h5", lambda path: path.write_text("x"), X, r"a\.h5: cannot be read"),
    "hdf5 link": ("a.h5", linked_hdf5, X, "got a link at 'x', which may lead to another file"),
    "hdf5 soft link": ("a.h5", hdf5(soft_linked_hdf5), X, "got a link at 'x', which may lead to another file"),
    "hdf5 external": (
        "a.h5", hdf5(lambda file: file.create_dataset("x", (30, 5), "f4", external=[("raw.bin", 0, 600)])), X,
        "got values that lie in other files, expected them inside",
    ),
    "hdf5 virtual": ("a.h5", hdf5(virtual_hdf5), X, "got values that lie in other files, expected them inside"),
    "hdf5 filter": ("a.h5", hdf5(filtered_hdf5), X, r"got the filter .* \(32015\), expected one of gzip"),
    "hdf5 records": (
        "a.h5", hdf5(lambda file: file.create_dataset("x", data=np.zeros(3, "f4,f4"))), X, "got values of type",
    ),
    "hdf5 complex": ("a.h5", hdf5(lambda file: file.create_dataset("x", data=ROWS * 1j)), X, "got values of type"),
    "hdf5 group": ("a.h5", hdf5(lambda file: file.create_group("x")), X, "got a group, expected a dataset"),
    "hdf5 scalar": ("a.h5", hdf5(lambda file: file.create_dataset("x", data=1.0)), X, "got a single value"),
    "hdf5 nothing": ("a.h5", hdf5(lambda file: None), None, "expected key: .* of a dataset; the file holds none"),
    "zarr codec": ("a.zarr", zarr_with({"codecs": [{"name": "evil"}]}), None, "got the codec 'evil', expected one of"),
    "zarr pickle": ("a.zarr", zarr_with({"filters": [{"id": "pickle"}]}, 2), None, "got the codec 'pickle'"),
    "zarr nested codec": (
        "a.zarr",
        zarr_with({"codecs": [{"name": "sharding_indexed", "configuration": {"codecs": [{"name": "evil"}]}}]}),
        None,
        "got the codec 'evil'",
    ),
    "zarr no chunk": ("a.zarr", zarr_without_a_chunk, None, r"got 2 of 3 chunks, the others would be read as 0"),
    "zarr damaged": ("a.zarr", damaged_zarr, None, r"a\.zarr: cannot be read"),
    "zarr no json": (
        "a.zarr", lambda path: (path.mkdir(), (path / "zarr.json").write_text("{")), None, "cannot be read",
    ),
    "zarr dates": (
        "a.zarr", lambda path: zarr.create_array(path, data=ROWS.astype("M8[s]"), zarr_format=2), None, "got values of",
    ),
    "zarr out of its folder": ("a.zarr", lambda path: zarr.create_group(path), "../b", "cannot be read|no such array"),
    "parquet cut": ("a.parquet", cut(lists([[1.0]] * 9), 0.7), X, r"a\.parquet: cannot be read"),
    "parquet text": ("a.parquet", lambda path: path.write_text("x" * 50), X, r"a\.parquet: cannot be read"),
    "parquet encrypted": ("a.parquet", encrypted([[1.0]] * 9, footer=True), X, "got encrypted values, expected"),
    "parquet encrypted column": ("a.parquet", encrypted([[1.0]], footer=False), X, "got encrypted values, expected"),
    "parquet encrypted nothing": ("a.parquet", encrypted([], footer=False), X, "encrypted values|got no rows"),
    "parquet key damaged": ("a.parquet", lambda path: path.write_bytes(b"PARE" + b"0" * 40 + b"PARE"), X, "cannot be"),
    "parquet ragged": ("a.parquet", lists([[1.0], [1.0, 2.0]]), X, "got lists of 1 to 2 values, expected all of one"),
    "parquet null": ("a.parquet", lists([[1.0], [None]]), X, r"got 1 null values among 2, expected none"),
    "parquet null row": ("a.parquet", lists([[1.0], None]), X, r"got 1 null values among 2, expected none"),
    "parquet null text": ("a.parquet", lists(["a", None]), X, r"got 1 null values among 2, expected none"),
    "parquet dates": ("a.parquet", lists([1, 2], pa.timestamp("s")), X, r"got values of type timestamp"),
    "parquet records": ("a.parquet", lists([{"a": 1}]), X, r"got values of type struct"),
    "parquet empty": ("a.parquet", lists([], pa.list_(pa.float32())), X, "got no rows, expected at least one"),
    "parquet column": ("a.parquet", lists([1.0]), "y", r"got no column 'y'.*x"),
    "arrow cut": ("a.arrow", cut(arrow, 0.6), X, r"a\.arrow: cannot be read"),
    "arrow text": ("a.feather", lambda path: path.write_text("x" * 50), X, r"a\.feather: cannot be read"),
    "arrow dictionary": ("a.arrow", dictionary_stream, X, "got a dictionary in a stream of record batches"),
    "saved dataset elsewhere": (
        "a", saved({"_data_files": [{"filename": "../x.arrow"}]}), X, r"got the data file '\.\./x\.arrow', expected names",  # noqa: E501
    ),
    "saved dataset index": ("a", saved({"_indices_data_files": [{}]}), X, "got rows that are chosen by an index"),
    "saved dataset empty": ("a", saved({"_data_files": []}), X, "got a dataset without data files"),
    "saved dataset damaged": ("a", saved({}), X, "a: cannot be read"),
    "saved dataset no object": ("a", saved(3), X, "got int in state.json, expected an object"),
    "saved splits no object": ("a", saved([], "dataset_dict.json"), X, "got list in dataset_dict.json"),
    "saved splits": ("a", saved({"splits": ["train"]}, "dataset_dict.json"), X, "got a dataset of the splits train"),
    "folder": ("a", Path.mkdir, None, "got a folder that is neither Zarr nor a saved dataset"),
    "pt code": ("a.pt", evil_pickle, None, "got no tensors that can be read without running code"),
    "pt object": ("a.pt", torch_save(lambda torch: {"x": Evil()}), X, "got no tensors that can be read without"),
    "pt cut": ("a.pt", cut(torch_save(lambda torch: torch.zeros(99)), 0.5), None, "got no tensors that can be read"),
    "pt list": ("a.pt", torch_save(lambda torch: [torch.zeros(2)]), None, "expected key: .* of a tensor; there is 0"),
    "pt nested": ("a.pt", torch_save(lambda torch: {"h": (torch.zeros(2),)}), X, "no tensor 'x'; there is h/0"),
    "pt numbers": ("a.pt", torch_save(lambda torch: [1, 2.0]), None, r"got a list of 2 \(float, int\) and no tensor"),
    "pt texts": ("a.pt", torch_save(lambda torch: {"a": "b"}), None, r"got a dict of 'a' \(str\) and no tensor"),
    "pt sparse": ("a.pt", torch_save(lambda torch: torch.eye(3).to_sparse()), None, "got a sparse or quantized tensor"),
    "pt without key": ("a.pt", torch_save(lambda torch: {"x": torch.zeros(2)}), None, "expected key: .* of a tensor"),
    "pt key of one": ("a.pt", torch_save(lambda torch: torch.zeros(2)), X, "got no tensor 'x': it is a single one"),
    "text bytes": ("a.txt", lambda path: path.write_bytes(b"ok\n\xff"), None, "got bytes that are not UTF-8, first at 3"),  # noqa: E501
    "text key": ("a.txt", lambda path: path.write_text("a"), X, "got key: x for a file of lines. Remove the key"),
    "npy of one value": ("a.npy", lambda path: np.save(path, 3.0), None, "got a single value of type float64"),
    "name with NUL": ("a\0.npy", lambda path: None, None, "no such file|cannot be read"),
    "long name": ("a" * 10_000 + ".npy", lambda path: None, None, "no such file|cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_file__is_refused_with_its_name(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name, make, key, message = CASES[case]
    make(tmp_path / name)

    with pytest.raises(DataError, match=message) as caught:
        open_array(tmp_path / name, name, key).load()

    assert str(caught.value).startswith(name[:20])
    assert str(tmp_path) not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("stream", [False, True])
def test_arrow_headers_with_any_damage__are_read_or_refused(stream: bool, tmp_path: Path) -> None:
    path, column = tmp_path / "a.arrow", pa.table({"x": ROWS[:, 0]})
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as sink, new(sink, column.schema) as writer:
        writer.write_table(column, max_chunksize=20)
    content = path.read_bytes()
    found = set()
    for place in range(len(content)):
        for byte in (0, content[place] ^ 0x80, content[place] ^ 3):
            path.write_bytes(content[:place] + bytes([byte]) + content[place + 1 :])
            try:
                open_array(path, "a.arrow", "x").load()
            except DataError as error:
                found.add(re.sub("[0-9,]+", "n", str(error)))
    told = "\n".join(found)
    damaged = ["a message of n bytes at byte n of n", "values of the message at byte n end after byte n"]
    for message in [*damaged, "a message whose metadata lead out of it", "a message without a header"]:
        assert message in told
    if not stream:
        for message in ("which overlap", "no message in n bytes", "no record batch at byte n", "without a footer"):
            assert f"{message}" in told


def test_pt_without_torch__says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.pt").touch()
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(DataError, match=r"is read by PyTorch, which is not there: pip install 'lfm-atlas\[torch\]'"):
        open_array(tmp_path / "a.pt", "a.pt")


def as_nobody(read: Callable[[], str]) -> str:
    """Return what ``read`` says in a process without root's rights: root may read what it likes."""
    if os.geteuid() != 0:
        return read()
    said, say = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads are none of its business
        child = os.fork()  # a new process could lack the rights to start Python
    if not child:
        try:
            signal.alarm(60)
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.write(say, read().encode())
        finally:
            os._exit(0)
    os.close(say)
    with os.fdopen(said, encoding="utf-8") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


FORBIDDEN: dict[str, tuple[Make, str | None]] = {
    "a.npy": (lambda path: np.save(path, ROWS), None),
    "a.npz": (lambda path: np.savez(path, x=ROWS), X),
    "a.safetensors": (lambda path: save_file({"x": ROWS}, path), X),
    "a.h5": (hdf5(lambda file: file.create_dataset("x", data=ROWS)), X),
    "a.parquet": (lists([[1.0]]), X),
    "a.arrow": (arrow, X),
    "a.txt": (lambda path: path.write_text("a"), None),
    "a.zarr": (lambda path: zarr.create_array(path, data=ROWS), None),
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_file_without_rights__is_told(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, key = FORBIDDEN[name]
    make(tmp_path / name)
    open_array(tmp_path / name, name, key).load()
    for path in [tmp_path / name, *(tmp_path / name).rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)  # the folders above it are nobody else's to pass

    def read() -> str:
        try:
            open_array(Path(name), name, key).load()
        except DataError as error:
            return f"{error.reason} {error}"
        return "it was read"

    assert re.fullmatch(rf"missing_source {name}.*cannot be read \(.*Permission denied.*\)", as_nobody(read))


def test_links__that_are_found_may_not_lead_out_of_the_folders(tmp_path: Path) -> None:
    for folder in ("outside", "catalog/zoo", "catalog/other"):
        (tmp_path / folder).mkdir(parents=True)
        np.save(tmp_path / folder / "layer1.npy", ROWS)
    root = tmp_path / "catalog"
    (root / "zoo/layer2.npy").symlink_to(root / "other/layer1.npy")
    assert FileSource(FilePattern(root, "zoo/{layer}.npy"), IDS).layer_names() == ("layer1", "layer2")

    (root / "zoo/layer3.npy").symlink_to(tmp_path / "outside/layer1.npy")
    with pytest.raises(DataError, match=r"got the link 'layer3\.npy', which leads out of the folder"):
        FileSource(FilePattern(root, "zoo/{layer}.npy"), IDS)
    assert FileSource(FilePattern(root, "zoo/layer3.npy"), IDS).layer_names() == ("layer3",)
    (root / "linked").symlink_to(tmp_path / "outside")  # a folder that the catalog names
    assert FileSource(FilePattern(root, "linked/{layer}.npy"), IDS).layer_names() == ("layer1",)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("<b>bold</b>", None),
        ("encoder/layer", None),
        ("..", None),
        ("a\nb", "got invisible or control characters"),
        ("x" * 10_000, "got a layer name of 10000 characters, expected 1 to 256"),
    ],
)
def test_names_of_arrays__are_data_or_refused(key: str, message: str | None, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = ROWS
    save_file({key: ROWS}, tmp_path / "a.safetensors")
    pattern = FilePattern(tmp_path, "a.safetensors")
    if message is None:
        assert FileSource(pattern, IDS).layer_names() == (key,)
        return
    with pytest.raises(DataError, match=message):
        FileSource(pattern, IDS)
