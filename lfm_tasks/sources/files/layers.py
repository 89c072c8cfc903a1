"""Finds the layers of a model: the files, or the arrays in a file, that ``{layer}`` stands for."""

import re
from dataclasses import dataclass
from pathlib import Path

from lfm_tasks.catalog.names import check_layer_name
from lfm_tasks.catalog.patterns import fill
from lfm_tasks.catalog.problems import did_you_mean
from lfm_tasks.reasons import ReasonError
from lfm_tasks.sources.files.formats import find_format, keeps_order, matching_keys
from lfm_tasks.sources.files.paths import is_remote, locate, readable


@dataclass(frozen=True)
class FilePattern:
    """Where the layers of one model lie: ``{layer}`` in ``path`` or in ``key``; relative to ``root``, or remote."""

    root: Path
    path: str
    key: str | None = None
    storage: str | None = None

    def locate(self, path: str | None = None) -> Path:
        """Return where ``path``, or the pattern's own, lies."""
        return locate(self.root, self.path if path is None else path, self.storage)


@dataclass(frozen=True)
class LayerPlace:
    """Where one layer lies; ``name`` is how messages call the file."""

    path: Path
    name: str
    key: str | None


def find_layers(pattern: FilePattern) -> dict[str, LayerPlace]:
    """Return the place of each layer: in the order of the file, or of the names with numbers in numerical order."""
    if "{layer}" in pattern.path:
        names = {layer: fill(pattern.path, layer=layer) for layer in _matching_files(pattern)}
        layers = {layer: LayerPlace(pattern.locate(name), name, pattern.key) for layer, name in names.items()}
    else:
        path = pattern.locate()
        layers = {layer: LayerPlace(path, pattern.path, key) for layer, key in _matching_keys(path, pattern).items()}
    for layer, place in layers.items():
        try:
            check_layer_name(layer)
        except ValueError as error:
            raise ReasonError("unknown_layer", f"{place.name}: {error}") from error
    return layers


def _matching_files(pattern: FilePattern) -> list[str]:
    """Return what ``{layer}`` stands for in the files that are there, numbers inside in numerical order."""
    head, _, rest = pattern.path.partition("{layer}")
    parent, _, before = head.rpartition("/")
    after, _, below = rest.partition("/")
    form = re.compile(f"{re.escape(before)}(.+){re.escape(after)}", re.DOTALL)
    folder = pattern.locate(parent + "/" if parent.endswith(":/") else parent or ".")
    with readable(pattern.path):
        if not folder.is_dir():
            raise ReasonError("missing_source", f"{pattern.path}: no such folder{_nearest_folder(folder)}")
        present = sorted(entry.name for entry in folder.iterdir())
        found = [match[1] for entry in present if (match := form.fullmatch(entry))]
        # A trailing slash would make another address on the web.
        paths = {layer: folder.joinpath(f"{before}{layer}{after}", *filter(None, [below])) for layer in found}
        layers = [layer for layer in found if paths[layer].exists()]
    if not layers:
        wanted = f"{before}{{layer}}{after}"
        raise ReasonError("missing_source", f"{pattern.path}: no file matches{did_you_mean(wanted, present)}")
    for layer in layers:
        _check_inside(paths[layer], folder, pattern)
    find_format(paths[layers[0]], pattern.path)
    return sorted(layers, key=_natural_order)


def _check_inside(path: Path, folder: Path, pattern: FilePattern) -> None:
    """Raise ReasonError for a link that leads elsewhere: nobody wrote the names of files that are found."""
    if is_remote(path):
        return
    real = path.resolve()
    if not any(real.is_relative_to(home.resolve()) for home in (pattern.root, folder)):
        found = f"found the link {path.name!r}, which leads out of the folder"
        needed = "needs files inside: name it in the catalog without {layer}, or copy it"
        raise ReasonError("missing_source", f"{pattern.path}: {found}, {needed}")


def _nearest_folder(folder: Path) -> str:
    if not folder.parent.is_dir():
        return ""
    return did_you_mean(folder.name, (entry.name for entry in folder.parent.iterdir() if entry.is_dir()))


def _natural_order(name: str) -> tuple[tuple[int, str], ...]:
    """Put layer2 before layer10."""
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]{1,18})", name))


def _matching_keys(path: Path, pattern: FilePattern) -> dict[str, str | None]:
    """Return the key of each layer in a file; without ``key``, every array is a layer."""
    wanted = pattern.key or "{layer}"
    if "{layer}" not in wanted:
        find_format(path, pattern.path)
        return {wanted: wanted}
    names = matching_keys(path, pattern.path, wanted)
    if names is None and pattern.key is None:
        return {path.stem: None}
    before, _, after = wanted.partition("{layer}")
    form = re.compile(f"{re.escape(before)}(.+){re.escape(after)}", re.DOTALL)
    found = {match[1]: name for name in names or () if (match := form.fullmatch(name))}
    if not found:
        offer = did_you_mean(wanted, names) if names else "; the file holds no arrays"
        raise ReasonError("missing_source", f"{pattern.path}: no array matches the key {wanted!r}{offer}")
    if not keeps_order(path, pattern.path):
        found = {layer: found[layer] for layer in sorted(found, key=_natural_order)}
    return dict(found)
