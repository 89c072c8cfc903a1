"""The first vectors of the canary's inputs: in a file of their own, which no later audit overwrites.

The baseline moves on with every audit that passes, and units of the store are pruned. A provider that changes a little
every night would stay within any limit from one night to the next, so its vectors are compared with the first ones.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from lfm_tasks import __version__
from lfm_tasks.errors import DataError
from lfm_tasks.stores.units.durable import atomic_write

FIRST_VECTORS = "canary.json"
_SCHEMA_VERSION = 1
# The file is read whole: a canary is a few inputs (bytes of vectors).
MOST_BYTES = 2**28
_TYPES = ("<f4", "<f8")


@dataclass(frozen=True)
class FirstVectors:
    """The first vectors of a space under one ``meta.version``; ``content`` is the digest of the recording they are of.

    ``since``: the day from which they are, as YYYY-MM-DD, UTC.
    """

    dataset: str
    space: str
    version: Any
    since: str
    content: str
    ids: Shaped[np.ndarray, " points"]
    rows: Float[np.ndarray, "points features"]

    @property
    def key(self) -> tuple[str, str, str]:
        """The dataset, the space, and the version as JSON."""
        return key_of(self.dataset, self.space, self.version)


def key_of(dataset: str, space: str, version: Any) -> tuple[str, str, str]:
    """Return the key that `FirstVectors` of a space have."""
    return dataset, space, json.dumps(version, sort_keys=True, default=str)


Known = Mapping[tuple[str, str, str], FirstVectors]


def read_first_vectors(path: Path) -> Known:
    """Return the first vectors by their keys; none if there is no file.

    Raises
    ------
    DataError
        ``missing_source`` for a file that is damaged, or that no audit wrote.
    """
    if not path.exists():
        return {}
    try:
        found = [_parsed(entry) for entry in json.loads(path.read_bytes())["spaces"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        problem = f"got a file without whole vectors ({type(error).__name__})"
        advice = "Restore it, or accept the current vectors by lfm-atlas audit --promote"
        raise DataError("missing_source", f"{path}: {problem}, expected those that an audit kept. {advice}.") from error
    return {one.key: one for one in found}


def _parsed(entry: Mapping[str, Any]) -> FirstVectors:
    content = base64.b64decode(entry["vectors"], validate=True)
    if hashlib.sha256(content).hexdigest() != entry["sha256"] or entry["type"] not in _TYPES:
        raise ValueError("other bytes")
    rows = np.frombuffer(content, entry["type"]).reshape(entry["shape"])
    ids = np.array(entry["ids"], dtype=str)
    if rows.ndim != 2 or ids.shape != (len(rows),):
        raise ValueError("not an id for each row")
    return FirstVectors(**{name: entry[name] for name in _TEXTS}, ids=ids, rows=rows)


_TEXTS = ("dataset", "space", "version", "since", "content")


def write_first_vectors(path: Path, known: Known) -> None:
    """Write the file, whole.

    Raises
    ------
    DataError
        ``too_large`` for vectors of more than `MOST_BYTES`; the file stays as it is.
    """
    n_bytes = sum(one.rows.nbytes for one in known.values())
    if n_bytes > MOST_BYTES:
        problem = f"got {n_bytes / 1e6:,.0f} MB of vectors to keep, expected {MOST_BYTES / 1e6:,.0f} MB at most"
        raise DataError("too_large", f"{path}: {problem}. Choose a dataset of a few fixed inputs as audit.canary.")
    spaces = [_entry(known[key]) for key in sorted(known)]
    head = {"program": f"lfm-atlas {__version__}", "schema_version": _SCHEMA_VERSION}
    atomic_write(path, (json.dumps({**head, "spaces": spaces}, default=str) + "\n").encode())


def _entry(one: FirstVectors) -> dict[str, Any]:
    content = one.rows.astype(one.rows.dtype.newbyteorder("<"), copy=False).tobytes()
    return {name: getattr(one, name) for name in _TEXTS} | {
        "ids": one.ids.astype(str).tolist(),
        "shape": list(one.rows.shape),
        "type": one.rows.dtype.newbyteorder("<").str,
        "sha256": hashlib.sha256(content).hexdigest(),
        "vectors": base64.b64encode(content).decode(),
    }
