"""Every kind of file gives back the rows that were saved in it, as numpy would."""

import json
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from fsspec.registry import _registry
from safetensors.numpy import save_file
from upath import UPath

from lfm_tasks.errors import DataError
from lfm_tasks.sources import source as files
from lfm_tasks.sources.files import formats
from lfm_tasks.sources.files.formats import Format, open_array
from lfm_tasks.sources.files.numpy_files import open_npy
from lfm_tasks.sources.source import FilePattern, FileSource, ReadOptions

N = 30
IDS = np.array([f"id{number:02}" for number in range(N)])
ROWS = np.random.default_rng(0).standard_normal((N, 5)).astype(np.float32)
TEXT = np.array([f"é{number}" for number in range(N)])

Write = Callable[[Path, np.ndarray], object]


def nested(values: np.ndarray, *, fixed: bool = True) -> pa.Array:
    """Put an array into lists of lists."""
    array = pa.array(values.reshape(-1))
    for length in reversed(values.shape[1:]):
        if fixed:
            array = pa.FixedSizeListArray.from_arrays(array, length)
        else:
            array = pa.ListArray.from_arrays(np.arange(0, len(array) + 1, length, dtype=np.int32), array)
    return array


def table(values: np.ndarray, *, fixed: bool = True) -> pa.Table:
    return pa.table({"other": np.arange(len(values)), "x.y": nested(values, fixed=fixed)})


def ipc(path: Path, values: np.ndarray, *, stream: bool) -> None:
    data = table(values)
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as sink, new(sink, data.schema) as writer:
        writer.write_table(data, max_chunksize=7)


def saved_dataset(path: Path, values: np.ndarray) -> None:
    path.mkdir()
    half = len(values) // 2
    for number, part in enumerate((values[:half], values[half:])):
        ipc(path / f"data-{number:05}-of-00002.arrow", part, stream=True)
    names = [{"filename": f"data-{number:05}-of-00002.arrow"} for number in range(2)]
    (path / "state.json").write_text(json.dumps({"_data_files": names, "_fingerprint": "x", "_split": "train"}))


def hdf5(path: Path, values: np.ndarray, **options: object) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x.y", data=values, **options)


def zarr_array(path: Path, values: np.ndarray, **options: object) -> None:
    zarr.create_group(path, zarr_format=options.pop("zarr_format", 3)).create_array("x.y", data=values, **options)


def tensors(path: Path, values: np.ndarray) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"x.y": torch.from_numpy(values), "n": 3}, path)


WRITE: dict[str, tuple[str, Write]] = {
    "npz": ("a.npz", lambda path, values: np.savez(path, **{"x.y": values})),
    "packed npz": ("a.npz", lambda path, values: np.savez_compressed(path, **{"x.y": values})),
    "safetensors": ("a.safetensors", lambda path, values: save_file({"x.y": values, "z": values[:1]}, path)),
    "hdf5": ("a.h5", hdf5),
    "hdf5 in chunks": ("a.hdf5", lambda path, values: hdf5(path, values, chunks=(4, *values.shape[1:]), compression=1)),
    "zarr 3": ("a.zarr", lambda path, values: zarr_array(path, values, chunks=(4, *values.shape[1:]))),
    "zarr 3 shards": (
        "a.zarr",
        lambda path, values: zarr_array(path, values, chunks=(2, *values.shape[1:]), shards=(8, *values.shape[1:])),
    ),
    "zarr 2": ("a.zarr", lambda path, values: zarr_array(path, values, chunks=(4, *values.shape[1:]), zarr_format=2)),
    "parquet": ("a.parquet", lambda path, values: pq.write_table(table(values), path, row_group_size=7)),
    "parquet of lists": (
        "a.parquet",
        lambda path, values: pq.write_table(table(values, fixed=False), path, row_group_size=7),
    ),
    "arrow file": ("a.arrow", lambda path, values: ipc(path, values, stream=False)),
    "arrow stream": ("a.arrow", lambda path, values: ipc(path, values, stream=True)),
    "saved dataset": ("a", saved_dataset),
    "pt": ("a.pt", tensors),
}


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32", "bool"])
@pytest.mark.parametrize("kind", WRITE)
def test_rows__come_back_in_any_order(kind: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_BATCH_BYTES", 300)
    name, write = WRITE[kind]
    stored = (ROWS * 50 > 0) if dtype == "bool" else (ROWS * 50).astype(dtype)
    write(tmp_path / name, stored)
    order = np.random.default_rng(1).permutation(N)[:20]

    source = FileSource(FilePattern(tmp_path, name, "x.y"), IDS)
    back = np.concatenate([batch["x.y"] for batch in source.batches(["x.y"], order)])

    np.testing.assert_array_equal(back, stored[order].astype(back.dtype))
    assert back.dtype == {"float64": np.float64, "float16": np.float16, "int32": np.float64}.get(dtype, np.float32)
    np.save(tmp_path / "same.npy", stored)
    assert source.identity("x.y")["sha256"] == open_array(tmp_path / "same.npy", "same.npy").sha256()


@pytest.mark.parametrize("kind", WRITE)
def test_tokens__keep_their_dimensions(kind: str, tmp_path: Path) -> None:
    name, write = WRITE[kind]
    tokens = np.random.default_rng(2).standard_normal((N, 3, 4)).astype(np.float32)
    write(tmp_path / name, tokens)

    array = open_array(tmp_path / name, name, "x.y")

    assert array.shape == (N, 3, 4)
    np.testing.assert_array_equal(array.load(), tokens)


@pytest.mark.parametrize("kind", WRITE)
def test_file_that_is_written_again__is_noticed(kind: str, tmp_path: Path) -> None:
    name, write = WRITE[kind]
    write(tmp_path / name, ROWS)
    array = open_array(tmp_path / name, name, "x.y")
    for path in [tmp_path / name, *(tmp_path / name).rglob("*")]:
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"the file changed while it was read|cannot be read|no tensors"):
        array.load()


