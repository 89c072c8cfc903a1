"""``lfm-atlas map``, ``maps``, ``transfer``: what a person gets, and what they are told when it cannot be."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm_atlas.cli.main import app
from lfm_tasks.stores.named_maps import read_named_map
from lfm_tasks.stores.units.store import UnitStore
from lfm_tasks.upgrades import bulk as carrying
from lfm_tasks.zoo import write_start

SOURCE, TARGET, NAME = "model0/layer0", "model1/layer0", "model0.layer0--model1.layer0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, related_spaces: Any, write_zoo: Callable[..., Path]) -> Path:
    """Give a zoo whose map is fitted; tests leave its store as it is."""
    folder = tmp_path_factory.mktemp("maps")
    labels = np.repeat([0, 1, 2], 40)
    write_zoo(folder, related_spaces(2), {"labels": labels})
    assert lfm_atlas(folder, "map", SOURCE, TARGET) == 0
    return folder


def lfm_atlas(folder: Path, *arguments: str) -> int:
    """Run a command as ``lfm-atlas`` would, in this process."""
    try:
        result = app([*arguments, "--catalog", str(folder / "data_catalog.yaml")], result_action="return_value")
        return int(result)
    except SystemExit as stop:
        return int(stop.code or 0)


def units(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (folder / ".lfm-atlas" / "units").rglob("*")}


def test_map__records_two_spaces_only_and_says_how_good_it_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = units(folder)
    assert lfm_atlas(folder, "map", SOURCE, TARGET) == 0
    printed = capsys.readouterr().out

    assert len(list((folder / ".lfm-atlas" / "units" / "activations").iterdir())) == 2
    for words in (
        f"{SOURCE} -> {TARGET}: 10 anchors, 120 common points",
        "why: 10 held-out anchors",
        "procrustes, icp",
        "accuracy",
        "functional map: residual",
        "not stitched: model model1: got no onnx",
        f"map {NAME} (nothing to compute)",
    ):
        assert words in printed
    assert units(folder) == before


def test_map__of_permuted_rows_finds_points_that_it_was_not_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lfm_atlas(folder, "map", SOURCE, TARGET, "--format", "json") == 0
    facts = json.loads(capsys.readouterr().out)
    chosen = next(row for row in facts["table"] if row["name"] == facts["chosen"])

    # Rows of the two models are in different orders; 110 points are no anchors.
    assert chosen["accuracy"] > 0.1  # by chance 1 of 120
    assert chosen["mrr"] > chosen["accuracy"]
    assert (facts["is_new"], facts["n_anchors"], facts["n_common"]) == (False, 10, 120)


@pytest.mark.parametrize("regime", ["full", "labels", "unsupervised"])
def test_map__from_other_knowledge_has_the_same_table(
    folder: Path, regime: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lfm_atlas(folder, "map", SOURCE, TARGET, "--regime", regime, "--name", f"by-{regime}") == 0
    printed = capsys.readouterr().out
    assert f"regime {regime}, 120 common points" in printed
    assert ("held out" in printed) == (regime == "full")
    assert "round trip" in printed
    assert read_named_map(folder / ".lfm-atlas", f"by-{regime}").n_anchors == 0


def test_map__from_a_file_of_anchors_is_that_of_the_same_anchors_in_another_kind_of_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [f"p{number:03}" for number in range(0, 120, 8)]
    (tmp_path / "a.txt").write_text("\n".join(ids))
    (tmp_path / "a.csv").write_text("\n".join(f"{name},{name}" for name in reversed(ids)))
    for kind, state in (("txt", "fitted"), ("csv", "nothing to compute")):
        assert lfm_atlas(folder, "map", SOURCE, TARGET, "--anchors", str(tmp_path / f"a.{kind}"), "--name", kind) == 0
        assert f"map {kind} ({state})" in capsys.readouterr().out
    assert read_named_map(folder / ".lfm-atlas", "txt").n_anchors == 15


def test_maps__are_listed_for_programs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lfm_atlas(folder, "maps", "--format", "json") == 0

    listed = json.loads(capsys.readouterr().out)["maps"]
    assert {"name", "dataset", "source", "target", "regime", "n_anchors", "key"} == set(listed[0])


def test_maps__lists_names(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lfm_atlas(folder, "maps") == 0
    assert f"{NAME}" in (listed := capsys.readouterr().out)
    assert f"{SOURCE} -> {TARGET}  10 anchors" in listed
    write_start(tmp_path)
    assert lfm_atlas(tmp_path, "maps") == 0
    assert "no maps yet: lfm-atlas map SOURCE TARGET fits one" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("modle0/layer0", TARGET), r"got no model 'modle0' in the catalog; did you mean 'model0'"),
        (("model0", TARGET), "got no space 'model0', expected model/layer with a layer that the catalog chooses"),
        (("model0/layr0", TARGET), "did you mean 'model0/layer0'"),
        ((SOURCE, TARGET, "--n-anchors", "2"), "got --n-anchors 2, expected at least 3"),
        ((SOURCE, TARGET, "--seed", "-1"), "got --seed -1, expected a whole number from 0 on"),
        ((SOURCE, TARGET, "--n-anchors", "121"), "got 120 common ids, expected the 121 requested anchors among them"),
        ((SOURCE, TARGET, "--anchors", "no.txt"), "no.txt: no such file"),
        ((SOURCE, TARGET, "--anchors", "10"), "got --anchors 10, expected a file of ids; did you mean --n-anchors 10?"),
        ((SOURCE, TARGET, "--anchors", "a.txt", "--n-anchors", "5"), "got --n-anchors beside --anchors, expected one"),
        ((SOURCE, TARGET, "--regime", "full", "--n-anchors", "5"), "got anchors beside --regime full, which uses"),
        ((SOURCE, TARGET, "--name", "a/b"), "got the name 'a/b', expected 1 to 128"),
        ((TARGET, SOURCE, "--name", NAME), f"got '{NAME}' as the name of the map {SOURCE} -> {TARGET}"),
        ((SOURCE, TARGET, "--regime", "some"), "some"),
    ],
)  # fmt: skip
def test_map__that_cannot_be_fitted_says_why(
    folder: Path, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = units(folder)
    assert lfm_atlas(folder, "map", *arguments) == 2
    printed = capsys.readouterr()
    assert message in " ".join((printed.err + printed.out).split())
    assert "Traceback" not in printed.err
    assert units(folder) == before


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["p000", "p001", "nobody"], "got 1 of 3 anchors that the source space does not have, first 'nobody'"),
        (["p000", "p001", "p001"], "got the source id 'p001' more than once among 3, expected each once"),
        (["p000", "p001"], "got 2 anchors, expected at least 3. Give more ids"),
    ],
)
def test_anchors__that_are_none_are_refused(
    folder: Path, tmp_path: Path, lines: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("\n".join(lines))
    assert lfm_atlas(folder, "map", SOURCE, TARGET, "--anchors", str(tmp_path / "a.txt")) == 2
    assert message in capsys.readouterr().err


def test_labels__that_are_not_there_are_asked_for(
    tmp_path: Path, related_spaces: Any, write_zoo: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    write_zoo(tmp_path, related_spaces(2))
    assert lfm_atlas(tmp_path, "map", SOURCE, TARGET, "--regime", "labels") == 2
    assert "got no labels in the dataset probe, expected them for a fit from labels" in capsys.readouterr().err


# --- transfer


def rows_of(folder: Path, n_points: int = 120) -> np.ndarray:
    with np.load(folder / "model0.npz") as arrays:
        layer = arrays["layer0"]
    return layer[np.arange(n_points) % len(layer)]


def test_transfer__gives_the_bits_of_any_chunk_size(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "new.npy", rows_of(folder, 1500))
    for number, chunk_bytes in enumerate((1, 100_000, 2**25)):
        monkeypatch.setattr(carrying, "_CHUNK_BYTES", chunk_bytes)
        assert lfm_atlas(folder, "transfer", NAME, str(tmp_path / "new.npy"), str(tmp_path / f"{number}.npy")) == 0
    assert "1500 points in the 13 coordinates of model1/layer0" in capsys.readouterr().out

    first, second, third = (np.load(tmp_path / f"{number}.npy") for number in range(3))
    assert first.shape == (1500, 13)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, third)
    # The target's own activations, in another order of rows, are near.
    with np.load(folder / "model1.npz") as arrays:
        own, ids = arrays["layer0"], np.load(folder / "model1_ids.npy")
    matched = own[np.argsort(ids)][np.argsort(np.argsort(np.load(folder / "model0_ids.npy")))]
    assert np.linalg.norm(first[:120] - matched) < 0.7 * np.linalg.norm(matched - matched.mean(axis=0))


@pytest.mark.parametrize(("dtype", "wanted"), [("f2", "f4"), ("f4", "f4"), ("f8", "f8"), ("i4", "f8")])
def test_transfer__keeps_precision_and_casts_half_up(folder: Path, tmp_path: Path, dtype: str, wanted: str) -> None:
    np.save(tmp_path / "new.npy", (4 * rows_of(folder)).astype(dtype))
    assert lfm_atlas(folder, "transfer", NAME, str(tmp_path / "new.npy"), str(tmp_path / "out.npy")) == 0
    assert np.load(tmp_path / "out.npy").dtype == np.dtype(wanted)


def test_transfer__reads_other_files_and_no_rows(folder: Path, tmp_path: Path) -> None:
    rows = rows_of(folder)
    np.save(tmp_path / "new.npy", rows)
    np.savez_compressed(tmp_path / "new.npz", mine=np.asfortranarray(rows), none=rows[:0])
    for source, name in (("new.npy", "a"), ("new.npz#mine", "b"), ("new.npz#none", "c")):
        assert lfm_atlas(folder, "transfer", NAME, str(tmp_path / source), str(tmp_path / f"{name}.npy")) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy"))
    assert np.load(tmp_path / "c.npy").shape == (0, 13)


def with_nan(rows: np.ndarray) -> np.ndarray:
    rows = rows.copy()
    rows[7, 2] = np.nan
    return rows


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:, :5], "got the shape (120, 5), expected (points, 12), as the map's source was recorded"),
        (lambda rows: rows[0], "of shape (12,), expected numbers, (points, features)"),
        (lambda rows: rows * 1j, "got complex128 of shape (120, 12), expected numbers"),
        (lambda rows: rows.astype(str), "expected numbers, (points, features)"),
        (lambda rows: rows > 0, "got bool of shape (120, 12), expected numbers"),
        (with_nan, "got NaN or infinite values in 1 of 120 rows, the first is row 7, expected finite numbers"),
    ],
)
def test_transfer__refuses_rows_that_are_not_the_sources(
    folder: Path, tmp_path: Path, change: Callable[..., np.ndarray], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "new.npy", change(rows_of(folder).astype(float)))
    assert lfm_atlas(folder, "transfer", NAME, str(tmp_path / "new.npy"), str(tmp_path / "out.npy")) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["new.npy"]


def test_transfer__never_loads_objects(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "new.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    assert lfm_atlas(folder, "transfer", NAME, str(tmp_path / "new.npy"), str(tmp_path / "out.npy")) == 2
    assert "got pickled Python objects, which are never loaded" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("there.npy", "got a file that exists, expected a free name. Name another one, or give --force"),
        ("out.txt", "got the output 'out.txt', expected a name that ends in .parquet"),
        ("no/out.npy", "got no folder"),
        ("folder.npy", "got a folder, expected a file"),
        ("link.npy", "got a link that leads nowhere, expected a file or nothing, since no link is followed"),
    ],
)
def test_transfer__writes_nothing_where_it_may_not(
    folder: Path, tmp_path: Path, output: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "new.npy", rows_of(folder))
    (tmp_path / "there.npy").write_text("mine")
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "link.npy").symlink_to("nowhere.npy")
    assert lfm_atlas(folder, "transfer", NAME, str(tmp_path / "new.npy"), str(tmp_path / output)) == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / "there.npy").read_text() == "mine"
    assert not (tmp_path / "nowhere.npy").exists()

    assert lfm_atlas(folder, "transfer", NAME, str(tmp_path / "new.npy"), str(tmp_path / "there.npy"), "--force") == 0
    assert np.load(tmp_path / "there.npy").shape == (120, 13)


def test_transfer__of_an_unknown_or_damaged_map_says_what_to_do(
    tmp_path: Path, related_spaces: Any, write_zoo: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    write_zoo(tmp_path, related_spaces(2))
    np.save(tmp_path / "new.npy", rows_of(tmp_path))
    carry = ("transfer", "mine", str(tmp_path / "new.npy"), str(tmp_path / "out.npy"))
    assert lfm_atlas(tmp_path, *carry) == 2
    assert "got no map 'mine' in the store; there are none yet" in capsys.readouterr().err
    fit = ("map", SOURCE, TARGET, "--name", "mine")
    assert lfm_atlas(tmp_path, *fit) == 0
    assert lfm_atlas(tmp_path, "transfer", "mien", *carry[2:]) == 2
    assert "got no map 'mien' in the store; did you mean 'mine'?" in capsys.readouterr().err

    store = UnitStore(tmp_path / ".lfm-atlas")
    key = read_named_map(store.root, "mine").key
    arrays = store.root / "units" / "maps" / key / "arrays.zip"
    arrays.write_bytes(arrays.read_bytes()[::-1])
    assert lfm_atlas(tmp_path, *carry) == 2
    assert "is damaged; it was put into quarantine" in capsys.readouterr().err
    assert lfm_atlas(tmp_path, *carry) == 2
    missing = f"got the name 'mine' and not its map, which was removed from the store: lfm-atlas map {SOURCE} {TARGET}"
    assert missing in capsys.readouterr().err
    assert not (tmp_path / "out.npy").exists()

    assert lfm_atlas(tmp_path, *fit) == 0
    assert lfm_atlas(tmp_path, *carry) == 0


@pytest.mark.parametrize(("regime", "has_confidence"), [("anchors", True), ("full", True), ("labels", False)])
def test_map__is_saved_for_query_servers_with_what_confidence_is_told_by(
    folder: Path, tmp_path: Path, regime: str, has_confidence: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime
    import pyarrow.parquet as pq

    name = f"saved-{regime}"
    command = ["map", SOURCE, TARGET, "--regime", regime, "--name", name, "--save", str(tmp_path / "maps")]
    assert lfm_atlas(folder, *command) == 0
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == [
        f"{name}.json", f"{name}.onnx", f"{name}.safetensors"
    ]  # fmt: skip
    facts = json.loads((tmp_path / "maps" / f"{name}.json").read_text())
    assert (facts["carries"], facts["regime"]) == (f"{SOURCE} -> {TARGET}", regime)
    rows = np.random.default_rng(0).standard_normal((50, facts["source_features"])).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    for output, more in (("by-name.npy", ()), ("saved.parquet", ("--confidence",) if has_confidence else ())):
        which = name if output == "by-name.npy" else str(tmp_path / "maps" / f"{name}.safetensors")
        assert lfm_atlas(folder, "transfer", which, str(tmp_path / "rows.npy"), str(tmp_path / output), *more) == 0
    by_name = np.load(tmp_path / "by-name.npy")
    table = pq.read_table(tmp_path / "saved.parquet")
    carried = np.array(table["vectors"].combine_chunks().flatten()).reshape(50, -1)
    np.testing.assert_allclose(carried, by_name, rtol=1e-4, atol=1e-4)
    session = onnxruntime.InferenceSession(tmp_path / "maps" / f"{name}.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"rows": rows})[0], by_name, rtol=1e-4, atol=1e-4)
    if has_confidence:
        assert 0 <= np.array(table["confidence"]).min() <= np.array(table["confidence"]).max() <= 1
        assert lfm_atlas(folder, *command) == 2
        assert "got a file that exists" in capsys.readouterr().err
    else:
        wanted = ["transfer", str(tmp_path / "maps" / f"{name}.safetensors"), str(tmp_path / "rows.npy"), "x.parquet"]
        assert lfm_atlas(folder, *wanted, "--confidence") == 2
        assert "which knows no pairs" in capsys.readouterr().err
