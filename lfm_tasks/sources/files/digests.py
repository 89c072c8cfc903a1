"""SHA-256 digests of files, cached by size, times and inode, so that no file is hashed twice.

A file counts as unchanged if its size, times and inode are those of the last time. A change within one tick of the file
system's clock leaves all of these as they were, so what was changed only just now is hashed, and not remembered.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lfm_tasks.sources.files.paths import readable

# Nanoseconds: FAT, the coarsest file system, counts in two seconds.
_TICK = 2_000_000_000
_VERSION = 1


class DigestMemory:
    """Facts about files from earlier runs: digests by file, and facts by the digest that they follow from.

    Reading needs no lock. The holder of the store's lock writes `as_json` back where `is_changed` says so.
    """

    def __init__(self, known: Mapping[str, Any] | None = None) -> None:
        content = known if known and known.get("version") == _VERSION else {}
        self._known_files: Mapping[str, Any] = content.get("files", {})
        self._known_facts: Mapping[str, Any] = content.get("facts", {})
        self._files: dict[str, Any] = {}
        self._facts: dict[str, Any] = {}
        self.n_hashed = 0

    @classmethod
    def read(cls, path: Path) -> "DigestMemory":
        """Return the memory in the file at ``path``; an empty one if it is absent or damaged."""
        try:
            content = json.loads(path.read_bytes())
            files, facts = content["files"], content["facts"]
        except (OSError, ValueError, KeyError, TypeError):
            return cls()
        return cls(content) if isinstance(files, dict) and isinstance(facts, dict) else cls()

    @property
    def is_changed(self) -> bool:
        """Whether anything was used that an earlier run did not know, or the other way round."""
        return self._files != self._known_files or self._facts != self._known_facts

    def as_json(self) -> bytes:
        """Return the entries that were used since this memory was read, as the content of its file."""
        content = {"version": _VERSION, "files": self._files, "facts": self._facts}
        return json.dumps(content, sort_keys=True, indent=0).encode()

    def file_digest(self, path: Path, check: Callable[[], None] = lambda: None) -> str:
        """Return the SHA-256 of a local file's content; see the function `file_digest`.

        ``check`` is called for a file that is not known, and raises for one that is not to be remembered.
        """
        place = os.path.abspath(path)
        stamp = _stamp(os.stat(place))
        known = self._files.get(place) or self._known_files.get(place)
        if not isinstance(known, list) or known[:-1] != stamp:
            check()
            sha256 = _hash(place)
            self.n_hashed += 1
            after = _stamp(os.stat(place))
            if after != stamp or time.time_ns() - stamp[2] < _TICK:
                return sha256
            known = [*stamp, sha256]
        self._files[place] = known
        return str(known[-1])

    def recall(self, key: str) -> Any:
        """Return the facts that an earlier run found for ``key``, a digest of all that decides them; None: none."""
        if key in self._facts:
            return self._facts[key]
        if key not in self._known_facts:
            return None
        self._facts[key] = self._known_facts[key]
        return self._facts[key]

    def remember(self, key: str, facts: Any) -> None:
        """Keep facts (JSON values) that follow from ``key`` alone."""
        self._facts[key] = facts


def file_digest(path: Path, memory: DigestMemory | None = None) -> str:
    """Return the SHA-256 of the content of a local file, taken from ``memory`` if the file is as it was.

    Raises
    ------
    DataError
        ``missing_source`` if the file cannot be read.
    """
    with readable(path.name):
        return (memory or DigestMemory()).file_digest(path)


def _hash(path: str) -> str:
    with open(path, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stamp(status: os.stat_result) -> list[int]:
    """Return size, time of the content, time of any change, which nobody can set, and inode."""
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
