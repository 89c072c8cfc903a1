"""Carrying stores of every kind: columns kept, bits that do not depend on chunks, resumed, nothing half-written."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lfm_atlas.cli.main import app
from lfm_tasks.errors import DataError
from lfm_tasks.sources import open_array
from lfm_tasks.spectral.maps.descriptors import Anchors
from lfm_tasks.upgrades import bulk, parts
from lfm_tasks.upgrades.adapters import Adapter, KnownPairs, ResidualLayer, orthogonal, residual_network, unit_rows
from lfm_tasks.upgrades.bulk import CarryOptions, KnownRows, carry, plan_carry
from lfm_tasks.upgrades.export import as_onnx, read_saved_map, save_map
from lfm_tasks.upgrades.parts import on_workers
from lfm_tasks.upgrades.stores import open_large_store, open_store
from lfm_tasks.upgrades.writers import WRITERS
from lfm_tasks.workers.pool import InProcess

N, D, E = 5000, 8, 6
GENERATOR = np.random.default_rng(0)
ROWS = GENERATOR.standard_normal((N, D)).astype(np.float32)
IDS = np.array([f"doc-{number}" for number in range(N)])
LINEAR = Adapter(GENERATOR.standard_normal((D, E)), GENERATOR.standard_normal(E))
EXPECTED = LINEAR.carry(ROWS)

# Older ones cannot read what they write: vectors of one length, one of them null.
READS_NULL_VECTORS = int(pa.__version__.split(".")[0]) >= 26
NULL_MESSAGE = "got 1 null values among 1" if READS_NULL_VECTORS else "null.parquet: cannot be read"


def carried(store: Any, output: Path, adapter: Adapter = LINEAR, **options: Any) -> Path:
    carry(plan_carry(adapter, store, output, CarryOptions(**options)), adapter)
    assert sorted(path.name for path in output.parent.glob(".*")) == []
    return output


def write(folder: Path, kind: str, rows: np.ndarray = ROWS) -> Path:
    path = folder / f"store{kind}"
    numbers = np.arange(len(rows)) % 7
    if kind == ".npy":
        np.save(path, rows)
    elif kind == ".npz":
        np.savez(path, ids=IDS[: len(rows)], vectors=rows, number=numbers)
    elif kind in (".parquet", ".arrow"):
        column = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])
        words = pa.array([["a", None], None] * (len(rows) // 2))
        table = pa.table({"id": IDS[: len(rows)], "words": words, "vectors": column, "number": numbers})
        if kind == ".parquet":
            pq.write_table(table, path, row_group_size=1700)
        else:
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table, max_chunksize=1700)
    return path


@pytest.mark.parametrize("suffix", list(WRITERS))
@pytest.mark.parametrize("kind", [".npz", ".parquet", ".arrow"])
def test_every_kind__comes_back_with_its_columns(tmp_path: Path, kind: str, suffix: str) -> None:
    output = carried(open_store(str(write(tmp_path, kind))), tmp_path / f"out{suffix}")
    key = None if suffix == ".npy" else "vectors"
    read = open_array(output, "out", key).load()
    np.testing.assert_allclose(read, EXPECTED, rtol=1e-5, atol=1e-5)
    if suffix == ".npy":
        return
    np.testing.assert_array_equal(open_array(output, "out", "number").load(), np.arange(N) % 7)
    if suffix != ".safetensors":  # which holds no text
        ids = "ids" if kind == ".npz" else "id"
        np.testing.assert_array_equal(open_array(output, "out", ids).load(), IDS)


def test_a_table__keeps_columns_of_any_type_in_their_places(tmp_path: Path) -> None:
    source = write(tmp_path, ".parquet")
    output = carried(open_store(str(source)), tmp_path / "out.parquet")
    before, after = pq.read_table(source), pq.read_table(output)
    assert after.column_names == before.column_names
    for name in ("id", "words", "number"):
        assert after.column(name).combine_chunks() == before.column(name).combine_chunks()


@pytest.mark.parametrize("chunk_bytes", [1, 300_000])
def test_bits__do_not_depend_on_chunks(tmp_path: Path, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(write(tmp_path, ".npy")))
    whole = np.load(carried(store, tmp_path / "whole.npy"))
    monkeypatch.setattr(bulk, "_CHUNK_BYTES", chunk_bytes)
    np.testing.assert_array_equal(np.load(carried(store, tmp_path / "parts.npy")), whole)


def test_types__float16_and_int8_are_near_and_float64_stays(tmp_path: Path) -> None:
    store = open_store(str(write(tmp_path, ".npz", ROWS.astype(np.float16))))
    half = open_array(carried(store, tmp_path / "a.parquet", dtype="float16"), "a", "vectors").load()
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, EXPECTED, atol=0.02)
    small = carried(store, tmp_path / "b.safetensors", dtype="int8")
    vectors, scale = (open_array(small, "b", key).load() for key in ("vectors", "scale"))
    assert vectors.dtype == np.int8
    np.testing.assert_allclose(vectors * scale[:, None], EXPECTED, atol=0.06)
    double = open_store(str(write(tmp_path, ".npy", ROWS.astype(np.float64))))
    assert np.load(carried(double, tmp_path / "c.npy")).dtype == np.float64


def test_int8__is_read_back_by_its_scale(tmp_path: Path) -> None:
    small = carried(open_store(str(write(tmp_path, ".npz"))), tmp_path / "small.parquet", dtype="int8")
    square = Adapter(GENERATOR.standard_normal((E, E)), np.zeros(E))
    again = carried(open_store(str(small)), tmp_path / "again.parquet", square)
    assert pq.read_schema(again).names == ["ids", "vectors", "number"]
    read = open_array(again, "again", "vectors").load()
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, square.carry(EXPECTED), atol=0.3)


def stop_in_the_middle(stage: str, done: int, total: int) -> None:
    if 2 * done > total:
        raise KeyboardInterrupt


def test_an_interruption__is_resumed_and_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(write(tmp_path, ".npz")))
    whole = carried(store, tmp_path / "whole.h5", dtype="float16").read_bytes()
    monkeypatch.setattr(bulk, "_CHUNK_BYTES", 1)
    monkeypatch.setattr(bulk, "_JOURNAL_BYTES", 1)
    output = tmp_path / "out.h5"
    plan = plan_carry(LINEAR, store, output, CarryOptions("float16"))
    with pytest.raises(KeyboardInterrupt):
        carry(plan, LINEAR, stop_in_the_middle)
    assert not output.exists()
    again = plan_carry(LINEAR, store, output, CarryOptions("float16"))
    assert 0 < again.n_done < N
    assert any("rows are carried already" in line for line in again.lines())
    seen: list[int] = []
    carry(again, LINEAR, lambda stage, done, total: seen.append(done))
    assert min(seen) > again.n_done
    assert len(output.read_bytes()) == len(whole)
    np.testing.assert_array_equal(
        open_array(output, "o", "vectors").load(), open_array(tmp_path / "whole.h5", "w", "vectors").load()
    )


def test_an_interruption__of_another_map_is_not_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(write(tmp_path, ".npy")))
    monkeypatch.setattr(bulk, "_CHUNK_BYTES", 1)
    monkeypatch.setattr(bulk, "_JOURNAL_BYTES", 1)
    with pytest.raises(KeyboardInterrupt):
        carry(plan_carry(LINEAR, store, tmp_path / "out.npy"), LINEAR, stop_in_the_middle)
    assert plan_carry(LINEAR, store, tmp_path / "out.npy").n_done > 0
    other = Adapter(2 * LINEAR.matrix, LINEAR.shift)
    assert plan_carry(other, store, tmp_path / "out.npy").n_done == 0
    assert np.load(carried(store, tmp_path / "out.npy", other)).shape == (N, E)


def test_a_folder_of_somebody_else__stays(tmp_path: Path) -> None:
    store = open_store(str(write(tmp_path, ".npy")))
    mine = tmp_path / ".out.npy.partial"
    mine.mkdir()
    (mine / "precious").write_text("mine")
    with pytest.raises(DataError, match="which lfm-atlas did not make"):
        carry(plan_carry(LINEAR, store, tmp_path / "out.npy"), LINEAR)
    assert (mine / "precious").read_text() == "mine"


def test_another_process_that_writes_the_output__is_told(tmp_path: Path) -> None:
    store = open_store(str(write(tmp_path, ".npy")))
    plan = plan_carry(LINEAR, store, tmp_path / "out.npy")

    def a_second_one(stage: str, done: int, total: int) -> None:
        with pytest.raises(DataError, match="got another process that writes it"):
            carry(plan, LINEAR)

    carry(plan, LINEAR, a_second_one)
    assert np.load(tmp_path / "out.npy").shape == (N, E)


def test_nan__is_named_by_row_and_id_and_leaves_nothing(tmp_path: Path) -> None:
    rows = ROWS.copy()
    rows[4321, 2] = np.nan
    store = open_store(str(write(tmp_path, ".npz", rows)))
    with pytest.raises(DataError, match=r"the first is row 4,321 \(id 'doc-4321'\)"):
        carry(plan_carry(LINEAR, store, tmp_path / "out.parquet"), LINEAR)
    assert [path.name for path in tmp_path.iterdir()] == ["store.npz"]


@pytest.mark.parametrize("when", ["rows", "file"])
def test_a_full_disk__leaves_nothing(tmp_path: Path, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(write(tmp_path, ".npz")))
    plan = plan_carry(LINEAR, store, tmp_path / "out.parquet")

    def full(*arguments: Any, **options: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if when == "rows":
        monkeypatch.setattr(bulk, "_write", full)
    else:
        monkeypatch.setitem(WRITERS, ".parquet", full)
    with pytest.raises(OSError, match="No space left"):
        carry(plan, LINEAR)
    assert [path.name for path in tmp_path.iterdir()] == ["store.npz"]


def test_too_small_a_disk__is_told_before_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(write(tmp_path, ".npy")))
    monkeypatch.setattr(bulk.shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(DataError, match="GB of free disk, expected") as raised:
        plan_carry(LINEAR, store, tmp_path / "out.npy")
    assert raised.value.reason == "too_large"


def test_a_store_that_changes_while_it_is_read__is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, ".npy")
    store = open_store(str(path))
    plan = plan_carry(LINEAR, store, tmp_path / "out.npy")
    np.save(path, 2 * ROWS)
    os.utime(path, (1, 1))
    with pytest.raises(DataError, match="the file changed while it was read"):
        carry(plan, LINEAR)
    assert [path.name for path in tmp_path.iterdir()] == ["store.npy"]


def test_float16__that_overflows_is_told(tmp_path: Path) -> None:
    store = open_store(str(write(tmp_path, ".npy")))
    large = Adapter(1e5 * LINEAR.matrix, LINEAR.shift)
    with pytest.raises(DataError, match="float16 ends at 65,504"):
        carry(plan_carry(large, store, tmp_path / "out.npy", CarryOptions("float16")), large)


@pytest.mark.parametrize(
    ("output", "options", "message"),
    [
        ("out.npy", {"dtype": "int8"}, "which has no room for a scale for each row"),
        ("out.csv", {}, "expected a name that ends in .parquet"),
        ("no/out.npy", {}, "got no folder"),
        ("store.npz", {}, "expected a name that ends in"),
    ],
)
def test_outputs_that_cannot_be__say_why(tmp_path: Path, output: str, options: dict[str, Any], message: str) -> None:
    store = open_store(str(write(tmp_path, ".npz")))
    with pytest.raises(DataError, match=message):
        plan_carry(LINEAR, store, tmp_path / output, CarryOptions(**options))


def test_outputs_that_are_read__are_refused_even_by_force(tmp_path: Path) -> None:
    path = write(tmp_path, ".npy")
    np.save(tmp_path / "ids.npy", IDS)
    store = open_large_store(str(path), str(tmp_path / "ids.npy"))
    (tmp_path / "link").symlink_to(tmp_path)
    for output in (path, tmp_path / "ids.npy", tmp_path / "link" / path.name):
        with pytest.raises(DataError, match="got the file that is read, expected another one"):
            plan_carry(LINEAR, store, output, CarryOptions(force=True))
    folder = carried(store, tmp_path / "store.zarr")
    with pytest.raises(DataError, match=r"got a place inside of .*store\.zarr, which is read"):
        plan_carry(LINEAR, open_large_store(f"{folder}#vectors"), folder / "out.npy")


@pytest.mark.parametrize(
    ("dtype", "message"),
    [("float32", "float32 ends at 3.403e"), ("int8", "as the scale of carried row 0, which is a float32")],
)
def test_numbers__that_the_type_does_not_hold_are_told(tmp_path: Path, dtype: str, message: str) -> None:
    store = open_store(str(write(tmp_path, ".npz", 1e200 * ROWS.astype(np.float64))))
    with pytest.raises(DataError, match=message):
        carry(plan_carry(LINEAR, store, tmp_path / "out.h5", CarryOptions(dtype)), LINEAR)
    adapter, known = known_rows()
    large = pq.read_table(carried(store, tmp_path / "out.parquet", adapter, known=known))
    usual = open_store(str(write(tmp_path, ".npz", ROWS.astype(np.float64))))
    expected = pq.read_table(carried(usual, tmp_path / "usual.parquet", adapter, known=known))
    np.testing.assert_allclose(np.array(large["known"]), np.array(expected["known"]), atol=1e-5)


@pytest.mark.parametrize("suffix", list(WRITERS))
def test_a_store_of_no_rows__is_carried_into_one_of_no_rows(tmp_path: Path, suffix: str) -> None:
    adapter, known = known_rows()
    np.save(tmp_path / "none.npy", ROWS[:0])
    options = {} if suffix == ".npy" else {"known": known, "dtype": "int8"}
    output = carried(open_store(str(tmp_path / "none.npy")), tmp_path / f"out{suffix}", adapter, **options)
    if suffix in (".parquet", ".arrow"):  # whose columns have no width without a row
        table = pq.read_table(output) if suffix == ".parquet" else pa.ipc.open_file(output).read_all()
        assert (table.num_rows, table.column_names[-1]) == (0, "known")
    else:
        assert open_array(output, "out", None if suffix == ".npy" else "vectors").shape[0] == 0


def test_a_cluster_that_is_lost__leaves_nothing_where_nothing_was_carried(tmp_path: Path) -> None:
    plan = plan_carry(LINEAR, open_store(str(write(tmp_path, ".npy"))), tmp_path / "out.npy")

    def lost(*arguments: Any) -> None:
        raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        carry(plan, LINEAR, carry_rows=lost)
    assert not plan.partial.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("map/stored.json", "store.npy", "x.npy"), "Name map/stored.safetensors, say"),
        (("store.npy", "store.npy", "x.npy"), "expected the name of a map, or a .safetensors"),
        (("broken.safetensors", "store.npy", "x.npy"), "got NaN or infinite values in the tensor 'matrix'"),
        (("map/stored.safetensors", "store.npy", "map/stored.safetensors", "--force"), "as the output"),
        (("map/stored.safetensors", "store.npy", "x.npy", "--scheduler", "no.json"), "got no scheduler file no.json"),
        (("map/stored.safetensors", "store.npy", "x.npy", "--scheduler", "http://x"), "expected tcp:// or tls://"),
        (("map/stored.safetensors", "null.parquet", "x.npy"), NULL_MESSAGE),
    ],
)  # fmt: skip
def test_command__that_cannot_carry_says_why(
    tmp_path: Path, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    adapter, known = known_rows()
    monkeypatch.chdir(tmp_path)
    save_map(Path("map"), "stored", adapter, known, {})
    save_map(Path(), "broken", Adapter(np.full((D, D), np.nan), np.zeros(D)), None, {})
    write(tmp_path, ".npy")
    pq.write_table(pa.table({"v": pa.array([None, [0.0] * D], pa.list_(pa.float64(), D))}), "null.parquet")
    before = sorted(tmp_path.rglob("*"))
    try:
        code = app(["transfer", *arguments], result_action="return_value")
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert sorted(tmp_path.rglob("*")) == before


def known_rows() -> tuple[Adapter, KnownRows]:
    rows = ROWS[:300].astype(np.float64)
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((D, D)))[0]
    pairs = Anchors(np.arange(300), np.arange(300))
    there = orthogonal(KnownPairs(rows, rows @ turn, pairs))
    back = orthogonal(KnownPairs(rows @ turn, rows, pairs))

    def unit(values: np.ndarray) -> np.ndarray:
        return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)

    return there, KnownRows(back, unit(rows), unit(rows @ turn))


def test_confidence__is_added_as_columns(tmp_path: Path) -> None:
    adapter, known = known_rows()
    store = open_store(str(write(tmp_path, ".npz")))
    output = carried(store, tmp_path / "out.parquet", adapter, known=known)
    table = pq.read_table(output)
    assert table.column_names == ["ids", "vectors", "number", "confidence", "round_trip", "local", "known"]
    values = np.array(table["confidence"])
    assert values[:300].min() > 0.95
    assert 0 <= values.min() <= values.max() <= 1


@pytest.mark.parametrize("kind", ["linear", "network"])
def test_saved_maps__are_the_same_in_onnx_and_safetensors(tmp_path: Path, kind: str) -> None:
    import onnxruntime

    adapter, known = known_rows()
    if kind == "network":
        rows = ROWS[:200].astype(np.float64)
        pairs = KnownPairs(rows, np.tanh(rows), Anchors(np.arange(200), np.arange(200)))
        trained = residual_network(pairs)
        assert trained is not None
        adapter = trained
    save_map(tmp_path / "map", "stored", adapter, known, {"recall": 0.9})
    facts = json.loads((tmp_path / "map" / "stored.json").read_text())
    assert (facts["source_features"], facts["recall"], facts["is_linear"]) == (D, 0.9, kind == "linear")
    session = onnxruntime.InferenceSession(tmp_path / "map" / "stored.onnx", providers=["CPUExecutionProvider"])
    expected = adapter.carry(unit_rows(ROWS))  # the map is of rows of length 1, and takes rows of any length
    np.testing.assert_allclose(session.run(None, {"rows": ROWS})[0], expected, atol=1e-4)
    again, told = read_saved_map(tmp_path / "map" / "stored.safetensors")
    assert facts["formula"].startswith("z = x / |x| @ matrix + shift")
    for length in (1e-3, 1.0, 50.0):
        np.testing.assert_allclose(again.carry(np.float32(length) * ROWS), expected, atol=1e-5)
    assert told is not None
    np.testing.assert_array_equal(told.source, known.source)


def test_saved_maps__of_rows_as_recorded_take_rows_as_they_are(tmp_path: Path) -> None:
    import onnxruntime

    adapter, known = known_rows()
    save_map(tmp_path, "named", adapter, replace(known, is_of_units=False), {})
    session = onnxruntime.InferenceSession(tmp_path / "named.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"rows": ROWS})[0], adapter.carry(ROWS), atol=1e-4)
    np.testing.assert_allclose(
        read_saved_map(tmp_path / "named.safetensors")[0].carry(ROWS), adapter.carry(ROWS), atol=1e-5
    )


def test_a_store_of_vectors_of_any_length__is_carried_as_one_of_length_1(tmp_path: Path) -> None:
    """A map with a shift would carry long rows into directions of their own."""
    adapter, known = known_rows()
    save_map(tmp_path, "stored", replace(adapter, shift=np.ones(D)), known, {})
    saved, _ = read_saved_map(tmp_path / "stored.safetensors")
    lengths = GENERATOR.uniform(0.1, 40, (N, 1)).astype(np.float32)
    for name, rows in (("unit", unit_rows(ROWS)), ("long", lengths * ROWS)):
        (tmp_path / name).mkdir()
        carried(open_store(str(write(tmp_path / name, ".npz", rows))), tmp_path / name / "out.npy", saved)
    unit, long = (np.load(tmp_path / name / "out.npy") for name in ("unit", "long"))
    np.testing.assert_allclose(long, unit, atol=1e-5)


def test_whole_numbers_without_a_scale__are_noted(tmp_path: Path) -> None:
    np.savez(tmp_path / "store.npz", vectors=np.rint(30 * ROWS).astype(np.int8))
    plan = plan_carry(LINEAR, open_store(str(tmp_path / "store.npz")), tmp_path / "out.npy")
    assert plan.notes == ("int8 without a column scale: the whole numbers themselves are carried",)


@pytest.mark.parametrize("kind", [".parquet", ".arrow"])
def test_a_table_of_no_rows__is_told_as_such(tmp_path: Path, kind: str) -> None:
    with pytest.raises(DataError, match=r"store.*#id: got no rows, expected at least one\. Write it again"):
        open_store(str(write(tmp_path, kind, ROWS[:0])))


def test_onnx__of_a_network_has_all_its_layers() -> None:
    import onnx

    part = ResidualLayer(np.ones((E, 3)), np.zeros(3), np.ones((3, E)), np.zeros(E))
    graph = onnx.load_from_string(as_onnx(Adapter(LINEAR.matrix, LINEAR.shift, part))).graph
    assert [node.op_type for node in graph.node] == ["Gemm", "Gemm", "Relu", "Gemm", "Add"]


def test_command__plans_then_carries(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter, known = known_rows()
    save_map(tmp_path / "map", "stored", adapter, known, {})
    command = ["transfer", str(tmp_path / "map" / "stored.safetensors"), str(write(tmp_path, ".parquet"))]
    output = tmp_path / "new.parquet"

    def run(*more: str) -> int:
        try:
            return int(app([*command, str(output), *more], result_action="return_value"))
        except SystemExit as stop:
            return int(stop.code or 0)

    assert run("--plan", "--confidence") == 0
    planned = capsys.readouterr().out
    assert "5,000 vectors, 8 -> 8 features, float32" in planned
    assert "columns beside the vectors: id, words, number, confidence" in planned
    assert not output.exists()
    assert run("--confidence", "--dtype", "int8") == 0
    assert "wrote" in capsys.readouterr().out
    assert pq.read_table(output).column_names[-1] == "known"
    assert run() == 2
    assert "got a file that exists" in capsys.readouterr().err


def test_a_file_that_is_no_map__is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_saved_map(tmp_path / "none.safetensors")
    store = open_store(str(write(tmp_path, ".npz")))
    path = carried(store, tmp_path / "store.safetensors")
    with pytest.raises(DataError, match="expected a map that lfm-atlas upgrade --save wrote"):
        read_saved_map(path)


@pytest.fixture
def in_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "_CHUNK_BYTES", 1)
    monkeypatch.setattr(parts, "_PART_BYTES", 1)
    monkeypatch.setattr(parts, "_PARTS_AT_ONCE", 2)


@pytest.mark.parametrize("kind", [".npy", ".parquet", ".npz"])
@pytest.mark.usefixtures("in_small_parts")
def test_workers__give_the_same_bytes(tmp_path: Path, kind: str) -> None:
    adapter, known = known_rows()
    store = open_large_store(str(write(tmp_path, kind)))
    options = {} if kind == ".npy" else {"known": known, "dtype": "int8"}
    suffix = ".npy" if kind == ".npy" else ".arrow"
    whole = carried(store, tmp_path / f"whole{suffix}", adapter, **options)
    plan = plan_carry(adapter, store, tmp_path / f"parts{suffix}", CarryOptions(**options))
    carry(plan, adapter, carry_rows=on_workers(InProcess()))
    assert plan.output.read_bytes() == whole.read_bytes()
    assert not plan.partial.exists()


@pytest.mark.usefixtures("in_small_parts")
def test_workers__that_are_stopped_are_resumed_by_workers_and_by_one_process(tmp_path: Path) -> None:
    class InReverse(InProcess):
        """Workers that finish the last part first."""

        def run(self, function: Any, jobs: Any, *more: Any) -> Any:
            yield from ((len(jobs) - 1 - index, result) for index, result in super().run(function, jobs[::-1]))

    def stop_at_once(stage: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    store = open_large_store(str(write(tmp_path, ".npy")))
    whole = np.load(carried(store, tmp_path / "whole.npy"))
    for way in (on_workers(InReverse()), None):
        with pytest.raises(KeyboardInterrupt):
            carry(plan_carry(LINEAR, store, tmp_path / "out.npy"), LINEAR, stop_at_once, on_workers(InReverse()))
        again = plan_carry(LINEAR, store, tmp_path / "out.npy")
        assert (again.n_done, again.n_carried) == (0, 2048)
        carry(again, LINEAR, carry_rows=way)
        np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), whole)
        (tmp_path / "out.npy").unlink()


@pytest.mark.usefixtures("in_small_parts")
def test_workers__tell_of_nan_and_of_a_store_that_changes_and_leave_nothing(tmp_path: Path) -> None:
    rows = ROWS.copy()
    rows[4321, 2] = np.inf
    store = open_large_store(str(write(tmp_path, ".npz", rows)))
    plan = plan_carry(LINEAR, store, tmp_path / "out.h5")
    with pytest.raises(DataError, match=r"the first is row 4,321 \(id 'doc-4321'\)"):
        carry(plan, LINEAR, carry_rows=on_workers(InProcess()))
    np.savez(tmp_path / "store.npz", ids=IDS, vectors=ROWS)
    with pytest.raises(DataError, match="the file changed while it was read"):
        carry(plan, LINEAR, carry_rows=on_workers(InProcess()))
    assert [path.name for path in tmp_path.iterdir()] == ["store.npz"]


def test_a_journal__that_has_a_gap_is_merged_where_it_has_none(tmp_path: Path) -> None:
    plan = plan_carry(LINEAR, open_large_store(str(write(tmp_path, ".npy"))), tmp_path / "out.npy")
    plan.partial.mkdir()
    bulk.note_done(plan, [(20, 30), (0, 10), (10, 15), (30, 40), (5, 5)])
    again = plan_carry(LINEAR, plan.store, plan.output)
    assert again.done == ((0, 15), (20, 40))
    assert (again.n_done, again.n_carried) == (15, 35)


def test_ids_of_a_large_store__stay_on_the_disk_and_name_a_row(tmp_path: Path) -> None:
    rows = ROWS.copy()
    rows[7] = np.nan
    store = open_large_store(str(write(tmp_path, ".parquet", rows)), most_ids=100)
    assert store.ids is None
    plan = plan_carry(LINEAR, store, tmp_path / "out.parquet")
    assert any("not checked for repeats" in note for note in plan.notes)
    with pytest.raises(DataError, match=r"row 7 \(id 'doc-7'\)"):
        carry(plan, LINEAR)
    np.save(tmp_path / "ids.npy", IDS)
    elsewhere = open_large_store(str(write(tmp_path, ".npy")), str(tmp_path / "ids.npy"), most_ids=100)
    output = carried(elsewhere, tmp_path / "elsewhere.parquet")
    np.testing.assert_array_equal(open_array(output, "out", "ids").load(), IDS)


def test_command__carries_on_two_processes_as_on_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter, known = known_rows()
    save_map(tmp_path / "map", "stored", adapter, known, {})
    command = ["transfer", str(tmp_path / "map" / "stored.safetensors"), str(write(tmp_path, ".parquet"))]
    for name, more in (("one", ()), ("two", ("--workers", "2"))):
        arguments = [*command, str(tmp_path / f"{name}.arrow"), "--confidence", *more]
        assert app(arguments, result_action="return_value") == 0
    assert (tmp_path / "one.arrow").read_bytes() == (tmp_path / "two.arrow").read_bytes()
    assert app([*command, "x.npy", "--workers", "2", "--scheduler", "s.json"], result_action="return_value") == 2
    assert "got --workers 2 and --scheduler" in capsys.readouterr().err
