"""What the disk refused, as a sentence: what was found, what is needed, what to do."""

import errno
import os
import shutil
from pathlib import Path

_KEPT = "what was finished is kept, the next run goes on from there"


def told(error: Exception) -> str:
    """Return what to tell a person of an error that ended a command."""
    if not isinstance(error, OSError) or error.errno is None:
        return f"{type(error).__name__}: {error}"
    place = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    where = f"{place}: " if place else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{where}found no space left on the disk{_free(place)}, needs more: free some, then run again; {_KEPT}"
    if error.errno == errno.EFBIG:
        return f"{where}found a limit on the size of files, needs a higher one: see ulimit -f, then run again; {_KEPT}"
    if error.errno == errno.EROFS:
        return f"{where}found a disk that can only be read, needs one to write to: choose another place, or remount it"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{where}permission denied: choose a place that you may write to, or change its rights"
    if error.errno == errno.EIO:
        return (
            f"{where}found a disk that fails ({error.strerror}), needs a sound one: check it, then run again; {_KEPT}"
        )
    return f"{type(error).__name__}: {error}"


def _free(place: str) -> str:
    """Return how much there is, as far as the place is known."""
    for folder in Path(place).absolute().parents if place else ():
        if folder.is_dir():
            return f" ({shutil.disk_usage(folder).free / 1e6:.1f} MB free)"
    return ""
