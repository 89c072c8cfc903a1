"""Where layers lie: shards of rows, a file or a dataset a stimulus, stacks, columns, files of other suffixes."""

from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from safetensors.numpy import save_file

from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.formats import NAMED_FORMATS, Reading, open_array
from lfm_tasks.sources.source import FilePattern, FileSource, ReadOptions, choose_layers

N = 30
IDS = np.array([f"id{number:02}" for number in range(N)])
ROWS = np.random.default_rng(0).standard_normal((N, 5)).astype(np.float32)


def values(source: FileSource, layer: str) -> np.ndarray:
    batches = source.batches([layer], np.arange(len(source.ids)))
    return np.concatenate([batch[layer] for batch in batches])


def write_shard(path: Path, rows: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix:
        case ".safetensors":
            save_file({"conv": rows, "fc": rows * 2}, path)
        case ".npy":
            np.save(path, rows)
        case ".npz":
            np.savez_compressed(path, conv=rows)
        case ".h5":
            with h5py.File(path, "w") as file:
                file["conv"] = rows
        case ".parquet":
            column = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])
            pq.write_table(pa.table({"conv": column}), path, row_group_size=4)


@pytest.mark.parametrize("suffix", [".safetensors", ".npy", ".npz", ".h5", ".parquet"])
def test_shards__are_joined_in_the_order_of_their_numbers(suffix: str, tmp_path: Path) -> None:
    for number, start in enumerate(range(0, N, 2)):  # more than ten
        write_shard(tmp_path / f"rows_{number}{suffix}", ROWS[start : start + 2])
    source = FileSource(FilePattern(tmp_path, f"rows_{{shard}}{suffix}"), IDS)
    layer = "rows" if suffix == ".npy" else "conv"

    assert layer in source.layer_names()
    np.testing.assert_array_equal(values(source, layer), ROWS)
    whole = tmp_path / "whole.npy"
    np.save(whole, ROWS)
    assert source.identity(layer)["sha256"] == open_array(whole, "whole.npy").sha256()
    shuffled = np.random.default_rng(1).permutation(N)
    (batch,) = source.batches([layer], shuffled)
    np.testing.assert_array_equal(batch[layer], ROWS[shuffled])


def test_shards_of_layers__may_lie_in_files_or_folders_of_their_own(tmp_path: Path) -> None:
    for layer in ("layer2", "layer10"):
        for number in range(3):
            write_shard(tmp_path / layer / f"{number}.npy", ROWS[number * 10 : number * 10 + 10])
            write_shard(tmp_path / "flat" / f"{layer}.{number}.npy", ROWS[number * 10 : number * 10 + 10])
    for path in ("{layer}/{shard}.npy", "flat/{layer}.{shard}.npy"):
        source = FileSource(FilePattern(tmp_path, path), IDS)
        assert source.layer_names()[-2:] == ("layer2", "layer10")
        np.testing.assert_array_equal(values(source, "layer10"), ROWS)


def test_shards_that_are_missing__are_told(tmp_path: Path) -> None:
    for number in (1, 3):
        write_shard(tmp_path / f"model-0000{number}-of-00003.safetensors", ROWS[:10])
    with pytest.raises(DataError, match="got 2 shards of 3, expected all of them"):
        FileSource(FilePattern(tmp_path, "model-{shard}.safetensors"), IDS)
    save_file({"conv": ROWS[:, :3].copy()}, tmp_path / "other-1.safetensors")
    save_file({"conv": ROWS}, tmp_path / "other-2.safetensors")
    with pytest.raises(DataError, match=r"got rows of shape \(3,\) in other-1.* and \(5,\) in other-2"):
        FileSource(FilePattern(tmp_path, "other-{shard}.safetensors"), IDS).identity("conv")


