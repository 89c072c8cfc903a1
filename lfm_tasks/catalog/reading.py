"""The file of a catalog: read with all its mistakes at once, each with its line; written; described as a schema."""

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import JsonValue
from ruamel.yaml import YAML

from lfm_tasks.catalog.checkpoints import LOADERS, CheckpointModel
from lfm_tasks.catalog.comparisons import comparison_problems, model_misses
from lfm_tasks.catalog.discovery import discover_models
from lfm_tasks.catalog.facts import models_with_facts
from lfm_tasks.catalog.folders import folder_problems
from lfm_tasks.catalog.mistakes import check_sections, find_place
from lfm_tasks.catalog.models import SOURCES, Model
from lfm_tasks.catalog.names import CatalogError, Problem, alias_of, colliding, describe, did_you_mean
from lfm_tasks.catalog.sections import Catalog, CatalogText, read_trust, refused_variables
from lfm_tasks.catalog.yaml_tree import Entries, Items, Place, expanded_texts, read_tree, to_builtins, variables_in
from lfm_tasks.config import Settings
from lfm_tasks.variables import ExpandedText, hidden_values

# From what a catalog says, which may be wrong everywhere, to the keys that lead to mistakes, and messages.
MoreChecks = Callable[[Mapping[str, Any]], Iterable[tuple[Sequence[int | str], str]]]


def read_catalog(
    path: Path,
    environment: Mapping[str, str] | None = None,
    *,
    trust_code: bool = False,
    more: MoreChecks | None = None,
) -> Catalog:
    """Return the catalog in the YAML file at ``path``.

    Parameters
    ----------
    path
        The file.
    environment
        Where variables come from; None: the process's own.
    trust_code
        Lets every factory run that the catalog names; without it only those of the environment's `TRUSTED_MODULES` may.
    more
        Finds mistakes that only later stages know, such as names of measures, so that all are reported together.

    Raises
    ------
    CatalogError
        With every mistake at once.
    """
    tree, problems = read_tree(path, environment)
    file = str(path)
    if not isinstance(tree, Entries):
        message = f"got {describe(to_builtins(tree))}, expected version, datasets and models"
        raise CatalogError([*problems, Problem(file, 1, "", message)])
    tree, aliases = _with_aliases(_apply_defaults(_without_private_keys(tree)))
    reading = check_sections(tree, file)
    unknown = [] if more is None else [_problem_at(tree, file, *one) for one in more(to_builtins(tree))]
    # A key that could not be read is reported once, without the problems that only follow from it.
    reported = [f"{problem.where}." for problem in problems if problem.where]
    invalid = [
        problem for problem in reading.problems if not any(where.startswith(f"{problem.where}.") for where in reported)
    ]
    refused = refused_variables(tree, file)
    at_refused = {(problem.line, problem.where) for problem in refused}
    problems = refused + [problem for problem in problems + invalid if (problem.line, problem.where) not in at_refused]
    others = _inconsistencies(tree, file)
    root = path.absolute().parent
    sections, discovered = reading.sections, None
    origins: dict[str, dict[str, str]] = {}
    if sections is not None:
        homes = [root / str(path) for path in sections.links]
        discovered = discover_models(sections.discover, sections.models, sections.datasets, root, homes)
        models, origins = models_with_facts({**sections.models, **discovered.models}, root)
        models = {name: _with_base_aliases(model, aliases) for name, model in models.items()}
        sections = sections.model_copy(update={"models": models})
        if not reading.removed:
            others += _comparison_problems(sections, tree, file)
            others += [_problem_at(tree, file, key, message) for key, message in folder_problems(sections, root)]
    given = os.environ if environment is None else environment
    variables = {name: given[name] for name in sorted(variables_in(tree)) if given.get(name)}
    known = {*sections.models, *sections.datasets} if sections is not None and not problems else ()
    hidden = hidden_values(variables, expanded_texts(tree), root, known)
    told = [replace(one, message=hidden(one.message)) for one in (*problems, *unknown, *others)]
    if sections is None or discovered is None:
        raise CatalogError(told)
    catalog = Catalog(
        root=root,
        file=path.name,
        discovered=discovered.names,
        refused_models=tuple(replace(one, message=hidden(one.message)) for one in discovered.refused),
        unclaimed=discovered.unclaimed,
        aliases=tuple(
            f"models.{name}: called {alias} here, because names of models are names of files, too"
            for name, alias in aliases.items()
        ),
        facts_from=origins,
        trust=read_trust(given, trust_code),
        hidden=hidden,
        **dict(sections),
    )
    if not told:
        return catalog
    # What is left tells of the sources, unless they are wrong, or how many points are needed.
    is_usable = reading.is_usable and not refused and not others and len(problems) == len(invalid)
    raise CatalogError(told, usable=_without_measures(catalog) if is_usable else None)


