"""`open_atlas`: what it answers, against the arrays; what it says where it cannot."""

import json
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from lfm_atlas import AtlasError, open_atlas
from lfm_tasks.published.atlas import Atlas
from lfm_tasks.published.descriptions import as_html
from lfm_tasks.published.exports import export_csv
from lfm_tasks.spectral.bases.full_map import overlap
from lfm_tasks.stores.atlas.files import read_atlas, write_atlas
from lfm_tasks.stores.atlas.publication import publish


def test_nearest_model__is_the_one_whose_layers_fit_best(small: Atlas) -> None:
    first, second = small.nearest("model0")

    matrix = small.matrix()
    both_ways = (matrix + matrix.T.values) / 2
    assert [first["name"], second["name"]] == ["model2", "model1"]
    assert first["value"] == pytest.approx(float(both_ways.sel(source="model0", target="model2")))
    assert second["value"] == pytest.approx(float(both_ways.sel(source="model0", target="model1")))
    assert first["margin"] == pytest.approx(first["value"] - second["value"])
    assert second["margin"] is None
    assert first["ci_low"] <= first["score"] <= first["ci_high"]
    assert first["source"] in small.spaces


def test_nearest_space__knows_a_copy(small: Atlas) -> None:
    for measure in ("overlap", "procrustes_centered_unit_norm"):
        (nearest,) = small.nearest("model0/layer0", n=1, measure=measure)

        assert nearest["name"] == "model0/</td>|[red]x"
        assert nearest["value"] == pytest.approx(1, abs=1e-6)
        assert nearest["status"] == "ok"
    assert len(small.nearest("model0/layer0", n=100)) == 5
    assert len(pd.DataFrame(small.nearest("model0/layer0"))) == 5


def test_distances__whose_chance_nobody_sampled_are_refused_where_high_has_to_be_alike(small: Atlas) -> None:
    bare = replace(small, scores=small.scores.assign(calibrated=small.scores["calibrated"] * np.nan))

    assert bare.nearest("model0/layer0", n=1)[0]["value"] == pytest.approx(1)
    for name in ("model0", "model0/layer0"):
        with pytest.raises(AtlasError, match=r"got the score of procrustes.*needs atlas.null.n_permutations above 0"):
            bare.nearest(name, measure="procrustes_centered_unit_norm")


def test_matrix__is_labelled_and_says_what_it_is(small: Atlas) -> None:
    models = small.matrix("overlap", "mean")
    spaces = small.matrix("procrustes_centered_unit_norm", reduce=None, statistic="score")

    assert models.dims == spaces.dims == ("source", "target")
    assert list(models["source"].values) == ["model0", "model1", "model2", "model3"]
    assert models.attrs == {
        "dataset": "probe",
        "measure": "overlap",
        "statistic": "calibrated",
        "reduce": "mean",
        "direction": "from source to target",
    }
    own = small.scores["calibrated"].sel(dataset="probe", measure="overlap", target="model1/layer0")
    expected = np.mean([float(own.sel(source=name)) for name in ("model2/layer0", "model2/layer1")])
    assert float(models.sel(source="model2", target="model1")) == pytest.approx(expected)
    assert np.isnan(float(models.sel(source="model0", target="model3")))
    assert "model0/</td>|[red]x" in spaces["target"].values
    with pytest.raises(
        AtlasError, match=r"got the score of procrustes_centered_unit_norm, a distance.*Use the calibrated value"
    ):
        small.matrix("procrustes_centered_unit_norm", statistic="score")


def test_pair__has_all_numbers_and_reasons(small: Atlas) -> None:
    pair = small.pair("model0/layer0", "model1/layer0")
    apart = small.pair("model0/layer0", "model3/layer0")
    layers = small.pair("model0", "model1/layer0")

    assert pair["score"].dims == ("measure",)
    assert {"score", "calibrated", "p_value", "q_value", "ci_low", "n_common", "status", "reason"} <= set(pair)
    assert pair["status"].values.tolist() == ["ok", "ok"]
    assert pair["reason"].values.tolist() == ["", ""]
    assert apart["status"].values.tolist() == ["no_overlap"] * 2
    assert apart["reason"].values.tolist() == ["the two spaces share no ids"] * 2
    assert int(pair["n_common"]) == 120
    assert layers["status"].dims == ("measure", "source")


