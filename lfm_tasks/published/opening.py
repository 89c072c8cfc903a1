"""Opens a published atlas, checked."""

from os import PathLike
from pathlib import Path

from lfm_tasks.published.atlas import Atlas
from lfm_tasks.stores.atlas.files import checked_manifest, open_scores, read_json
from lfm_tasks.stores.atlas.schema import AtlasError
from lfm_tasks.stores.units.references import manifest_key

# Where a run keeps its store if the catalog does not say: beside the atlas.
_STORE = ".lfm-atlas"
# Who opens it while it is replaced tries again with the new one.
_TRIES = 10


def open_atlas(path: str | PathLike[str], *, store: str | PathLike[str] | None = None) -> Atlas:
    """Return the atlas that lies in the folder ``path``; arrays are read when they are asked for.

    Every file is checked against the manifest first, and what is read later once more: an atlas that is published again
    while it is open is never mixed with the next. ``store`` is where its run kept what it computed (``atlas.store`` in
    the catalog; ``.lfm-atlas`` beside the atlas if not given): functional maps that the atlas does not keep are made of
    the bases there.

    Raises
    ------
    AtlasError
        If there is no atlas, a file is not as published, or its schema version cannot be read.
    """
    folder = Path(path)
    place = Path(store) if store is not None else folder.absolute().parent / _STORE
    for _ in range(_TRIES):
        before = manifest_key(folder)
        try:
            manifest = checked_manifest(folder)
            summary = read_json(folder / "summary.json")
            atlas = Atlas(folder, manifest.key, summary, open_scores(folder, manifest), place, manifest)
        except (AtlasError, OSError):
            if manifest_key(folder) == before:
                raise
            continue
        if manifest_key(folder) == manifest.key:
            return atlas
    raise AtlasError(f"{folder}: found it published {_TRIES} times while it was opened: open it when that has ended")
