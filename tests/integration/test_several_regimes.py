"""Maps of several regimes in one zoo: a pair's numbers and its place depend on nothing but the pair."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm_tasks.catalog import read_catalog
from lfm_tasks.planning import plan_run
from lfm_tasks.stages.collection import job as collection_fits
from lfm_tasks.stages.inventory.correspondence import common_ids
from lfm_tasks.stages.inventory.stage import validate_catalog
from lfm_tasks.stores.atlas.files import read_atlas, read_groups
from lfm_tasks.stores.units.store import UnitStore
from tests.integration.test_collection import copies
from tests.integration.test_comparisons import changed, published, run_part
from tests.integration.test_fitted_maps import ANCHORS, SMALL, cloud, ids, pair, rotated, zoo

FEW = {"regime": "anchors", "anchors": {"count": 7, "seed": 2}}


def test_one_content_under_two_names__may_have_maps_from_different_knowledge(
    tmp_path: Path, write_zoo: Any, build: Any
) -> None:
    models = {name: ({"layer": cloud()}, ids()) for name in ("first", "same")}
    models["turned"] = ({"layer": rotated(cloud(), 1)}, ids())
    folder = write_zoo(tmp_path, models, **SMALL)
    comparisons = {
        "known": {"sources": "first", "targets": "turned"},
        "few": {"sources": "same", "targets": "turned", "maps": ANCHORS, "measures": ["lfm"]},
    }
    changed(folder, comparisons=comparisons)
    catalog = read_catalog(folder / "data_catalog.yaml")
    assert "2 pairs to compute" in "\n".join(plan_run(catalog, validate_catalog(catalog, lambda *_: None)))

    build(folder)

    assert np.isnan(float(pair(folder, "first", "turned")["points_found"]))
    assert float(pair(folder, "same", "turned")["points_found"]) == 1
    group = read_groups(folder / "atlas")["maps/probe"]
    assert group.sizes["pair"] == 2


def test_atlas__is_the_same_whether_it_was_computed_in_parts_or_at_once(
    tmp_path: Path, write_zoo: Any, build: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = {"maps": ANCHORS, "keep_maps": "all"}
    build(write_zoo(tmp_path / "whole", copies(4), **{**SMALL, **maps}))
    folder = write_zoo(tmp_path / "parts", copies(4), **{**SMALL, **maps})
    run_part(folder, only=("copy2",))
    run_part(folder, only=("copy0",))
    monkeypatch.setattr(collection_fits, "_MOST_REFINED_BYTES", 1)
    build(folder)
    assert len(list((folder / ".lfm-atlas" / "units" / "scores").iterdir())) == 3

    whole, parts = (
        {name.removeprefix(str(where)): content for name, content in published(where).items()}
        for where in (tmp_path / "whole", folder)
    )
    assert whole == parts


def test_part_of_a_catalog__does_not_replace_an_atlas_whose_transfers_it_leaves_out(
    tmp_path: Path, write_zoo: Any, build: Any
) -> None:
    folder = write_zoo(tmp_path, copies(3), **SMALL)
    transfer = {"anchors": {"count": 8, "seed": 0}}
    comparisons = {
        "one": {"sources": "copy0", "targets": "copy1", "transfer": transfer},
        "two": {"sources": "copy0", "targets": "copy2", "transfer": transfer},
    }
    build(changed(folder, comparisons=comparisons))
    before = published(folder)
    comparisons["two"]["transfer"] = {"anchors": {"count": 9, "seed": 0}}
    part = run_part(changed(folder, comparisons=comparisons), comparisons=("one",))

    assert part.unpublished.startswith("1 transfers are not computed yet")
    assert published(folder) == before
    assert build(folder).unpublished == ""


def test_random_pairings_of_grown_maps__cost_known_pairs_nothing(tmp_path: Path, write_zoo: Any, build: Any) -> None:
    folder = zoo(tmp_path, write_zoo)
    comparisons = {
        "known": {"sources": "first", "targets": "other"},
        "closed": {"sources": "other", "targets": "turned", "maps": FEW | {"refine": "none"}},
    }
    build(changed(folder, comparisons=comparisons))

    again = build(changed(folder, atlas={"null": {"n_permutations": 0, "n_refined": 3}}))

    assert (again.computed["scores"], again.reused["scores"]) == (0, 2)


def test_id_without_a_label__costs_the_maps_of_its_space_only(tmp_path: Path, write_zoo: Any, build: Any) -> None:
    folder = write_zoo(tmp_path, copies(3), {"labels": np.arange(300) % 5}, **{**SMALL, "maps": {"regime": "labels"}})
    own = np.load(folder / "copy1_ids.npy").astype("U20")
    own[4] = "stranger"
    np.save(folder / "copy1_ids.npy", own)

    outcome = build(folder)

    (told,) = outcome.unscored
    assert (told.reason, told.count) == ("bad_ids", 4)
    assert "got 1 ids without a label, first 'stranger'" in told.message
    found = read_atlas(folder / "atlas")["score"].sel(dataset="probe", measure="lfm")
    assert np.isfinite(found.sel(source="copy0/layer", target="copy2/layer"))
    assert np.isnan(found.sel(source="copy0/layer", target="copy1/layer"))


def test_numbers_of_a_pair__are_the_same_alone_and_in_a_zoo_on_two_workers(
    tmp_path: Path, write_zoo: Any, build: Any
) -> None:
    settings = SMALL | {"maps": ANCHORS, "measures": ["lfm", "overlap", "cka_linear"]}
    settings |= {"null": {"n_permutations": 5, "n_refined": 2}}
    models = copies(4)
    build(write_zoo(tmp_path / "pair", {name: models[name] for name in ("copy1", "copy3")}, **settings))
    build(write_zoo(tmp_path / "zoo", models, **settings), in_process=False)

    alone, among = (read_atlas(tmp_path / name / "atlas") for name in ("pair", "zoo"))
    among = among.sel(source=alone["source"], target=alone["target"])
    for name in ("score", "null_mean", "p_value", "map_residual", "points_found", "commutativity_error"):
        np.testing.assert_array_equal(alone[name].values, among[name].values)


@pytest.mark.parametrize("names", [("a", "b", "c"), ("c", "a", "b")])
def test_maps_of_spaces_that_lack_other_points__lead_from_source_to_target(
    tmp_path: Path, write_zoo: Any, build: Any, names: tuple[str, str, str]
) -> None:
    random, models = np.random.default_rng(5), {}
    for number, (name, n_points) in enumerate(zip(names, (280, 250, 290), strict=True)):
        kept = random.permutation(300)[:n_points]
        models[name] = ({"layer": rotated(cloud(), number)[kept]}, ids()[kept])
    few = {"regime": "anchors", "anchors": {"count": 12}}
    build(write_zoo(tmp_path, models, **{**SMALL, "maps": few, "keep_maps": "all"}))

    atlas, groups = read_atlas(tmp_path / "atlas"), read_groups(tmp_path / "atlas")
    bases = {}
    for name in names:
        key = str(atlas["basis"].sel(dataset="probe", source=f"{name}/layer").item())
        with UnitStore(tmp_path / ".lfm-atlas").open("bases", key) as unit:
            vectors, own = unit.read("eigenvectors"), unit.read("ids")
        bases[f"{name}/layer"] = vectors * np.sqrt(len(vectors)), own
    kept, shared = groups["maps/probe"], groups["collection/probe"]["coefficients"]
    for number in range(3):
        source, target = (str(kept[side].values[number]) for side in ("source", "target"))
        (rows, own), (other_rows, other) = bases[source], bases[target]
        common, here, there = common_ids(own, other)
        true = np.linalg.lstsq(other_rows[there], rows[here], rcond=None)[0]
        found = kept["functional_map"].values[number]
        assert np.linalg.norm(found - true) < 0.3 * np.linalg.norm(found.T - true)
        synchronized = (shared.sel(space=target).values @ shared.sel(space=source).values.T)[:10, :10]
        low = true[:10, :10]
        assert np.linalg.norm(synchronized - low) < 0.5 * np.linalg.norm(synchronized.T - low)
        for side in ("source_distortion", "target_distortion"):
            known = kept["point"].values[np.isfinite(kept[side].values[number])]
            assert known.tolist() == common.tolist()


@pytest.mark.parametrize("regime", ["labels", "anchors"])
def test_measures_of_activations__are_the_same_under_every_regime(
    tmp_path: Path, write_zoo: Any, build: Any, regime: str
) -> None:
    maps = ANCHORS if regime == "anchors" else {"regime": regime}
    alone = build(zoo(tmp_path / "alone", write_zoo, maps=maps, measures=["cka_linear"]))
    build(zoo(tmp_path / "both", write_zoo, maps=maps, measures=["cka_linear", "lfm"]))

    assert alone.failures == ()
    assert "orthogonality_error" not in read_atlas(tmp_path / "alone" / "atlas")
    found = [read_atlas(tmp_path / name / "atlas")["score"].sel(measure="cka_linear") for name in ("alone", "both")]
    np.testing.assert_array_equal(*found)
    assert np.isfinite(found[0]).all()
