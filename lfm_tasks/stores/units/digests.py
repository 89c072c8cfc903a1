"""Content addresses: the same ingredients give the same key, on every machine, in every run."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

# Part of every key. Raise it when the meaning of a stored number changes.
CONVENTION = "4"

_BLOCK_BYTES = 1 << 20


def digest(ingredients: Mapping[str, Any]) -> str:
    """Return the SHA-256 of ``ingredients`` as canonical JSON (sorted keys, no NaN), with the convention mixed in."""
    text = json.dumps({"convention": CONVENTION, **ingredients}, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def ids_digest(ids: Shaped[np.ndarray, " points"]) -> str:
    """Return the SHA-256 of an ordered list of ids; lengths are mixed in, so that no two lists collide."""
    encoded = [str(name).encode() for name in ids]
    return hashlib.sha256(b"".join(len(name).to_bytes(8, "little") + name for name in encoded)).hexdigest()


class RowsDigest:
    """The digest of an array that arrives in batches of rows: the same for any batches."""

    def __init__(self, ids: Shaped[np.ndarray, " points"]) -> None:
        self.ids = ids_digest(ids)
        self._hasher = hashlib.sha256(self.ids.encode())
        self._header: str | None = None

    def update(self, rows: Shaped[np.ndarray, "batch features"]) -> None:
        """Mix in the next rows."""
        header = f"{rows.dtype.newbyteorder('<').str}:{rows.shape[1]}"
        if self._header is None:
            self._header = header
            self._hasher.update(header.encode())
        elif header != self._header:
            raise ValueError(f"batches differ: {self._header} first, {header} now; they must be alike")
        little = np.ascontiguousarray(rows, dtype=rows.dtype.newbyteorder("<"))
        data = little.data.cast("B") if little.size else memoryview(b"")
        for start in range(0, len(data), _BLOCK_BYTES):
            self._hasher.update(data[start : start + _BLOCK_BYTES])

    def hexdigest(self) -> str:
        """Return the digest so far."""
        return self._hasher.hexdigest()
