"""Paths of files: local ones as they are, remote ones through fsspec; the only module with universal_pathlib."""

import json
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from tokenize import TokenError
from typing import Any, cast

from lfm_tasks.catalog.names import did_you_mean
from lfm_tasks.errors import DataError
from lfm_tasks.variables import names_variable

_VARIABLE = "LFM_ATLAS_STORAGE_"
_REMOTE = re.compile(r"([a-z][a-z0-9+.-]+)://")
_SHORTEST_SECRET = 4  # characters: shorter values are settings such as "1" and would blank half a message
_NO_SECRETS = ("endpoint_url", "region_name")  # options that messages may quote: what could not be reached
# What object stores and servers call the version of a file, best first.
_VERSIONS = (
    "etag",
    "ETag",
    "mtime",
    "LastModified",
    "Last-Modified",
    "last_modified",
    "modified",
    "updated",
    "created",
)
# Bytes that are fetched beyond the requested ones. File systems of fsspec fetch up to 50 MiB, and headers are small.
_READ_AHEAD = 2**20

Fingerprint = tuple[tuple[str, ...], ...]


def locate(root: Path, text: str, storage: str | None = None) -> Path:
    """Return the path that ``text`` of a catalog in ``root`` means; remote ones have the methods of a `Path`.

    ``storage`` names credentials: options of the file system, as a JSON object in the environment variable
    ``LFM_ATLAS_STORAGE_<NAME>``. They stand nowhere else.
    """
    remote = _REMOTE.match(text)
    if remote is None:
        if storage is not None:
            problem = f"{text}: got storage: {storage} for a local path"
            raise DataError("missing_source", f"{problem}, expected a remote one (s3://bucket/...). Remove storage")
        return root / str(text)
    from upath import UPath

    options = {} if storage is None else _storage_options(storage)
    try:
        path = UPath(str(text), **options)
        _ = path.fs
    except ImportError as error:
        message = f"{text}: {_blanked(str(error))[:200]}: the package that reads {remote[1]}:// is not there"
        raise DataError("missing_source", f"{message}, install it beside lfm-atlas") from error
    except Exception as error:  # file systems of fsspec have no common class of errors
        message = f"{text}: {remote[1]}:// cannot be opened ({_error_text(error)})"
        raise DataError("missing_source", f"{message}. Check the path and its storage") from error
    return cast(Path, path)


def natural_order(name: str) -> tuple[tuple[int, str], ...]:
    """Return a sort key that puts layer2 before layer10.

    Examples
    --------
    >>> sorted(["rows_10.npy", "rows_2.npy"], key=natural_order)
    ['rows_2.npy', 'rows_10.npy']
    """
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]{1,18})", name))


def is_remote(path: Path) -> bool:
    """Return whether ``path`` lies on another file system than this machine's."""
    return not isinstance(path, Path)


def is_file(path: Path) -> bool:
    """Return whether ``path`` is a file; an error of a remote file system is raised, not taken for "no"."""
    if not is_remote(path):
        return path.is_file()
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return False


def open_bytes(path: Path, read_ahead: int = _READ_AHEAD) -> BufferedReader:
    """Return the file, open for reading; of a remote one about ``read_ahead`` bytes too many are fetched at a time.

    Parameters
    ----------
    path
        A file, local or remote.
    read_ahead
        Bytes that a remote file is fetched by beyond the request, ≥ 0.
    """
    if not is_remote(path):
        refuse_placeholder(path)
        return path.open("rb")
    return cast(BufferedReader, cast(Any, path).open("rb", block_size=read_ahead))


# What stands in a file of a repository instead of its content, until that is fetched, and what fetches it.
_POINTERS = {b"version https://git-lfs.github.com/spec/": "git lfs pull", b"/annex/objects/": "git annex get"}
_POINTER_BYTES = 1024  # https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md


class PlaceholderError(ValueError):
    """A file whose content is still to be fetched; `readable` says which file."""


def refuse_pointer(path: Path, name: str) -> None:
    """Raise DataError ``damaged_source``, which calls the file ``name``, for what `refuse_placeholder` refuses."""
    with readable(name):
        refuse_placeholder(path)


def refuse_placeholder(path: Path) -> None:
    """Raise `PlaceholderError` if a local file only says which content git-lfs, or git-annex, would put there."""
    try:
        if os.stat(path).st_size >= _POINTER_BYTES:
            return
        with open(path, "rb") as file:
            start = file.read(_POINTER_BYTES)
    except OSError:  # reported by the reader of the file
        return
    for beginning, remedy in _POINTERS.items():
        if start.startswith(beginning):
            kind = "git-lfs" if "lfs" in remedy else "git-annex"
            problem = f"got a {kind} pointer of {len(start)} bytes, expected the file that it stands for"
            raise PlaceholderError(f"{problem}. Fetch it: {remedy}")


