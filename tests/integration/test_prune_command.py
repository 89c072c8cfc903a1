"""``lfm-atlas prune`` removes what no published atlas or baseline was made of, and nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lfm_atlas.cli.main import app
from lfm_tasks.stores.references import read_references, stored_units
from lfm_tasks.stores.units.durable import StoreBusyError, locked
from lfm_tasks.stores.units.store import UnitStore


def command(name: str, folder: Path, *options: str) -> int:
    code: int = app([name, str(folder / "data_catalog.yaml"), *options], result_action="return_value")
    return code


def run(folder: Path) -> None:
    command("run", folder, "--no-prefect", "--no-dask")


def audit(folder: Path, *options: str) -> None:
    command("audit", folder, "--no-prefect", "--no-dask", *options)


def prune(folder: Path, *options: str) -> int:
    return command("prune", folder, *options)


@pytest.fixture
def two_models(tmp_path: Path, related_spaces: Any, write_zoo: Callable[..., Path]) -> Path:
    folder = write_zoo(tmp_path, related_spaces(2))
    run(folder)
    return folder


def store(folder: Path) -> Path:
    return folder / ".lfm-atlas"


def change(folder: Path, related_spaces: Any, write_zoo: Callable[..., Path]) -> None:
    """Put another model0 in the place of the old one, and compute it."""
    models = related_spaces(3)
    write_zoo(folder, {"model0": models["model2"], "model1": models["model1"]})
    run(folder)


def test_everything_needed__stays(two_models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = stored_units(store(two_models))

    assert prune(two_models, "--remove") == 0

    assert stored_units(store(two_models)) == before
    assert "removed: nothing; 0.0 MB; 15 units left" in capsys.readouterr().out


def test_former_model__is_only_told_without_remove_and_gone_with_it(
    two_models: Path, related_spaces: Any, write_zoo: Any, build: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    change(two_models, related_spaces, write_zoo)
    before = stored_units(store(two_models))

    assert prune(two_models) == 0
    assert stored_units(store(two_models)) == before
    assert "would remove: activations 2, bases 2" in capsys.readouterr().out

    assert prune(two_models, "--remove") == 0
    kept = stored_units(store(two_models))
    assert {kind for kind, _ in before - kept} == {"activations", "bases", "halves", "collections", "kept_maps"}
    assert len(before - kept) == 8
    # Nothing that the atlas was made of is gone: a run computes nothing, and every unit is whole.
    assert not any(build(two_models).computed.values())
    for kind, key in kept:
        UnitStore(store(two_models)).check(kind, key)


def test_baseline__keeps_what_it_was_made_of(two_models: Path, related_spaces: Any, write_zoo: Any, build: Any) -> None:
    audit(two_models, "--promote")
    change(two_models, related_spaces, write_zoo)
    before = stored_units(store(two_models))

    prune(two_models, "--remove")

    assert stored_units(store(two_models)) == before
    # The baseline's models come back without being computed.
    write_zoo(two_models, related_spaces(2))
    computed = build(two_models).computed
    assert {stage for stage, count in computed.items() if count} == {"atlas"}


def test_baseline_that_is_replaced__lets_its_units_go(two_models: Path, related_spaces: Any, write_zoo: Any) -> None:
    audit(two_models, "--promote")
    change(two_models, related_spaces, write_zoo)
    audit(two_models, "--promote")

    prune(two_models, "--remove")

    assert len(read_references(store(two_models))) == 1
    assert len([unit for unit in stored_units(store(two_models)) if unit[0] == "bases"]) == 4


def test_units_of_another_kind__stay_and_keep_what_they_name(
    two_models: Path, related_spaces: Any, write_zoo: Any
) -> None:
    root = store(two_models)
    bases = {key for kind, key in stored_units(root) if kind == "bases"}
    former = sorted(bases)[0]
    with UnitStore(root).commit("named_maps", "mine") as unit:
        unit.facts["source"] = former
    models = related_spaces(4)
    write_zoo(two_models, {"model2": models["model2"], "model3": models["model3"]})
    run(two_models)

    prune(two_models, "--remove")

    kept = stored_units(root)
    assert ("named_maps", "mine") in kept
    assert {key for kind, key in kept if kind == "bases"} & bases == {former}


def test_unit_without_a_receipt__goes(two_models: Path) -> None:
    torn = store(two_models) / "units" / "bases" / ("0" * 64)
    torn.mkdir()
    (torn / "half").write_text("written")

    prune(two_models, "--remove")

    assert not torn.exists()


def test_prune_while_a_run_holds_the_store__is_refused(two_models: Path) -> None:
    before = stored_units(store(two_models))

    with locked(store(two_models), "a run"), pytest.raises(StoreBusyError, match="in use by 'a run'"):
        prune(two_models, "--remove")

    assert stored_units(store(two_models)) == before


def test_prune_without_an_atlas__is_refused(
    tmp_path: Path, related_spaces: Any, write_zoo: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert prune(write_zoo(tmp_path, related_spaces(2))) == 2
    assert "got no atlas, expected one to know what to keep: lfm-atlas run" in capsys.readouterr().err


def test_prune_of_an_atlas_that_was_never_noted__is_refused_until_a_run(
    two_models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [note] = (store(two_models) / "references").iterdir()
    note.unlink()

    assert prune(two_models, "--remove") == 2
    assert "got an atlas that does not say what it was made of" in capsys.readouterr().err
    run(two_models)
    assert prune(two_models, "--remove") == 0


def test_folder_moved_elsewhere__is_pruned_as_before(
    two_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    there = two_models.rename(tmp_path_factory.mktemp("moved") / "zoo")

    assert prune(there, "--remove") == 0
    assert len(stored_units(store(there))) == 15


def test_maps_and_collections_of_gone_atlases__go_but_a_named_map_stays(
    two_models: Path, related_spaces: Any, write_zoo: Any
) -> None:
    catalog = str(two_models / "data_catalog.yaml")
    fit = ["map", "model0/layer0", "model1/layer0", "--catalog", catalog, "--n-anchors", "5", "--name", "mine"]
    assert app(fit, result_action="return_value") == 0
    root = store(two_models)
    of_kind = {kind: {unit for unit in stored_units(root) if unit[0] == kind} for kind in ("maps", "kept_maps")}
    assert [len(units) for units in of_kind.values()] == [1, 1]
    models = related_spaces(4)
    write_zoo(two_models, {"model2": models["model2"], "model3": models["model3"]})
    run(two_models)

    prune(two_models, "--remove")

    kept = stored_units(root)
    assert of_kind["maps"] <= kept
    assert not of_kind["kept_maps"] & kept
    assert len([unit for unit in kept if unit[0] in ("kept_maps", "collections")]) == 2


@pytest.fixture
def unmounted(two_models: Path, tmp_path: Path, related_spaces: Any, write_zoo: Any) -> Path:
    """Publish two atlases from one store, then take the disk of the first away."""
    models = related_spaces(3)
    write_zoo(tmp_path, {"model0": models["model2"], "model1": models["model1"]}, path="disk/atlas")
    run(two_models)
    (two_models / "disk").rename(two_models / "unmounted")
    write_zoo(tmp_path, related_spaces(2))
    run(two_models)
    return two_models


def test_atlas_that_is_not_mounted__keeps_its_units_and_refuses_a_removal(
    unmounted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = stored_units(store(unmounted))
    capsys.readouterr()

    assert prune(unmounted) == 0
    told = capsys.readouterr()
    assert f"{unmounted / 'disk' / 'atlas'}: got no atlas where one was published from this store" in told.err
    assert "would remove: nothing;" in told.out

    assert prune(unmounted, "--remove") == 2
    told = capsys.readouterr()
    assert f"got no atlas in {unmounted / 'disk' / 'atlas'}, where one was published" in told.err
    assert "add --forget-missing if it is gone for good" in told.err
    assert stored_units(store(unmounted)) == before
    assert len(read_references(store(unmounted))) == 2

    (unmounted / "unmounted").rename(unmounted / "disk")
    assert prune(unmounted, "--remove") == 0
    assert stored_units(store(unmounted)) == before


def test_atlas_that_is_forgotten__lets_its_units_go(unmounted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = stored_units(store(unmounted))
    capsys.readouterr()

    assert prune(unmounted, "--forget-missing") == 0
    assert "their units count as gone" in capsys.readouterr().err
    assert stored_units(store(unmounted)) == before

    assert prune(unmounted, "--remove", "--forget-missing") == 0
    assert {kind for kind, _ in before - stored_units(store(unmounted))} >= {"activations", "bases"}
    assert len(read_references(store(unmounted))) == 1
    assert prune(unmounted, "--remove") == 0