def _without_measures(catalog: Catalog) -> Catalog:
    """Return the catalog with the usual measures: those that it names may not exist."""
    comparisons = {
        name: comparison.model_copy(update={"measures": None}) for name, comparison in catalog.comparisons.items()
    }
    atlas = catalog.atlas.model_copy(update={"measures": type(catalog.atlas).model_fields["measures"].default})
    return catalog.model_copy(update={"atlas": atlas, "comparisons": comparisons})


def problems_at(path: Path, messages: Iterable[tuple[Sequence[int | str], str]]) -> list[Problem]:
    """Return the problems that a later stage has with a catalog that was read, each with its line.

    Parameters
    ----------
    path
        The file of the catalog.
    messages
        The keys and indexes that lead to each mistake, and its message.
    """
    tree, _ = read_tree(path)
    entries = tree if isinstance(tree, Entries) else Entries()
    return [_problem_at(entries, str(path), location, message) for location, message in messages]


def _problem_at(tree: Entries, file: str, location: Sequence[int | str], message: str) -> Problem:
    place, _ = find_place(tree, location)
    return Problem(file, place.line, place.where, message)


def _without_private_keys(tree: Entries) -> Entries:
    kept = Entries()
    for key, value in tree.items():
        if not key.startswith(("_", "x-")):
            kept.put(key, value, tree.places[key])
    return kept


def _apply_defaults(tree: Entries) -> Entries:
    """Return ``tree`` with ``defaults`` merged into every model and discovery; the keys of a model win."""
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
    """Return ``defaults`` without other kinds of source than the one that the model names."""
    named = [source for source in SOURCES if isinstance(model, Entries) and source in model]
    fitting = Entries()
    for key, value in defaults.items():
        if not named or key in named or key not in SOURCES:
            fitting.put(key, value, defaults.places[key])
    return fitting


def _fill_up(value: object, default: object) -> object:
    if isinstance(value, Items) and isinstance(default, Entries):
        # A list of sources, one for each dataset: each of them is filled up.
        filled_items = Items()
        filled_items += [_fill_up(item, default) for item in value]
        filled_items.places = value.places
        return filled_items
    if not isinstance(value, Entries) or not isinstance(default, Entries):
        return default if value is None and isinstance(default, Entries) else value
    filled = Entries()
    for key in [*value, *(key for key in default if key not in value)]:
        if key not in value:
            filled.put(key, default[key], default.places[key])
        else:
            filled.put(key, _fill_up(value[key], default[key]) if key in default else value[key], value.places[key])
    return filled


def _with_aliases(tree: Entries) -> tuple[Entries, dict[str, str]]:
    """Return the tree with names such as ``openai/clip-vit`` made names of files, and what each is called now.

    In the paths of such a model ``{model}`` stands for the name as it was written.
    """
    models = tree.get("models")
    if not isinstance(models, Entries) or not any("/" in name for name in models):
        return tree, {}
    renamed, aliases = Entries(), dict[str, str]()
    for name, model in models.items():
        alias = alias_of(name)
        place = models.places[name]
        if alias is None or alias in models or alias in renamed:
            renamed.put(name, model, place)
            continue
        renamed.put(alias, _filled(model, name), place)
        aliases[name] = alias
    result = Entries()
    for key, value in tree.items():
        result.put(key, renamed if key == "models" else value, tree.places[key])
    return result, aliases


