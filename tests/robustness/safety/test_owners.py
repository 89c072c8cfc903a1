"""Whose an atlas, a baseline and a store are: what another catalog made, and what only looks like ours, stays."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lfm_tasks.stores.atlas.files import published_key
from tests.robustness.safety.conftest import SETTINGS, audit, command, edit, everything, run

pytestmark = pytest.mark.safety

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def other(tmp_path: Path, write_zoo: Callable[..., Path], related_spaces: Any) -> Path:
    """Give a second project with the same models and settings."""
    return write_zoo(tmp_path / "other", related_spaces(2, n_points=40, n_layers=1), **SETTINGS)


def test_second_catalog_with_the_same_atlas_path__is_told(zoo: Path, capsys: Capture) -> None:
    assert run(zoo) == 0
    before = published_key(zoo / "atlas")
    edit(zoo, "second.yaml", atlas={"n_eigenpairs": 5})

    assert run(zoo, catalog="second.yaml") == 2
    told = capsys.readouterr().err
    assert f"got the atlas of the catalog {zoo / 'data_catalog.yaml'}, which has the same atlas.path" in told
    assert published_key(zoo / "atlas") == before
    # One that was renamed, or has another atlas.path by now, is in nobody's way.
    edit(zoo, atlas={"path": "elsewhere"})
    assert run(zoo, catalog="second.yaml") == 0
    (zoo / "second.yaml").rename(zoo / "third.yaml")
    edit(zoo, "third.yaml", atlas={"n_eigenpairs": 6, "path": "atlas"})
    assert run(zoo, catalog="third.yaml") == 0


def test_atlas_of_another_store__is_replaced_only_if_it_is_of_this_catalog(zoo: Path, capsys: Capture) -> None:
    assert run(zoo) == 0
    edit(zoo, "second.yaml", atlas={"store": "second-store", "n_eigenpairs": 5})
    assert run(zoo, catalog="second.yaml") == 2
    assert "got an atlas that another catalog published" in capsys.readouterr().err

    # A store that was deleted makes no run impossible, nor does a project that was moved.
    shutil.rmtree(zoo / ".lfm-atlas")
    edit(zoo, atlas={"n_eigenpairs": 5})
    assert run(zoo) == 0
    moved = zoo.rename(zoo.with_name("moved"))
    edit(moved, atlas={"n_eigenpairs": 6})
    assert run(moved) == 0
    # A catalog that was renamed is known by its store, which writes the new name into the atlas.
    (moved / "data_catalog.yaml").rename(moved / "zoo.yaml")
    assert run(moved, catalog="zoo.yaml") == 0
    shutil.rmtree(moved / ".lfm-atlas")
    assert run(moved, catalog="zoo.yaml") == 0


@pytest.mark.parametrize("settings", [{}, {"n_eigenpairs": 5}], ids=["the same settings", "others"])
def test_catalog_of_another_folder_with_the_same_models__is_told(
    settings: dict[str, Any], zoo: Path, other: Path, capsys: Capture
) -> None:
    assert run(zoo) == 0
    before = everything(zoo / "atlas")
    edit(other, atlas={"path": "../zoo/atlas", **settings})

    for call in (lambda: command("validate", other), lambda: command("plan", other), lambda: run(other)):
        assert call() == 2
        assert "got an atlas that another catalog published" in capsys.readouterr().err
    assert everything(zoo / "atlas") == before
    assert not (other / ".lfm-atlas").exists()


# Takes three seconds to publish, once it holds the place.
SLOWLY = """
import sys, time
from lfm_tasks.stages.publish import stage
from lfm_atlas.cli.main import main

def slowly(*arguments):
    time.sleep(3)
    return assemble(*arguments)

