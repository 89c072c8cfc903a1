"""Which rows are compared: those of points, without excluded and broken ones, one for all trials of an id."""

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm_atlas.console import no_progress
from lfm_tasks.catalog import CatalogError, read_catalog
from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.ids import ID_FORMS, near_join
from lfm_tasks.sources.opening import open_source, read_dataset
from lfm_tasks.sources.trials import trials_of
from lfm_tasks.stages.inventory.stage import Zoo, layer_rows, validate_catalog

N = 24
IDS = np.array([f"img{number:03}" for number in range(N)])
ROWS = np.random.default_rng(0).standard_normal((N, 5)).astype(np.float32)
ATLAS = "atlas: {n_eigenpairs: 4, graph: {n_neighbors: 4}}"


def write(folder: Path, dataset: str, models: str, **arrays: np.ndarray) -> Path:
    for name, values in {"ids": IDS, "m": ROWS, **arrays}.items():
        np.save(folder / f"{name}.npy", values)
    path = folder / "data_catalog.yaml"
    path.write_text(f"version: 1\ndatasets: {{p: {{{dataset}}}}}\nmodels: {{{models}}}\n{ATLAS}\n")
    return path


def opened(path: Path) -> Zoo:
    return validate_catalog(read_catalog(path), no_progress)


def recorded(path: Path, model: str = "m", layer: str | None = None) -> tuple[list[str], np.ndarray]:
    """Return the ids and the rows of a layer as a run records them."""
    catalog = read_catalog(path)
    rows = read_dataset("p", catalog)
    source = open_source(model, catalog.model_on(model), catalog, rows)
    name = layer or source.layer_names()[0]
    chosen = layer_rows(source, name, catalog, rows.points)
    batches = [batch[name] for batch in source.batches([name], chosen)]
    return source.ids[chosen].tolist(), np.concatenate(batches)


MODEL = "m: {activations: {path: m.npy, dataset: p}}"


def test_points_and_exclude__choose_what_is_compared(tmp_path: Path) -> None:
    dataset = "ids: {path: ids.npy}, points: {path: points.npy}, exclude: {path: out.txt}"
    (tmp_path / "out.txt").write_text("img003\nimg011\n")
    path = write(tmp_path, dataset, MODEL, points=IDS[:12])
    kept = np.setdiff1d(np.arange(12), [3, 11])

    ids, rows = recorded(path)
    zoo = opened(path)

    assert ids == IDS[kept].tolist()
    np.testing.assert_array_equal(rows, ROWS[kept])
    assert [planned.size.n_points for planned in zoo.spaces] == [10]
    assert zoo.notes == ("dataset p: 10 of 24 points are compared, as the catalog says",)
    whole = opened(write(tmp_path, "ids: {path: ids.npy}", MODEL))
    assert whole.spaces[0].key != zoo.spaces[0].key


def test_points_that_the_dataset_lacks__are_told_with_what_would_match(tmp_path: Path) -> None:
    path = write(tmp_path, "ids: {path: ids.npy}, exclude: {path: out.txt}", MODEL)
    (tmp_path / "out.txt").write_text("images/img003.png\n")
    message = (
        r"dataset p: exclude: got 1 ids that the dataset lacks, first 'images/img003\.png' and 'img000'; "
        r"all 1 match by file stem. Say exclude: \{path: \.\.\., as: stem\}"
    )
    with pytest.raises(DataError, match=message):
        read_dataset("p", read_catalog(path))
    path = write(tmp_path, "ids: {path: ids.npy}, exclude: {path: out.txt, as: stem}", MODEL)
    assert read_dataset("p", read_catalog(path)).points.tolist() == np.delete(IDS, 3).tolist()  # type: ignore[union-attr]
    (tmp_path / "out.txt").write_text("\n".join(IDS))
    with pytest.raises(DataError, match="points and exclude leave no id"):
        read_dataset("p", read_catalog(path))


def test_rows_that_are_not_finite__are_left_out_where_the_catalog_says_so(tmp_path: Path) -> None:
    broken = ROWS.copy()
    broken[7, 1], broken[20] = np.inf, np.nan
    model = 'm: {activations: {path: "{model}.npz", dataset: p, not_finite: drop}}'
    path = write(tmp_path, "ids: {path: ids.npy}", model)
    np.savez(tmp_path / "m.npz", good=ROWS, broken=broken, column=np.where(np.arange(5) == 3, np.nan, ROWS))
    kept = np.setdiff1d(np.arange(N), [7, 20])

    zoo = opened(path)

    ids, rows = recorded(path, layer="broken")
    assert ids == IDS[kept].tolist()
    np.testing.assert_array_equal(rows, ROWS[kept])
    assert recorded(path, layer="good")[0] == IDS.tolist()
    assert {planned.space.layer: planned.size.n_points for planned in zoo.spaces} == {"good": 24, "broken": 22}
    assert zoo.notes == ("m: broken: 2 of 24 rows are not finite and left out: img007, img020",)
    (failure,) = zoo.failures
    assert (failure.layer, failure.reason) == ("column", "not_finite")
    assert "got NaN or infinite values in each of 24 rows: no row is left" in failure.message
    # A layer without broken rows is the same one as without the key.
    plain = opened(write(tmp_path, "ids: {path: ids.npy}", model.replace(", not_finite: drop", "")))
    keys = {planned.space.layer: planned.key for planned in zoo.spaces}
    assert {planned.space.layer: planned.key for planned in plain.spaces}["good"] == keys["good"]