@pytest.mark.parametrize("kind", ["npz", "hdf5", "zarr 3", "parquet", "arrow file", "arrow stream", "saved dataset"])
def test_missing_key__names_what_is_there(kind: str, tmp_path: Path) -> None:
    name, write = WRITE[kind]
    write(tmp_path / name, ROWS)
    with pytest.raises(DataError, match=r"expected key: with the name of an? (array|dataset|column).*x\.y"):
        open_array(tmp_path / name, name)
    with pytest.raises(DataError, match=r"(no such|got no) (array|dataset|column).*x\.y"):
        open_array(tmp_path / name, name, "x.z")


def write_text_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["id"] = TEXT.tolist()


def write_text_zarr(path: Path) -> None:
    zarr.create_group(path).create_array("id", data=TEXT.astype(np.dtypes.StringDType()), chunks=(7,))


def write_text_arrow(path: Path) -> None:
    data = pa.table({"n": np.arange(N), "id": pa.array(TEXT).dictionary_encode()})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, data.schema) as writer:
        writer.write_table(data, max_chunksize=7)


TEXTS: dict[str, Callable[[Path], object]] = {
    "a.parquet": lambda path: pq.write_table(pa.table({"id": TEXT}), path),
    "dictionary.parquet": lambda path: pq.write_table(pa.table({"id": pa.array(TEXT).dictionary_encode()}), path),
    "dictionary.arrow": write_text_arrow,
    "a.h5": write_text_hdf5,
    "a.zarr": write_text_zarr,
    "a.npz": lambda path: np.savez(path, id=TEXT),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text__comes_back_from_every_kind_that_holds_it(name: str, tmp_path: Path) -> None:
    TEXTS[name](tmp_path / name)
    assert open_array(tmp_path / name, name, "id").load().tolist() == TEXT.tolist()


def test_lines_of_text__are_ids(tmp_path: Path) -> None:
    (tmp_path / "file_names.txt").write_text("\n".join(TEXT) + "\n", encoding="utf-8")
    assert open_array(tmp_path / "file_names.txt", "file_names.txt").load().tolist() == TEXT.tolist()


def test_bfloat16__becomes_the_float32_of_the_same_values(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_tensors

    halves = torch.from_numpy(ROWS).bfloat16()
    save_tensors({"x": halves}, tmp_path / "a.safetensors")
    torch.save(halves, tmp_path / "a.pt")

    for name, key in (("a.safetensors", "x"), ("a.pt", None)):
        array = open_array(tmp_path / name, name, key)
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array.load(), halves.float().numpy())


def test_layers__are_the_second_axis_where_the_key_says_so(tmp_path: Path) -> None:
    feats = np.random.default_rng(3).standard_normal((N, 11, 4)).astype(np.float32)
    np.savez(tmp_path / "a.npz", feats=feats)
    np.save(tmp_path / "a.npy", feats)

    for name, key in (("a.npz", "feats[{layer}]"), ("a.npy", "[{layer}]")):
        source = FileSource(FilePattern(tmp_path, name, key), IDS)
        assert source.layer_names() == tuple(map(str, range(11)))
        (batch,) = source.batches(["10"], np.arange(N))
        np.testing.assert_array_equal(batch["10"], feats[:, 10])
    with pytest.raises(DataError, match=r"got the shape \(30, 11, 4\) and the index 11, expected \(points, layers"):
        open_array(tmp_path / "a.npz", "a.npz", "feats[11]")


def test_groups_inside_a_file__are_part_of_the_layers_name(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for layer in (10, 2):
            file[f"encoder/{layer}"] = ROWS + layer
    assert FileSource(FilePattern(tmp_path, "a.h5"), IDS).layer_names() == ("encoder/2", "encoder/10")
    assert FileSource(FilePattern(tmp_path, "a.h5", "encoder/{layer}"), IDS).layer_names() == ("2", "10")


@pytest.mark.parametrize("kind", WRITE)
def test_remote_files__are_read_like_local_ones(kind: str, tmp_path: Path) -> None:
    name, write = WRITE[kind]
    write(tmp_path / name, ROWS)
    remote = UPath(f"memory://{tmp_path.name}")
    paths = [tmp_path / name, *(tmp_path / name).rglob("*")]
    for path in paths:
        if path.is_file():
            remote.fs.pipe_file(f"{remote.path}/{path.relative_to(tmp_path).as_posix()}", path.read_bytes())

    source = FileSource(FilePattern(tmp_path, f"{remote}/{name}", "x.y"), IDS)
    (batch,) = source.batches(["x.y"], np.arange(N))

    np.testing.assert_array_equal(batch["x.y"], ROWS)
    assert source.identity("x.y") == FileSource(FilePattern(tmp_path, name, "x.y"), IDS).identity("x.y")


def test_remote_layers__are_found_and_changes_noticed(tmp_path: Path) -> None:
    folder = UPath(f"memory://{tmp_path.name}")
    for layer in ("layer10", "layer2"):
        with (folder / f"{layer}.npy").open("wb") as file:
            np.save(file, ROWS)
    source = FileSource(FilePattern(tmp_path, f"{folder}/{{layer}}.npy"), IDS)
    assert source.layer_names() == ("layer2", "layer10")

    source.shape("layer2")
    with (folder / "layer2.npy").open("wb") as file:
        np.save(file, ROWS + 1)
    with pytest.raises(DataError, match="the file changed while it was read"):
        list(source.batches(["layer2"], np.arange(N)))


def test_credentials__come_from_the_environment_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = FilePattern(tmp_path, "memory://x/none.npy", storage="lab-store")
    with pytest.raises(DataError, match="needs the environment variable LFM_ATLAS_STORAGE_LAB_STORE, which is not"):
        pattern.locate()
    monkeypatch.setenv("LFM_ATLAS_STORAGE_LAB_STORE", "secret-word")
    with pytest.raises(DataError, match="LFM_ATLAS_STORAGE_LAB_STORE needs a JSON object") as caught:
        pattern.locate()
    assert "secret-word" not in str(caught.value)
    monkeypatch.setenv("LFM_ATLAS_STORAGE_LAB_STORE", '{"token": "secret-word"}')
    assert pattern.locate().storage_options == {"token": "secret-word"}  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="got storage: lab-store for a local path, expected a remote one"):
        FilePattern(tmp_path, "a.npy", storage="lab-store").locate()


def test_secrets__never_stand_in_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LFM_ATLAS_STORAGE_LAB", '{"client": {"token": "secret-word"}}')

    def refuse(path: Path, name: str, key: str | None) -> None:
        raise OSError("the token secret-word is not valid")

    monkeypatch.setitem(formats.FORMATS, ".npy", Format(refuse))  # type: ignore[arg-type]
    np.save(tmp_path / "a.npy", ROWS)
    with pytest.raises(DataError, match=r"the token \*\*\* is not valid"):
        open_array(tmp_path / "a.npy", "a.npy")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("s3://bucket/a.npy", r"s3://bucket/a\.npy: Install s3fs.*install it beside lfm-atlas"),
        ("nothing://a.npy", r"nothing:// cannot be opened"),
        ("memory://nothing/a.npy", r"memory://nothing/a\.npy: no such file"),
    ],
)
def test_remote_path__that_cannot_be_opened_says_why(
    path: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(_registry, "s3", raising=False)
    with pytest.raises(DataError, match=message):
        FileSource(FilePattern(tmp_path, path), IDS)


def installed(monkeypatch: pytest.MonkeyPatch, *values: str) -> None:
    points = [EntryPoint("mine", value, formats.ENTRY_POINTS) for value in values]
    monkeypatch.setattr(formats, "entry_points", lambda group, name: points if name == "mine" else ())


THIRD_PARTY = Format(open_npy)


def test_reader_of_an_installed_package__reads_its_suffix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "reader.py").write_text(
        "from lfm_tasks.sources.files.formats import Format\nfrom lfm_tasks.sources.files.numpy_files import open_npy\n"
        "FORMAT = Format(open_npy)\nOTHER = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with (tmp_path / "a.mine").open("wb") as file:
        np.save(file, ROWS)
    with pytest.raises(DataError, match=r"got a \.mine file, expected one of \.npy"):
        open_array(tmp_path / "a.mine", "a.mine")

    installed(monkeypatch, "reader:FORMAT")
    np.testing.assert_array_equal(open_array(tmp_path / "a.mine", "a.mine").load(), ROWS)
    for values, message in {
        ("reader:OTHER",): "got int as the reader reader:OTHER, expected a lfm_tasks.sources.Format",
        ("reader:NOTHING",): r"the reader reader:NOTHING for \.mine cannot be loaded \(AttributeError\)",
        ("reader:FORMAT", "reader:OTHER"): r"got 2 readers \(reader:FORMAT, reader:OTHER\). Keep one",
    }.items():
        installed(monkeypatch, *values)
        with pytest.raises(DataError, match=message):
            open_array(tmp_path / "a.mine", "a.mine")


def test_chosen_dtype__is_cast_to_or_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ROWS)
    source = FileSource(FilePattern(tmp_path, "a.npy"), IDS, ReadOptions(dtype="float16"))
    (batch,) = source.batches(["a"], np.arange(N))
    np.testing.assert_array_equal(batch["a"], ROWS.astype(np.float16))
    assert source.identity("a") != FileSource(FilePattern(tmp_path, "a.npy"), IDS).identity("a")

    large = ROWS.copy()
    large[3, 1] = 1e5
    np.save(tmp_path / "a.npy", large)
    source = FileSource(FilePattern(tmp_path, "a.npy"), IDS, ReadOptions(dtype="float16"))
    with pytest.raises(DataError, match=r"got values beyond float16 \(largest 1e\+05\), first in row 3 \(id id03\)"):
        list(source.batches(["a"], np.arange(N)))