def test_folders_of_parquet__are_one_table(tmp_path: Path) -> None:
    for number in range(12):
        part = ROWS[number * 3 : number * 3 + 3]  # the last ones are empty, as Spark leaves them
        columns = {f"f{index}": part[:, index] for index in range(5)} | {"id": IDS[number * 3 : number * 3 + 3]}
        column = pa.FixedSizeListArray.from_arrays(pa.array(part.reshape(-1)), 5)
        (tmp_path / "table").mkdir(exist_ok=True)
        pq.write_table(pa.table({"emb": column, **columns}), tmp_path / "table" / f"part-{number}.parquet")
    (tmp_path / "table" / "_SUCCESS").write_bytes(b"")

    np.testing.assert_array_equal(values(FileSource(FilePattern(tmp_path, "table", "emb"), IDS), "emb"), ROWS)
    assert open_array(tmp_path / "table", "table", "id").load().tolist() == IDS.tolist()
    source = FileSource(FilePattern(tmp_path, "table", reading=Reading(columns=("f*",))), IDS)
    assert source.layer_names() == ("table",)
    np.testing.assert_array_equal(values(source, "table"), ROWS)


def write_stimuli(kind: str, folder: Path) -> FilePattern:
    match kind:
        case "datasets of layers":
            with h5py.File(folder / "a.h5", "w") as file:
                for row, name in enumerate(IDS):
                    file[f"conv/{name}"], file[f"fc/1/{name}"] = ROWS[row], ROWS[row] * 2
            return FilePattern(folder, "a.h5", "{layer}/{id}")
        case "groups of stimuli":
            with h5py.File(folder / "a.h5", "w") as file:
                for row, name in enumerate(IDS):
                    file[f"{name}/conv"], file[f"{name}/fc/1"] = ROWS[row], ROWS[row] * 2
            return FilePattern(folder, "a.h5", "{id}/{layer}")
        case "zarr":
            group = zarr.create_group(folder / "a.zarr")
            for row, name in enumerate(IDS):
                group.create_array(f"conv/{name}", data=ROWS[row])
            return FilePattern(folder, "a.zarr", "{layer}/{id}")
        case "keys":
            np.savez(folder / "conv.npz", **{str(name): ROWS[row] for row, name in enumerate(IDS)})
            return FilePattern(folder, "{layer}.npz", "{id}")
        case "files of layers":
            for row, name in enumerate(IDS):
                write_shard(folder / "conv" / f"{name}.npy", ROWS[row])
            return FilePattern(folder, "{layer}/{id}.npy")
        case _:
            torch = pytest.importorskip("torch")
            torch.save(
                {"conv": {str(name): torch.from_numpy(ROWS[row]) for row, name in enumerate(IDS)}}, folder / "a.pt"
            )
            return FilePattern(folder, "a.pt", "{layer}/{id}")


@pytest.mark.parametrize(
    "kind", ["datasets of layers", "groups of stimuli", "zarr", "keys", "files of layers", "tensors"]
)
def test_an_array_a_stimulus__is_a_row_under_its_own_name(kind: str, tmp_path: Path) -> None:
    source = FileSource(write_stimuli(kind, tmp_path), np.array(["other ids"]))

    assert source.ids.tolist() == IDS.tolist()
    assert "conv" in source.layer_names()
    np.testing.assert_array_equal(values(source, "conv"), ROWS)
    if kind in ("datasets of layers", "groups of stimuli"):
        np.testing.assert_array_equal(values(source, "fc/1"), ROWS * 2)


def test_layers_that_lack_a_stimulus__are_told(tmp_path: Path) -> None:
    pattern = write_stimuli("datasets of layers", tmp_path)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file["conv/id07"]
    with pytest.raises(DataError, match=r"got 29 stimuli in the layer 'conv' and 30 in another, first 'id07'"):
        FileSource(pattern, None)


def test_stacks__may_have_their_layers_first_or_second(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).standard_normal((4, N, 5))
    np.save(tmp_path / "first.npy", stack)
    np.savez(tmp_path / "first.npz", feats=stack, second=np.swapaxes(stack, 0, 1))
    for path, key in (
        ("first.npy", "[{layer},:]"),
        ("first.npz", "feats[{layer}, :]"),
        ("first.npz", "second[{layer}]"),
        ("first.npz", "second[:,{layer}]"),
    ):
        source = FileSource(FilePattern(tmp_path, path, key), IDS)
        assert source.layer_names() == ("0", "1", "2", "3")
        np.testing.assert_array_equal(values(source, "2"), stack[2])
    wrong = FileSource(FilePattern(tmp_path, "first.npz", "feats[{layer}]"), IDS)
    with pytest.raises(
        DataError, match=r'got 4 rows and 30 ids.*or key: "\.\.\.\[\{layer\},:\]" where the layers come'
    ):
        wrong.identity("2")