def test_trials_of_an_id__become_their_mean(tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(np.repeat(np.arange(8), 3))
    path = write(
        tmp_path,
        "ids: {path: trials.npy}, labels: {path: labels.npy}, repeats: mean",
        MODEL,
        trials=IDS[order],
        labels=order % 3,
    )

    ids, rows = recorded(path)
    dataset = read_dataset("p", read_catalog(path))

    assert ids == IDS[:8].tolist()
    means = np.stack([ROWS[order == point].mean(axis=0, dtype=np.float64) for point in range(8)])
    np.testing.assert_allclose(rows, means, rtol=1e-6)
    assert sorted(dataset.ids.tolist()) == IDS[:8].tolist()
    assert dataset.labels is not None
    assert dict(zip(dataset.ids, dataset.labels, strict=True)) == {IDS[point]: point % 3 for point in range(8)}
    assert opened(path).notes == ("m: 24 rows of 8 ids: the mean of each id's rows",)
    np.save(tmp_path / "labels.npy", np.arange(N))
    with pytest.raises(DataError, match=r"got two labels for the id 'img00\d', expected one for each id"):
        read_dataset("p", read_catalog(path))


def test_trials_of_a_model__join_with_ids_that_stand_once(tmp_path: Path) -> None:
    order = np.repeat(np.arange(8), 3)
    model = "m: {activations: {path: m.npy, dataset: p, ids: {path: trials.npy}, repeats: mean, not_finite: drop}}"
    broken = ROWS.copy()
    broken[[4, 15, 16, 17]] = np.nan
    path = write(tmp_path, "ids: {path: ids.npy}", model, trials=IDS[order], m=broken)

    ids, rows = recorded(path)

    assert ids == IDS[[0, 1, 2, 3, 4, 6, 7]].tolist()
    np.testing.assert_allclose(rows[1], broken[[3, 5]].mean(axis=0), rtol=1e-6)
    keys = [opened(path).spaces[0].key]
    np.save(tmp_path / "trials.npy", IDS[np.roll(order, 1)])
    keys.append(opened(path).spaces[0].key)
    assert keys[0] != keys[1]
    without = model.replace("repeats: mean, ", "")
    with pytest.raises(DataError, match=r"got 8 ids more than once .* say repeats: mean where they are trials"):
        recorded(write(tmp_path, "ids: {path: ids.npy}", without, trials=IDS[order]))


def test_repeats__are_for_recorded_rows_alone(tmp_path: Path) -> None:
    path = write(tmp_path, "ids: {path: ids.npy}, inputs: {path: m.npy}, repeats: mean", MODEL)
    with pytest.raises(CatalogError, match="got repeats without ids from a file, or beside inputs"):
        read_catalog(path)


def test_trials__know_their_rows() -> None:
    trials = trials_of(np.array(["b", "a", "b", "c", "a"]))
    assert trials.ids.tolist() == ["b", "a", "c"]
    assert trials.counts.tolist() == [2, 2, 1]
    rows, owners = trials.rows_of(np.array([2, 0]))
    assert (rows.tolist(), owners.tolist()) == ([0, 2, 3], [1, 1, 0])
    assert trials.without(np.array([3])).counts.tolist() == [2, 2, 0]


NEAR: dict[str, tuple[list[str], list[str], str]] = {
    "stem": (
        ["a/img0.png", "b/img1.png"],
        ["img0", "img1"],
        "all 2 match by file stem. Say ids: {path: ..., as: stem}",
    ),
    "name": (["a/x.png", "b/y.png"], ["x.png", "y.png"], "all 2 match by file name. Say ids: {path: ..., as: name}"),
    "other slashes": (["a\\x.png"], ["x.png"], "all 1 match by file name"),
    "suffixes on both sides": (["1.png", "2.png"], ["1.jpg", "2.jpg"], "as: stem}, and as: stem beside the dataset's"),
    "blanks": (["a ", "b "], ["a", "b"], "all 2 match without blanks and NUL bytes around them"),
    "zeros": (["001", "002", "010"], ["1", "2", "10"], "all 3 match as numbers without zeros in front"),
    "some": (["1.png", "2.png", "x"], ["1", "2", "3"], "2 of 3 match by file stem"),
    "NFC": (
        [unicodedata.normalize("NFD", "é1"), "b"],
        ["é1", "c"],
        "1 of 2 match once their letters are composed in one way (NFC). Say ids: {path: ..., as: nfc}",
    ),
}


@pytest.mark.parametrize("case", NEAR)
def test_ids_that_nearly_join__are_told_with_the_word_that_joins_them(case: str, tmp_path: Path) -> None:
    ids, known, message = NEAR[case]
    hint = near_join(np.array(ids), np.array(known), "ids", "the dataset's ids")
    assert message in hint
    assert hint.startswith(f"first {ids[0]!a} and {known[0]!a}")
    word = hint.partition("as: ")[2].partition("}")[0]
    formed = {ID_FORMS[word][0](text) for text in ids}
    assert formed & ({ID_FORMS[word][0](text) for text in known} if "beside" in hint else set(known))


def test_ids__are_never_joined_unasked(tmp_path: Path) -> None:
    model = "m: {activations: {path: m.npy, dataset: p, ids: {path: names.txt}}}"
    path = write(tmp_path, "ids: {path: ids.npy}", model)
    (tmp_path / "names.txt").write_text("\n".join(f"images/{name}.png" for name in IDS))

    (failure,) = opened(path).failures

    assert failure.reason == "bad_ids"
    assert failure.message == (
        "model m: got 0 of 24 ids in common with the dataset p, first 'images/img000.png' and 'img000'; all 24 match "
        "by file stem. Say ids: {path: ..., as: stem}. Nothing is joined that the catalog does not ask for"
    )
    asked = write(tmp_path, "ids: {path: ids.npy}", model.replace("names.txt}", "names.txt, as: stem}"))
    assert recorded(asked)[0] == IDS.tolist()
    (tmp_path / "names.txt").write_text("\n".join(f"x{name}" for name in IDS))
    (failure,) = opened(asked).failures
    assert failure.message.endswith("first 'ximg000' and 'img000'. Nothing is joined that the catalog does not ask for")


def test_forms_of_ids__that_make_two_ids_one_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "ids: {path: names.txt, as: stem}", MODEL)
    (tmp_path / "names.txt").write_text("\n".join(["a/x.png", "b/x.png", *IDS[2:]]))
    with pytest.raises(DataError, match="got 1 ids more than once among 24, first 'x'"):
        read_dataset("p", read_catalog(path))