def fingerprint(path: Path) -> Fingerprint:
    """Return a value that changes with a file or folder: sizes, times, inodes or tags of all its files.

    Parameters
    ----------
    path
        A file or folder, local or remote.
    """
    if is_remote(path):
        files, place = cast(Any, path).fs, cast(Any, path).path
        files.invalidate_cache(place)  # listings that were kept would hide a change
        entries = {place: {}} if is_file(path) else files.find(place, detail=True)
        # Listings of web servers are names alone.
        versions = {name: info if info.get("size") else files.info(name) for name, info in entries.items()}
        return tuple((name, *_version(info)) for name, info in sorted(versions.items()))
    status = os.stat(path)
    if not stat.S_ISDIR(status.st_mode):
        return (_local_version("", status),)
    return tuple(
        _local_version(os.path.join(folder, name), os.stat(os.path.join(folder, name)))
        for folder, folders, names in os.walk(path)
        for name in sorted(names)
        if folders.sort() is None
    )


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turn whatever a damaged or forbidden file raises into a DataError that names the file."""
    try:
        yield
    except DataError:
        raise
    except PlaceholderError as error:
        raise DataError("damaged_source", f"{name}: {error}") from error
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(_reason(error, name), f"{name}: cannot be read ({_error_text(error)})") from error
    except (
        SyntaxError,
        TokenError,
        TypeError,
        MemoryError,
        RecursionError,
        RuntimeError,
        NotImplementedError,
        SystemError,
    ) as error:
        # numpy evaluates a header as a Python literal, zipfile knows more kinds of archive than it reads, numcodecs
        # takes a negative size for one.
        raise DataError(_reason(error, name), f"{name}: cannot be read (damaged, or of an unknown kind)") from error
    except Exception as error:
        if _REMOTE.match(name) is None:
            raise
        # file systems of fsspec have no common class of errors
        raise DataError("missing_source", f"{name}: cannot be read ({_error_text(error)})") from error


def _reason(error: Exception, name: str) -> str:
    """Return whether a file is damaged, or cannot be reached.

    Libraries raise an OSError of their own, without a number, for content that they cannot read; those of remote file
    systems raise errors of all classes for what they cannot reach.
    """
    is_unreachable = isinstance(error, OSError) and error.errno is not None
    return "missing_source" if is_unreachable or _REMOTE.match(name) else "damaged_source"


def nearest(path: Path, name: str) -> str:
    """Return how a message goes on after "no such file": what lies nearest, or that nothing does.

    ``name`` is the path as messages call it: a part that stands for a value of the environment is never shown.
    """
    folder, _, file = f"{name}".rpartition("/")
    if names_variable(file):
        return ""
    if not path.parent.is_dir():
        is_told = not names_variable(folder.rpartition("/")[2])
        return f"; there is no folder {path.parent.name or str(path.parent)!r} either" if is_told else ""
    present = sorted(entry.name for entry in path.parent.iterdir() if not entry.name.startswith("."))
    return did_you_mean(path.name, present) if present else "; the folder is empty"


def _storage_options(storage: str) -> Mapping[str, Any]:
    variable = f"{_VARIABLE}{storage.upper().replace('-', '_').replace('.', '_')}"
    text = os.environ.get(variable)
    if not text:
        problem = f"storage: {storage} needs the environment variable {variable}, which is not set"
        raise DataError("missing_source", f'{problem}. Export {variable}=\'{{"key": "...", "secret": "..."}}\'')
    try:
        options = json.loads(text)
    except ValueError:
        options = None  # the error would quote the secret
    if not isinstance(options, dict):
        raise DataError("missing_source", f"storage: {storage}: {variable} needs a JSON object of storage options")
    return options


def _error_text(error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if "range requests" in reason:  # fsspec's advice is for programs
        return "the server sends whole files only; copy the file, or use a server that supports range requests"
    line = _blanked(" ".join(reason.split()))
    # Cut between words: of a path that is cut, nobody could tell the values of variables in it.
    return line if len(line) <= 200 else line[:200].rpartition(" ")[0] or type(error).__name__


def _blanked(text: str) -> str:
    """Return ``text`` without any value of the storage variables: libraries may quote what they were given."""
    for variable, value in os.environ.items():
        if variable.startswith(_VARIABLE):
            for secret in _texts(value):
                text = text.replace(secret, "***")
    return text


def _texts(value: str) -> Iterator[str]:
    try:
        waiting = [json.loads(value)]
    except ValueError:
        waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            waiting += [value for key, value in part.items() if key not in _NO_SECRETS or "@" in str(value)]
        elif isinstance(part, list):
            waiting += part
        elif isinstance(part, str) and len(part) >= _SHORTEST_SECRET:
            yield part


def _version(info: Mapping[str, Any]) -> tuple[str, str]:
    tag = next((info[key] for key in _VERSIONS if info.get(key) is not None), "")
    return str(info.get("size")), str(tag)


def _local_version(name: str, status: os.stat_result) -> tuple[str, ...]:
    return name, str(status.st_size), str(status.st_mtime_ns), str(status.st_ino)
