"""A first catalog for existing files: ``lfm-atlas init --from`` inspects them and writes it.

Comments state what files do not show. `checkpoints` describes folders of checkpoints, `activations` arrays of
activations; another kind of source is a module beside them with a function that returns a `Draft`.
"""

from collections.abc import Sequence
from pathlib import Path

from lfm_tasks.drafting.activations import draft_activations, looks_like_activations
from lfm_tasks.drafting.checkpoints import draft_checkpoints
from lfm_tasks.drafting.draft import CATALOG, Draft

__all__ = ["CATALOG", "Draft", "draft_catalog"]


def draft_catalog(zoo: Path, home: Path, data: Sequence[Path] = ()) -> Draft:
    """Return a catalog of what lies in ``zoo``.

    Parameters
    ----------
    zoo
        A folder of checkpoints, a folder of each; or files of activations, by a glob such as ``acts/*.npz`` or by
        their folder.
    home
        The folder that the catalog will lie in: its paths are relative to it.
    data
        Of checkpoints: files or folders of texts and images; by default what lies near. Of activations: a file of ids.

    Raises
    ------
    DataError
        ``missing_source`` if nothing is there; ``bad_name`` if a catalog cannot name it.
    """
    if looks_like_activations(zoo):
        return draft_activations(zoo, home, data)
    return draft_checkpoints(zoo, home, data)