assemble, stage.assemble = stage.assemble, slowly
main()
"""


def test_catalogs_that_publish_at_one_place_at_once__do_not_touch_each_others_work(zoo: Path, other: Path) -> None:
    edit(other, atlas={"path": "../zoo/atlas"})
    options = ("--no-prefect", "--no-dask")

    runs = [
        subprocess.Popen(
            [sys.executable, "-c", SLOWLY, "run", str(folder / "data_catalog.yaml"), *options],
            stderr=subprocess.PIPE,
            text=True,
        )
        for folder in (zoo, other)
    ]
    told = [process.communicate(timeout=240)[1] for process in runs]

    # The second is told by the lock, or by whose atlas is there by now.
    assert [process.returncode == 0 for process in runs].count(True) == 1, told
    message = next(text for process, text in zip(runs, told, strict=True) if process.returncode)
    assert "an atlas is being published at" in message or "got an atlas that another catalog published" in message
    assert "Traceback" not in message
    assert published_key(zoo / "atlas") is not None
    assert [path.name for path in zoo.glob(".atlas*")] == []


def test_baseline_that_is_the_atlas_of_another_catalog__is_refused_by_every_command(
    zoo: Path, other: Path, capsys: Capture
) -> None:
    assert run(zoo) == 0
    before = everything(zoo / "atlas")
    edit(other, audit={"baseline": "../zoo/atlas"})

    commands = [lambda: command("validate", other), lambda: command("plan", other), lambda: run(other)]
    for call in (*commands, lambda: audit(other)):
        assert call() == 2
        told = capsys.readouterr().err
        assert ": audit.baseline: " in told
        assert "got an atlas that another catalog published" in told
    assert everything(zoo / "atlas") == before
    assert not (other / "atlas").exists()


def test_baseline__stays_its_catalogs_without_store_and_atlas(zoo: Path) -> None:
    assert audit(zoo) in (0, 3)
    promoted = published_key(zoo / "baseline")
    assert promoted is not None
    shutil.rmtree(zoo / ".lfm-atlas")
    shutil.rmtree(zoo / "atlas")
    edit(zoo, atlas={"n_eigenpairs": 5})

    assert audit(zoo) in (0, 3)

    assert published_key(zoo / "baseline") not in (None, promoted)


def test_second_catalog_with_the_same_baseline__is_told(zoo: Path, capsys: Capture) -> None:
    assert audit(zoo) in (0, 3)
    before = everything(zoo / "baseline")
    edit(zoo, "second.yaml", atlas={"path": "second", "n_eigenpairs": 5}, audit={"path": "second-audits"})

    assert command("audit", zoo, "--no-prefect", "--no-dask", "--promote", catalog="second.yaml") == 2

    told = capsys.readouterr().err
    assert f"got the atlas of the catalog {zoo / 'data_catalog.yaml'}, which has the same audit.baseline" in told
    assert everything(zoo / "baseline") == before


def test_empty_folder_and_edited_file_in_an_atlas__are_not_lost(zoo: Path, capsys: Capture) -> None:
    assert run(zoo) == 0
    (zoo / "atlas" / "my notes").mkdir()
    (zoo / "atlas" / ".DS_Store").write_text("window")
    edit(zoo, atlas={"n_eigenpairs": 5})

    assert run(zoo) == 2
    assert "got my notes/, which the manifest" in capsys.readouterr().err
    (zoo / "atlas" / "my notes").rmdir()
    (zoo / "atlas" / "summary.json").write_text("years of work")

    assert run(zoo) == 0
    [former] = zoo.glob(".atlas.*.former")
    assert (former / "summary.json").read_text() == "years of work"
    assert (zoo / "atlas" / ".DS_Store").read_text() == "window"
    assert run(zoo) == 0


@pytest.mark.parametrize("name", ["report.html", "manifest.json"])
def test_folder_in_the_place_of_an_atlas_that_the_store_knows__is_not_taken_for_it(
    name: str, zoo: Path, capsys: Capture
) -> None:
    assert run(zoo) == 0
    shutil.rmtree(zoo / "atlas")
    (zoo / "atlas").mkdir()
    (zoo / "atlas" / name).write_text("years of work")

    assert run(zoo) == 2

    assert f"got a folder with {name} and no manifest.json of an atlas" in capsys.readouterr().err
    assert (zoo / "atlas" / name).read_text() == "years of work"


STORES = {
    "staging": ("staging/thesis.tex", "lock", "units/bases/x/thesis.tex"),
    "runs": ("runs/experiment.csv",),
    "a lock": ("lock",),
    "a marker": ("store.json",),
}


@pytest.mark.parametrize("there", STORES.values(), ids=STORES.keys())
def test_folder_that_looks_like_a_store__is_refused_by_every_command(
    there: tuple[str, ...], zoo: Path, capsys: Capture
) -> None:
    for name in there:
        (zoo / "theirs" / name).parent.mkdir(parents=True, exist_ok=True)
        (zoo / "theirs" / name).write_text("years of work")
    edit(zoo, atlas={"store": "theirs"})
    before = everything(zoo)

    calls = [lambda name=name: command(name, zoo) for name in ("validate", "plan", "verify", "prune", "serve", "run")]
    for call in (*calls, lambda: run(zoo), lambda: audit(zoo)):
        assert call() == 2
        assert "that is no store of lfm-atlas (it has no sound store.json)" in capsys.readouterr().err
    assert everything(zoo) == before


def test_store_of_an_earlier_version__is_told_what_to_do(zoo: Path, capsys: Capture) -> None:
    assert run(zoo) == 0
    (zoo / ".lfm-atlas" / "store.json").unlink()

    assert run(zoo) == 2
    assert "Remove the store, and the next run computes it again" in capsys.readouterr().err

    shutil.rmtree(zoo / ".lfm-atlas")
    assert run(zoo) == 0


def test_evidence__goes_into_no_store_of_somebody(zoo: Path, capsys: Capture) -> None:
    pytest.importorskip("matplotlib")
    (zoo / "evidence" / "store" / "runs").mkdir(parents=True)
    (zoo / "evidence" / "store" / "runs" / "mine.csv").write_text("years of work")
    before = everything(zoo)

    assert command("reproduce", zoo, "-o", str(zoo / "evidence"), "--experiment", "cost") == 2

    assert f"{zoo}/evidence/store" in capsys.readouterr().err
    assert everything(zoo) == before


def test_link_in_the_store__is_refused(zoo: Path, capsys: Capture) -> None:
    assert run(zoo) == 0
    thesis = zoo / "theirs" / "activations-thesis" / "thesis.tex"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("years of work")
    for name in ("staging", "partial", "quarantine", "receipts", "units"):
        shutil.rmtree(zoo / ".lfm-atlas" / name, ignore_errors=True)
        (zoo / ".lfm-atlas" / name).symlink_to("../theirs")

        assert run(zoo) == 2
        assert f"got the link {name} in the store" in capsys.readouterr().err
        (zoo / ".lfm-atlas" / name).unlink()
    assert everything(zoo / "theirs") == {"activations-thesis/thesis.tex": b"years of work"}
    assert run(zoo) == 0


def test_folders_in_the_store_of_another_catalog__are_refused(zoo: Path, other: Path, capsys: Capture) -> None:
    assert run(zoo) == 0
    for section in ("atlas.path", "audit.baseline", "audit.path", "atlas.store"):
        first, key = section.split(".")
        edit(other, "second.yaml", **{first: {key: "../zoo/.lfm-atlas/units"}})

        assert command("validate", other, catalog="second.yaml") == 2
        assert f"got a folder inside of the store {zoo / '.lfm-atlas'}" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["atlas.path", "audit.baseline", "audit.path", "atlas.store"])
def test_disk_that_can_only_be_read__ends_an_audit_before_anything_is_computed(
    key: str, zoo: Path, mounts: Callable[..., Path], capsys: Capture
) -> None:
    disk = mounts(zoo / "disk")
    (disk / "audits").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    section, name = key.split(".")
    edit(zoo, **{section: {name: f"disk/{'audits' if key == 'audit.path' else name}"}})

    with pytest.raises(OSError, match="Read-only file system") as ended:
        audit(zoo)

    assert str(ended.value.filename).startswith(str(disk))
    assert not (zoo / ".lfm-atlas" / "units").exists()
    assert command("validate", zoo) == 0
    assert "a run could not write here: " in capsys.readouterr().err


def test_prune__takes_no_foreign_manifest_for_an_atlas_that_replaced_another(zoo: Path, capsys: Capture) -> None:
    assert run(zoo) == 0
    shutil.move(zoo / "atlas", zoo / "away")
    edit(zoo, atlas={"path": "second", "n_eigenpairs": 5})
    assert run(zoo) == 0
    n_units = len(list(zoo.glob(".lfm-atlas/units/*/*")))
    (zoo / "atlas").mkdir()
    (zoo / "atlas" / "manifest.json").write_text('{"key": "other"}')

    assert command("prune", zoo, "--remove") == 2

    assert "got no atlas in" in capsys.readouterr().err
    assert len(list(zoo.glob(".lfm-atlas/units/*/*"))) == n_units