@pytest.mark.parametrize("target", ["model1/layer0", "model2/layer0"])
def test_map__has_the_overlap_that_the_atlas_tells(target: str, small: Atlas) -> None:
    functional_map = small.map("model0/layer0", target)

    told = small.scores["score"].sel(dataset="probe", measure="overlap", source="model0/layer0", target=target)
    assert functional_map.dims == ("target_eigenpair", "source_eigenpair")
    assert float(overlap(functional_map.values)) == pytest.approx(float(told), abs=1e-12)
    assert functional_map.attrs["origin"] == "recomputed from the bases"
    np.testing.assert_allclose(small.map(target, "model0/layer0").values, functional_map.values.T, atol=1e-12)


def test_map__that_is_kept_is_the_atlas_s_own(small_folder: Path, tmp_path: Path) -> None:
    kept = np.arange(12.0, dtype=np.float32).reshape(1, 4, 3)
    sides = {"source": "model0", "target": "model1"}
    maps = xr.Dataset(
        {"functional_map": (("pair", "target_eigenpair", "source_eigenpair"), kept)},
        {side: ("pair", np.array([f"{model}/layer0"], dtype=object)) for side, model in sides.items()},
    )
    with publish(tmp_path / "atlas", "key") as folder:
        write_atlas(read_atlas(small_folder / "atlas"), {"maps/probe": maps}, folder)
        shutil.copy(small_folder / "atlas" / "summary.json", folder)

    with open_atlas(tmp_path / "atlas", store=small_folder / ".lfm-atlas") as atlas:
        there = atlas.map("model0/layer0", "model1/layer0")
        back = atlas.map("model1/layer0", "model0/layer0")

    np.testing.assert_array_equal(there.values, kept[0])
    assert there.attrs["origin"] == "kept in the atlas"
    assert back.shape == (8, 8)


def test_map__without_a_store_says_what_to_do(small_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(small_folder / "atlas", tmp_path / "atlas")

    with open_atlas(tmp_path / "atlas") as atlas, pytest.raises(AtlasError, match=r"no basis of .*[Gg]ive the store"):
        atlas.map("model0/layer0", "model1/layer0")
    with open_atlas(tmp_path / "atlas", store=small_folder / ".lfm-atlas") as atlas:
        assert atlas.map("model0/layer0", "model1/layer0").shape == (8, 8)
        atlas.summary["settings"]["maps"]["regime"] = "anchors"
        with pytest.raises(AtlasError, match="maps of the regime 'anchors' cannot be made of the bases alone"):
            atlas.map("model0/layer0", "model1/layer0")


def test_map__between_spaces_without_common_ids_says_so(small: Atlas) -> None:
    with pytest.raises(AtlasError, match="got no common ids of model0/layer0 and model3/layer0"):
        small.map("model0/layer0", "model3/layer0")


def test_frame__is_the_long_table(small: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(small.to_frame().query("measure == 'overlap'")) == len(small.spaces) * (len(small.spaces) - 1)

    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(AtlasError, match="got no pandas, which to_frame needs: pip install pandas, or read edges"):
        small.to_frame()


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda atlas: atlas.nearest("modle0"),
            "expected a model or a space of the dataset probe; did you mean 'model0'",
        ),
        (lambda atlas: atlas.nearest("model0/layer9"), "got the text 'model0/layer9', expected a .*did you mean"),
        (lambda atlas: atlas.nearest("model0", n=0), "got n=0, expected at least 1"),
        (
            lambda atlas: atlas.nearest("model0", measure="overlpa"),
            "expected a measure of the atlas; did you mean 'overlap'",
        ),
        (
            lambda atlas: atlas.pair("model0", "nobody"),
            "expected a model or a space of the dataset probe; there is model0",
        ),
        (lambda atlas: atlas.pair("model1/layer1", "model0"), r"'model1/layer1', which failed: .*\[not_finite\]"),
        (lambda atlas: atlas.map("model0", "model1/layer0"), "got the model 'model0', expected a space.*model0/layer0"),
        (lambda atlas: atlas.map("model0/layer0", "model1/x"), "expected a space of the dataset probe; did you mean"),
        (
            lambda atlas: atlas.matrix(reduce="best_macth"),
            "expected a reduction of the atlas; did you mean 'best_match'",
        ),
        (
            lambda atlas: atlas.matrix(statistic="calibratd"),
            "expected a statistic of the atlas; did you mean 'calibrated'",
        ),
        (lambda atlas: atlas.matrix(dataset="prob"), "expected a dataset of the atlas; did you mean 'probe'"),
        (lambda atlas: atlas.pair("\x1b[2J", "model0"), r"got the text '\\x1b\[2J', expected"),
    ],
)
def test_unknown_names__are_told_with_the_nearest(ask: object, message: str, small: Atlas) -> None:
    assert callable(ask)
    with pytest.raises(AtlasError, match=message):
        ask(small)


