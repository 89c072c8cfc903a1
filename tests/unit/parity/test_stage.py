"""Two sides of a comparison: how rows and layers are joined, what each difference is called, what is written."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from lfm_atlas.cli.main import app
from lfm_tasks.errors import DataError
from lfm_tasks.parity.differences import PRECISIONS, precision_of, row_differences
from lfm_tasks.parity.files import parity_as_lines
from lfm_tasks.parity.layers import pairs_by_likeness, read_table_of_layers
from lfm_tasks.parity.sides import Side, open_side
from lfm_tasks.parity.stage import ParityOptions, compare_sides
from lfm_tasks.parity.transformations import name_transformation
from lfm_tasks.zoo import write_start

ROWS = np.random.default_rng(3).standard_normal((120, 12)).astype(np.float32)
IDS = np.array([f"p{number:03}" for number in range(120)])


def side(layers: Mapping[str, np.ndarray], ids: np.ndarray | None = IDS, name: str = "side") -> Side:
    return Side(name, dict(layers), ids)


def one_layer(candidate: np.ndarray, reference: np.ndarray = ROWS, **options: object) -> object:
    return compare_sides(side({"h": reference}), side({"h": candidate}), ParityOptions(**options)).layers[0]


def test_rows__are_joined_on_ids_whatever_their_order() -> None:
    order = np.random.default_rng(0).permutation(120)
    parity = compare_sides(side({"h": ROWS}), side({"h": ROWS[order]}, IDS[order]))
    assert (parity.layers[0].status, parity.n_common) == ("equal", 120)


def test_rows__that_one_side_lacks_are_counted() -> None:
    parity = compare_sides(side({"h": ROWS}), side({"h": ROWS[:100]}, IDS[:100], "port"))
    assert (parity.first_broken, parity.n_common) == (None, 100)
    assert parity.notes == ("20 of 120 rows of side are not on the other side",)


@pytest.mark.parametrize(
    ("ids", "n_rows", "reason", "message"),
    [
        (np.char.add("x", IDS), 120, "no_overlap", "got no id that side has"),
        (None, 120, "bad_ids", "got no ids, expected those of the other side"),
    ],
)
def test_rows__that_cannot_be_joined_say_why(ids: np.ndarray | None, n_rows: int, reason: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        compare_sides(side({"h": ROWS}), side({"h": ROWS[:n_rows]}, ids))
    assert raised.value.reason == reason


def test_rows__without_ids_are_joined_by_position_only_if_there_are_as_many() -> None:
    assert compare_sides(side({"h": ROWS}, None), side({"h": ROWS}, None)).first_broken is None
    with pytest.raises(DataError, match="got 120 and 119 rows without ids"):
        compare_sides(side({"h": ROWS}, None), side({"h": ROWS[1:]}, None))


@pytest.mark.parametrize(
    ("carry", "kind", "words"),
    [
        (lambda x: 3 * x, "scale", "every number is 3 times as large"),
        (lambda x: x + np.arange(12), "translation", "moved by one vector"),
        (lambda x: np.clip(x, -2, 2), "clipped", "numbers end at 2; the reference reaches"),
        (lambda x: x[:, ::-1], "permutation", "12 of 12 units are in another order"),
        (lambda x: x[:, [*range(6, 12), *range(6)]], "permutation", "2 heads of 6 units are in another order"),
        (lambda x: x.reshape(-1, 3, 4).swapaxes(1, 2).reshape(-1, 12), "permutation", "(3, 4) is read as (4, 3)"),
        (lambda x: x * np.where(np.arange(12) == 4, -1, 1), "permutation", "1 of 12 units have the other sign"),
        (lambda x: x * np.linspace(1, 2, 12), "unit_scale", "11 of 12 units have a factor of their own, 1 to 2"),
        (lambda x: 2 * x @ np.linalg.qr(ROWS[:12])[0] + 1, "rotation", "the rows are rotated and scaled by 2"),
        (lambda x: x @ ROWS[:12], "linear", "a linear map that is no rotation"),
        (lambda x: x * np.linspace(0.9, 1.1, 120)[:, None], "row_scale", "each row has a factor of its own"),
    ],
)  # fmt: skip
def test_transformations__are_named(carry: object, kind: str, words: str) -> None:
    layer = one_layer(carry(ROWS).astype(np.float32))  # type: ignore[operator]
    assert layer.kind == kind
    assert words in layer.words
    assert layer.status == "beyond"


def test_transformations__that_explain_nothing_have_no_name() -> None:
    other = np.random.default_rng(8).standard_normal(ROWS.shape)
    assert name_transformation(ROWS.astype(float), other) is None
    layer = one_layer(other)
    assert layer.kind == ""
    assert not layer.geometry.is_same


def test_rows_that_belong_to_other_ids__are_named() -> None:
    mixed = ROWS.copy()
    mixed[[3, 50]] = mixed[[50, 3]]
    layer = one_layer(mixed)
    assert layer.kind == "rows"
    assert "first those of p050" in layer.words
    assert one_layer(np.roll(ROWS, 1, axis=0)).kind == "rows"


def test_same_space__is_said_beside_the_numbers() -> None:
    parity = compare_sides(side({"h": ROWS}), side({"h": ROWS[:, ::-1]}))
    assert any("other numbers, same space; overlap 1.000" in line for line in parity_as_lines(parity))


def test_a_row_with_nan__is_beyond_tolerance_and_named() -> None:
    broken = ROWS.copy()
    broken[7, 3] = np.nan
    layer = one_layer(broken)
    assert (layer.status, layer.n_not_finite, layer.inputs[0][0]) == ("beyond", (0, 1), "p007")
    assert one_layer(broken, broken).status == "equal"


def test_a_fault_that_moves_all_rows_some_less__is_none_of_the_inputs() -> None:
    sizes = np.where(np.arange(120) < 40, 2e-5, 0.8e-5)[:, None]
    noise = sizes * np.abs(ROWS).max(axis=1, keepdims=True) * np.sign(np.roll(ROWS, 3, axis=1))
    layer = one_layer((ROWS + noise).astype(np.float32))
    assert (layer.status, layer.kind) == ("beyond", "rounding")
    assert one_layer((ROWS + np.where(sizes > 1e-5, noise, 0)).astype(np.float32)).kind == "inputs"


def test_constant_rows__are_compared_and_have_no_geometry() -> None:
    layer = one_layer(np.ones_like(ROWS))
    assert (layer.status, layer.geometry) == ("beyond", None)
    assert one_layer(np.zeros_like(ROWS), np.zeros_like(ROWS)).status == "equal"


def test_widths_that_differ__are_the_fault() -> None:
    layer = one_layer(ROWS[:, :5])
    assert (layer.kind, layer.words) == ("width", "the two sides have 12 and 5 features")


def test_precision__is_that_of_the_numbers_not_of_the_array() -> None:
    assert precision_of(ROWS).name == "float32"
    assert precision_of(ROWS.astype(np.float16).astype(np.float32)).name == "float16"
    truncated = (ROWS.view(np.uint32) & 0xFFFF0000).view(np.float32)
    assert precision_of(truncated).name == "bfloat16"
    assert precision_of(np.rint(ROWS)).name == "float32"
    assert one_layer(truncated).status == "within"


def test_ulps__are_those_of_the_coarser_type() -> None:
    rows = np.array([[1.0, 2.0]])
    apart = row_differences(rows, rows + np.array([[2.0**-10, 0]]), PRECISIONS["float16"])
    assert (apart.largest_ulps[0], apart.typical_ulps[0]) == (1.0, 0.5)


def test_tolerance__is_what_decides() -> None:
    assert one_layer(ROWS * 1.001).status == "beyond"
    assert one_layer(ROWS * 1.001, tolerance=0.01).status == "within"


def test_layers__are_matched_by_likeness_without_their_names() -> None:
    generator = np.random.default_rng(1)
    spaces = [generator.standard_normal((120, 6)) for _ in range(3)]
    names = ["a", "b", "c"]
    mixed = {name: spaces[place] @ generator.standard_normal((6, 6)) * 0.1 + 3 * spaces[place][:, ::-1]
             for name, place in zip("xyz", (2, 0, 1), strict=True)}  # fmt: skip
    assert pairs_by_likeness(dict(zip(names, spaces, strict=True)), mixed) == (("a", "y"), ("b", "z"), ("c", "x"))


def test_a_file_that_changes_while_it_is_read__is_an_error_of_its_layer(tmp_path: Path) -> None:
    np.save(tmp_path / "h.npy", ROWS)
    opened = open_side(str(tmp_path), None)
    np.save(tmp_path / "h.npy", 2 * ROWS)
    os.utime(tmp_path / "h.npy", (1, 1))
    layer = compare_sides(side({"h": ROWS}, None), opened).layers[0]
    assert layer.status == "failed"
    assert "the file changed while it was read" in layer.message


def parity(folder: Path, *arguments: str) -> int:
    try:
        result = app(
            ["parity", *arguments, "--catalog", str(folder / "data_catalog.yaml")], result_action="return_value"
        )
        return int(result)
    except SystemExit as stop:
        return int(stop.code or 0)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    layers = {"layer1": ROWS, "layer2": ROWS @ ROWS[:12], "layer10": np.tanh(ROWS)}
    np.savez(tmp_path / "a.npz", ids=IDS, **layers)
    np.savez(tmp_path / "b.npz", ids=IDS, **(layers | {"layer10": 2 * layers["layer10"]}))
    (tmp_path / "a").mkdir()
    np.save(tmp_path / "a" / "ids.npy", IDS[::-1])
    for name, rows in layers.items():
        np.save(tmp_path / "a" / f"{name}.npy", rows[::-1])
    return tmp_path


def test_command__exits_with_3_and_writes_what_ci_reads(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = "--junit", str(files / "out.xml"), "--page", str(files / "out.html")
    assert parity(files, str(files / "a"), str(files / "b.npz"), *outputs) == 3
    printed = capsys.readouterr().out
    assert "first beyond tolerance: layer10, 120 of 120 rows" in printed
    assert "what happened there: every number is 2 times as large [scale]" in printed
    suite = ElementTree.parse(files / "out.xml").getroot()  # noqa: S314 - our own
    assert [case.get("name") for case in suite] == ["layer1", "layer2", "layer10"]
    assert (suite.get("failures"), suite.get("errors")) == ("1", "0")
    page = (files / "out.html").read_text()
    assert "every number is 2 times as large" in page
    assert page.count("<circle") == 3


def test_command__is_quiet_about_what_is_the_same(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parity(files, str(files / "a"), str(files / "a.npz"), "--format", "json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["is_same"], facts["first_beyond"]) == (True, None)
    assert [layer["status"] for layer in facts["layers"]] == ["equal"] * 3


def test_command__takes_a_table_of_layers(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "layers.csv").write_text("layer1,layer1\nlayer2,layer2\n")
    assert parity(files, str(files / "a.npz"), str(files / "b.npz"), "--layers", str(files / "layers.csv")) == 0
    (files / "layers.csv").write_text("layer1,layr1\n")
    assert parity(files, str(files / "a.npz"), str(files / "b.npz"), "--layers", str(files / "layers.csv")) == 2
    assert "did you mean 'layer1'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a.npz", "nothing.npz"), "got nothing of this name, expected a folder or a file"),
        (("a.npz", "b.npz", "--tolerance", "-1"), "got --tolerance -1.0, expected a number from 0 on"),
        (("a.npz", "b.npz", "--layers", "none.csv"), "none.csv: cannot be read"),
        (("a.npz", "b.npz", "--layers", "x.csv", "--match", "likeness"), "got --layers beside --match likeness"),
        (("a.npz", "b.npz", "--junit", "a.npz"), "got a file that exists"),
        (("a.npz", "text.npz"), "got no layer that can be read"),
        (("a.npz", "short.npz"), "got 3 rows, expected as many as there are 120 ids"),
    ],
)  # fmt: skip
def test_command__that_cannot_compare_says_why(
    files: Path, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    np.savez(files / "text.npz", ids=IDS, words=IDS)
    np.savez(files / "short.npz", ids=IDS, h=ROWS[:3])
    monkeypatch.chdir(files)
    assert parity(files, *arguments) == 2
    printed = capsys.readouterr()
    assert message in " ".join(printed.err.split())
    assert "Traceback" not in printed.err


def test_table_of_layers__with_a_layer_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,x\nb,x\n")
    with pytest.raises(DataError, match="got the layer 'x' twice"):
        read_table_of_layers(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("a\n")
    with pytest.raises(DataError, match="got rows of 1 columns, expected two"):
        read_table_of_layers(tmp_path / "t.csv")


def test_models_of_a_catalog__are_run_and_a_reordered_copy_is_the_same_space(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_start(tmp_path)
    assert parity(tmp_path, "mlp_s0", "mlp_s0_permuted", "--format", "json") == 3
    layers = {layer["reference"]: layer for layer in json.loads(capsys.readouterr().out)["layers"]}
    assert layers["relu1"]["kind"] == "permutation"
    assert "units are in another order" in layers["relu1"]["words"]
    assert layers["relu1"]["geometry"]["overlap"] > 0.99
    assert layers["relu1"]["space"] == "other numbers, same space"
    assert layers["logits"]["status"] == "within"


def test_models_of_a_catalog__take_layers_and_tolerance_from_its_section(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_start(tmp_path)
    catalog = tmp_path / "data_catalog.yaml"
    port = "{reference: mlp_s0, candidate: mlp_s0_permuted, layers: {relu1: relu1}, tolerance: 100.0}"
    catalog.write_text(f"{catalog.read_text()}\nparity: {{reordered: {port}}}\n")
    assert parity(tmp_path, "mlp_s0", "mlp_s0_permuted", "--format", "json") == 0
    assert [layer["reference"] for layer in json.loads(capsys.readouterr().out)["layers"]] == ["relu1"]


def test_rows__that_are_none_and_layers_without_features_say_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="port: got no rows, expected some") as raised:
        compare_sides(side({"h": ROWS}), side({"h": ROWS[:0]}, IDS[:0], "port"))
    assert raised.value.reason == "too_few_points"
    np.savez(tmp_path / "a.npz", ids=IDS, h=ROWS, none=ROWS[:, :0])
    parity = compare_sides(*(open_side(str(tmp_path / "a.npz"), None) for _ in range(2)))
    assert [layer.status for layer in parity.layers] == ["equal", "failed"]
    assert "expected at least one feature" in parity.layers[1].message


def test_rows_of_zeros__that_come_alive_are_compared() -> None:
    layer = one_layer(ROWS, np.zeros_like(ROWS))
    assert (layer.status, layer.geometry) == ("beyond", None)
    assert np.isinf(layer.largest_relative) or layer.largest_relative > 1e30


@pytest.mark.parametrize("factor", [1e300, 1e-300])
def test_numbers_whose_squares_are_none__are_compared(factor: float) -> None:
    rows = ROWS.astype(np.float64) * factor
    layer = one_layer(1.5 * rows, rows)
    assert (layer.status, layer.kind, layer.geometry) == ("beyond", "", None)
    assert layer.largest_relative == pytest.approx(0.5)
    assert layer.norm_ratio == pytest.approx(1.5)
    assert layer.least_cosine == pytest.approx(1.0)
    assert "too large or too small to be explained" in layer.words
    assert one_layer(-rows * 1e7 if factor > 1 else rows, rows).status == ("beyond" if factor > 1 else "equal")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--junit", "/proc/x.xml"), "/proc/x.xml: cannot be written"),
        (("--page", "a.npz", "--force"), "a.npz: got a place that is read, expected another file"),
        (("--page", "p.html", "--junit", "p.html"), "got one file for --junit and --page, expected two"),
    ],
)
def test_command__writes_nothing_where_it_may_not(
    files: Path, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(files)
    before = {path: path.stat().st_size for path in files.iterdir()}
    assert parity(files, "a.npz", "b.npz", *arguments) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert {path: path.stat().st_size for path in files.iterdir()} == before
