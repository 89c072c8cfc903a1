"""Checks that the folders that lfm-atlas writes overlap neither each other nor any source.

`WRITTEN` lists the folders that are written, `_RULES` what no pair of folders may be to each other. Paths are compared
where links lead, and without upper and lower case, so that a catalog means the same on every file system. A new folder
is a row of `WRITTEN`; a new file that a catalog names is found by its class, see `_files_below`.
"""

import os
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Literal

from pydantic import BaseModel

from lfm_tasks.catalog.checkpoints import CheckpointModel
from lfm_tasks.catalog.cluster import Tls
from lfm_tasks.catalog.datasets import DatasetFile, Images, ModelFile, Texts
from lfm_tasks.catalog.models import ActivationsSource, Model, OnnxModel, RowSource, TorchModel
from lfm_tasks.catalog.names import fill_pattern, has_wildcard
from lfm_tasks.catalog.sections import CatalogText
from lfm_tasks.config import AnchorFile

Location = tuple[str, ...]
Relation = Literal["is", "contains", "lies inside"]
# The folders that lfm-atlas writes.
WRITTEN: tuple[Location, ...] = (("atlas", "path"), ("atlas", "store"), ("audit", "path"), ("audit", "baseline"))
# What a written folder must not be to a folder of each kind.
_RULES: Mapping[str, tuple[Relation, ...]] = {
    "another folder that lfm-atlas writes": ("is", "contains", "lies inside"),
    "the folder of the catalog": ("is", "contains"),
    "a source": ("is", "contains", "lies inside"),
}


@dataclass(frozen=True)
class _Place:
    """A folder or file of a catalog: its key, its text, and the parts of its path as they are compared."""

    key: Location
    text: str
    parts: tuple[str, ...]


def folder_problems(catalog: CatalogText, root: Path) -> Iterator[tuple[Location, str]]:
    """Yield a key and a message for each written folder that lies where it must not; ``root``: the catalog's folder."""
    real_folders = lru_cache(maxsize=1024)(os.path.realpath)

    def place_of(key: Location, text: str) -> _Place:
        return _Place(key, f"{text}", _comparable(root / text, real_folders))

    written = [place_of(key, getattr(getattr(catalog, key[0]), key[1])) for key in WRITTEN]
    home = place_of((), "")
    sources = list(_sources(catalog, home, place_of))
    apart: list[_Place] = []
    for place in written:
        name = ".".join(place.key)
        if relation := _forbidden(place, home, "the folder of the catalog"):
            message = f"got {place.text!r}, which {relation} the folder of the catalog, expected a folder of its own"
            yield place.key, f"{message}. Set {name}: {_usual(catalog, place.key)}"
            continue
        for other in apart:
            # At the key that somebody wrote.
            first, second = (other, place) if place.text == _usual(catalog, place.key) else (place, other)
            if relation := _forbidden(first, second, "another folder that lfm-atlas writes"):
                message = f"got {first.text!r}, which {relation} {'.'.join(second.key)} ({second.text!r})"
                yield first.key, f"{message}, expected folders apart from each other. Rename one"
        for source in sources:
            if relation := _forbidden(place, source, "a source"):
                message = f"got {place.text!r}, which {relation} {'.'.join(source.key)} ({source.text!r})"
                yield (
                    place.key,
                    f"{message}, expected a folder without files that the catalog reads. Set another {name}",
                )
                break
        apart.append(place)


def _usual(catalog: CatalogText, key: Location) -> str:
    return str(type(getattr(catalog, key[0])).model_fields[key[1]].default)


def _forbidden(place: _Place, other: _Place, kind: str) -> Relation | None:
    relation = relation_of(place.parts, other.parts)
    return relation if relation in _RULES[kind] else None


def relation_of(first: tuple[str, ...], second: tuple[str, ...]) -> Relation | None:
    """Return how the first path relates to the second (equal, inside, around); None if they are apart.

    Examples
    --------
    >>> relation_of(("/", "zoo"), ("/", "zoo", "atlas")), relation_of(("/", "zoo"), ("/", "zoos"))
    ('contains', None)
    """
    if first == second:
        return "is"
    if second[: len(first)] == first:
        return "contains"
    return "lies inside" if first[: len(second)] == second else None