TOKENS = np.random.default_rng(4).standard_normal((N, 4, 5)).astype(np.float32)
MASK = np.ones((N, 4), np.int64)
MASK[0] = [0, 0, 1, 1]
MASK[1] = [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("pool", "prefix", "first", "second"),
    [
        ("mean", 0, TOKENS[0, 2:].mean(0), TOKENS[1, :2].mean(0)),
        ("mean", 1, TOKENS[0, 3], TOKENS[1, 1]),
        ("max", 1, TOKENS[0, 3], TOKENS[1, 1]),
        ("cls", 0, TOKENS[0, 2], TOKENS[1, 0]),
        ("last", 0, TOKENS[0, 3], TOKENS[1, 1]),
        ("cls+mean", 1, np.r_[TOKENS[0, 2], TOKENS[0, 3]], np.r_[TOKENS[1, 0], TOKENS[1, 1]]),
    ],
)
def test_padded_tokens__do_not_count(
    pool: str, prefix: int, first: np.ndarray, second: np.ndarray, tmp_path: Path
) -> None:
    padded = np.where(MASK[:, :, None] == 1, TOKENS, np.nan)
    np.savez(tmp_path / "a.npz", x=padded, mask=MASK)
    options = ReadOptions(pool, mask=FilePattern(tmp_path, "a.npz", "mask"), prefix_tokens=prefix)

    (batch,) = FileSource(FilePattern(tmp_path, "a.npz", "x"), IDS, options).batches(["x"], np.arange(N))

    np.testing.assert_allclose(batch["x"][:2], [first, second], rtol=1e-6)


