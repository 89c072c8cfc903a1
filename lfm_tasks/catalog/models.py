"""The sections ``datasets``, ``models`` and ``discover``: what is compared, and where it lies.

A new kind of source of rows is a class beside `OnnxModel`, a field of `Model` and a row of `SOURCES`; a new key of any
section is a field of its class. Reader, messages, JSON schema and printed catalog follow from the classes.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, JsonValue, Tag, model_validator

from lfm_tasks.catalog.names import (
    check_fields,
    check_layer_name,
    check_name,
    check_visible,
    describe,
    did_you_mean,
    pattern_fields,
    shorten,
)
from lfm_tasks.config import FROM_ENVIRONMENT, Settings

# https://huggingface.co/docs/hub/model-cards#specifying-a-base-model, and copy: the same function in other units.
RELATIONS = ("finetune", "adapter", "quantized", "merge", "copy")


def check_meta(meta: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Return ``meta``; ValueError if ``base_model`` or ``base_model_relation`` cannot be what they are called."""
    base, relation = meta.get("base_model"), meta.get("base_model_relation")
    names = base if isinstance(base, list) else [base]
    if base is not None and (not names or not all(isinstance(name, str) and name for name in names)):
        raise ValueError(f"found {describe(base)} as base_model, needs the name of a model or a list of names")
    if relation is None:
        return meta
    if relation not in RELATIONS:
        known = ", ".join(RELATIONS)
        hint = did_you_mean(relation, RELATIONS) if isinstance(relation, str) else ""
        raise ValueError(f"found {describe(relation)} as base_model_relation, needs one of {known}{hint}")
    if base is None:
        raise ValueError(f"found base_model_relation {relation!r} without base_model: name the model it came from")
    return meta


_FACTORY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*\Z")


def check_factory(name: str) -> str:
    """Return ``name``; ValueError if it does not have the form ``package.module:callable``."""
    if not _FACTORY.match(name):
        raise ValueError(
            f"found the factory {shorten(name)}, needs package.module:callable, as in my_zoo.models:resnet"
        )
    return name


Pooling = Literal["none", "flatten", "mean", "max", "cls", "last", "cls+mean"]
Shape = Literal["nd", "ntd", "nchw", "nhwc"]
Dtype = Literal["float16", "float32", "float64"]
Name = Annotated[str, AfterValidator(check_name)]


def _without_secrets(text: str) -> str:
    """Return ``text``; ValueError for an address with credentials, which would stand in messages and logs."""
    if re.match(r"[a-z][a-z0-9+.-]*://([^/]*@|[^?]*\?)", text, re.IGNORECASE):
        problem = "found an address with a user or a query, which may hold a secret"
        raise ValueError(f"{problem}, needs a plain one: give access by storage:")
    return text


_Text = Annotated[
    str, Field(min_length=1, max_length=4096), AfterValidator(check_visible), AfterValidator(_without_secrets)
]


# The kinds of source of a model's rows, one for each model, and the key of each that holds its path.
SOURCES = {"activations": "path", "onnx": "path", "torch": "weights"}


def _with_fields(*allowed: str) -> AfterValidator:
    return AfterValidator(lambda pattern: check_fields(pattern, allowed))


# Names an environment variable, LFM_ATLAS_STORAGE_<NAME>, that holds what gives access; never the access itself.
Storage = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$"), FROM_ENVIRONMENT]

_DatasetText = Annotated[_Text, _with_fields("dataset")]
_ModelText = Annotated[_Text, _with_fields("model", "dataset")]
_LayerText = Annotated[_Text, _with_fields("model", "layer", "dataset")]


class DatasetFile(Settings):
    """One array in a file; ``key`` names it where a file holds several."""

    path: Annotated[_DatasetText, FROM_ENVIRONMENT]
    key: _DatasetText | None = None
    storage: Storage | None = None


class ModelFile(Settings):
    """One array in a file that belongs to a model."""

    path: Annotated[_ModelText, FROM_ENVIRONMENT]
    key: _ModelText | None = None
    storage: Storage | None = None


def _written_as(value: object) -> str:
    return "<word>" if isinstance(value, str) else "<file>"


