"""Facts about a model from its checkpoint folder (base model, license, task), where the catalog has none.

A model card (``README.md``) goes before ``adapter_config.json``, ``MLmodel`` and ``config.json``. Facts never stop a
run: a damaged file tells nothing.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any

from pydantic import JsonValue
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from lfm_tasks.catalog.checkpoints import CheckpointModel
from lfm_tasks.catalog.models import Model, check_meta
from lfm_tasks.catalog.names import fill_pattern

_MAX_BYTES = 1 << 20
_MAX_TEXT = 200
# https://huggingface.co/docs/hub/model-cards#model-card-metadata
_CARD = {"base_model": "base_model", "base_model_relation": "base_model_relation", "pipeline_tag": "task"}
Fact = tuple[str, JsonValue]


def folder_facts(folder: Path) -> dict[str, tuple[JsonValue, str]]:
    """Return facts by the key of ``meta``, each with the name of the file that says so.

    Keys are ``base_model`` (a name or a list of names), ``base_model_relation``, ``license``, ``task`` and
    ``architecture``, as far as the files tell. Nothing is raised for what lies in ``folder``.
    """
    facts: dict[str, tuple[JsonValue, str]] = {}
    for file, read in _READERS.items():
        # MLflow lays the checkpoint into a folder below its own file.
        text = _content(folder, file) or (_content(folder.parent, file) if file == "MLmodel" else "")
        for key, value in _checked(dict(read(text, folder))):
            facts.setdefault(key, (value, file))
    if "base_model" not in facts:
        facts.pop("base_model_relation", None)
    return facts


def models_with_facts(models: Mapping[str, Model], root: Path) -> tuple[dict[str, Model], dict[str, dict[str, str]]]:
    """Return models whose ``meta`` says what their folders say, where the catalog is silent; and which file says it.

    A base that is a model of the catalog is called by its name there.

    Parameters
    ----------
    models
        All models by name.
    root
        The folder of the catalog.
    """
    known, origins = dict(models), dict[str, dict[str, str]]()
    for name, model in models.items():
        # On each dataset the same checkpoint is run, from wherever its copy lies.
        source = model.sources[0]
        if not isinstance(source, CheckpointModel):
            continue
        facts = folder_facts(root / fill_pattern(source.path, model=name, dataset=source.dataset))
        if "base_model" in model.meta:
            facts.pop("base_model_relation", None)
        new = {key: fact for key, fact in facts.items() if key not in model.meta}
        if "base_model" in new:
            value, file = new["base_model"]
            new["base_model"] = (_named_here(value, name, models), file)
        if new:
            meta = {**{key: value for key, (value, _) in new.items()}, **model.meta}
            known[name] = model.model_copy(update={"meta": meta})
            origins[name] = {key: file for key, (_, file) in new.items()}
    return known, origins


def _named_here(base: JsonValue, model: str, models: Mapping[str, Model]) -> JsonValue:
    """Return a base, or each of several, by its name in the catalog, if its last part is one."""
    if isinstance(base, list):
        return [_named_here(one, model, models) for one in base]
    last = PurePath(str(base)).name
    return last if last in models and last != model else base


def _checked(facts: Mapping[str, Any]) -> Iterator[Fact]:
    """Yield the facts that ``meta`` of a catalog may hold: texts, and lists of texts as base models."""
    usable = {key: value for key, value in facts.items() if _is_text(value)}
    bases = facts.get("base_model")
    if isinstance(bases, list) and bases and all(_is_text(one) for one in bases):
        usable["base_model"] = bases if len(bases) > 1 else bases[0]
    try:
        check_meta(usable)
    except ValueError:
        usable.pop("base_model_relation", None)
    yield from usable.items()


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_TEXT and value.isprintable()


def _content(folder: Path, file: str) -> str:
    """Return the text of a file; empty if it is not there, no text, or longer than any description."""
    try:
        with (folder / file).open("rb") as opened:
            content = opened.read(_MAX_BYTES + 1)
        return content.decode("utf-8-sig") if len(content) <= _MAX_BYTES else ""
    except (OSError, ValueError):
        return ""


def _card(text: str, _folder: Path) -> Iterator[Fact]:
    first, _, rest = text.replace("\r\n", "\n").partition("\n")
    front, end, _ = f"{rest}\n".partition("\n---\n")
    if first.rstrip() != "---" or not end:
        return
    settings = _yaml(_entries(front, (*_CARD, "license", "license_name")))
    yield from ((ours, settings[theirs]) for theirs, ours in _CARD.items() if theirs in settings)
    license_name = settings.get("license")
    yield "license", settings.get("license_name", license_name) if license_name == "other" else license_name


def _entries(yaml: str, keys: Collection[str]) -> str:
    """Return the lines of some keys of a mapping: cards list their results in thousands of lines."""
    lines, is_kept = [], False
    for line in yaml.splitlines(keepends=True):
        if line[:1].isalpha() or line[:1] in "\"'_":
            is_kept = line.partition(":")[0].strip(" \"'") in keys
        if is_kept:
            lines.append(line)
    return "".join(lines)


def _adapter(text: str, _folder: Path) -> Iterator[Fact]:
    base = _json(text).get("base_model_name_or_path")
    # A path of the machine where the adapter was trained says no more than its last part.
    yield "base_model", PurePath(base).name if isinstance(base, str) and PurePath(base).is_absolute() else base
    yield "base_model_relation", "adapter" if base else None


def _mlflow(text: str, _folder: Path) -> Iterator[Fact]:
    flavors = _yaml(text).get("flavors")
    for flavor in flavors.values() if isinstance(flavors, dict) else ():
        if isinstance(flavor, dict):
            yield from ((ours, flavor[theirs]) for theirs, ours in _MLFLOW.items() if theirs in flavor)


# Of a flavor: https://mlflow.org/docs/latest/ml/model
_MLFLOW = {"source_model_name": "base_model", "task": "task"}


def _config(text: str, folder: Path) -> Iterator[Fact]:
    settings = _json(text)
    architectures = settings.get("architectures")
    named = architectures[0] if isinstance(architectures, list) and architectures else settings.get("architecture")
    yield "architecture", named
    origin = settings.get("_name_or_path")
    # Older versions of transformers write where a model was loaded from: its base, itself, or a path of no meaning.
    if isinstance(origin, str) and origin.count("/") <= 1 and not origin.startswith((".", "/", "~")):
        yield "base_model", origin if PurePath(origin).name != folder.name else None


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _yaml(text: str) -> dict[str, Any]:
    if not text or "\n%" in f"\n{text}":
        return {}  # a directive would stay in force for the next file
    try:
        value = _parser().load(text)
    except (YAMLError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


@lru_cache(maxsize=1)
def _parser() -> YAML:
    # To make one takes as long as to read a card.
    return YAML(typ="safe", pure=True)


# The first file that says something is believed.
_READERS = {"README.md": _card, "adapter_config.json": _adapter, "MLmodel": _mlflow, "config.json": _config}
