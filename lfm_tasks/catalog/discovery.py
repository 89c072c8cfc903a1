"""Finds the models that ``discover`` describes: each path that its pattern fits gives one, named by ``{model}``."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

from lfm_tasks.catalog.model import CatalogText, Discovery, Model, RefusedArrival
from lfm_tasks.catalog.names import check_name, shorten


@dataclass(frozen=True)
class Arrivals:
    """What the patterns found: models by name, names by pattern, and what cannot be a model."""

    models: dict[str, Model]
    arrivals: dict[str, tuple[str, ...]]
    refused: tuple[RefusedArrival, ...]


def discover(catalog: CatalogText, root: Path) -> Arrivals:
    """Return what the catalog's patterns find, in the order of names; one bad file never stops the others."""
    models: dict[str, Model] = {}
    arrivals: dict[str, tuple[str, ...]] = {}
    refused: list[RefusedArrival] = []
    taken = {name.casefold(): f"the declared model {name!r}" for name in catalog.models}
    for section, discovery in catalog.discover.items():
        names = []
        for name, path in _matching(discovery, root):
            try:
                _check(name, path, taken, root)
            except (ValueError, OSError) as error:
                refused.append(RefusedArrival(section, discovery.dataset, shorten(name), str(error)))
                continue
            taken[name.casefold()] = f"the model {name!r} of discover.{section}"
            names.append(name)
            models[name] = Model(**{key: getattr(discovery, key) for key in Model.model_fields})
        arrivals[section] = tuple(names)
    return Arrivals(models, arrivals, tuple(refused))


def _check(name: str, path: Path, taken: Mapping[str, str], root: Path) -> None:
    try:
        check_name(name)
    except ValueError as error:
        raise ValueError(f"{error}: rename the file") from error
    if name.casefold() in taken:
        raise ValueError(f"found the name {name!r}, which {taken[name.casefold()]} has: rename the file")
    real, folder = path.resolve(), path.parent.resolve()
    if not (real.is_relative_to(folder) or real.is_relative_to(root.resolve())):
        raise ValueError(
            f"found a link that leads out of {path.parent.name!r} and out of the catalog's folder: copy the file there"
        )


def _matching(discovery: Discovery, root: Path) -> Iterator[tuple[str, Path]]:
    """Yield what ``{model}`` stands for and the path of its level, hidden files apart; nothing where no folder is."""
    parts = PurePath(discovery.pattern.replace("{dataset}", discovery.dataset)).parts
    level = next(index for index, part in enumerate(parts) if "{model}" in part)
    first, *others = [re.escape(text) for text in parts[level].split("{model}")]
    form = re.compile(first + "(?P<model>.+)" + "(?P=model)".join(others), re.DOTALL)
    folder = root.joinpath(*parts[:level])
    try:
        entries = sorted(os.listdir(folder))
    except (OSError, ValueError):
        return
    for entry in entries:
        match = None if entry.startswith(".") else form.fullmatch(entry)
        if match and _is_there(
            folder / entry, [part.replace("{model}", match["model"]) for part in parts[level + 1 :]]
        ):
            yield match["model"], folder / entry


def _is_there(path: Path, below: list[str]) -> bool:
    """Return whether the rest of a pattern is there, as far as it does not depend on the layer."""
    fixed = next((index for index, part in enumerate(below) if "{layer}" in part), len(below))
    whole = path.joinpath(*below[:fixed])
    # A link into nowhere is told, not passed over.
    return path.is_symlink() or (whole.is_dir() if fixed < len(below) else whole.is_file())
