"""`compare`: the numbers of a run over files, arrays of several libraries, and a clear error for each wrong input."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

from lfm_atlas import Comparison, compare, measures
from lfm_tasks.errors import DataError
from lfm_tasks.published.atlas import open_atlas

Spaces = dict[str, tuple[dict[str, np.ndarray], np.ndarray]]
SMALL = {"graph": {"n_neighbors": 10}, "n_eigenpairs": 8, "null": {"n_permutations": 19}}
MEASURES = ("overlap", "lfm", "cka_linear", "mutual_knn_10_cosine", "pwcca_textbook_x_to_y")


def two_arrays(n_points: int = 60) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(n_points, 5))
    return x, np.tanh(x @ generator.normal(size=(5, 7))) + 0.1 * generator.normal(size=(n_points, 7))


@pytest.fixture(scope="module")
def atlas_of_files(
    tmp_path_factory: pytest.TempPathFactory, related_spaces: Callable[..., Spaces], write_zoo: Any, build: Any
) -> tuple[Spaces, Any]:
    models = related_spaces(3, n_layers=1)
    folder = write_zoo(tmp_path_factory.mktemp("zoo"), models, measures=list(MEASURES))
    build(folder)
    return models, open_atlas(folder / "atlas")


def test_two_arrays__get_the_numbers_of_a_run_to_the_bit(atlas_of_files: tuple[Spaces, Any]) -> None:
    models, atlas = atlas_of_files
    (x, of_x), (y, of_y) = models["model0"], models["model2"]

    found = compare(x["layer0"], y["layer0"], ids={"x": of_x, "y": of_y}, measures=MEASURES, **SMALL)

    pair = atlas.pair("model0/layer0", "model2/layer0")
    for name in MEASURES:
        cell, one = pair.sel(measure=name), found[name]
        numbers = [one.score, one.null, one.p_value, *one.interval, one.calibrated]
        columns = ("score", "null_mean", "p_value", "ci_low", "ci_high", "calibrated")
        assert np.array_equal(numbers, [float(cell[column]) for column in columns], equal_nan=True), name
        assert one.status == str(cell["status"].values)
    assert list(found) == list(MEASURES)
    assert (found.n_points, found.n_features) == (120, (12, 14))


def test_mapping__gives_the_atlas_of_a_run_to_the_bit(atlas_of_files: tuple[Spaces, Any]) -> None:
    models, of_files = atlas_of_files
    arrays = {name: layers for name, (layers, _) in models.items()}

    with compare(arrays, ids={name: ids for name, (_, ids) in models.items()}, measures=MEASURES, **SMALL) as atlas:
        assert atlas.spaces == of_files.spaces
        for name in ("score", "null_mean", "p_value", "q_value", "ci_low", "ci_high", "status", "half_scores"):
            found, expected = (one.scores[name].sel(measure=of_files.measures).values for one in (atlas, of_files))
            assert np.array_equal(found, expected, equal_nan=True), name
        assert np.array_equal(
            atlas.map("model0/layer0", "model1/layer0"), of_files.map("model0/layer0", "model1/layer0")
        )
        assert len(atlas.to_frame()) == len(of_files.to_frame())
        folder = atlas.folder
    assert not folder.exists()


def test_atlas_that_nobody_holds__leaves_no_folder() -> None:
    x, y = two_arrays()
    atlas = compare({"a": x, "b": {"first": y, "second": x[:, :3]}}, labels=np.arange(60) % 3, measures="cka_linear")
    folder = atlas.folder
    assert folder.exists()
    assert atlas.spaces == ["a/rows", "b/first", "b/second"]

    del atlas

    assert not folder.exists()


def test_comparison__prints_as_a_table() -> None:
    x, y = two_arrays()

    found = compare(x, y, measures=["cka_linear", "cca_mean"], null={"n_permutations": 0})

    lines = repr(found).splitlines()
    assert lines[0] == "60 points, 5 and 7 features"
    assert lines[1].split() == ["measure", "score", "null", "p", "interval", "status"]
    assert lines[2].split()[:2] == ["cka_linear", f"{found['cka_linear'].score:.3f}"]
    assert "<th" in found._repr_html_()
    assert list(found.to_frame().index) == ["cka_linear", "cca_mean"]
    with pytest.raises(KeyError, match="did you mean 'cka_linear'"):
        found["cka_liner"]


def kinds_of_arrays(x: np.ndarray) -> dict[str, Any]:
    pandas = pytest.importorskip("pandas")
    kinds = {
        "lists": x.tolist(),
        "pandas": pandas.DataFrame(x, columns=list("abcde")),
        "xarray": xr.DataArray(x, dims=("stimulus", "unit")),
    }
    torch = pytest.importorskip("torch")
    return kinds | {"torch": torch.from_numpy(x).requires_grad_()}


def test_arrays_of_other_libraries__give_the_same_numbers() -> None:
    x, y = two_arrays()
    expected = compare(x, y, measures="cka_linear")

    for kind, value in kinds_of_arrays(x).items():
        assert compare(value, y, measures="cka_linear") == expected, kind


def test_dlpack__is_read() -> None:
    class OnlyDlpack:
        def __init__(self, rows: np.ndarray) -> None:
            self.rows = rows

        def __dlpack__(self, **options: Any) -> Any:
            return self.rows.__dlpack__(**options)

        def __dlpack_device__(self) -> Any:
            return self.rows.__dlpack_device__()

    x, y = two_arrays()

    assert measures.cka_linear(OnlyDlpack(x), y) == measures.cka_linear(x, y)


def test_labels_of_rows__join_data_frames_in_any_order() -> None:
    pandas = pytest.importorskip("pandas")
    x, y = two_arrays()
    names = [f"p{number:02}" for number in range(60)]
    order = np.random.default_rng(1).permutation(60)
    shuffled = xr.DataArray(y[order], dims=("point", "unit"), coords={"point": np.array(names)[order]})

    joined = compare(pandas.DataFrame(x, index=names), shuffled, measures="cka_linear")

    assert joined["cka_linear"].score == compare(x, y, ids=names, measures="cka_linear")["cka_linear"].score
    with pytest.raises(DataError, match="got labels of the rows of x and none of y, expected labels of all or none"):
        compare(pandas.DataFrame(x, index=names), y)


X, Y = two_arrays()
WITH_NAN = np.where(X > 2, np.nan, X)
WRONG = [
    ((X, Y[:50]), {}, DataError, "got 60 of x, 50 of y rows, expected the same points"),
    ((X,), {}, TypeError, "got one array, expected two arrays, or a mapping"),
    (({"a": X, "b": Y}, X), {}, TypeError, "got a mapping and ndarray"),
    ((X, {"b": Y}), {}, TypeError, "got an array and a mapping"),
    ((X, "y.npy"), {}, TypeError, "y: got str, expected an array"),
    ((X, Y[:, 0]), {}, DataError, r"y: got an array of shape \(60,\), expected \(points, features\)"),
    ((X, Y[:, None]), {}, DataError, "Pool or flatten all dims but the first"),
    ((X[:0], Y[:0]), {}, DataError, r"x: got an array of shape \(0, 5\)"),
    ((WITH_NAN, Y), {}, DataError, "x: got [0-9]+ rows? with NaN or infinite values, the first is row"),
    ((X.astype(complex), Y), {}, DataError, "x: got values of type complex128"),
    ((X[:5], Y[:5]), {}, DataError, "x: got 5 points, expected at least 6"),
    ((X, 0 * Y), {}, DataError, "y: got the same activations for every point"),
    ((X, Y), {"measures": "overlp"}, ValueError, "unknown measure 'overlp'; did you mean 'overlap'"),
    ((X, Y), {"measures": []}, ValueError, "got no measures"),
    ((X, Y), {"n_eigenpair": 3}, ValueError, "got the setting 'n_eigenpair', .*did you mean 'n_eigenpairs'"),
    ((X, Y), {"n_eigenpairs": "x"}, ValueError, "n_eigenpairs: got the text 'x', expected auto or a whole number"),
    ((X, Y), {"graph": {"n_neighbours": 3}}, ValueError, "unknown setting; did you mean 'n_neighbors'"),
    ((X, Y), {"ids": [1] * 60}, DataError, "x: got the id '1' 60 times, expected each once"),
    ((X, Y), {"ids": range(3)}, DataError, "x: got 3 ids for 60 rows"),
    ((X, Y), {"ids": np.linspace(0, 1, 60)}, DataError, "x: got ids of type float64"),
    ((X, Y), {"ids": {"x": range(60)}}, DataError, "got ids of x, expected those of x, y. Fix y."),
    ((X, Y), {"labels": [1, 2]}, DataError, "got labels of type int64 and shape"),
    (({"a": X},), {}, ValueError, "got 1 model, expected at least 2"),
    (({"a": X, "A": Y},), {}, ValueError, "differ by more than case"),
    (({"a": X, "my b": Y},), {}, ValueError, "got the name 'my b'"),
    (({"a": X, 1: Y},), {}, TypeError, "got the name '1' of type int"),
    (({"a": X, "b": {}},), {}, ValueError, "b: got no layers"),
    (({"a": X, "b": {"l0": Y, "l1": Y[:9]}},), {}, DataError, "b: got 60 of l0, 9 of l1 rows"),
]


@pytest.mark.parametrize(("arrays", "options", "error", "message"), WRONG)
def test_wrong_input__is_told(arrays: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        compare(*arrays, **options)


def test_columns_without_numbers__are_named() -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(X).assign(word="a")

    with pytest.raises(DataError, match="x: got the column 'word', expected real numbers"):
        compare(table, Y)


def test_points_without_common_ids__have_a_status() -> None:
    found = compare(X, Y, ids={"x": range(60), "y": range(60, 120)})

    assert isinstance(found, Comparison)
    assert found["overlap"].status == "no_overlap"
    assert "no_overlap: got no common ids among 60" in repr(found)