def test_damaged_or_absent_atlas__is_refused(small_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(AtlasError, match=r"got no atlas in .*run lfm-atlas run"):
        open_atlas(tmp_path / "nowhere")
    shutil.copytree(small_folder / "atlas", tmp_path / "atlas")
    (tmp_path / "atlas" / "edges.parquet").write_bytes(b"")
    with pytest.raises(AtlasError, match=r"got a damaged atlas, edges.parquet is not as published. Run"):
        open_atlas(tmp_path / "atlas")


def test_damaged_file__is_refused_when_it_is_read(small_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(small_folder / "atlas", tmp_path / "atlas")

    def damage(name: str) -> None:
        path = tmp_path / "atlas" / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    damage("edges.parquet")
    damage("atlas.zarr/score/c/0/0/0/0")
    with open_atlas(tmp_path / "atlas") as atlas:
        with pytest.raises(AtlasError, match=r"another file edges.parquet than .* Open it again; if that fails"):
            atlas.to_frame()
        with pytest.raises(AtlasError, match=r"another file edges.parquet than when"):
            export_csv(atlas, tmp_path / "edges.csv")
        with pytest.raises(AtlasError, match=r"another file atlas.zarr/score/c/0/0/0/0 than when"):
            atlas.nearest("model0")
    damage("summary.json")
    with pytest.raises(AtlasError, match=r"another file summary.json than when"):
        open_atlas(tmp_path / "atlas")


@pytest.mark.parametrize(("version", "message"), [(1, "Run lfm-atlas run"), (99, "Install the later lfm-atlas")])
def test_atlas_of_another_schema__is_refused(version: int, message: str, small_folder: Path, tmp_path: Path) -> None:
    _published_as(version, small_folder, tmp_path / "atlas")

    with pytest.raises(AtlasError, match=message):
        open_atlas(tmp_path / "atlas")


@pytest.mark.parametrize("version", [2, 3])
def test_atlas_of_a_former_schema__is_read(version: int, small_folder: Path, small: Atlas, tmp_path: Path) -> None:
    _published_as(version, small_folder, tmp_path / "atlas")

    with open_atlas(tmp_path / "atlas", store=small_folder / ".lfm-atlas") as old:
        assert old.nearest("model0") == small.nearest("model0")
        assert old.matrix(reduce="depth_aligned").equals(small.matrix(reduce="depth_aligned"))
        if version > 2:
            return
        with pytest.raises(AtlasError, match="got no basis of model0/layer0"):
            old.map("model0/layer0", "model1/layer0")


def test_atlas_of_two_datasets__asks_which(small: Atlas) -> None:
    two = small.scores.isel(dataset=[0, 0]).assign_coords(dataset=["probe", "late"])
    both = Atlas(small.folder, small.key, small.summary, two, small.store, small.manifest)

    with pytest.raises(AtlasError, match=r"got 'model0' on the datasets probe, late, expected one of them. Name one"):
        both.nearest("model0")
    with pytest.raises(AtlasError, match=r"got 2 datasets \(probe, late\), expected one. Give dataset="):
        both.matrix()
    both = Atlas(small.folder, small.key, {**small.summary, "failures": []}, two, small.store, small.manifest)
    assert both.nearest("model0", dataset="late") == small.nearest("model0")


def test_atlas_of_several_datasets__knows_the_only_one_of_a_model(small: Atlas) -> None:
    two = small.scores.isel(dataset=[0, 0]).assign_coords(dataset=["probe", "late"]).copy(deep=True)
    of_model = two["source_model"].values == "model0"
    two["n_points"].loc[{"dataset": "late"}] = np.where(of_model, 0, two["n_points"].sel(dataset="late"))
    both = Atlas(small.folder, small.key, {**small.summary, "failures": []}, two, small.store, small.manifest)

    assert both.nearest("model0") == small.nearest("model0")
    assert both.pair("model0/layer0", "model1/layer0")["score"].equals(
        small.pair("model0/layer0", "model1/layer0")["score"]
    )
    with pytest.raises(AtlasError, match=r"got 'model1' on the datasets probe, late, expected one of them. Name one"):
        both.nearest("model1")
    with pytest.raises(AtlasError, match="got the text 'modell0', expected a model or a space of the atlas; did you"):
        both.nearest("modell0")


def test_pair_that_no_dataset_has__says_where_each_is(small: Atlas) -> None:
    two = small.scores.isel(dataset=[0, 0]).assign_coords(dataset=["probe", "late"]).copy(deep=True)
    of_model = two["source_model"].values == "model0"
    for dataset, absent in (("late", of_model), ("probe", ~of_model)):
        two["n_points"].loc[{"dataset": dataset}] = np.where(absent, 0, two["n_points"].sel(dataset=dataset))
    both = Atlas(small.folder, small.key, {**small.summary, "failures": []}, two, small.store, small.manifest)

    with pytest.raises(
        AtlasError, match="got 'model0' on probe and 'model1' on late, expected a dataset that both are"
    ):
        both.pair("model0", "model1")


def test_overview__is_short_and_escaped(small: Atlas) -> None:
    text, html = repr(small), small._repr_html_()

    assert "spaces     8 of 4 models" in text
    assert "model1/layer1 [not_finite]" in text
    assert html.startswith("<table>")
    attack = json.loads(json.dumps(dict(small.summary)))
    attack["failures"][0]["layer"] = "<img src=x onerror=alert(1)>"
    assert not re.search("<img", as_html(attack, ["probe"], ["overlap"]))


def _published_as(version: int, small_folder: Path, target: Path) -> None:
    """Publish the small atlas as a schema of another version would have been."""
    atlas = read_atlas(small_folder / "atlas").assign_attrs(schema_version=version)
    summary = json.loads((small_folder / "atlas" / "summary.json").read_text()) | {"schema_version": version}
    with publish(target, "key") as folder:
        write_atlas(atlas.drop_vars(["depth", *(["content", "basis"] if version < 3 else [])]), {}, folder)
        (folder / "summary.json").write_text(json.dumps(summary))


# An atlas that is published again while it is read: every read is one whole version, or says that it is not.
N_READS = 200
N_COMMITS = 6


@pytest.fixture
def versions(small: Atlas, tmp_path: Path) -> dict[str, tuple[Path, np.ndarray]]:
    """Give two whole atlases by key: the small one, and one of other scores and half the spaces."""
    scores = small.scores.load()
    half = scores.isel(source=slice(0, 4), target=slice(0, 4))
    folders = {}
    for key, version in {"a": scores, "b": half.assign(score=half["score"] + 1)}.items():
        folder = tmp_path / "versions" / key
        shutil.copytree(small.folder, folder)
        shutil.rmtree(folder / "atlas.zarr")
        write_atlas(version, {}, folder)
        folders[key] = (folder, version["score"].values)
    return folders


def put(versions: dict[str, tuple[Path, np.ndarray]], key: str, place: Path) -> None:
    with publish(place, key) as staged:
        shutil.copytree(versions[key][0], staged, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))


@contextmanager
def published_again_and_again(versions: dict[str, tuple[Path, np.ndarray]], place: Path) -> Iterator[list[str]]:
    ended, commits = threading.Event(), list[str]()

    def work() -> None:
        while not ended.is_set():
            for key in versions:
                put(versions, key, place)
                commits.append(key)

    writer = threading.Thread(target=work)
    writer.start()
    try:
        yield commits
    finally:
        ended.set()
        writer.join()


def test_reads_during_commits__see_whole_versions_only(
    versions: dict[str, tuple[Path, np.ndarray]], tmp_path: Path
) -> None:
    place, seen, messages = tmp_path / "atlas", list[str](), list[str]()
    put(versions, "b", place)
    with published_again_and_again(versions, place) as commits:
        # Until both sides have done enough, whatever the share of the machine that each gets.
        while len(seen) < N_READS or len(commits) < N_COMMITS:
            try:
                with open_atlas(place) as atlas:
                    values = atlas.scores["score"].values
            except AtlasError as error:
                messages.append(str(error))
                continue
            np.testing.assert_array_equal(values, versions[atlas.key][1])
            seen.append(atlas.key)
    assert set(seen) == {"a", "b"}
    assert all("Open it" in message for message in messages)


def test_arrays_read_after_another_was_published__are_refused(
    versions: dict[str, tuple[Path, np.ndarray]], tmp_path: Path
) -> None:
    place = tmp_path / "atlas"
    put(versions, "a", place)
    with open_atlas(place) as atlas:
        put(versions, "b", place)

        with pytest.raises(AtlasError, match=r"published again since or is damaged. Open it again"):
            atlas.scores["score"].values  # noqa: B018 - reading is what it does
        assert atlas.section("maps/probe") is None
