"""Every wrong input gets its reason, what was found, what is needed and what to do; the other spaces still finish."""

import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from ruamel.yaml import YAML

from lfm_atlas.cli.main import app
from lfm_tasks.stores.atlas.files import read_atlas, read_json
from tests.integration.test_comparisons import changed

Models = dict[str, Any]


def exit_code(*arguments: str) -> int:
    """Run a command as ``lfm-atlas`` would, in this process."""
    try:
        return int(app(list(arguments), result_action="return_value"))
    except SystemExit as stop:
        return int(stop.code or 0)


def run(folder: Path) -> int:
    return exit_code("run", str(folder / "data_catalog.yaml"), "--no-prefect", "--no-dask")


def replace(models: Models, change: Callable[[np.ndarray], np.ndarray]) -> None:
    layers, ids = models["model1"]
    models["model1"] = ({**layers, "layer0": change(layers["layer0"])}, ids)


def poke(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(rows: np.ndarray) -> np.ndarray:
        rows = rows.copy()
        rows[5, 3] = value
        return rows

    return change


def zero_row(rows: np.ndarray) -> np.ndarray:
    rows = rows.copy()
    rows[[5, 9]] = 0
    return rows


BAD_LAYERS = {
    "nan": (poke(np.nan), "not_finite", r"got 1 NaN or infinite value.*column 3.* expected finite numbers. Record"),
    "inf": (poke(-np.inf), "not_finite", r"got 1 NaN or infinite value.*drop the layer"),
    "3-d": (lambda rows: rows[:, None, :], "wrong_shape", r"got a 3-D array.* expected \(points, features\). Write"),
    "rows": (lambda rows: rows[:-3], "bad_ids", r"got 117 rows and 120 ids, expected one id a row"),
    "text": (lambda rows: rows.astype(str), "wrong_dtype", r"got <U\d+, expected real numbers.*Convert it"),
    "complex": (lambda rows: rows * 1j, "wrong_dtype", r"got complex.* expected real numbers"),
    "constant": (lambda rows: np.ones_like(rows), "constant", r"got the same activations for every point. Drop"),
    "zero rows": (zero_row, "zero_rows", r"got 2 all-zero rows.*Set graph.metric to euclidean"),
    "no features": (lambda rows: rows[:, :0], "wrong_shape", r"got no features.* expected at least one"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_LAYERS)
def test_bad_layer__is_told_and_the_other_spaces_finish(
    case: str, tmp_path: Path, related_spaces: Any, write_zoo: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    change, reason, message = BAD_LAYERS[case]
    models = related_spaces(2)
    replace(models, change)

    # Seen from the center of the points, a row of zeros has a direction.
    code = run(write_zoo(tmp_path, models, graph={"n_neighbors": 10, "center": case != "zero rows"}))

    assert code == 4
    [failure] = read_json(tmp_path / "atlas" / "summary.json")["failures"]
    assert (failure["model"], failure["layer"], failure["reason"]) == ("model1", "layer0", reason)
    assert re.search(message, failure["message"])
    told = capsys.readouterr().err
    assert "model1/layer0" in told
    assert reason in told
    atlas = read_atlas(tmp_path / "atlas")
    assert list(atlas["source"].values) == ["model0/layer0", "model0/layer1", "model1/layer1"]
    assert bool(np.isfinite(atlas["score"]).all())
    assert (
        html.escape(failure["message"]).replace("&#x27;", "&#39;") in (tmp_path / "atlas" / "report.html").read_text()
    )


def test_layer_that_was_mended__completes_the_atlas_at_its_own_cost(
    tmp_path: Path, related_spaces: Any, write_zoo: Any, build: Any
) -> None:
    bad = related_spaces(2)
    replace(bad, poke(np.nan))
    assert run(write_zoo(tmp_path, bad)) == 4

    outcome = build(write_zoo(tmp_path, related_spaces(2)))

    assert outcome.failures == ()
    assert outcome.computed.items() >= {"activations": 1, "bases": 1, "scores": 4, "maps": 0, "atlas": 1}.items()


def test_rows_that_a_measure_cannot_use__are_counted_with_the_space_at_fault(
    tmp_path: Path, related_spaces: Any, write_zoo: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    models = related_spaces(3)

    def one_constant_row(rows: np.ndarray) -> np.ndarray:
        rows = rows.copy()
        rows[7] = 3.0
        return rows

    replace(models, one_constant_row)
    write_zoo(tmp_path, models, measures=["overlap", "rsa_pearson_rdm_pearson", "cka_rbf_sigma_5"])

    assert run(tmp_path) == 4

    # Of 2 layers of each model, one with the five others both ways; no pair is without any score.
    told = (
        "10 directed pairs have no rsa_pearson_rdm_pearson, model0/layer0 and model1/layer0 first: model1/layer0: got 1"
    )
    assert told in capsys.readouterr().err
    summary = read_json(tmp_path / "atlas" / "summary.json")
    assert (summary["counts"]["directed_pairs_without_score"], summary["counts"]["values_without_score"]) == (0, 10)
    [missing] = summary["pairs_without_score"]
    assert (missing["measures"], missing["reason"], missing["at_fault"], missing["has_none"]) == (
        ["rsa_pearson_rdm_pearson"], "constant_rows", ["model1/layer0"], False,
    )  # fmt: skip
    page = (tmp_path / "atlas/report.html").read_text()
    assert "model1/layer0: got 1 row whose features are all the same" in page
    assert "10 scores of single measures are missing" in page
    assert run(tmp_path) == 4


def test_measures_that_all_fail__leave_pairs_without_a_score_and_are_named(
    tmp_path: Path, related_spaces: Any, write_zoo: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    models = related_spaces(3)
    for name in ("model1", "model2"):
        layers, ids = models[name]
        models[name] = ({"layer0": np.repeat(layers["layer0"][:, :1], 5, axis=1)}, ids)
    # Of model2 there is a copy that is in no comparison with model1.
    models["copy"] = models["model2"]
    both = ["rsa_pearson_rdm_pearson", "rsa_pearson_rdm_spearman"]
    few = {"few": {"sources": ["model0"], "targets": ["model1"]}}
    changed(write_zoo(tmp_path, models, measures=both), comparisons=few)

    assert run(tmp_path) == 4

    [missing] = read_json(tmp_path / "atlas" / "summary.json")["pairs_without_score"]
    assert (missing["measures"], missing["has_none"], missing["count"], missing["at_fault"]) == (
        both, True, 4, ["model1/layer0"],
    )  # fmt: skip
    told = "4 directed pairs have no rsa_pearson_rdm_pearson, rsa_pearson_rdm_spearman, model0/layer0 and model1/layer0"
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("scale", [1e-170, 1e155])
def test_space_at_an_extreme_scale__costs_no_other_pair_its_neighbors(
    scale: float, tmp_path: Path, related_spaces: Any, write_zoo: Any
) -> None:
    models = related_spaces(3)
    replace(models, lambda rows: scale * rows.astype(np.float64))
    write_zoo(tmp_path, models, measures=["mka_15", "mutual_knn_10_cosine"])
    assert run(tmp_path) == 0
    atlas = read_atlas(tmp_path / "atlas").sel(dataset="probe")
    others = [name for name in atlas["source"].values if not str(name).startswith("model1")]
    found = atlas["score"].sel(source=others, target=others).transpose("measure", ...).values
    assert np.isfinite(found[:, ~np.eye(len(others), dtype=bool)]).all()


def test_kernel_that_is_one_number_everywhere__has_a_status(
    tmp_path: Path, related_spaces: Any, write_zoo: Any
) -> None:
    models = related_spaces(2)
    replace(models, lambda rows: 1e6 * rows)
    write_zoo(tmp_path, models, measures=["overlap", "cka_rbf_sigma_5"])
    assert run(tmp_path) == 0
    atlas = read_atlas(tmp_path / "atlas").sel(dataset="probe", source="model0/layer0", measure="cka_rbf_sigma_5")
    meanings = atlas["status"].attrs["flag_meanings"].split()
    found = {str(target): meanings[int(atlas["status"].sel(target=target))] for target in atlas["target"].values[1:]}
    assert found == {"model0/layer1": "ok", "model1/layer0": "saturated", "model1/layer1": "ok"}


def test_missing_file__names_what_lies_nearest(
    tmp_path: Path, related_spaces: Any, write_zoo: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_zoo(tmp_path, related_spaces(2))
    (folder / "model1.npz").rename(folder / "model_1.npz")

    assert run(folder) == 4

    told = capsys.readouterr().err
    assert "model1.npz: no such file; did you mean 'model_1.npz'" in told
    assert "[missing_source]" in told


def test_all_models_bad__gives_an_atlas_that_says_so(tmp_path: Path, related_spaces: Any, write_zoo: Any) -> None:
    folder = write_zoo(tmp_path, related_spaces(2))
    for name in ("model0", "model1"):
        (folder / f"{name}.npz").write_bytes(b"not a zip")

    assert run(folder) == 4

    assert read_json(tmp_path / "atlas" / "summary.json")["counts"]["spaces"] == 0
    assert "damaged_source" in (tmp_path / "atlas" / "report.html").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ids: np.where(ids == ids[0], ids[1], ids), "got 1 ids more than once"),
        (lambda ids: ids[:-1], "got 120 rows and 119 ids"),
        (lambda ids: np.where(ids == ids[0], "", ids), "empty"),
        (lambda ids: np.linspace(0, 1, len(ids)), "expected one column of text or integers"),
    ],
)
def test_bad_ids__are_told(
    change: Callable[[np.ndarray], np.ndarray],
    message: str,
    tmp_path: Path,
    related_spaces: Any,
    write_zoo: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    models = related_spaces(3)
    folder = write_zoo(tmp_path, models)
    np.save(folder / "model1_ids.npy", change(models["model1"][1]))

    assert run(folder) == 4

    told = capsys.readouterr().err
    assert message in told
    assert "[bad_ids]" in told
    assert read_json(tmp_path / "atlas" / "summary.json")["counts"]["models"] == 2


@pytest.mark.parametrize(
    ("shared", "reason"), [(0, "no_overlap"), (30, "little_overlap"), (90, "ok")]
)  # fmt: skip
def test_ids_that_hardly_overlap__leave_the_pair_without_a_score(
    shared: int, reason: str, tmp_path: Path, related_spaces: Any, write_zoo: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    models = related_spaces(3)
    layers, ids = models["model1"]
    others = np.array([f"q{number:03}" for number in range(len(ids))])
    models["model1"] = (layers, np.where(np.arange(len(ids)) < shared, ids, others))

    code = run(write_zoo(tmp_path, models))

    atlas = read_atlas(tmp_path / "atlas").sel(dataset="probe")
    meanings = atlas["status"].attrs["flag_meanings"].split()
    pair = {"source": "model0/layer0", "target": "model1/layer0"}
    assert [meanings[code] for code in atlas["status"].sel(pair).values] == [reason, reason]
    assert (int(atlas["n_common"].sel(pair)), float(atlas["overlap_share"].sel(pair))) == (shared, shared / 120)
    edges = pyarrow.parquet.read_table(tmp_path / "atlas" / "edges.parquet").to_pylist()
    [edge] = [edge for edge in edges if {**edge, **pair, "measure": "lfm"} == edge]
    assert (edge["status"], edge["n_common"], edge["overlap_share"]) == (reason, shared, shared / 120)
    assert np.isfinite(atlas["score"].sel(pair)).all() == (reason == "ok")
    assert np.isfinite(atlas["score"].sel(source="model0/layer0", target="model2/layer0")).all()
    assert code == (0 if reason == "ok" else 4)
    if reason != "ok":
        [refused] = read_json(tmp_path / "atlas" / "summary.json")["pairs_without_score"]
        # Two layers of model1 with two layers each of model0 and model2, both ways.
        assert (refused["reason"], refused["count"]) == (reason, 16)
        assert "16 directed pairs have no score, model0/layer0 and model1/layer0 first: got " in capsys.readouterr().err
        assert run(tmp_path) == 4  # nothing to compute, and nothing forgotten


@pytest.mark.parametrize("measures", [["cka_linear"], ["cka_linear", "lfm"]])
@pytest.mark.parametrize(
    ("n_shared", "groups", "reason"),
    # Fewer common points than eigenpairs; groups of sizes 10, 20, 30, 10, 20, 30, of which the first three are common.
    [(6, None, "little_overlap"), (60, [10, 30, 60, 70, 90], "bad_groups")],
)
def test_common_points_that_do_not_do__leave_one_pair_without_a_score_whatever_is_requested(
    measures: list[str], n_shared: int, groups: list[int] | None, reason: str, tmp_path: Path, related_spaces: Any,
    write_zoo: Any,
) -> None:  # fmt: skip
    models = {name: ({"layer": next(iter(layers.values()))}, ids) for name, (layers, ids) in related_spaces(3).items()}
    layers, ids = models["model1"]
    numbers = np.array([int(name[1:]) for name in ids])
    models["model1"] = layers, np.where(numbers < n_shared, ids, np.array([f"q{number:03}" for number in numbers]))
    every = np.unique(np.concatenate([ids for _, ids in models.values()]))
    of_points = [int(name[1:]) for name in every]
    dataset = {} if groups is None else {"groups": np.searchsorted(groups, of_points, side="right")}

    run(write_zoo(tmp_path, models, dataset, measures=measures, min_overlap=0.01, n_eigenpairs=8))

    status = read_atlas(tmp_path / "atlas").sel(dataset="probe", measure="cka_linear")["status"]
    found = status.sel(source="model0/layer", target=["model1/layer", "model2/layer"]).values.tolist()
    assert [status.attrs["flag_meanings"].split()[code] for code in found] == [reason, "ok"]


@pytest.mark.parametrize(
    ("setting", "needed"),
    [
        ({"graph": {"n_neighbors": 120}}, "expected at least 121 for n_neighbors 120"),
        ({"n_eigenpairs": 120}, "at least 121"),
    ],
)
def test_too_few_points__is_told_before_anything_is_recorded(
    setting: dict[str, Any], needed: str, tmp_path: Path, related_spaces: Any, write_zoo: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = write_zoo(tmp_path, related_spaces(2), **setting)

    assert run(folder) == 4

    told = capsys.readouterr().err
    assert "got 120 points" in told
    assert needed in told
    assert "[too_few_points]" in told
    assert not (tmp_path / ".lfm-atlas" / "units" / "activations").exists()


def test_graph_in_pieces__is_joined_and_counted(tmp_path: Path, related_spaces: Any, write_zoo: Any) -> None:
    models = related_spaces(2)
    layers, ids = models["model1"]
    side = np.array([int(name[1:]) % 3 for name in ids])
    models["model1"] = ({**layers, "layer0": layers["layer0"] + 1000 * np.eye(3)[side] @ np.eye(3, 13)}, ids)

    assert run(write_zoo(tmp_path, models)) == 0

    atlas = read_atlas(tmp_path / "atlas").sel(dataset="probe")
    assert int(atlas["n_components"].sel(source="model1/layer0")) == 3
    assert int(atlas["n_zero_eigenvalues"].sel(source="model1/layer0")) == 1
    assert "its graph was in 3 pieces before it was joined" in (tmp_path / "atlas" / "report.html").read_text()


def test_bases_that_live_on_few_points__are_marked_and_have_drawn_chance(tmp_path: Path, write_zoo: Any) -> None:
    ids, models = np.array([f"p{number:03}" for number in range(120)]), {}
    for seed in (3, 6):
        generator = np.random.default_rng(seed)
        layer = generator.standard_normal((120, 4))
        for piece in generator.permutation(120)[:72].reshape(12, 6):
            layer[piece] = 0.01 * generator.standard_normal((6, 4)) + generator.standard_normal(4)
        models[f"model{seed}"] = ({"layer": layer.astype(np.float32)}, ids)
    graph = {"n_neighbors": 6, "metric": "euclidean"}
    folder = write_zoo(tmp_path, models, graph=graph, n_eigenpairs=20, null={"n_permutations": 0})

    assert run(folder) == 0

    atlas = read_atlas(tmp_path / "atlas").sel(dataset="probe", source="model3/layer", target="model6/layer")
    reasons = atlas["status"].attrs["flag_meanings"].split()
    found = [reasons[int(atlas["status"].sel(measure=name))] for name in ("lfm", "overlap")]
    assert found == ["localized", "ok"]
    assert np.isfinite(atlas["calibrated"]).all()
    assert (atlas["p_value"] > 1e-3).all()


def test_layers_that_match_nothing__name_the_nearest(
    tmp_path: Path, related_spaces: Any, write_zoo: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog = write_zoo(tmp_path, related_spaces(2)) / "data_catalog.yaml"
    catalog.write_text(catalog.read_text().replace("  model1:", "  model1:\n    layers: ['laier*']"))

    assert run(tmp_path) == 4

    told = capsys.readouterr().err
    assert "laier*" in told
    assert "layer0" in told
    assert "[unknown_layer]" in told


def test_wrong_catalog__gives_every_mistake_at_once_with_its_line(
    tmp_path: Path, related_spaces: Any, write_zoo: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog = write_zoo(tmp_path, related_spaces(2)) / "data_catalog.yaml"
    text = (
        catalog.read_text().replace("n_neighbors:", "n_neighbours:").replace("n_eigenpairs: 8", "n_eigenpairs: eight")
    )
    catalog.write_text(text)

    assert run(tmp_path) == 2

    told = capsys.readouterr().err
    lines = text.splitlines()
    for name, word in (("n_neighbours", "did you mean 'n_neighbors'?"), ("n_eigenpairs", "eight")):
        number = next(n for n, line in enumerate(lines, start=1) if f"{name}:" in line)
        [problem] = [line for line in told.splitlines() if f"data_catalog.yaml:{number}" in line]
        assert word in problem
    assert not (tmp_path / "atlas").exists()


def test_unknown_measure__names_the_nearest(
    tmp_path: Path, related_spaces: Any, write_zoo: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_zoo(tmp_path, related_spaces(2), measures=["lfm", "overlop"])
    catalog = folder / "data_catalog.yaml"
    with catalog.open("a") as file:
        file.write("comparisons:\n  one:\n    sources: '*'\n    targets: '*'\n    measures: [cca_meen]\n")

    assert run(folder) == 2
    told = capsys.readouterr().err
    lines = catalog.read_text().splitlines()
    number = next(n for n, line in enumerate(lines, start=1) if "overlop" in line)
    assert f"data_catalog.yaml:{number}: atlas.measures[1]: unknown measure 'overlop'; did you mean 'overlap'?" in told
    where = f"data_catalog.yaml:{len(lines)}: comparisons.one.measures[0]"
    assert f"{where}: unknown measure 'cca_meen'; did you mean 'cca_mean'?" in told


def test_missing_catalog__says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path) == 2
    assert "init" in capsys.readouterr().err


def test_path_from_the_environment__is_named_by_its_variable_in_all_that_is_published(
    tmp_path: Path,
    related_spaces: Callable[..., Models],
    write_zoo: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secret = "hunter2-of-the-zoo"  # noqa: S105 - nobody's
    monkeypatch.setenv("ZOO", secret)
    folder = write_zoo(tmp_path, related_spaces(3))
    catalog = folder / "data_catalog.yaml"
    content = YAML(typ="safe").load(catalog)
    model = content["models"]["model1"]["activations"]
    model["path"] = "${ZOO}/lost.npz"
    with catalog.open("w") as file:
        YAML().dump(content, file)

    assert run(folder) == 4
    assert exit_code("audit", str(catalog), "--no-prefect", "--no-dask") == 3

    published = [path for part in ("atlas", "audits") for path in (folder / part).rglob("*") if path.is_file()]
    assert published
    assert [path for path in published if secret.encode() in path.read_bytes()] == []
    failures = read_json(folder / "atlas" / "summary.json")["failures"]
    assert any("${ZOO}/lost.npz" in failure["message"] for failure in failures)