def _comparable(path: Path, real_folder: Callable[[Path], str]) -> tuple[str, ...]:
    real = Path(real_folder(path.parent), path.name)
    if real.is_symlink() or path.name in ("", "..", "."):
        real = Path(os.path.realpath(path))
    return tuple(unicodedata.normalize("NFC", part).casefold() for part in real.parts)


def _sources(catalog: CatalogText, home: _Place, place_of: Callable[[Location, str], _Place]) -> Iterator[_Place]:
    """Yield all local files that the catalog reads; of a pattern, the folder above its first field."""
    for key, text, is_pattern in _named_files(catalog):
        place = replace(place_of(key, str(_fixed(text))), text=f"{text}")
        # A pattern such as {model}.npz is at home in the catalog's folder, where the atlas lies, too.
        if not (is_pattern and relation_of(home.parts, place.parts) in ("is", "lies inside")):
            yield place


def _fixed(text: str) -> PurePath:
    parts = PurePath(text).parts
    return PurePath(*parts[: next((index for index, part in enumerate(parts) if "{" in part), len(parts))])


def _named_files(catalog: CatalogText) -> Iterator[tuple[Location, str, bool]]:
    """Yield the key and path of each local file that the catalog names, and whether a pattern is left in it."""
    named: list[tuple[Location, object, dict[str, str]]] = [
        (("atlas", "maps"), catalog.atlas.maps, {}),
        (("cluster",), catalog.cluster, {}),
        *((("comparisons", name), comparison, {}) for name, comparison in catalog.comparisons.items()),
        *((("datasets", name), dataset, {"dataset": name}) for name, dataset in catalog.datasets.items()),
        *(
            (("models", name, *key), source, {"model": name, "dataset": source.dataset})
            for name, model in catalog.models.items()
            for key, source in _placed_sources(model)
        ),
        *(
            (("discover", name, *key), source, {"dataset": source.dataset})
            for name, model in catalog.discover.items()
            for key, source in _placed_sources(model)
        ),
    ]
    for key, value, names in named:
        for where, text in _files_below(value, key):
            filled = fill_pattern(text, **names)
            if "://" not in text:
                yield where, filled, "{" in filled


def _placed_sources(model: Model) -> Iterator[tuple[Location, RowSource]]:
    """Yield the keys that lead to each source of a model, and the source."""
    for index, source in enumerate(model.sources):
        yield (f"{model.kind}[{index}]" if len(model.sources) > 1 else model.kind,), source


def _files_below(value: object, key: Location) -> Iterator[tuple[Location, str]]:
    match value:
        case Tls():
            paths = {"ca": value.ca, "cert": value.cert, "key": value.key}
        case CheckpointModel():
            paths = {"path": value.path, "base": value.base, "tokenizer": value.tokenizer}
        case Texts() | Images():
            paths = {"path": _without_wildcards(value.path)}
        case DatasetFile() | ModelFile() | ActivationsSource() | OnnxModel() | AnchorFile():
            paths = {"path": value.path}
        case TorchModel():
            paths = {"weights": value.weights, **{f"reads.{index}": text for index, text in enumerate(value.reads)}}
        case _:
            paths = {}
    yield from (((*key, name), path) for name, path in paths.items() if path is not None)
    if isinstance(value, BaseModel):
        for name, part in value:
            parts = part if isinstance(part, dict) else {"": part}
            for inner, file in parts.items():
                if isinstance(file, BaseModel):
                    yield from _files_below(file, (*key, name, *filter(None, [inner])))


def _without_wildcards(path: str) -> str:
    """Return a glob as a pattern of the files below the folder above its first wildcard."""
    parts = PurePath(path).parts
    fixed = next((index for index, part in enumerate(parts) if has_wildcard(part)), None)
    return path if fixed is None else str(PurePath(*parts[:fixed], "{files}"))
