"""Files that commands and audits write under names of the user; files of others are never overwritten.

One rule for all commands, and for the folder of audits. What is there is replaced only if lfm-atlas wrote it, which its
content says, or by ``--force``. A link is never followed. Nothing is written into an atlas, a store or the folder of
audits: an atlas is replaced as a whole, and what lies in it would stop the next run.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from lfm_tasks.errors import FolderError
from lfm_tasks.stores.atlas.files import is_atlas
from lfm_tasks.stores.units.durable import atomic_write
from lfm_tasks.stores.units.marker import store_id

# Stands in the first bytes of every page.
GENERATOR = '<meta name="generator" content="lfm-atlas">'
_HEAD_BYTES = 4096

IsOurs = Callable[[Path], bool]


def is_page(path: Path) -> bool:
    """Return whether ``path`` is a page that lfm-atlas drew: a report, an audit or an evidence page."""
    return GENERATOR.encode() in _head(path)


def is_nobodys(path: Path) -> bool:
    """Return False: of a file without a mark of ours nobody can tell who wrote it."""
    return False


def check_output_file(path: Path, *, force: bool = False, is_ours: IsOurs = is_nobodys) -> bool:
    """Return whether a file at ``path`` is replaced; raise `FolderError`, with one sentence, if none may be written.

    Parameters
    ----------
    path
        The file to write.
    force
        Whether a file of whatever content may be replaced. A folder, a link or a device never is.
    is_ours
        Tells by its content whether a file is one that this command wrote earlier.
    """
    if refusal := _kept_from(path, os.path.realpath(path.parent)):
        raise FolderError(refusal)
    return _replaces(path, force, is_ours)


def check_writable(path: Path) -> None:
    """Raise `FolderError` if no file can be made where ``path``, or the first of its new folders, will be."""
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise FolderError(f"{path}: cannot be written ({error.strerror}). Name another place") from error


def check_output_folder(
    folder: Path, names: Iterable[str], *, force: bool = False, is_ours: IsOurs = is_nobodys, hint: str = ""
) -> bool:
    """Return whether any file is replaced; raise `FolderError` if ``names`` may not be written into ``folder``.

    Parameters
    ----------
    folder
        The folder to write into; it may be missing.
    names
        What the command writes there: files and folders.
    force, is_ours
        As in `check_output_file`, for each name.
    hint
        What to do beside naming another folder, if ``force`` is no option of the command.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        problem = "a file or a link that leads nowhere, expected a folder to write into"
        raise FolderError(f"{folder}: got {problem}. Name another one")
    if refusal := _kept_from(folder, os.path.realpath(folder)):
        raise FolderError(refusal)
    replaced = [_replaces(folder / name, force, is_ours, hint, may_be_folder=True) for name in names]
    return any(replaced)


def replace_files(contents: Mapping[Path, bytes]) -> None:
    """Write files that belong together, each whole; none is replaced before all fit on the disk."""
    staged = {path: path.with_name(f".{path.name}.{uuid4().hex}.new") for path in contents}
    try:
        for path, content in contents.items():
            try:
                atomic_write(staged[path], content)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(path)) from error  # not the name of the staged file
        for path, new in staged.items():
            new.replace(path)
    finally:
        for new in staged.values():
            new.unlink(missing_ok=True)


def _replaces(path: Path, force: bool, is_ours: IsOurs, hint: str = "", *, may_be_folder: bool = False) -> bool:
    if not os.path.lexists(path):
        return False
    if path.is_symlink():
        where = f"leads to {os.path.realpath(path)}" if path.exists() else "leads nowhere"
        problem = f"got a link that {where}, expected a file or nothing, since no link is followed"
        raise FolderError(f"{path}: {problem}. Name another one, or remove the link")
    if path.is_dir() and not (may_be_folder and (force or is_ours(path))):
        needed = "nothing of this name" if may_be_folder else "a file to write. Give its name, too"
        raise FolderError(f"{path}: got a folder, expected {needed}" + (f". {hint or _FORCE}" if may_be_folder else ""))
    if not path.is_dir() and not path.is_file():
        raise FolderError(f"{path}: got a device or a pipe, expected a file or nothing. Name another one")
    if not force and not is_ours(path):
        problem = "got a file that exists, expected a free name"
        if is_ours is not is_nobodys:
            problem = "got a file that lfm-atlas did not write, expected a free name or a file that it wrote"
        raise FolderError(f"{path}: {problem}. {hint or _FORCE}")
    return True


