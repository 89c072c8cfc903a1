"""Opens a published atlas, checked."""

from os import PathLike
from pathlib import Path

from lfm_tasks.published.atlas import Atlas
from lfm_tasks.stores.atlas_files import checked_key, open_scores, read_json
from lfm_tasks.stores.atlas_schema import check_version

# Where a run keeps its store if the catalog does not say: beside the atlas.
_STORE = ".lfm-atlas"


def open_atlas(path: str | PathLike[str], *, store: str | PathLike[str] | None = None) -> Atlas:
    """Return the atlas that lies in the folder ``path``; arrays are read when they are asked for.

    Every file is checked against the manifest first. ``store`` is where its run kept what it computed (``atlas.store``
    in the catalog; ``.lfm-atlas`` beside the atlas if not given): functional maps that the atlas does not keep are made
    of the bases there.

    Raises
    ------
    AtlasError
        If there is no atlas, a file is not as published, or its schema version cannot be read.
    """
    folder = Path(path)
    key = checked_key(folder)
    summary = read_json(folder / "summary.json")
    check_version(summary.get("schema_version"))
    place = Path(store) if store is not None else folder.absolute().parent / _STORE
    return Atlas(folder, key, summary, open_scores(folder), place)