Ids = Annotated[
    Annotated[DatasetFile, Tag("<file>")] | Annotated[Literal["positional"], Tag("<word>")], Discriminator(_written_as)
]


Strata = Annotated[
    Annotated[DatasetFile, Tag("<file>")] | Annotated[Literal["labels"], Tag("<word>")], Discriminator(_written_as)
]


class Dataset(Settings):
    """The inputs that models are compared on: shipped (``builtin``), or named by ``ids``."""

    builtin: Literal["digits"] | None = None
    split: Literal["train", "probe"] | None = None
    ids: Ids | None = None
    labels: DatasetFile | None = None
    inputs: DatasetFile | None = None
    groups: DatasetFile | None = None
    strata: Strata | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> "Dataset":
        if (self.builtin is None) == (self.ids is None):
            which = "neither" if self.builtin is None else "both"
            raise ValueError(f"found {which} of builtin and ids, needs one: ids: {{path: ids.npy}}, or ids: positional")
        if self.builtin is not None and (self.labels or self.inputs):
            raise ValueError("found labels or inputs beside builtin, which brings its own: remove them")
        if self.groups is not None and self.strata is not None:
            raise ValueError("found groups and strata, needs one of them: whole groups move, or rows within strata")
        if self.strata == "labels" and self.builtin is None and self.labels is None:
            raise ValueError("found strata: labels, but no labels: name their file")
        if self.builtin is None and self.split is not None:
            raise ValueError("found split without builtin: remove it, or name the files of that split")
        return self


class ActivationsSource(Settings):
    """Activations on disk: ``{layer}`` stands in ``path`` (a file a layer) or in ``key`` (an array a layer)."""

    path: Annotated[_LayerText, FROM_ENVIRONMENT]
    key: _LayerText | None = None
    dataset: str
    storage: Storage | None = None
    shape: Shape | None = None
    pool: Pooling = "none"
    mask: ModelFile | None = None
    prefix_tokens: int = Field(default=0, ge=0, description="first tokens that mean and max leave out")
    dtype: Dtype | None = None
    ids: ModelFile | None = None

    @model_validator(mode="after")
    def _one_layer_field(self) -> "ActivationsSource":
        if "layer" in pattern_fields(self.path) and "layer" in pattern_fields(self.key or ""):
            raise ValueError("found {layer} in path and in key, needs it in one of them")
        return self


class OnnxModel(Settings):
    """A network that is run on the dataset's inputs."""

    path: Annotated[_ModelText, FROM_ENVIRONMENT]
    dataset: str
    pool: Pooling = "none"


class TorchModel(Settings):
    """A PyTorch network that ``factory`` builds, run on the dataset's inputs; ``weights`` is a .safetensors file."""

    factory: Annotated[_Text, AfterValidator(check_factory)]
    args: dict[str, JsonValue] = Field(default_factory=dict)
    weights: Annotated[_ModelText, FROM_ENVIRONMENT] | None = None
    dataset: str
    pool: Pooling = "none"
    batch_size: int = Field(default=64, ge=1)
    device: Literal["cpu"] = "cpu"


class HeadCut(Settings):
    """The part of an ONNX model from a recorded ``layer`` to ``output`` (without it: the model's only output)."""

    layer: Annotated[str, AfterValidator(check_layer_name)]
    output: Annotated[str, AfterValidator(check_layer_name)] | None = None


class Model(Settings):
    """One model of the zoo, the layers that are compared, and facts about it."""

    activations: ActivationsSource | None = None
    onnx: OnnxModel | None = None
    torch: TorchModel | None = None
    head: HeadCut | None = None
    layers: Annotated[
        tuple[Annotated[str, AfterValidator(check_layer_name)], ...], Field(strict=False, min_length=1)
    ] = ("*",)
    meta: Annotated[dict[str, JsonValue], AfterValidator(check_meta)] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_source(self) -> "Model":
        kinds = [kind for kind in SOURCES if getattr(self, kind) is not None]
        if len(kinds) != 1:
            needed = f"needs exactly one of {', '.join(SOURCES)}: where do the rows come from?"
            raise ValueError(f"found {' and '.join(kinds) or 'no source'}, {needed}")
        if self.head is not None and self.onnx is None:
            raise ValueError(f"found head beside {kinds[0]}, needs onnx: only an ONNX graph can be cut")
        return self

    @property
    def dataset(self) -> str:
        """The name of the dataset whose inputs the model's rows belong to."""
        return next(str(source.dataset) for kind in SOURCES if (source := getattr(self, kind)) is not None)

    @property
    def pool(self) -> str:
        """How the model's activations become rows."""
        return next(str(source.pool) for kind in SOURCES if (source := getattr(self, kind)) is not None)