def test_points_that_stand_in_columns__are_told(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ROWS.T)
    with pytest.raises(DataError, match=r"got 5 rows and 30 ids.*. The points stand in its columns"):
        FileSource(FilePattern(tmp_path, "a.npy"), IDS).identity("a")


def test_columns__are_features(tmp_path: Path) -> None:
    columns: dict[str, Any] = {f"f{index}": ROWS[:, index] for index in range(5)}
    table = pa.table({"id": IDS, **columns, "label": np.arange(N)})
    pq.write_table(table, tmp_path / "a.pq", row_group_size=7)
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    lines = ["id,f0,f1,f2,f3,f4,label"]
    lines += [",".join([IDS[row], *map(repr, ROWS[row].astype(float).tolist()), str(row)]) for row in range(N)]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    for name in ("a.pq", "a.arrow", "a.csv"):
        source = FileSource(FilePattern(tmp_path, name, reading=Reading(columns=("f*",))), IDS)
        np.testing.assert_array_equal(values(source, "a"), ROWS.astype(np.float32))
        some = FileSource(FilePattern(tmp_path, name, reading=Reading(columns=("f*", "!f3"))), IDS)
        np.testing.assert_array_equal(values(some, "a"), ROWS[:, [0, 1, 2, 4]])
        with pytest.raises(DataError, match=r"got no column that matches 'g\*'; there is f0, f1"):
            open_array(tmp_path / name, name, None, Reading(columns=("g*",)))
        with pytest.raises(DataError, match="number"):
            open_array(tmp_path / name, name, None, Reading(columns=("id", "f0"))).load()
    np.save(tmp_path / "a.npy", ROWS)
    with pytest.raises(DataError, match="got columns for a kind of file that has none"):
        open_array(tmp_path / "a.npy", "a.npy", None, Reading(columns=("f*",)))


def test_columns_of_shards__are_joined_row_after_row(tmp_path: Path) -> None:
    for number in range(3):
        part = ROWS[number * 10 : number * 10 + 10]
        columns = {f"f{index}": part[:, index] for index in range(5)}
        pq.write_table(pa.table({"id": IDS[number * 10 : number * 10 + 10], **columns}), tmp_path / f"rows_{number}.pq")
    source = FileSource(FilePattern(tmp_path, "rows_{shard}.pq", reading=Reading(columns=("f*",))), IDS)
    assert source.layer_names() == ("rows",)
    np.testing.assert_array_equal(values(source, "rows"), ROWS)
    assert FilePattern(tmp_path, "rows_{shard}.pq", "id").open().load().tolist() == IDS.tolist()


def test_tables_beside_embeddings__hold_no_layers(tmp_path: Path) -> None:
    emb = pa.FixedSizeListArray.from_arrays(pa.array(ROWS.reshape(-1)), 5)
    when = pa.array(np.arange(N), pa.timestamp("s"))
    beside = {"id": IDS, "n": np.arange(N), "when": when, "facts": pa.array([{"a": 1}] * N), "none": pa.nulls(N)}
    pq.write_table(pa.table({**beside, "emb": emb}), tmp_path / "a.parquet")
    layers, (note,) = choose_layers(["*"], FileSource(FilePattern(tmp_path, "a.parquet"), IDS))
    assert layers == ("emb",)
    assert "id (text), n (one number a row), when (no numbers), facts (no numbers)" in note


