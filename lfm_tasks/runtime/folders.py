"""Checks of the contents of the folders that a run writes: atlas, store, audits, baseline.

`lfm_tasks.catalog.folders` says where they may lie. Nothing here changes anything but `prepare_store`.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lfm_tasks.catalog import Catalog, CatalogError
from lfm_tasks.catalog.folders import WRITTEN, Location
from lfm_tasks.catalog.sections import AuditConfig
from lfm_tasks.catalog.yaml_tree import read_tree
from lfm_tasks.config import AtlasConfig
from lfm_tasks.errors import FolderError
from lfm_tasks.stores.atlas.files import is_atlas, read_json
from lfm_tasks.stores.atlas.publication import why_not_replaceable
from lfm_tasks.stores.atlas.schema import AtlasError, catalog_id, read_manifest
from lfm_tasks.stores.outputs import why_no_audits
from lfm_tasks.stores.references import holds_atlas, publisher
from lfm_tasks.stores.units.durable import why_not_writable
from lfm_tasks.stores.units.marker import held_store, store_id, why_no_store
from lfm_tasks.variables import ExpandedText

ATLAS, STORE, AUDITS, BASELINE = WRITTEN
# The folders that the command `run` looks at. It writes no baseline, but the audit that follows may.
OF_A_RUN = (ATLAS, STORE, BASELINE)
RUN_PURPOSE = "lfm-atlas run"


def folder_of(catalog: Catalog, key: Location) -> Path:
    """Return the folder that a key of the catalog names, such as ``("atlas", "path")``."""
    return catalog.root / str(getattr(getattr(catalog, key[0]), key[1]))


def refuse_folders(catalog: Catalog, *keys: Location) -> None:
    """Raise `FolderError` with all that `refused_folders` says of the folders at ``keys`` of the catalog."""
    if refused := [message for _, message in refused_folders(catalog, *keys)]:
        raise FolderError("\n".join(refused))


def refused_folders(catalog: Catalog, *keys: Location) -> Iterator[tuple[Location, str]]:
    """Yield a key of the catalog and a message for each folder that a run or an audit must not write.

    Parameters
    ----------
    catalog
        Names the folders.
    keys
        Which of them to look at, such as ``("atlas", "path")``; without any, all.
    """
    root = folder_of(catalog, STORE)
    for key in keys or WRITTEN:
        folder = folder_of(catalog, key)
        refusal = _inside_of_ours(folder, itself=key == AUDITS)
        if refusal is None and key in (ATLAS, BASELINE):
            refusal = why_not_replaceable(folder)
            # All references are read only where that may change something.
            if refusal is not None and holds_atlas(root, folder):
                refusal = why_not_replaceable(folder, was_published=True)
            refusal = refusal or why_of_another_catalog(catalog, root, key)
        if refusal is None and key == STORE:
            refusal = why_no_store(folder)
        if refusal is None and key == AUDITS:
            refusal = why_no_audits(folder)
        if refusal is not None:
            yield key, refusal


def _inside_of_ours(folder: Path, *, itself: bool) -> str | None:
    """Return that a folder lies inside of an atlas or a store, of whatever catalog; ``itself``: or is one."""
    real = Path(os.path.realpath(folder))
    for above in (*((real,) if itself else ()), *real.parents):
        what = None
        if (above / "manifest.json").is_file() and is_atlas(above):
            what = f"the atlas {above}, which is replaced as a whole"
        elif store_id(above) is not None:
            what = f"the store {above}, where lfm-atlas removes what it does not need"
        if what is not None:
            got = "got" if above == real else "got a folder inside of"
            return f"{folder}: {got} {what}, expected a folder outside of it. Name another one"
    return None


def why_of_another_catalog(catalog: Catalog, root: Path, key: Location) -> str | None:
    """Return that the atlas in the folder at ``key`` is another catalog's; None if it is ours, or there is none.

    An atlas is ours if its manifest says so (`catalog_id`), whatever store it was made in: stores may be deleted. If
    the manifest names another catalog it is ours still where our store notes that the catalog that published it was
    renamed or removed, or names another folder by now.

    Parameters
    ----------
    catalog
        Whose folder it is.
    root
        The store that notes what was published from it.
    key
        ``("atlas", "path")`` or ``("audit", "baseline")``.
    """
    folder, ours = folder_of(catalog, key), catalog.root / catalog.file
    try:
        manifest = read_manifest(folder, "")
    except AtlasError:
        return None
    name = ".".join(key)
    apart = f"expected a folder for each catalog. Set another {name} here, or remove {folder} if nobody needs it"
    other = publisher(root, manifest.key, folder)
    if manifest.catalog in (catalog_id(ours, folder), catalog_id(Path(os.path.realpath(ours)), folder)):
        if other is None and not _shares_models(catalog, folder):
            unlike = f"got an atlas with other models than this catalog's, which its store {root} does not know"
            return f"{folder}: {unlike}, {apart}"
        return None
    if other is None:
        unlike = f"got an atlas that another catalog published, of which the store {root} does not know"
        return f"{folder}: {unlike}, {apart}"
    if _is_same(other, ours) or not _names_folder(other, folder):
        return None
    return f"{folder}: got the atlas of the catalog {other}, which has the same {name}, {apart}"


def _shares_models(catalog: Catalog, folder: Path) -> bool:
    """Return whether the atlas in ``folder`` has a model of the catalog, or none at all, or cannot be read."""
    try:
        models = {model["name"] for model in read_json(folder / "summary.json")["models"]}
    except (OSError, ValueError, KeyError, TypeError):
        return True
    return not models or bool(models & catalog.models.keys())


def _names_folder(catalog_file: Path, folder: Path) -> bool:
    """Return whether a catalog names ``folder`` as atlas or baseline; True if that is unknown.

    A file that is not there names nothing, unless its folder is not there either: that may not be mounted.
    """
    if not catalog_file.is_file():
        return not catalog_file.parent.is_dir()
    try:
        tree: Any
        tree, problems = read_tree(catalog_file)
        paths = [(tree.get("atlas") or {}).get("path") or AtlasConfig().path]
        paths += [(tree.get("audit") or {}).get("baseline") or AuditConfig().baseline]
        # The environment of the other catalog's runs may be another.
        return bool(problems) or any(
            isinstance(path, ExpandedText) or _is_same(catalog_file.parent / path, folder) for path in paths
        )
    except (CatalogError, AttributeError, TypeError):
        return True


def _is_same(first: Path, second: Path) -> bool:
    return os.path.realpath(first) == os.path.realpath(second)


def refuse_read_only(catalog: Catalog, *keys: Location) -> None:
    """Raise the OSError that writing the first of the folders at ``keys`` would end in, if one cannot be written."""
    for error in read_only_folders(catalog, *keys):
        raise error


def written_by_audit(catalog: Catalog, promote: bool) -> tuple[Location, ...]:
    """Return the keys of the folders that an audit writes, the run before it included."""
    may_promote = promote or catalog.audit.promote == "on_pass"
    return (ATLAS, STORE, AUDITS, BASELINE) if may_promote else (ATLAS, STORE, AUDITS)


def read_only_folders(catalog: Catalog, *keys: Location) -> Iterator[OSError]:
    """Yield the error that writing to each of the folders at ``keys`` of the catalog would end in; nothing is changed.

    A run may compute for hours before it publishes.
    """
    for key in keys or WRITTEN:
        folder = Path(os.path.realpath(folder_of(catalog, key)))
        if key in (ATLAS, BASELINE):
            # It changes places with a folder beside it, and all that it holds is removed.
            needed = [folder.parent, *(Path(current) for current, _, _ in os.walk(folder))]
        elif key == STORE:
            needed = [folder, *(path for path in folder.glob("*") if path.is_dir() and path.name != "prefect")]
        else:
            needed = [folder]
        error = next((error for place in needed if (error := why_not_writable(place)) is not None), None)
        if error is not None:
            yield error


def prepare_store(catalog: Catalog) -> None:
    """Make the store if there is none; raise `StoreBusyError` if another run holds it. Before anything slow starts."""
    refuse_folders(catalog, STORE)
    with held_store(folder_of(catalog, STORE), RUN_PURPOSE):
        pass
