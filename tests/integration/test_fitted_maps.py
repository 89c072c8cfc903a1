"""Maps that are fitted from anchors, labels or nothing, through the whole pipeline."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import xarray as xr

from lfm_tasks.catalog import CatalogError, read_catalog
from lfm_tasks.spectral.bases.eigenbasis import Basis
from lfm_tasks.spectral.bases.full_map import capped_overlap, lfm, orthogonality_error, overlap
from lfm_tasks.spectral.maps.closed_form import fit_closed_form, project_descriptors
from lfm_tasks.spectral.maps.descriptors import landmark_heat_descriptors, unit_descriptors
from lfm_tasks.stages.inventory.correspondence import Correspondence, anchors_of_pair, common_ids
from lfm_tasks.stages.inventory.stage import Zoo, validate_catalog
from lfm_tasks.stages.publish.pair_entries import STATUS
from lfm_tasks.stores.atlas.files import read_atlas, read_groups
from lfm_tasks.stores.units.store import UnitStore
from tests.integration.test_comparisons import changed

N_POINTS = 300
ANCHORS = {"regime": "anchors", "anchors": {"count": 6, "seed": 1}}
SMALL = {"graph": {"n_neighbors": 40, "kernel": "inverse"}, "n_eigenpairs": 25, "null": {"n_permutations": 0}}


def cloud(seed: int = 0) -> np.ndarray:
    """Five uneven clusters in eight dimensions: no symmetry that maps could confuse."""
    random = np.random.default_rng(seed)
    centers = random.standard_normal((5, 8)) * 2
    return centers[np.arange(N_POINTS) % 5] + random.standard_normal((N_POINTS, 8)) * np.linspace(0.5, 1.5, 8)


def rotated(rows: np.ndarray, seed: int) -> np.ndarray:
    return rows @ np.linalg.qr(np.random.default_rng(seed).standard_normal((8, 8)))[0]


def ids(n: int = N_POINTS) -> np.ndarray:
    return np.array([f"point-{number:04d}" for number in range(n)])


def zoo(folder: Path, write_zoo: Any, **atlas: Any) -> Path:
    """Write a space, the same one turned with its rows in another order, and an unrelated one."""
    order = np.random.default_rng(3).permutation(N_POINTS)
    models = {
        "first": ({"layer": cloud()}, ids()),
        "turned": ({"layer": rotated(cloud(), 1)[order]}, ids()[order]),
        "other": ({"layer": cloud(9)[np.random.default_rng(4).permutation(N_POINTS)]}, ids()),
    }
    return write_zoo(folder, models, {"labels": np.arange(N_POINTS) % 5}, **{**SMALL, **atlas})


def pair(folder: Path, source: str, target: str, dataset: str = "probe") -> xr.Dataset:
    return read_atlas(folder / "atlas").sel(dataset=dataset, source=f"{source}/layer", target=f"{target}/layer")


def problems(folder: Path) -> list[str]:
    found: Zoo = validate_catalog(read_catalog(folder / "data_catalog.yaml"), lambda *_: None)
    return [f"{failure.model}: {failure.message}" for failure in found.failures]


def test_anchors__find_every_point_of_a_turned_space_whose_rows_are_in_another_order(
    tmp_path: Path, write_zoo: Any, build: Any
) -> None:
    build(zoo(tmp_path, write_zoo, maps=ANCHORS))

    for source, target in (("first", "turned"), ("turned", "first")):
        found = pair(tmp_path, source, target)
        assert float(found["points_found"]) == 1
        np.testing.assert_allclose(found["score"].sel(measure=["lfm", "overlap"]), 1, atol=1e-6)
        assert float(found["map_residual"]) < 1e-4
        assert float(found["orthogonality_error"]) < 1e-6
    unrelated = pair(tmp_path, "first", "other")
    assert float(unrelated["points_found"]) < 0.1
    assert float(unrelated["map_residual"]) > 1
    assert not np.isfinite(unrelated["p_value"]).any()


def test_closed_form__tells_a_copy_from_an_unrelated_space_by_its_chance_level(
    tmp_path: Path, write_zoo: Any, build: Any
) -> None:
    maps = {"regime": "anchors", "anchors": {"count": 40}, "refine": "none"}
    build(zoo(tmp_path, write_zoo, maps=maps, null={"n_permutations": 39}))

    copy, unrelated = pair(tmp_path, "turned", "first"), pair(tmp_path, "other", "first")
    for measure in ("lfm", "overlap"):
        assert float(copy["score"].sel(measure=measure)) == pytest.approx(1, abs=1e-6)
        assert float(copy["p_value"].sel(measure=measure)) < 0.05
        assert float(unrelated["calibrated"].sel(measure=measure)) < 0.3
    assert "points_found" not in copy


def test_closed_form__of_a_block_is_that_of_its_pairs_one_by_one(tmp_path: Path, write_zoo: Any, build: Any) -> None:
    """Spaces of unequal size on ids that overlap in part, rows in any order: each pair has anchors of its own."""
    order = np.random.default_rng(3).permutation(N_POINTS)
    models = {
        "all": ({"layer": cloud()}, ids()),
        "turned": ({"layer": rotated(cloud(), 1)[order]}, ids()[order]),
        "fewer": ({"layer": cloud(9)[order[:250]]}, ids()[order[:250]]),
        "fewest": ({"layer": cloud(8)[40:]}, ids()[40:]),
    }
    maps = {"regime": "anchors", "anchors": {"count": 40, "seed": 2}, "refine": "none"}
    build(write_zoo(tmp_path, models, **{**SMALL, "maps": maps, "null": {"n_permutations": 9}}))

    atlas = read_atlas(tmp_path / "atlas").sel(dataset="probe")
    described = {}
    for name, key in zip(atlas["source"].values, atlas["basis"].values, strict=True):
        with UnitStore(tmp_path / ".lfm-atlas").open("bases", str(key)) as unit:
            described[name] = Basis(unit.read("eigenvalues"), unit.read("eigenvectors"), np.nan), unit.read("ids")
    drawn = Correspondence(regime="anchors", n_anchors=40, seed=2)
    for source, target in product(described, repeat=2):
        (ours, our_ids), (theirs, their_ids) = described[source], described[target]
        anchors = anchors_of_pair(drawn, our_ids, their_ids)
        sides = [
            project_descriptors(basis, unit_descriptors(basis, landmark_heat_descriptors(basis, rows)))
            for basis, rows in ((ours, anchors.source), (theirs, anchors.target))
        ]
        truth = fit_closed_form(sides[0], sides[1])
        found = atlas.sel(source=source, target=target)
        for measure, score in (("lfm", lfm), ("overlap", capped_overlap)):
            assert float(found["score"].sel(measure=measure)) == pytest.approx(float(score(truth)), abs=1e-4)
        assert float(found["orthogonality_error"]) == pytest.approx(
            float(orthogonality_error(truth)), rel=1e-3, abs=1e-9
        )
        assert int(found["n_common"]) == len(common_ids(our_ids, their_ids)[0])
        assert float(found["null_mean"].sel(measure="lfm")) < 1


def test_grown_maps__are_kept_with_their_distortion(tmp_path: Path, write_zoo: Any, build: Any) -> None:
    folder = zoo(tmp_path, write_zoo, maps=ANCHORS, keep_maps="all")
    build(folder)

    group = read_groups(folder / "atlas")["maps/probe"]
    assert group.attrs["map_back"] == "a fit of its own"
    assert group.sizes["pair"] == 3
    for number in range(3):
        source, target = str(group["source"].values[number]), str(group["target"].values[number])
        rank = float(np.square(group["functional_map"].values[number]).sum())
        assert np.isfinite(group["source_distortion"].values[number]).all()
        if {source, target} == {"first/layer", "turned/layer"}:
            assert rank == pytest.approx(25, abs=1e-3)
            np.testing.assert_allclose(group["target_distortion"].values[number], 0, atol=1e-3)
        else:
            assert group["target_distortion"].values[number].mean() > 0.05
    closed = {"regime": "anchors", "anchors": {"count": 40}, "refine": "none"}
    build(changed(folder, atlas={"maps": closed}))
    assert "maps/probe" not in read_groups(folder / "atlas")


def test_random_pairings__give_grown_maps_a_chance_level_where_asked_for(
    tmp_path: Path, write_zoo: Any, build: Any
) -> None:
    build(zoo(tmp_path, write_zoo, maps=ANCHORS, null={"n_refined": 9}))

    assert float(pair(tmp_path, "first", "turned")["p_value"].sel(measure="lfm")) == pytest.approx(0.1, abs=0.05)
    assert float(pair(tmp_path, "first", "other")["p_value"].sel(measure="lfm")) > 0.1


@pytest.mark.parametrize("regime", ["labels", "unsupervised"])
@pytest.mark.parametrize("refine", ["zoomout", "none"])
def test_weak_regimes__find_a_copy(tmp_path: Path, write_zoo: Any, build: Any, regime: str, refine: str) -> None:
    build(zoo(tmp_path, write_zoo, maps={"regime": regime, "refine": refine}))

    found = pair(tmp_path, "first", "turned")
    assert float(found["score"].sel(measure="lfm")) == pytest.approx(1, abs=1e-4)
    if refine == "zoomout":
        assert float(found["points_found"]) > 0.99


def test_spaces_that_share_anchors_only__have_a_map_and_no_measure_of_rows(
    tmp_path: Path, write_zoo: Any, build: Any
) -> None:
    known, mine, theirs = np.split(ids(2 * N_POINTS - 12), [12, N_POINTS])
    rows = cloud()
    models = {
        "first": ({"layer": rows}, np.concatenate([known, mine])),
        "turned": ({"layer": rotated(rows, 1)}, np.concatenate([known, theirs])),
    }
    maps = {"regime": "anchors", "anchors": {"count": 12}}
    build(write_zoo(tmp_path, models, **{**SMALL, "maps": maps, "measures": ["lfm", "cka_linear"]}))

    found = pair(tmp_path, "first", "turned")
    assert int(found["n_common"]) == 12
    assert float(found["score"].sel(measure="lfm")) > 0.99
    assert STATUS[int(found["status"].sel(measure="cka_linear"))] == "little_overlap"
    assert float(found["map_residual"]) < 1e-4


def test_too_few_common_anchors__are_told_for_the_measures_of_maps_alone(
    tmp_path: Path, write_zoo: Any, build: Any
) -> None:
    rows = cloud()
    models = {"first": ({"layer": rows[1:]}, ids()[1:]), "turned": ({"layer": rotated(rows, 1)}, ids())}
    maps = {"regime": "anchors", "anchors": {"ids": {"path": "anchors.txt"}}}
    folder = write_zoo(tmp_path, models, **{**SMALL, "maps": maps, "measures": ["lfm", "cka_linear"]})
    (folder / "anchors.txt").write_text("point-0000\npoint-0001\n")
    outcome = build(folder)

    found = pair(folder, "first", "turned")
    assert STATUS[int(found["status"].sel(measure="lfm"))] == "few_anchors"
    assert np.isfinite(float(found["score"].sel(measure="cka_linear")))
    (told,) = outcome.unscored
    assert (told.reason, told.count) == ("few_anchors", 2)
    assert told.message.startswith("got 1 anchors that are in both spaces, expected at least 2")
    assert "got 1 anchors that are in both spaces" in (folder / "atlas" / "report.html").read_text()
    rows = pyarrow.parquet.read_table(folder / "atlas" / "edges.parquet").to_pylist()
    assert {row["status"] for row in rows if row["measure"] == "lfm"} == {"few_anchors"}


def test_other_anchors__cost_the_pairs_that_are_fitted_from_them(tmp_path: Path, write_zoo: Any, build: Any) -> None:
    folder = zoo(tmp_path, write_zoo)
    comparisons = {
        "fitted": {"sources": "first", "targets": "turned", "maps": ANCHORS},
        "known": {"sources": "first", "targets": "other"},
        "rows": {"sources": "first", "targets": "turned", "measures": ["cka_linear"]},
    }
    build(changed(folder, comparisons=comparisons))
    again = {"regime": "anchors", "anchors": {"count": 7}}
    outcome = build(changed(folder, comparisons=comparisons | {"fitted": comparisons["fitted"] | {"maps": again}}))

    assert outcome.computed["scores"] == 1
    assert outcome.reused["scores"] == 1
    assert float(pair(folder, "first", "turned")["points_found"]) == 1
    assert np.isnan(float(pair(folder, "first", "other")["points_found"]))


def test_capped_overlap__is_overlap_where_no_singular_value_is_above_one() -> None:
    random = np.random.default_rng(0)
    maps = np.stack(
        [
            np.linalg.qr(random.standard_normal((30, 6)))[0].T @ np.linalg.qr(random.standard_normal((30, 8)))[0]
            for _ in range(3)
        ]
    )

    np.testing.assert_allclose(capped_overlap(maps), overlap(maps), atol=1e-12)
    np.testing.assert_allclose(capped_overlap(5 * np.eye(7)), 1)


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        ({"regime": "anchors"}, "got regime anchors and no anchors, expected them"),
        ({"regime": "labels", "anchors": {"count": 5}}, "got anchors beside regime labels"),
        ({"regime": "anchors", "anchors": {}}, "got neither of ids and count, expected one"),
        ({"regime": "anchors", "anchors": {"count": 5, "ids": {"path": "x.txt"}}}, "got both of ids and count"),
        ({"regime": "anchors", "anchors": {"ids": {"path": "x.txt"}, "seed": 3}}, "got seed beside ids"),
        ({"regime": "anchors", "anchors": {"count": 1}}, "count"),
        ({"regime": "full", "refine": "none"}, "got refine beside regime full, which fits nothing"),
        ({"regime": "labels", "refine": "none", "n_samples": 50}, "got n_samples beside refine none"),
        ({"regime": "labels", "mask": "commutativity"}, "got mask beside refine zoomout, which has none"),
        ({"regime": "anchor"}, "anchor"),
        ({"regime": "anchors", "anchors": {"count": 5}, "maks": "resolvent"}, "did you mean 'mask'"),
    ],
)
def test_maps__refuse_what_does_not_fit_together(
    tmp_path: Path, write_zoo: Any, maps: dict[str, Any], message: str
) -> None:
    folder = zoo(tmp_path, write_zoo, maps=maps)
    with pytest.raises(CatalogError) as refused:
        read_catalog(folder / "data_catalog.yaml")
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "anchors.txt: no such file"),
        ("point-0000\n", "got 1 anchors, expected at least 2"),
        ("point-0000\nnobody\n", "got 1 anchors that the dataset probe lacks, first 'nobody'"),
        ("point-0000\npoint-0000\n", "got 1 ids more than once"),
    ],
)
def test_anchor_files__are_refused_before_work_starts(
    tmp_path: Path, write_zoo: Any, text: str | None, message: str
) -> None:
    folder = zoo(tmp_path, write_zoo, maps={"regime": "anchors", "anchors": {"ids": {"path": "anchors.txt"}}})
    if text is not None:
        (folder / "anchors.txt").write_text(text)
    (problem,) = problems(folder)
    assert problem.startswith("atlas.maps: ")
    assert message in problem


def test_samples__are_as_many_as_eigenpairs(tmp_path: Path, write_zoo: Any) -> None:
    folder = zoo(tmp_path, write_zoo, maps=ANCHORS | {"n_samples": 24})
    assert problems(folder) == [
        "atlas.maps: got n_samples 24 and n_eigenpairs 25, expected as many samples. Raise n_samples, or lower "
        "n_eigenpairs"
    ]


@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_anchor_files__of_windows_are_read(tmp_path: Path, write_zoo: Any, start: str) -> None:
    folder = zoo(tmp_path, write_zoo, maps={"regime": "anchors", "anchors": {"ids": {"path": "anchors.txt"}}})
    (folder / "anchors.txt").write_bytes((start + "point-0007\r\npoint-0001\r\n").encode())
    found = validate_catalog(read_catalog(folder / "data_catalog.yaml"), lambda *_: None)
    assert found.parts[0].correspondence.anchor_ids == ("point-0001", "point-0007")


def test_maps__from_labels_need_labels_and_a_pair_has_one_map(tmp_path: Path, write_zoo: Any) -> None:
    folder = write_zoo(tmp_path, {name: ({"layer": cloud()}, ids()) for name in ("first", "second")}, **SMALL)
    changed(folder, atlas={"maps": {"regime": "labels"}})
    assert problems(folder) == [
        "atlas.maps: got regime labels, and no labels in the dataset probe. Add labels: {path: labels.npy} to it, "
        "or choose another regime"
    ]

    whole = {"sources": "*", "targets": "*"}
    changed(folder, atlas={"maps": {"regime": "full"}}, comparisons={"all": whole, "few": whole | {"maps": ANCHORS}})
    assert problems(folder) == [
        "comparisons.few.maps: got first/layer and first/layer in comparisons.all too, with other maps: a pair has "
        "one map; give the two comparisons different spaces, or the same maps"
    ]