def test_empty_cells_of_columns__are_no_numbers(tmp_path: Path) -> None:
    holes = pa.array([1.0, None, 3.0])
    pq.write_table(pa.table({"f0": holes, "f1": [1, 2, 3]}), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("f0,f1\n1.0,1\n,2\n3.0,3\n")
    for name in ("a.parquet", "a.csv"):
        read = open_array(tmp_path / name, name, None, Reading(columns=("f*",))).load()
        np.testing.assert_array_equal(read, [[1, 1], [np.nan, 2], [3, 3]])


def test_csv_and_json_lines__hold_ids_labels_and_embeddings(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\ufeffid,label\n007,cat\n008,dog\n")
    (tmp_path / "a.tsv").write_text("id\tlabel\n0,7\tcat\n008\tdog\n")
    (tmp_path / "a.jsonl").write_text('{"id": "a", "n": 3, "emb": [1.5, 2]}\n\n{"id": "b", "n": 4, "emb": [3, 4]}\n')
    assert open_array(tmp_path / "a.csv", "a.csv", "id").load().tolist() == ["007", "008"]
    assert open_array(tmp_path / "a.tsv", "a.tsv", "id").load().tolist() == ["0,7", "008"]
    assert open_array(tmp_path / "a.jsonl", "a.jsonl", "id").load().tolist() == ["a", "b"]
    assert open_array(tmp_path / "a.jsonl", "a.jsonl", "n").load().tolist() == [3, 4]
    assert open_array(tmp_path / "a.jsonl", "a.jsonl", "emb").load().tolist() == [[1.5, 2], [3, 4]]
    with pytest.raises(
        DataError, match=r"a\.csv: got no key, expected key: with the name of a column; there is id, label"
    ):
        open_array(tmp_path / "a.csv", "a.csv")
    (tmp_path / "b.jsonl").write_text('{"x": [1]}\n{"x": "text"}\n')
    with pytest.raises(DataError, match=r"b\.jsonl:2: got 'text', expected lists in each row"):
        open_array(tmp_path / "b.jsonl", "b.jsonl", "x")
    (tmp_path / "c.jsonl").write_text('{"x": [1]}\n{"x": [1, 2]}\n')
    with pytest.raises(DataError, match="got lists of several lengths"):
        open_array(tmp_path / "c.jsonl", "c.jsonl", "x")


def test_suffixes__may_be_written_in_any_way(tmp_path: Path) -> None:
    with (tmp_path / "a.NPY").open("wb") as file:
        np.save(file, ROWS)
    write_shard(tmp_path / "b.h5", ROWS)
    (tmp_path / "b.h5").rename(tmp_path / "b.H5AD")
    write_shard(tmp_path / "c.parquet", ROWS)
    (tmp_path / "c.parquet").rename(tmp_path / "c.PQ")
    for name, key in (("a.NPY", None), ("b.H5AD", "conv"), ("c.PQ", "conv")):
        np.testing.assert_array_equal(open_array(tmp_path / name, name, key).load(), ROWS)


@pytest.mark.parametrize("word", ["npy", "npz", "hdf5", "parquet", "safetensors"])
def test_files_whose_suffix_does_not_tell__are_read_as_the_catalog_says(word: str, tmp_path: Path) -> None:
    suffix = {"hdf5": ".h5"}.get(word, f".{word}")
    write_shard(tmp_path / f"a{suffix}", ROWS)
    (tmp_path / f"a{suffix}").rename(tmp_path / "a.dat")
    hint = "" if word == "safetensors" else f"[Ss]ay format: {word}"
    with pytest.raises(DataError, match=rf"got a \.dat file, expected one of .*{hint}"):
        open_array(tmp_path / "a.dat", "a.dat", "conv")
    key = None if word == "npy" else "conv"
    np.testing.assert_array_equal(open_array(tmp_path / "a.dat", "a.dat", key, Reading(format=word)).load(), ROWS)


def test_formats__that_a_catalog_may_name_are_those_that_are_read() -> None:
    from typing import get_args

    from lfm_tasks.catalog.datasets import FileFormat

    assert set(get_args(FileFormat)) == set(NAMED_FORMATS)


def test_bfloat16__is_read_where_the_catalog_says_so(tmp_path: Path) -> None:
    halves = ROWS.astype(ml_dtypes.bfloat16)
    np.save(tmp_path / "a.npy", halves)
    np.savez(tmp_path / "a.npz", x=halves)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = halves.view(np.uint16)
    zarr.create_group(tmp_path / "a.zarr").create_array("x", data=halves.view(np.uint16))
    for name, key in (("a.npy", None), ("a.npz", "x"), ("a.h5", "x"), ("a.zarr", "x")):
        array = open_array(tmp_path / name, name, key, Reading(read_as="bfloat16"))
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array.load(), halves.astype(np.float32))
    with pytest.raises(DataError, match=r"got \|V2, expected numbers or text. If these are bfloat16, say read_as"):
        open_array(tmp_path / "a.npy", "a.npy")
    np.save(tmp_path / "b.npy", ROWS)
    with pytest.raises(DataError, match="got float32 and read_as: bfloat16, expected values of 16 bits"):
        open_array(tmp_path / "b.npy", "b.npy", None, Reading(read_as="bfloat16"))


def test_what_lies_beside_activations__is_no_layer(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "a.npz",
        conv=ROWS,
        ids=IDS,
        labels=np.arange(N),
        lr=np.float32(0.1),
        config=np.array({"depth": 3}, dtype=object),
        tokens=np.ones((N, 4), int),
        input_ids=np.ones((N, 4), int),
        mask=np.ones((N, 4)),
    )
    named = frozenset({(str(tmp_path / "a.npz"), "mask"), (str(tmp_path / "a.npz"), "ids")})
    source = FileSource(FilePattern(tmp_path, "a.npz"), IDS, ReadOptions(named=named))

    layers, notes = choose_layers(["*"], source)

    assert layers == ("conv", "tokens")
    assert notes == [
        "no layers: ids (the catalog names it), labels (one number a row), lr (a single value), "
        "config (pickled objects), input_ids (what networks are fed), mask (the catalog names it)"
    ]
    np.savez(tmp_path / "text.npz", words=np.array([["a", "b"]] * N), numbers=ROWS.astype(str), conv=ROWS)
    text = FileSource(FilePattern(tmp_path, "text.npz"), IDS)
    # Numbers that were saved as text are a layer, which is refused.
    assert choose_layers(["*"], text) == (("numbers", "conv"), ["no layers: words (text)"])
    beside = {"in.attention_mask": np.ones((N, 4), np.float32), "y/targets": np.ones((N, 3), bool), "targets": ROWS}
    np.savez(tmp_path / "beside.npz", **beside)
    assert choose_layers(["*"], FileSource(FilePattern(tmp_path, "beside.npz"), IDS))[0] == ("targets",)
    assert choose_layers(["conv", "labels"], source) == (("conv", "labels"), [])
    with pytest.raises(DataError, match=r"got no layer, but ids \(.*\), expected \(points, features\)"):
        choose_layers(["i*", "l*"], source)


def test_files_beside_layers__are_no_layers_either(tmp_path: Path) -> None:
    for name, rows in (("conv", ROWS), ("labels", np.arange(N)), ("ids", IDS)):
        np.save(tmp_path / f"{name}.npy", rows)
    source = FileSource(FilePattern(tmp_path, "{layer}.npy"), IDS)
    assert choose_layers(["*"], source)[0] == ("conv",)


@pytest.mark.parametrize("pool", ["mean", "cls", "last"])
def test_hidden_states_behind_an_axis_of_length_1__are_tokens(pool: str, tmp_path: Path) -> None:
    states = np.random.default_rng(0).standard_normal((N, 1, 3, 4))
    np.save(tmp_path / "a.npy", states)
    np.save(tmp_path / "b.npy", states[:, 0])
    np.save(tmp_path / "mask.npy", np.array([[1, 1, 0]] * N))
    mask = FilePattern(tmp_path, "mask.npy")
    stacked = FileSource(FilePattern(tmp_path, "a.npy"), IDS, ReadOptions(pool, "ntd", mask))
    plain = FileSource(FilePattern(tmp_path, "b.npy"), IDS, ReadOptions(pool, "ntd", mask))
    np.testing.assert_array_equal(values(stacked, "a"), values(plain, "b"))
    with pytest.raises(DataError, match="without shape, which may be channels first or last"):
        FileSource(FilePattern(tmp_path, "a.npy"), IDS, ReadOptions(pool if pool == "mean" else "max")).identity("a")


def test_layers_of_several_shapes__are_read_by_a_list_of_them(tmp_path: Path) -> None:
    maps = np.random.default_rng(0).standard_normal((N, 2, 3, 4))
    np.savez(tmp_path / "a.npz", maps=maps, tokens=maps[:, 0], rows=ROWS)
    source = FileSource(FilePattern(tmp_path, "a.npz"), IDS, ReadOptions("mean", ("ntd", "nhwc")))
    np.testing.assert_allclose(values(source, "maps"), maps.mean(axis=(1, 2)), rtol=1e-6)
    np.testing.assert_allclose(values(source, "tokens"), maps[:, 0].mean(axis=1), rtol=1e-6)
    assert source.identity("maps")["shape"] == "nhwc"
    one = FileSource(FilePattern(tmp_path, "a.npz"), IDS, ReadOptions("mean", "nhwc"))
    assert one.identity("maps") == source.identity("maps")