@pytest.mark.parametrize(
    "values",
    [np.arange(N) / 2, np.arange(N).astype("datetime64[D]"), np.array([object()] * N), np.arange(N) > 3],
    ids=["floats", "dates", "objects", "booleans"],
)
def test_ids_that_are_no_text__are_to_be_saved_as_text(values: np.ndarray, tmp_path: Path) -> None:
    path = write(tmp_path, "ids: {path: ids.npy}", MODEL, ids=values)
    with pytest.raises(DataError, match=r"as text: numpy\.save"):
        read_dataset("p", read_catalog(path))


def test_points_that_a_model_lacks__are_said(tmp_path: Path) -> None:
    model = "m: {activations: {path: m.npy, dataset: p, ids: {path: fewer.npy}}}"
    path = write(tmp_path, "ids: {path: ids.npy}", model, fewer=IDS[:20], m=ROWS[:20])
    assert opened(path).notes == ("m: 4 of 24 points of the dataset are not there: img020, img021, img022, img023",)


def test_links__may_lead_into_the_folders_that_the_catalog_allows(tmp_path: Path) -> None:
    home, hub = tmp_path / "home", tmp_path / "hub"
    home.mkdir()
    (home / "acts").mkdir()
    hub.mkdir()
    models = 'm: {activations: {path: "acts/{layer}.npy", dataset: p}}'
    path = write(home, "ids: {path: ids.npy}", models)
    for layer in ("l1", "l2"):
        np.save(hub / f"{layer}.npy", ROWS)
        (home / "acts" / f"{layer}.npy").symlink_to(hub / f"{layer}.npy")

    (failure,) = opened(path).failures
    assert "got the link 'l1.npy', which leads out of the folder" in failure.message
    assert "allow the folder that it leads to by links: [...] in the catalog" in failure.message
    path.write_text(path.read_text() + "links: [../hub]\n")
    zoo: Any = opened(path)
    assert ([planned.space.layer for planned in zoo.spaces], zoo.failures) == (["l1", "l2"], ())


def test_padded_ids__are_read_without_their_padding_where_the_catalog_says_so(tmp_path: Path) -> None:
    padded = np.array([f"{name}\0 " for name in IDS])
    path = write(tmp_path, "ids: {path: ids.npy}", MODEL, ids=padded)
    with pytest.raises(DataError, match=r"got a control character in the id 'img000\\x00 '.*or say as: stripped"):
        read_dataset("p", read_catalog(path))
    path = write(tmp_path, "ids: {path: ids.npy, as: stripped}", MODEL, ids=padded)
    assert read_dataset("p", read_catalog(path)).ids.tolist() == IDS.tolist()
