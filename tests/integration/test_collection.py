"""The collection of a dataset's spaces, through the whole pipeline."""

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy.stats import rankdata

from lfm_tasks.catalog import read_catalog
from lfm_tasks.config import CollectionConfig
from lfm_tasks.maintenance import prune
from lfm_tasks.spectral.maps.collection import Collection, cycle_residuals, residuals_through
from lfm_tasks.stores.atlas.files import read_atlas, read_groups
from tests.integration.test_comparisons import changed
from tests.integration.test_fitted_maps import ANCHORS, SMALL, cloud, ids, rotated

N_POINTS = 300


def copies(n_copies: int, *, noise: float = 0.0) -> dict[str, Any]:
    """Make turned copies of one space, each with its rows in another order."""
    models = {}
    for number in range(n_copies):
        random = np.random.default_rng([7, number])
        order = random.permutation(N_POINTS)
        rows = rotated(cloud(), number) + noise * random.standard_normal((N_POINTS, 8))
        models[f"copy{number}"] = ({"layer": rows[order]}, ids()[order])
    return models


def cells(folder: Path, name: str) -> xr.DataArray:
    return read_atlas(folder / "atlas")[name].sel(dataset="probe")


@pytest.mark.parametrize("maps", [{"regime": "full"}, ANCHORS], ids=["full", "anchors"])
def test_turned_copies__share_all_and_their_cycles_close(
    tmp_path: Path, write_zoo: Any, build: Any, maps: dict[str, Any]
) -> None:
    models = copies(4) | {"other": ({"layer": cloud(9)}, ids())}
    outcome = build(write_zoo(tmp_path, models, **{**SMALL, "maps": maps}))

    assert outcome.computed["collection"] == 1
    for first, second in combinations((f"copy{n}/layer" for n in range(4)), 2):
        place = {"source": first, "target": second}
        assert float(cells(tmp_path, "shared_distance").sel(place)) < 0.05
        assert float(cells(tmp_path, "cycle_residual").sel(place)) < 1e-3
    far = cells(tmp_path, "shared_distance").sel(source="other/layer", target="copy1/layer")
    assert float(far) > 0.5
    assert float(cells(tmp_path, "cycle_residual").sel(source="other/layer", target="copy1/layer")) > 0.3
    again = build(tmp_path)
    assert (again.computed["collection"], again.reused["collection"]) == (0, 1)


def test_cycle_residuals__rank_pairs_with_wrong_ids_above_the_others(
    tmp_path: Path, write_zoo: Any, build: Any
) -> None:
    models = copies(8, noise=0.3)
    for name in ("copy2", "copy5"):
        layers, own = models[name]
        models[name] = (layers, np.random.default_rng(1).permutation(own))
    build(write_zoo(tmp_path, models, **SMALL))

    residuals = cells(tmp_path, "cycle_residual")
    found, wrong = [], []
    for first, second in combinations(sorted(models), 2):
        found.append(float(residuals.sel(source=f"{first}/layer", target=f"{second}/layer")))
        wrong.append(bool({"copy2", "copy5"} & {first, second}))
    ranks, n_wrong = rankdata(found), sum(wrong)
    area = (ranks[wrong].sum() - n_wrong * (n_wrong + 1) / 2) / (n_wrong * (len(found) - n_wrong))
    assert area >= 0.95


@pytest.mark.parametrize("maps", [{"regime": "full"}, ANCHORS], ids=["full", "anchors"])
def test_collections__depend_on_no_name_and_no_key(
    tmp_path: Path, write_zoo: Any, build: Any, monkeypatch: pytest.MonkeyPatch, maps: dict[str, Any]
) -> None:
    # Few of the spaces are in the core, and few of these close cycles: another choice gives other numbers.
    monkeypatch.setattr("lfm_tasks.stages.collection.job._MOST_THIRDS", 1)
    monkeypatch.setattr("lfm_tasks.stages.collection.job._FEWEST_THIRDS", 1)
    models = copies(8, noise=0.3)
    models["copy8"] = models["copy3"]
    config = {"n_modes": 10, "n_eigenpairs": 20, "max_spaces": 6}
    build(write_zoo(tmp_path / "first", models, **{**SMALL, "maps": maps, "collection": config}))

    new_names = dict(zip(models, np.random.default_rng(3).permutation(list(models)).tolist(), strict=True))
    monkeypatch.setattr("lfm_tasks.stores.units.store.CONVENTION", "another")
    renamed = {new_names[name]: model for name, model in models.items()}
    build(write_zoo(tmp_path / "second", renamed, **{**SMALL, "maps": maps, "collection": config}))

    before, after = (
        [f"{name}/layer" for name in sorted(models)], [f"{new_names[name]}/layer" for name in sorted(models)]
    )  # fmt: skip
    for array in ("cycle_residual", "shared_distance"):
        old, new = cells(tmp_path / "first", array), cells(tmp_path / "second", array)
        expected = old.sel(source=before, target=before).values
        assert np.isfinite(expected[~np.eye(len(expected), dtype=bool)]).all()
        np.testing.assert_array_equal(new.sel(source=after, target=after).values, expected)


