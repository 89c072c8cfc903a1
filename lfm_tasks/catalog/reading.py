"""Reads a catalog and says all that is wrong with it at once, each mistake with its line."""

import os
import re
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from lfm_tasks.catalog.cluster import KINDS
from lfm_tasks.catalog.comparisons import Member, comparison_problems, model_misses
from lfm_tasks.catalog.model import SOURCES, Catalog, CatalogText, Discovery, Model, RefusedArrival, read_trust
from lfm_tasks.catalog.names import CatalogError, Problem, check_name, colliding, describe, did_you_mean, shorten
from lfm_tasks.catalog.yaml_tree import Entries, Items, Place, plain, read_tree


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


# What pydantic adds to a location: which side of a mapping, which branch of a union.
_KINDS = {f"<{name}>": kind for name, kind in KINDS.items()}
_MARKS = ("[key]", "<file>", "<word>", *_KINDS)

_NEEDS = {
    "int": "a whole number",
    "float": "a number",
    "string": "text: put it in quotes",
    "bool": "true or false",
    "model": "a mapping such as {path: ids.npy}",
    "dict": "a mapping",
    "tuple": "a list",
}


def read_catalog(path: Path, environment: Mapping[str, str] | None = None, *, trust_code: bool = False) -> Catalog:
    """Return the catalog in the YAML file at ``path``.

    Variables come from ``environment``, or from the process's own. ``trust_code`` lets every factory run that the
    catalog names; without it only those of the environment's `TRUSTED_MODULES` may.

    Raises
    ------
    CatalogError
        With every mistake at once.
    """
    tree, problems = read_tree(path, environment)
    file = str(path)
    if not isinstance(tree, Entries):
        found = describe(plain(tree))
        raise CatalogError([*problems, Problem(file, 1, "", f"found {found}, needs version, datasets and models")])
    tree = _apply_defaults(_without_private_keys(tree))
    catalog, more = _validate(tree, file)
    # What is already known to be wrong is told once, and so is what only follows from it.
    known = [f"{problem.where}." for problem in problems if problem.where]
    problems += [problem for problem in more if not any(where.startswith(f"{problem.where}.") for where in known)]
    problems += _inconsistencies(tree, file)
    root = path.absolute().parent
    arrived = None if catalog is None else discover(catalog, root)
    if catalog is not None and arrived is not None:
        catalog = catalog.model_copy(update={"models": {**catalog.models, **arrived.models}})
        problems += _comparison_problems(catalog, tree, file)
    if problems or catalog is None or arrived is None:
        raise CatalogError(problems)
    trust = read_trust(os.environ if environment is None else environment, trust_code)
    return Catalog(root=root, arrivals=arrived.arrivals, refused=arrived.refused, trust=trust, **dict(catalog))


def problems_at(path: Path, found: Iterable[tuple[Sequence[int | str], str]]) -> list[Problem]:
    """Return what is wrong at some places of a catalog that was read, with their lines: only later stages can tell."""
    tree, _ = read_tree(path)
    entries = tree if isinstance(tree, Entries) else Entries()
    places = [(_find(entries, location)[0], message) for location, message in found]
    return [Problem(str(path), place.line, place.where, message) for place, message in places]


def _without_private_keys(tree: Entries) -> Entries:
    kept = Entries()
    for key, value in tree.items():
        if not key.startswith(("_", "x-")):
            kept.put(key, value, tree.places[key])
    return kept


def _apply_defaults(tree: Entries) -> Entries:
    """Return ``tree`` with ``defaults`` merged into every model and discovery; what a model says itself wins."""
    defaults = tree.get("defaults")
    if not isinstance(defaults, Entries):
        return tree
    result = Entries()
    for key, value in tree.items():
        merged = value
        if key in ("models", "discover") and isinstance(value, Entries):
            merged = Entries()
            for name, model in value.items():
                merged.put(name, _fill_up(model, _fitting(defaults, model)), value.places[name])
        result.put(key, merged, tree.places[key])
    return result


def _fitting(defaults: Entries, model: object) -> Entries:
    """Return ``defaults`` without the other kind of source than the model's own."""
    own = [source for source in SOURCES if isinstance(model, Entries) and source in model]
    fitting = Entries()
    for key, value in defaults.items():
        if not own or key in own or key not in SOURCES:
            fitting.put(key, value, defaults.places[key])
    return fitting


def _fill_up(value: object, default: object) -> object:
    if not isinstance(value, Entries) or not isinstance(default, Entries):
        return default if value is None and isinstance(default, Entries) else value
    filled = Entries()
    for key in [*value, *(key for key in default if key not in value)]:
        if key not in value:
            filled.put(key, default[key], default.places[key])
        else:
            filled.put(key, _fill_up(value[key], default[key]) if key in default else value[key], value.places[key])
    return filled


def _validate(tree: Entries, file: str) -> tuple[CatalogText | None, list[Problem]]:
    try:
        return CatalogText.model_validate(plain(tree)), []
    except ValidationError as error:
        return None, [_explain(details, tree, file) for details in error.errors(include_url=False)]