BAD_MASKS = {
    "nothing valid": (MASK * (np.arange(N) != 5)[:, None], "mean", r"got 0 valid tokens in id id05"),
    "twos": (MASK * 2, "mean", r"got other values than 0 and 1 in the mask, first in id id00"),
    "rows": (MASK[1:], "mean", r"got a mask of 29 rows and 30 ids"),
    "tokens": (MASK[:, 1:], "mean", r"got 4 tokens and a mask of 3"),
    "shape": (MASK[0], "mean", r"got a mask of int64 and shape \(4,\), expected \(points, tokens\)"),
    "flatten": (MASK, "flatten", r"got a mask and pool: flatten"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_MASKS)
def test_mask_that_does_not_fit__is_refused(case: str, tmp_path: Path) -> None:
    mask, pool, message = BAD_MASKS[case]
    np.savez(tmp_path / "a.npz", x=TOKENS, mask=mask)
    options = ReadOptions(pool, mask=FilePattern(tmp_path, "a.npz", "mask"))
    with pytest.raises(DataError, match=message):
        list(FileSource(FilePattern(tmp_path, "a.npz", "x"), IDS, options).batches(["x"], np.arange(N)))


def test_prefix__that_leaves_no_token_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", TOKENS)
    source = FileSource(FilePattern(tmp_path, "a.npy"), IDS, ReadOptions("mean", prefix_tokens=4))
    with pytest.raises(DataError, match="got 4 tokens and prefix_tokens: 4, expected more tokens than prefix"):
        source.shape("a")