class Discovery(Model):
    """A pattern of paths: each file or folder that ``{model}`` fits becomes a model of that name."""

    @property
    def pattern(self) -> str:
        """The path in which ``{model}`` stands; empty for a factory without weights."""
        sources = ((getattr(self, kind), key) for kind, key in SOURCES.items())
        return next(getattr(source, key) or "" for source, key in sources if source is not None)

    @model_validator(mode="after")
    def _names_models(self) -> "Discovery":
        path = self.pattern
        if "://" in path:
            raise ValueError("found a remote path in discover, needs a folder of this machine: declare these models")
        with_model = [part for part in PurePath(path).parts if "{model}" in part]
        if not with_model:
            key = "weights" if self.torch else "path"
            raise ValueError(f"found no {{model}} in the {key}, needs it: what it stands for names the models")
        if "{layer}" in with_model[0]:
            raise ValueError("found {model} and {layer} in one part of the path, needs a folder or file name for each")
        return self


@dataclass(frozen=True)
class RefusedModel:
    """A file or folder that a pattern of ``discover`` fits and that cannot be a model; ``name`` is quoted."""

    discovery: str
    dataset: str
    name: str
    message: str


@dataclass(frozen=True)
class DiscoveredModels:
    """The models that fit the patterns of ``discover``: all by name, and which names fit which pattern."""

    models: dict[str, Model]
    names: dict[str, tuple[str, ...]]
    refused: tuple[RefusedModel, ...]


def discover_models(
    discoveries: Mapping[str, Discovery], declared: Mapping[str, Model], root: Path
) -> DiscoveredModels:
    """Return the models in the files that patterns fit, in the order of names; one bad file never stops the others.

    Parameters
    ----------
    discoveries
        The section ``discover``.
    declared
        The section ``models``: names that are taken.
    root
        The folder of the catalog: patterns are relative to it.
    """
    models: dict[str, Model] = {}
    names: dict[str, tuple[str, ...]] = {}
    refused: list[RefusedModel] = []
    taken = {name.casefold(): f"the declared model {name!r}" for name in declared}
    for section, discovery in discoveries.items():
        accepted = []
        for name, path in _matching_paths(discovery, root):
            try:
                _check_discovered(name, path, taken, root)
            except (ValueError, OSError) as error:
                refused.append(RefusedModel(section, discovery.dataset, shorten(name), str(error)))
                continue
            taken[name.casefold()] = f"the model {name!r} of discover.{section}"
            accepted.append(name)
            models[name] = Model(**{key: getattr(discovery, key) for key in Model.model_fields})
        names[section] = tuple(accepted)
    return DiscoveredModels(models, names, tuple(refused))


def _matching_paths(discovery: Discovery, root: Path) -> Iterator[tuple[str, Path]]:
    """Yield the values of ``{model}``, each with the path that ends in its part; hidden files are passed over."""
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
        if match and _exists(folder / entry, [part.replace("{model}", match["model"]) for part in parts[level + 1 :]]):
            yield match["model"], folder / entry


def _exists(path: Path, below: list[str]) -> bool:
    """Return whether the rest of a pattern exists, as far as it does not depend on the layer."""
    fixed = next((index for index, part in enumerate(below) if "{layer}" in part), len(below))
    whole = path.joinpath(*below[:fixed])
    # A dangling link is reported as a refused model, not passed over.
    return path.is_symlink() or (whole.is_dir() if fixed < len(below) else whole.is_file())


def _check_discovered(name: str, path: Path, taken: Mapping[str, str], root: Path) -> None:
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