_FORCE = "Name another one, or give --force to replace it"


def _kept_from(named: Path, real_folder: str) -> str | None:
    """Return why nothing may be written into a folder, None if something may be; ``named`` is what messages call."""
    folder = Path(real_folder)
    for above in (folder, *folder.parents):
        if os.path.lexists(above) and not above.is_dir():
            return f"{named}: got {above}, which is no folder, on the way there. Name another place"
        if what := _ours(above):
            return f"{named}: got a place in {what} {above}, expected one outside of it. Name another one"
    return None


def _ours(folder: Path) -> str | None:
    """Return the kind of a folder that lfm-atlas wrote; None for other folders."""
    if (folder / "manifest.json").is_file() and is_atlas(folder):
        return "the atlas"
    if store_id(folder) is not None:
        return "the store"
    return "the folder of audits" if (folder / HISTORY).is_file() and is_history(folder / HISTORY) else None


# The file in the folder of audits that says that it is one.
HISTORY = "history.jsonl"
_OF_A_LINE: Mapping[str, type | tuple[type, ...]] = {
    "time": str,
    "verdict": str,
    "atlas": str,
    "baseline": (str, type(None)),
    "promoted": bool,
    "computed": dict,
    "checks": dict,
}


def is_history(path: Path) -> bool:
    """Return whether a file is the history of audits: at least one line, all as an audit writes them."""
    try:
        return bool(list(history_lines(path)))
    except (OSError, ValueError):
        return False


def history_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a history of audits, the oldest first; ValueError for one that no audit wrote."""
    # JSON escapes no other ends of lines than this one.
    lines = path.read_bytes().split(b"\n")
    for number, text in enumerate(lines if lines[-1] else lines[:-1], start=1):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            line = None
        if not _is_history_line(line):
            problem = f"{path}:{number}: got a line that no audit wrote, expected the record of an audit"
            raise ValueError(f"{problem}. Fix or remove the line, or move the file away")
        yield line


def _is_history_line(line: Any) -> bool:
    """Return whether a line has all that the page shows of an audit; more does no harm."""
    if not isinstance(line, dict):
        return False
    checks = line.get("checks")
    return all(isinstance(line.get(name, ...), kind) for name, kind in _OF_A_LINE.items()) and all(
        isinstance(check, dict)
        and isinstance(check.get("status"), str)
        and isinstance(check.get("observed", ...), int | float | None)
        for check in (checks.values() if isinstance(checks, dict) else ())
    )


# What an audit writes beside its history, and how each is known.
_AUDIT_FILES: Mapping[str, IsOurs] = {
    "audit.json": lambda path: b'"program": "lfm-atlas ' in _head(path),
    "audit.junit.xml": lambda path: b'<testsuite name="lfm-atlas audit"' in _head(path),
    "audit.html": is_page,
    "report.html": is_page,
    "canary.json": lambda path: b'"program": "lfm-atlas ' in _head(path),
}


def why_no_audits(folder: Path) -> str | None:
    """Return why no audit may be written into ``folder``: it would replace files of others; None if one may."""
    if not os.path.lexists(folder):
        return None
    if not folder.is_dir():
        problem = "got a file or a link that leads nowhere, expected a folder"
        return f"{folder}: {problem}. Move it away, or name another one"
    foreign = [name for name, is_ours in _AUDIT_FILES.items() if not _is_free(folder / name, is_ours)]
    history = folder / HISTORY
    if history.is_symlink() or (os.path.lexists(history) and not history.is_file()):
        foreign.append(HISTORY)
    if foreign:
        problem = f"got {foreign[0]}, which no audit wrote, expected a folder without it, or with that of an audit"
        return f"{folder}: {problem}. Move it away, or set another audit.path"
    try:
        list(history_lines(history) if history.exists() else ())
    except ValueError as error:
        return str(error)
    return None


def _is_free(path: Path, is_ours: IsOurs) -> bool:
    return not os.path.lexists(path) or (path.is_file() and not path.is_symlink() and is_ours(path))


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError:
        return b""
