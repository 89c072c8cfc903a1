"""Names of fitted maps: small files ``maps/<NAME>.json`` in the store that say which unit a name means."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from lfm_tasks.catalog.names import check_name, colliding, did_you_mean
from lfm_tasks.errors import DataError
from lfm_tasks.stores.units.durable import add_checksum, atomic_write, verify_checksum

_VERSION = 2


@dataclass(frozen=True)
class NamedMap:
    """A fitted map by its name: the spaces (``model/layer``) it goes from and to, and the unit that holds it."""

    name: str
    dataset: str
    source: str
    target: str
    regime: str
    n_anchors: int
    key: str


def check_map_name(root: Path, named: NamedMap) -> None:
    """Raise DataError ``bad_name`` for a name that could not be a file's, or that a map of other spaces has."""
    try:
        check_name(named.name)
    except ValueError as error:
        raise DataError("bad_name", f"{error}, or give another with --name") from error
    names = map_names(root)
    if named.name in names:
        before = read_named_map(root, named.name)
        if (before.dataset, before.source, before.target) != (named.dataset, named.source, named.target):
            problem = f"got {named.name!r} as the name of the map {before.source} -> {before.target}"
            raise DataError("bad_name", f"{problem}, expected another one. Give it with --name")
    elif clash := colliding([*names, named.name]).get(named.name):
        problem = f"got the map {clash!r}, whose name differs only by upper and lower case"
        raise DataError("bad_name", f"{problem}, expected another name. Give it with --name")


def write_named_map(root: Path, named: NamedMap) -> None:
    """Write the name; a map of the same spaces that had it before gives way. Raises as `check_map_name`."""
    check_map_name(root, named)
    atomic_write(_path(root, named.name), add_checksum({"version": _VERSION, **asdict(named)}))


def read_named_map(root: Path, name: str) -> NamedMap:
    """Return the map that ``name`` means; DataError ``missing_source`` if there is none, or its file is damaged."""
    names = map_names(root)
    if name not in names:
        hint = did_you_mean(name, names) or "; there are none yet. Fit one with lfm-atlas map"
        raise DataError("missing_source", f"got no map {name[:100]!r} in the store{hint}")
    path = _path(root, name)
    try:
        content = verify_checksum(path.read_bytes())
        if content.pop("version") != _VERSION or content["name"] != name:
            raise ValueError("of another version, or another map's")
        named = NamedMap(**content)
        for field in fields(NamedMap):
            if type(content[field.name]) is not (int if field.name == "n_anchors" else str):
                raise TypeError(f"{field.name} is of another type")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"got a damaged file {path.name} ({type(error).__name__}), expected the one that lfm-atlas map wrote"
        raise DataError("missing_source", f"{problem}. Remove it and fit the map again") from error
    return named


def named_maps(root: Path) -> Iterator[NamedMap]:
    """Yield all maps that have names, in the order of these; raises as `read_named_map`."""
    return (read_named_map(root, name) for name in map_names(root))


def map_names(root: Path) -> list[str]:
    """Return the names of all maps."""
    return sorted(path.stem for path in (root / "maps").glob("*.json"))


def _path(root: Path, name: str) -> Path:
    return root / "maps" / f"{name}.json"