@pytest.mark.parametrize("maps", [{"regime": "full"}, ANCHORS], ids=["full", "anchors"])
def test_cycle_residuals__are_the_same_when_several_jobs_close_the_cycles(
    tmp_path: Path, write_zoo: Any, build: Any, monkeypatch: pytest.MonkeyPatch, maps: dict[str, Any]
) -> None:
    monkeypatch.setattr("lfm_tasks.stages.collection.job._BLOCK_SIDE", 2)
    models = copies(7, noise=0.3)
    whole = build(write_zoo(tmp_path / "whole", models, **{**SMALL, "maps": maps}))
    monkeypatch.setattr("lfm_tasks.stages.collection.job.CYCLES_SIDE", 2)
    parts = build(write_zoo(tmp_path / "parts", models, **{**SMALL, "maps": maps}))

    n_units = len(list((tmp_path / "parts" / ".lfm-atlas" / "units" / "cycles").iterdir()))
    assert n_units == (10 if maps["regime"] == "full" else 16)
    assert not (tmp_path / "whole" / ".lfm-atlas" / "units" / "cycles").exists()
    assert parts.computed["collection"] == whole.computed["collection"] == 1
    for array in ("cycle_residual", "shared_distance"):
        assert np.isfinite(cells(tmp_path / "whole", array)).sum() >= 42
        xr.testing.assert_identical(cells(tmp_path / "parts", array), cells(tmp_path / "whole", array))
    # With the collection in the store nobody needs its parts.
    catalog = read_catalog(tmp_path / "parts" / "data_catalog.yaml")
    assert prune(catalog, remove=True).counts() == {"cycles": n_units}
    assert build(tmp_path / "parts").computed["collection"] == 0


def test_collection__fails_where_a_part_of_its_cycles_does(
    tmp_path: Path, write_zoo: Any, build: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("no cycle closes")

    monkeypatch.setattr("lfm_tasks.stages.collection.job.CYCLES_SIDE", 2)
    monkeypatch.setattr("lfm_tasks.stages.collection.job._cycle_residuals", fail)
    outcome = build(write_zoo(tmp_path, copies(5), **SMALL))

    assert [(failure.stage, failure.message) for failure in outcome.failures] == [
        ("collection", "ValueError: no cycle closes")
    ]
    assert "collection/probe" not in read_groups(tmp_path / "atlas")


def test_spaces_beyond_the_core__are_fitted_to_it(tmp_path: Path, write_zoo: Any, build: Any) -> None:
    config = {"n_modes": 10, "n_eigenpairs": 20, "max_spaces": 3}
    build(write_zoo(tmp_path, copies(6), **{**SMALL, "collection": config}))

    group = read_groups(tmp_path / "atlas")["collection/probe"]
    assert group.attrs["core"] == 3
    assert group["coefficients"].shape == (6, 20, 10)
    gram = np.swapaxes(group["coefficients"].values, 1, 2) @ group["coefficients"].values
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(10), gram.shape), atol=1e-8)
    assert float(cells(tmp_path, "shared_distance").max()) < 0.05
    assert float(cells(tmp_path, "cycle_residual").max()) < 1e-3


def test_collections__need_three_spaces_that_hang_together(tmp_path: Path, write_zoo: Any, build: Any) -> None:
    apart = {"a": {"sources": "copy0", "targets": "copy1"}, "b": {"sources": "copy2", "targets": "copy3"}}
    folder = changed(write_zoo(tmp_path, copies(4), **SMALL), comparisons=apart)
    build(folder)
    assert "collection/probe" not in read_groups(folder / "atlas")
    assert "cycle_residual" not in read_atlas(folder / "atlas")

    chain = apart | {"c": {"sources": "copy1", "targets": "copy2"}}
    build(changed(folder, comparisons=chain))
    assert read_groups(folder / "atlas")["collection/probe"].sizes["space"] == 4
    # A chain closes no cycle, but all of it is one basis.
    assert not np.isfinite(cells(folder, "cycle_residual")).any()
    assert float(cells(folder, "shared_distance").max()) < 0.05


def test_collections__are_left_out_on_request(tmp_path: Path, write_zoo: Any, build: Any) -> None:
    outcome = build(write_zoo(tmp_path, copies(3), **{**SMALL, "collection": None}))

    assert "collection" not in outcome.computed
    assert "collection/probe" not in read_groups(tmp_path / "atlas")


def test_residuals_through__are_what_all_triples_say_of_one_map() -> None:
    random = np.random.default_rng(0)
    edges = np.array([(a, b) for a in range(6) for b in range(6) if a != b])
    maps = np.linalg.qr(random.standard_normal((len(edges), 4, 4)))[0]
    of = {(int(a), int(b)): own for (a, b), own in zip(edges, maps, strict=True)}
    whole = cycle_residuals(Collection(6, edges, maps))

    # From space 0 to 1 and 2, through 2 to 5: no cycle goes through its own end, which has no map.
    none = np.full((4, 4), np.nan)
    direct = np.stack([of[0, 1], of[0, 2]])
    onward = np.stack([[of.get((j, k), none) for k in (2, 3, 4, 5)] for j in (1, 2)])
    back = np.stack([of[k, 0] for k in (2, 3, 4, 5)])
    np.testing.assert_allclose(residuals_through(direct, onward, back)[0], whole[0])
    assert residuals_through(direct, onward, back)[1] == pytest.approx(
        residuals_through(direct[1:], onward[1:, 1:], back[1:])[0]
    )
    assert np.isnan(residuals_through(direct, np.full_like(onward, np.nan), back)).all()


def test_more_modes_than_eigenpairs__are_refused() -> None:
    with pytest.raises(ValueError, match="got 20 modes and 10 eigenpairs, expected as many eigenpairs"):
        CollectionConfig(n_eigenpairs=10)
