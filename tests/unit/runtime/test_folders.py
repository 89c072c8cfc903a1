"""Whose the folders are that a run writes, and whether it can write to them."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lfm_tasks.catalog import Catalog, read_catalog
from lfm_tasks.runtime.folders import ATLAS, AUDITS, BASELINE, STORE, read_only_folders, refused_folders
from lfm_tasks.stores.atlas.publication import publish
from lfm_tasks.stores.atlas.schema import catalog_id
from lfm_tasks.stores.references import add_reference_folder, write_reference
from lfm_tasks.stores.units.marker import claim_store

KEYS = (ATLAS, STORE, AUDITS, BASELINE)


@pytest.fixture
def zoo(tmp_path: Path, write_zoo: Callable[..., Path], related_spaces: Any) -> Path:
    return write_zoo(tmp_path / "zoo", related_spaces(2, n_points=30, n_layers=1))


@pytest.fixture
def catalog(zoo: Path) -> Catalog:
    return read_catalog(zoo / "data_catalog.yaml")


def naming(catalog: Catalog, key: tuple[str, ...], folder: str) -> Catalog:
    section, name = key
    return catalog.model_copy(update={section: getattr(catalog, section).model_copy(update={name: folder})})


def put(folder: Path, catalog_file: Path, models: tuple[str, ...] = ("model0",)) -> None:
    with publish(folder, "a" * 64, catalog=catalog_id(catalog_file, folder)) as staged:
        listed = ", ".join(f'{{"name": "{name}"}}' for name in models)
        (staged / "summary.json").write_text(f'{{"models": [{listed}]}}')


def told(catalog: Catalog, *keys: tuple[str, ...]) -> list[str]:
    return [message for _, message in refused_folders(catalog, *keys)]


def test_folders_that_are_not_there__are_fine(catalog: Catalog) -> None:
    assert told(catalog) == []


@pytest.mark.parametrize("key", [ATLAS, BASELINE])
def test_atlas_of_ours__is_ours_without_any_store(key: tuple[str, ...], zoo: Path, catalog: Catalog) -> None:
    folder = zoo / str(key[1] if key == BASELINE else "atlas")
    put(folder, zoo / "data_catalog.yaml")
    assert told(catalog) == []
    # By a link to the catalog, or in another place, as well.
    (zoo / "link.yaml").symlink_to("data_catalog.yaml")
    assert told(read_catalog(zoo / "link.yaml")) == []
    moved = zoo.rename(zoo.with_name("moved"))
    assert told(read_catalog(moved / "data_catalog.yaml")) == []


@pytest.mark.parametrize("key", [ATLAS, BASELINE])
@pytest.mark.parametrize("place", ["../other/atlas", "own"])
def test_atlas_of_another_catalog__is_refused(key: tuple[str, ...], place: str, zoo: Path, catalog: Catalog) -> None:
    folder = zoo / place
    put(folder, zoo / "../other/data_catalog.yaml" if "other" in place else zoo / "second.yaml")

    [message] = told(naming(catalog, key, place), key)
    assert f"{folder}: got an atlas that another catalog published, of which the store" in message
    assert f"Set another {'.'.join(key)} here, or remove {folder} if nobody needs it" in message


@pytest.mark.parametrize("key", [ATLAS, BASELINE])
def test_atlas_without_a_catalog__is_nobodys(key: tuple[str, ...], zoo: Path, catalog: Catalog) -> None:
    with publish(zoo / "own", "a" * 64):
        pass

    assert "got an atlas that another catalog published" in told(naming(catalog, key, "own"), key)[0]


def test_atlas_of_other_models__is_refused_unless_the_store_knows_it(zoo: Path, catalog: Catalog) -> None:
    put(zoo / "atlas", zoo / "data_catalog.yaml", ("stranger",))

    assert "got an atlas with other models than this catalog's" in told(catalog)[0]
    write_reference(zoo / ".lfm-atlas", "a" * 64, {}, [], zoo / "atlas", zoo / "data_catalog.yaml")
    assert told(catalog, ATLAS) == []


@pytest.mark.parametrize("key", [ATLAS, BASELINE])
def test_catalogs_with_one_store__are_told_of_each_other(key: tuple[str, ...], zoo: Path, catalog: Catalog) -> None:
    folder, root, second = zoo / str(("atlas", "baseline")[key == BASELINE]), zoo / ".lfm-atlas", zoo / "second.yaml"
    shutil.copy(zoo / "data_catalog.yaml", second)
    put(folder, second)
    write_reference(root, "a" * 64, {}, [], zoo / "elsewhere", second)
    add_reference_folder(root, "a" * 64, folder, second)

    assert f"got the atlas of the catalog {second}, which has the same {'.'.join(key)}" in told(catalog, key)[0]
    # Who cannot be asked has it still: a variable, a file that is no catalog, a disk that is not mounted.
    for text in ("atlas: {path: '${OUT}/atlas'}", "atlas: {path: '${HOME}/atlas'}", "atlas: [", "- a"):
        second.write_text(text)
        assert "which has the same" in told(catalog, key)[0]
    second.write_text("atlas: {path: out}\naudit: {baseline: former}")
    assert told(catalog, key) == []
    second.unlink()
    assert told(catalog, key) == []


def test_catalog_whose_folder_is_not_there__keeps_its_atlas(tmp_path: Path, zoo: Path, catalog: Catalog) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    put(zoo / "atlas", disk / "second.yaml")
    write_reference(zoo / ".lfm-atlas", "a" * 64, {}, [], zoo / "atlas", disk / "second.yaml")
    assert told(catalog, ATLAS) == []

    disk.rmdir()

    assert f"got the atlas of the catalog {disk / 'second.yaml'}" in told(catalog, ATLAS)[0]


@pytest.mark.parametrize("key", KEYS)
def test_folder_inside_of_any_store_or_atlas__is_refused(
    key: tuple[str, ...], tmp_path: Path, catalog: Catalog
) -> None:
    claim_store(tmp_path / "store")
    put(tmp_path / "atlas", tmp_path / "data_catalog.yaml")
    (tmp_path / "link").symlink_to("store")

    for place, what in (("../store/x", "store"), ("../link/deep/x", "store"), ("../atlas/x", "atlas")):
        [message] = told(naming(catalog, key, place), key)
        assert f"got a folder inside of the {what} {tmp_path / what}" in message


def test_audits__go_into_no_store_and_no_atlas(tmp_path: Path, catalog: Catalog) -> None:
    claim_store(tmp_path / "store")
    put(tmp_path / "atlas", tmp_path / "data_catalog.yaml")

    for what in ("store", "atlas"):
        assert f"got the {what} {tmp_path / what}" in told(naming(catalog, AUDITS, f"../{what}"), AUDITS)[0]


@pytest.fixture
def locked_folders(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Deny writing to folders, also to root."""

    def lock(*folders: Path) -> None:
        plain = os.access
        names = {str(folder) for folder in folders}

        def access(path: Any, mode: int, **options: Any) -> bool:
            return str(path) not in names and plain(path, mode, **options)

        monkeypatch.setattr(os, "access", access)

    return lock


@pytest.mark.parametrize(
    ("key", "place", "denied"),
    [
        (ATLAS, "out/atlas", "out"),
        (ATLAS, "out/new/deep/atlas", "out"),
        (ATLAS, "out", "out/atlas.zarr"),
        (BASELINE, "out/baseline", "out"),
        (AUDITS, "out", "out"),
        (AUDITS, "out/audits", "out"),
        (STORE, "out/store", "out"),
        (STORE, "out", "out"),
        (STORE, "out", "out/units"),
    ],
)
def test_folder_that_cannot_be_written__is_found(
    key: tuple[str, ...], place: str, denied: str, zoo: Path, catalog: Catalog, locked_folders: Callable[..., None]
) -> None:
    (zoo / denied).mkdir(parents=True)
    named = naming(catalog, key, place)
    assert list(read_only_folders(named)) == []

    locked_folders(zoo / denied)

    [error] = read_only_folders(named)
    assert (error.errno, error.filename) == (errno.EACCES, str(zoo / denied))
