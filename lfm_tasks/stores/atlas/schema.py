"""Versions of the published atlas: what an older one lacks is filled in, a newer one is refused."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

# 3: meta as coordinates, `content` and `basis` of every space. Raise it when something is added; what is there stays.
SCHEMA_VERSION = 3
OLDEST_READ = 2
_LONGEST_NAME = 64  # of a coordinate, which is a file name


class AtlasError(ValueError):
    """An atlas that cannot be used, or does not hold what was asked; the message says what was found and what to do."""


def check_version(found: object) -> None:
    """Raise `AtlasError` unless an atlas of this schema version can be read."""
    if not isinstance(found, int) or found < OLDEST_READ:
        raise AtlasError(
            f"found an atlas of schema version {found!r:.20}, needs {OLDEST_READ} to {SCHEMA_VERSION}: run lfm-atlas "
            "run to publish it anew, nothing that the store holds is computed again"
        )
    if found > SCHEMA_VERSION:
        raise AtlasError(
            f"found an atlas of schema version {found}, needs {OLDEST_READ} to {SCHEMA_VERSION}: it is from a later "
            "lfm-atlas, install that one"
        )


def filled(atlas: xr.Dataset, summary: Mapping[str, Any]) -> xr.Dataset:
    """Return the scores of an atlas of any version that is read, as the present version lays them out."""
    check_version(atlas.attrs.get("schema_version"))
    if atlas.attrs["schema_version"] == SCHEMA_VERSION:
        return atlas
    empty = np.full(atlas["n_points"].shape, "", dtype=object)
    atlas = atlas.assign(dict.fromkeys(("content", "basis"), (("dataset", "source"), empty)))
    meta = {entry["name"]: entry["meta"] for entry in summary["models"]}
    for side in ("source", "target"):
        atlas = atlas.assign_coords(meta_coordinates(side, list(atlas[f"{side}_model"].values), meta))
    return atlas.assign_attrs(schema_version=SCHEMA_VERSION)


def meta_coordinates(side: str, models: Sequence[str], meta: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return ``source_meta_family``, ...: what the catalog says of the model of each space, as text.

    Single values only, no lists or mappings: words as they are, others as in JSON, "" where there is none. The name is
    the key with ``_`` for whatever is no letter, digit or ``_``; the key itself is the coordinate's ``long_name``.
    """
    keys = sorted({key for model in set(models) for key, value in meta.get(model, {}).items() if _is_single(value)})
    names: dict[str, str] = {}
    for key in keys:
        stem = name = re.sub(r"[^A-Za-z0-9_]", "_", key)[:_LONGEST_NAME]
        number = 1
        # Files of two arrays must not be one file where case does not count.
        while name.casefold() in (taken.casefold() for taken in names.values()):
            number += 1
            name = f"{stem}_{number}"
        names[key] = name
    return {
        f"{side}_meta_{name}": (
            side,
            np.array([_text(meta.get(model, {}).get(key)) for model in models], dtype=object),
            {"long_name": key},
        )
        for key, name in names.items()
    }


def _is_single(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)


def _text(value: Any) -> str:
    if not _is_single(value):
        return ""
    return value if isinstance(value, str) else json.dumps(value)


ZARR = "atlas.zarr"


@dataclass(frozen=True)
class Manifest:
    """What an atlas was published with: its key, and of every file by name ``sha256`` and ``bytes``."""

    key: str
    files: Mapping[str, Mapping[str, Any]]


class AtlasStore(LocalStore):
    """Gives the files of that atlas and no others: one that was published since is not read in its place.

    An atlas is replaced while people have it open. Without this, what they read later would be arrays of the next one,
    or, where that has no such chunk, Zarr's fill value.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        super().__init__(folder / ZARR, read_only=True)
        self._files = manifest.files

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return a file's bytes, None where the atlas has no such file; `AtlasError` if it is not as published."""
        expected = self._files.get(f"{ZARR}/{key}")
        if expected is None:
            return None
        # Whole, whatever part is asked for: only the whole can be checked.
        found = await super().get(key, prototype)
        if found is None or hashlib.sha256(found.to_bytes()).hexdigest() != expected["sha256"]:
            changed = f"{self.root.parent}: found another file {ZARR}/{key} than when the atlas was opened"
            raise AtlasError(f"{changed}, it was published again or damaged since: open it again")
        return found if byte_range is None else await super().get(key, prototype, byte_range)