def _with_base_aliases(model: Model, aliases: Mapping[str, str]) -> Model:
    """Return a model whose ``base_model`` calls the models of the catalog as they are called here."""
    base = model.meta.get("base_model")
    named = [base] if isinstance(base, str) else base if isinstance(base, list) else []
    if not any(name in aliases for name in named if isinstance(name, str)):
        return model
    bases: list[JsonValue] = [aliases.get(name, name) if isinstance(name, str) else name for name in named]
    return model.model_copy(
        update={"meta": {**model.meta, "base_model": bases if isinstance(base, list) else bases[0]}}
    )


def _filled(value: Any, model: str) -> Any:
    """Return a part of the tree with ``{model}`` filled in everywhere."""
    if isinstance(value, Entries):
        filled = Entries()
        for key, part in value.items():
            filled.put(key, part if key == "meta" else _filled(part, model), value.places[key])
        return filled
    if isinstance(value, Items):
        items = Items()
        items += [_filled(part, model) for part in value]
        items.places = value.places
        return items
    if isinstance(value, ExpandedText):
        return ExpandedText(tuple((used.replace("{model}", model), shown) for used, shown in value.pieces))
    return value.replace("{model}", model) if isinstance(value, str) else value


def _inconsistencies(tree: Entries, file: str) -> list[Problem]:
    """Return the problems between parts of the catalog: names that collide, datasets that are not declared."""
    problems = []
    if not tree.get("models") and not tree.get("discover"):
        place = tree.places.get("models", Place(1, ""))
        needs = f"got {describe(to_builtins(tree['models']))}, expected at least one" if "models" in tree else ""
        if "models" not in tree or isinstance(tree["models"], Entries):
            problems.append(Problem(file, place.line, place.where, needs or "models is missing. Add it"))
    for section in ("datasets", "models", "discover", "comparisons"):
        names = tree.get(section)
        if not isinstance(names, Entries):
            continue
        for name, earlier in colliding(names).items():
            place = names.places[name]
            message = f"differs from {earlier!r} only by upper and lower case, expected another name. Rename it"
            problems.append(Problem(file, place.line, place.where, message))
    datasets = tree.get("datasets")
    for section in ("models", "discover"):
        models = tree.get(section)
        if isinstance(datasets, Entries) and isinstance(models, Entries):
            for model in models.values():
                problems += _dataset_problems(model, datasets, file)
    return problems


def _comparison_problems(catalog: CatalogText, tree: Entries, file: str) -> Iterator[Problem]:
    """Yield the problems of comparisons and embeddings whose globs or ``meta`` fit no model."""
    models = catalog.model_facts()
    for name, comparison in catalog.comparisons.items():
        for key, message in comparison_problems(comparison, models, catalog.atlas.maps):
            place, _ = find_place(tree, ["comparisons", name, *([key] if key else [])])
            yield Problem(file, place.line, place.where, message)
    if catalog.atlas.embeddings is not None:
        for message in model_misses(catalog.atlas.embeddings.spaces, models):
            place, _ = find_place(tree, ["atlas", "embeddings", "spaces"])
            yield Problem(file, place.line, place.where, message)


def _dataset_problems(model: object, datasets: Entries, file: str) -> Iterator[Problem]:
    """Yield the problems of a model whose dataset is not declared, or has no inputs to run the model on."""
    for kind, source in _sources_of(model):
        name = source.get("dataset")
        if not isinstance(name, str):
            continue
        place, dataset = source.places["dataset"], datasets.get(name)
        if name not in datasets:
            message = f"the dataset {name[:100]!r} is not declared under datasets{did_you_mean(name, datasets)}"
            yield Problem(file, place.line, place.where, message)
        elif source.get("inputs") and kind in ("onnx", "torch"):
            continue  # arrays of its own: whether they fit the dataset's rows is known once they are read
        elif isinstance(dataset, Entries) and (message := _unfit_inputs(kind, name, dataset)):
            yield Problem(file, place.line, place.where, message)


def _sources_of(model: object) -> Iterator[tuple[str, Entries]]:
    """Yield the kind of each source of a model of the file, and the source."""
    for kind in SOURCES:
        written = model.get(kind) if isinstance(model, Entries) else None
        for source in written if isinstance(written, Items) else (written,):
            if isinstance(source, Entries):
                yield kind, source


