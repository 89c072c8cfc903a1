"""Pictures and probes of chosen spaces: against truth, and what must not be computed twice."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from lfm_atlas.pipeline import Outcome
from lfm_tasks.catalog import CatalogError, read_catalog
from lfm_tasks.spectral.transfer.evaluation import probe_accuracy, stratified_folds, transferred_probe_accuracy
from lfm_tasks.stages.inventory.stage import validate_catalog
from lfm_tasks.stores.atlas.files import read_groups

WriteZoo = Callable[..., Path]
Build = Callable[..., Outcome]
Models = dict[str, tuple[dict[str, np.ndarray], np.ndarray]]

N = 120
IDS = np.array([f"p{number:03}" for number in range(N)])
LABELS = np.arange(N) % 4
ASKED = {"spaces": ["*/x"], "perplexity": 10.0}


def class_rows() -> np.ndarray:
    generator = np.random.default_rng(0)
    return 1.5 * generator.standard_normal((4, 6))[LABELS] + generator.standard_normal((N, 6))


def zoo(*names: str) -> Models:
    """Make models of one layer x: clean; turned: a copy; moved: class 2 scattered. Rows in another order each."""
    generator = np.random.default_rng(1)
    rows = class_rows()
    moved = rows.copy()
    moved[LABELS == 2] = rows[generator.choice(np.flatnonzero(LABELS != 2), N // 4)]
    spaces = {
        "clean": rows,
        "moved": moved,
        "turned": 3 * rows @ np.linalg.qr(generator.standard_normal((6, 6)))[0] - 1,
    }
    models = {}
    for name, own in spaces.items():
        order = generator.permutation(N)
        models[name] = ({"x": own[order], "y": own[order, :3]}, IDS[order])
    return {name: models[name] for name in names or models}


def group(folder: Path) -> xr.Dataset:
    return read_groups(folder / "atlas")["embeddings/probe"]


def files(folder: Path) -> dict[str, bytes]:
    atlas = folder / "atlas"
    return {str(p.relative_to(atlas)): p.read_bytes() for p in sorted(atlas.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, write_zoo: WriteZoo, build: Build) -> tuple[Path, Outcome]:
    folder = write_zoo(tmp_path_factory.mktemp("embedded"), zoo(), dataset={"labels": LABELS}, embeddings=ASKED)
    return folder, build(folder)


def test_probe_after_transfer__stays_for_a_copy_and_loses_the_class_that_was_moved(built: tuple[Path, Outcome]) -> None:
    found = group(built[0])
    own = dict(zip(found["space"].values.tolist(), found["probe_accuracy"].values, strict=True))
    after = found["probe_after_transfer"]

    assert list(own) == ["clean/x", "moved/x", "turned/x"]
    assert own["clean/x"] > 0.9
    assert own["turned/x"] == own["clean/x"]
    assert float(after.sel(source="turned/x", target="clean/x")) == own["clean/x"]
    assert float(after.sel(source="clean/x", target="turned/x")) == own["clean/x"]
    np.testing.assert_array_equal(np.diag(after.values), found["probe_accuracy"].values)
    # A quarter of the points is class 2, and none of these is where the target's probe looks for it.
    for target in ("clean/x", "turned/x"):
        assert abs(float(after.sel(source="moved/x", target=target)) - (own["clean/x"] - 0.25)) < 0.04
    assert own["moved/x"] < own["clean/x"] - 0.15


def test_accuracies__are_those_of_the_kernels_on_the_rows_as_they_were_given(built: tuple[Path, Outcome]) -> None:
    models = zoo()
    folds = stratified_folds(LABELS.astype(str))
    rows = {name: layers["x"][np.argsort(ids)] for name, (layers, ids) in models.items()}
    found = group(built[0])

    expected = probe_accuracy(rows["moved"], LABELS, folds)
    assert float(found["probe_accuracy"].sel(space="moved/x")) == expected
    expected = transferred_probe_accuracy(rows["moved"], rows["clean"], LABELS, folds)
    assert float(found["probe_after_transfer"].sel(source="moved/x", target="clean/x")) == expected


def test_group__holds_pictures_labels_and_maps_of_all_chosen_pairs(built: tuple[Path, Outcome]) -> None:
    folder, outcome = built
    found = group(folder)

    assert outcome.computed["embeddings"] == 3
    assert outcome.computed["probes"] == 9
    assert found["tsne"].dims == ("space", "point", "axis")
    assert found["tsne"].dtype == np.float32
    assert bool(np.isfinite(found["tsne"]).all())
    assert found["point"].values.tolist() == IDS.tolist()
    assert found["label"].values.tolist() == [str(label) for label in LABELS]
    assert found.attrs == {"metric": "angular", "no_probe_because": "", "perplexity": 10.0, "seed": 0}
    maps = read_groups(folder / "atlas")["maps/probe"]
    pairs = set(zip(maps["source"].values.tolist(), maps["target"].values.tolist(), strict=True))
    assert {("clean/x", "moved/x"), ("clean/x", "turned/x"), ("moved/x", "turned/x")} <= pairs


def test_run_again__computes_nothing_and_reads_the_same(built: tuple[Path, Outcome], build: Build) -> None:
    before = files(built[0])

    again = build(built[0])

    assert not any(again.computed.values())
    assert (again.reused["embeddings"], again.reused["probes"]) == (3, 9)
    assert files(built[0]) == before


@pytest.mark.parametrize("n_workers", [1, 2])
def test_dask_workers__give_the_bytes_of_one_process(
    built: tuple[Path, Outcome], tmp_path: Path, write_zoo: WriteZoo, build: Build, n_workers: int
) -> None:
    catalog = write_zoo(tmp_path, zoo(), dataset={"labels": LABELS}, embeddings=ASKED) / "data_catalog.yaml"
    catalog.write_text(catalog.read_text() + f"cluster: {{n_workers: {n_workers}}}\n")

    build(tmp_path, in_process=False)

    assert files(tmp_path) == files(built[0])


def test_model_that_arrives__costs_its_own_picture_and_its_own_pairs(
    built: tuple[Path, Outcome], tmp_path: Path, write_zoo: WriteZoo, build: Build
) -> None:
    build(write_zoo(tmp_path, zoo("clean", "moved"), dataset={"labels": LABELS}, embeddings=ASKED))

    outcome = build(write_zoo(tmp_path, zoo(), dataset={"labels": LABELS}, embeddings=ASKED))

    assert (outcome.computed["embeddings"], outcome.computed["probes"]) == (1, 5)
    assert files(tmp_path) == files(built[0])


def test_other_labels__are_other_probes_of_the_same_pictures(
    built: tuple[Path, Outcome], tmp_path: Path, write_zoo: WriteZoo, build: Build
) -> None:
    build(write_zoo(tmp_path, zoo("clean", "moved"), dataset={"labels": LABELS}, embeddings=ASKED))

    outcome = build(write_zoo(tmp_path, zoo("clean", "moved"), dataset={"labels": LABELS % 2}, embeddings=ASKED))

    assert (outcome.computed["embeddings"], outcome.computed["probes"], outcome.computed["maps"]) == (0, 4, 0)
    assert set(read_groups(tmp_path / "atlas")["maps/probe"]["label"].values.tolist()) == {"0", "1"}


def test_dataset_without_labels__has_pictures_and_says_why_no_probe(
    tmp_path: Path, write_zoo: WriteZoo, build: Build
) -> None:
    outcome = build(write_zoo(tmp_path, zoo("clean", "moved"), embeddings=ASKED))

    found = group(tmp_path)
    assert outcome.failures == ()
    assert outcome.computed["probes"] == 0
    assert bool(np.isfinite(found["tsne"]).all())
    assert np.isnan(found["probe_after_transfer"].values).all()
    assert (
        found.attrs["no_probe_because"] == "got no labels in the dataset, expected classes for a probe. Give it labels"
    )
    assert set(found["label"].values.tolist()) == {""}


def test_rare_class__leaves_pictures_without_a_probe(tmp_path: Path, write_zoo: WriteZoo, build: Build) -> None:
    labels = np.where(np.arange(N) < 3, 9.0, LABELS)
    labels[7] = np.nan
    build(write_zoo(tmp_path, zoo("clean"), dataset={"labels": labels}, embeddings=ASKED))

    found = group(tmp_path)
    assert found.attrs["no_probe_because"].startswith("got 3 points of class '9.0', expected 5 of each")
    assert found["label"].values[7] == ""


def test_points__are_a_draw_of_the_seed_and_the_same_for_all_spaces(
    tmp_path: Path, write_zoo: WriteZoo, build: Build
) -> None:
    models = zoo("clean", "moved")
    layers, ids = models["moved"]
    left = ids != "p000"
    models["moved"] = ({name: rows[left] for name, rows in layers.items()}, ids[left])
    drawn = []
    for seed in (0, 1):
        asked = ASKED | {"max_points": 110, "seed": seed}
        build(write_zoo(tmp_path, models, dataset={"labels": LABELS}, embeddings=asked))
        found = group(tmp_path)
        drawn.append(found["point"].values.tolist())
        assert len(drawn[-1]) == 110
        absent = np.isnan(found["tsne"].sel(space="moved/x").values).all(axis=1)
        assert found["point"].values[absent].tolist() == [name for name in drawn[-1] if name == "p000"]
        assert bool(np.isfinite(found["tsne"].sel(space="clean/x")).all())
        assert bool(np.isfinite(found["probe_after_transfer"]).all())
    assert drawn[0] != drawn[1]


def test_glob_of_spaces_that_no_comparison_asks_for__is_told(tmp_path: Path, write_zoo: WriteZoo) -> None:
    asked = ASKED | {"spaces": ["clean/x", "moved"]}
    folder = write_zoo(tmp_path, zoo("clean", "moved", "turned"), dataset={"labels": LABELS}, embeddings=asked)
    path = folder / "data_catalog.yaml"
    path.write_text(f"{path.read_text()}comparisons:\n  ours: {{sources: clean, targets: turned}}\n")

    [failure] = validate_catalog(read_catalog(path), lambda *_: None).failures

    assert (failure.model, failure.reason) == ("atlas.embeddings.spaces", "not_asked")
    assert failure.message == (
        "'moved' matches 2 spaces, and no comparison asks for any of them. Name them in a comparison, or remove it"
    )


def test_fewer_points_than_the_perplexity__fail_their_picture_with_a_reason(
    tmp_path: Path, write_zoo: WriteZoo, build: Build
) -> None:
    asked = ASKED | {"max_points": 60, "perplexity": 60.0}
    outcome = build(write_zoo(tmp_path, zoo("clean", "moved"), dataset={"labels": LABELS}, embeddings=asked))

    assert [(f.model, f.layer, f.stage, f.reason) for f in outcome.failures] == [
        ("clean", "x", "embeddings", "too_few_points"),
        ("moved", "x", "embeddings", "too_few_points"),
    ]
    assert outcome.failures[0].message.startswith("got 60 points, expected more for t-SNE with perplexity 60")
    found = group(tmp_path)
    assert np.isnan(found["tsne"]).all()
    assert bool(np.isfinite(found["probe_accuracy"]).all())


def test_damaged_activations__are_told_and_recorded_again(
    built: tuple[Path, Outcome], tmp_path: Path, write_zoo: WriteZoo, build: Build
) -> None:
    build(write_zoo(tmp_path, zoo(), dataset={"labels": LABELS}))
    for unit in (tmp_path / ".lfm-atlas" / "units" / "activations").iterdir():
        (unit / "activations" / "c" / "0" / "0").write_bytes(b"nothing")
    folder = write_zoo(tmp_path, zoo(), dataset={"labels": LABELS}, embeddings=ASKED)

    outcome = build(folder)

    assert len(outcome.quarantined) == outcome.computed["activations"] == 6
    assert outcome.quarantined[0].endswith("activations/c/0/0 is damaged")
    assert outcome.failures == ()
    assert files(folder) == files(built[0])


def test_comparisons__leave_pairs_that_they_do_not_ask_for_without_probe_and_map(
    tmp_path: Path, write_zoo: WriteZoo, build: Build
) -> None:
    folder = write_zoo(tmp_path, zoo(), dataset={"labels": LABELS}, embeddings=ASKED, keep_maps="none")
    catalog = folder / "data_catalog.yaml"
    catalog.write_text(catalog.read_text() + "comparisons: {one: {sources: clean, targets: [moved, turned]}}\n")
    build(folder)

    after = group(folder)["probe_after_transfer"]
    assert np.isnan(after.sel(source="moved/x", target="turned/x"))
    assert np.isnan(after.values).sum() == 2
    assert read_groups(folder / "atlas")["maps/probe"].sizes["pair"] == 2


@pytest.mark.parametrize(
    ("spaces", "message"),
    [
        (["cleen/x"], r"atlas.embeddings.spaces: no model matches 'cleen'; did you mean 'clean'\?"),
        (["!*"], r"atlas.embeddings.spaces: of 3 models none is left. Remove a pattern with !"),
        ([], r"atlas.embeddings.spaces: got an empty list, expected at least one"),
        ("*/x", r"atlas.embeddings.spaces: got the text '\*/x', expected a list"),
    ],
)
def test_globs_of_no_model__are_mistakes_of_the_catalog(
    tmp_path: Path, write_zoo: WriteZoo, spaces: Any, message: str
) -> None:
    folder = write_zoo(tmp_path, zoo(), embeddings={"spaces": spaces})
    with pytest.raises(CatalogError, match=message):
        read_catalog(folder / "data_catalog.yaml")


def test_globs_of_no_layer__are_told_before_work_starts(tmp_path: Path, write_zoo: WriteZoo) -> None:
    folder = write_zoo(tmp_path, zoo(), embeddings={"spaces": ["*/z", "clean/x"]})

    [failure] = validate_catalog(read_catalog(folder / "data_catalog.yaml"), lambda *_: None).failures

    assert (failure.dataset, failure.model, failure.reason) == ("probe", "atlas.embeddings.spaces", "unknown_layer")
    assert failure.message.startswith("no space matches '*/z'; there is clean/x, clean/y, moved/x")
