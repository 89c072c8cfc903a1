"""Reads ids and labels from plain text, one a line: what thingsvision writes as file_names.txt."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lfm_tasks.reasons import ReasonError
from lfm_tasks.sources.files.paths import stamp
from lfm_tasks.sources.files.stored_array import ReadRows, StoredArray, check_held, text_array


def open_text(path: Path, name: str, key: str | None) -> StoredArray:
    """Return the lines of a UTF-8 text file."""
    if key is not None:
        raise ReasonError("missing_source", f"{name}: found key: {key} for a file of lines: remove the key")
    seen = stamp(path)
    check_held(name, path.stat().st_size)
    try:
        told = path.read_bytes().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        found = f"found bytes that are not UTF-8, first at {error.start:,}"
        raise ReasonError("wrong_dtype", f"{name}: {found}: save it as UTF-8, one a line") from error

    lines = text_array(name, len(told), lambda start, stop: told[start:stop])

    @contextmanager
    def hold() -> Iterator[ReadRows]:
        yield lambda start, stop: lines[start:stop]

    return StoredArray(name, path, seen, lines.shape, lines.dtype, hold, is_held=True)