def _unfit_inputs(kind: str, name: str, dataset: Entries) -> str:
    """Return why a model of this kind cannot run on what a dataset holds; "" if it can."""
    has_numbers, has_raw = bool({"builtin", "inputs"} & dataset.keys()), bool({"texts", "images"} & dataset.keys())
    if kind == "activations" or (kind == "onnx" and has_raw):
        return ""  # which of them an ONNX graph takes is known once it is opened
    if kind in LOADERS and not has_raw:
        found = "numbers" if has_numbers else "no inputs"
        needed = "texts or images, which each model prepares by itself"
        return f"the dataset {name!r} holds {found}, expected {needed}. Add texts: {{path: texts.jsonl}} to one"
    if kind not in LOADERS and has_raw:
        raw = "texts" if "texts" in dataset else "images"
        advice = f"Give it a dataset with inputs: {{path: inputs.npy}}, or run a checkpoint by {', '.join(LOADERS)}"
        return f"the dataset {name!r} holds {raw}, which {kind} cannot prepare, expected numbers. {advice}"
    if kind not in LOADERS and not has_numbers:
        return f"the dataset {name!r} has no inputs to run the model on. Add inputs: {{path: inputs.npy}} to it"
    return ""


def catalog_yaml(catalog: Catalog) -> str:
    """Return YAML that `read_catalog` reads as the same models and settings, if it lies in the same folder.

    Settings of the run are written out; of a dataset or a model, what differs from the defaults. ``storage`` stays a
    name: what gives access is never part of a catalog.

    Parameters
    ----------
    catalog
        A catalog that was read and checked.
    """
    sections: dict[str, Any] = {"version": catalog.version}
    if catalog.links:
        sections["links"] = list(catalog.links)
    for name in ("datasets", "models", "comparisons"):
        if section := getattr(catalog, name):
            sections[name] = {
                key: value.model_dump(mode="json", exclude_defaults=True) for key, value in section.items()
            }
    for name in ("atlas", "cluster"):
        sections[name] = _written_out(getattr(catalog, name))
    maps = catalog.atlas.maps
    # A key that does not fit the regime is refused beside it, also with its default value.
    sections["atlas"]["maps"] = {"regime": maps.regime, **maps.model_dump(mode="json", exclude_defaults=True)}
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    # Models keep their order.
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.allow_unicode = True
    yaml.width = 4096
    text = io.StringIO()
    yaml.dump(_escaped({name: value for name, value in sections.items() if value}), text)
    return text.getvalue()


def _written_out(settings: Settings) -> dict[str, Any]:
    """Return all settings; one that is None is left out, unless None switches a default off."""
    fields = type(settings).model_fields
    switched_off = {name: None for name, value in settings if value is None and fields[name].default is not None}
    return settings.model_dump(mode="json", exclude_none=True) | switched_off


def _escaped(value: Any) -> Any:
    """Return ``value`` with every ``${`` written so that it is read as text, not as a variable."""
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    return [_escaped(item) for item in value] if isinstance(value, list) else value


_SCHEMA_VERSION = "https://json-schema.org/draft/2020-12/schema"
_PART_OF_A_MODEL = ("Model", "Discovery", "ActivationsSource", "OnnxModel", "TorchModel", CheckpointModel.__name__)


def catalog_schema() -> dict[str, Any]:
    """Return the JSON schema (2020-12) of ``data_catalog.yaml``.

    It is laxer than `read_catalog` in one point: a model's keys may be missing, because ``defaults`` may bring them.
    """
    schema = CatalogText.model_json_schema()
    for name in _PART_OF_A_MODEL:
        schema["$defs"][name].pop("required", None)
    schema["anyOf"] = [{"required": [key], "properties": {key: {"minProperties": 1}}} for key in ("models", "discover")]
    schema["properties"]["defaults"] = {"$ref": f"#/$defs/{Model.__name__}"}
    schema["patternProperties"] = {"^(x-|_)": {}}
    return {"$schema": _SCHEMA_VERSION, **schema, "title": "Catalog of lfm-atlas"}