def _explain(details: ErrorDetails, tree: Entries, file: str) -> Problem:
    location = [part for part in details["loc"] if part not in _MARKS]
    place, found = _find(tree, location)
    key = str(details["loc"][-1]) if details["loc"] else ""
    kind, context = details["type"], details.get("ctx", {})
    shape, _, ending = kind.rpartition("_")
    match kind:
        case "extra_forbidden":
            message = f"unknown key{did_you_mean(key, _known_keys(details['loc'][:-1]))}"
        case "union_tag_invalid":
            place, found = _find(tree, [*location, "type"])
            message = f"found {describe(found)}, needs {' or '.join(KINDS)}{did_you_mean(str(found), KINDS)}"
        case "missing":
            message = f"{key} is missing: add it"
        case "literal_error":
            known = re.findall(r"'([^']*)'", str(context["expected"]))
            hint = did_you_mean(str(found), known) if isinstance(found, str) and len(known) > 1 else ""
            message = f"found {describe(found)}, needs {context['expected']}{hint}"
        case "value_error":
            message = str(context["error"])
        case "too_short":
            message = f"found {describe(found)}, needs at least one"
        case _ if ending == "type" and shape in _NEEDS:
            message = f"found {describe(found)}, needs {_NEEDS[shape]}"
        case _:
            message = f"found {describe(found)}, needs {_needed(details['msg'])}"
    return Problem(file, place.line, place.where, message)


def _needed(message: str) -> str:
    """Return pydantic's ``message`` as the end of "found x, needs ..."."""
    needed = message.removeprefix("Input should be ").removeprefix("Input should ")
    for words, sign in (("greater than", ">"), ("less than", "<"), ("> or equal to", ">="), ("< or equal to", "<=")):
        needed = needed.replace(words, sign)
    return needed[0].lower() + needed[1:]


def _find(tree: Entries, location: Sequence[int | str]) -> tuple[Place, object]:
    """Return the place and value of ``location``, or of the nearest part of it that was written."""
    place = Place(1, "")
    value: Any = tree
    for part in location:
        if isinstance(value, Entries) and part in value:
            place, value = value.places[str(part)], value[str(part)]
        elif isinstance(value, Items) and isinstance(part, int) and part < len(value):
            place, value = value.places[part], value[part]
        else:
            break
    return place, plain(value)


def _known_keys(location: Sequence[int | str]) -> list[str]:
    """Return the keys that may stand at ``location``, read off the types."""
    kind: Any = CatalogText
    for part in location:
        if str(part) in _KINDS:
            kind = _KINDS[str(part)]
        elif part not in _MARKS:
            kind = next(_parts(kind, str(part)), None)
    return [key for model in _models(kind) for key in model.model_fields]


def _parts(kind: Any, key: str) -> Iterator[Any]:
    for model in _models(kind):
        if key in model.model_fields:
            yield model.model_fields[key].annotation
    if get_origin(kind) is dict:
        yield get_args(kind)[1]


def _models(kind: Any) -> list[type[BaseModel]]:
    """Return the pydantic classes that a type allows, looked for inside unions and annotations."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    if get_origin(kind) in (Union, types.UnionType) or hasattr(kind, "__metadata__"):
        parts = [kind.__origin__] if hasattr(kind, "__metadata__") else get_args(kind)
        return [model for part in parts if part is not Literal for model in _models(part)]
    return []


def _inconsistencies(tree: Entries, file: str) -> list[Problem]:
    """Return what only shows when parts of the catalog are held against each other."""
    problems = []
    if not tree.get("models") and not tree.get("discover"):
        place = tree.places.get("models", Place(1, ""))
        needs = f"found {describe(plain(tree['models']))}, needs at least one" if "models" in tree else ""
        if "models" not in tree or isinstance(tree["models"], Entries):
            problems.append(Problem(file, place.line, place.where, needs or "models is missing: add it"))
    for section in ("datasets", "models", "discover", "comparisons"):
        names = tree.get(section)
        if not isinstance(names, Entries):
            continue
        for name, earlier in colliding(names).items():
            place = names.places[name]
            message = f"differs from {earlier!r} only by upper and lower case, needs another name: rename it"
            problems.append(Problem(file, place.line, place.where, message))
    datasets = tree.get("datasets")
    for section in ("models", "discover"):
        models = tree.get(section)
        if isinstance(datasets, Entries) and isinstance(models, Entries):
            for model in models.values():
                problems += _dataset_problems(model, datasets, file)
    return problems


def _comparison_problems(catalog: CatalogText, tree: Entries, file: str) -> Iterator[Problem]:
    """Yield what comparisons, or pictures, ask for and no model is."""
    members = {name: Member(model.dataset, model.meta) for name, model in catalog.models.items()}
    for name, comparison in catalog.comparisons.items():
        for key, message in comparison_problems(comparison, members):
            place, _ = _find(tree, ["comparisons", name, *([key] if key else [])])
            yield Problem(file, place.line, place.where, message)
    if catalog.atlas.embeddings is not None:
        for message in model_misses(catalog.atlas.embeddings.spaces, members):
            place, _ = _find(tree, ["atlas", "embeddings", "spaces"])
            yield Problem(file, place.line, place.where, message)


def _dataset_problems(model: object, datasets: Entries, file: str) -> Iterator[Problem]:
    for kind in SOURCES:
        source = model.get(kind) if isinstance(model, Entries) else None
        name = source.get("dataset") if isinstance(source, Entries) else None
        if not isinstance(source, Entries) or not isinstance(name, str):
            continue
        place, dataset = source.places["dataset"], datasets.get(name)
        if name not in datasets:
            message = f"the dataset {name[:100]!r} is not declared under datasets{did_you_mean(name, datasets)}"
            yield Problem(file, place.line, place.where, message)
        elif kind != "activations" and isinstance(dataset, Entries) and not {"builtin", "inputs"} & dataset.keys():
            message = f"the dataset {name!r} has no inputs to run the model on: add inputs: {{path: inputs.npy}} to it"
            yield Problem(file, place.line, place.where, message)
