"""A folder that is removed with its last reference: the place of an atlas of arrays in memory."""

import shutil
import tempfile
import weakref
from pathlib import Path


class TemporaryFolder:
    """A new folder among the system's temporary ones; only its owner may enter it.

    It is removed by `remove`, when the last reference to it goes, or when the interpreter ends; only a process that is
    killed leaves it behind.

    Attributes
    ----------
    path
        Where it is.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="lfm-atlas-"))
        self._finalizer = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def remove(self) -> None:
        """Remove the folder and all that lies in it; nothing if that is done already."""
        self._finalizer()
