"""The sections ``models`` and ``discover``: what is compared, and where it lies.

A new kind of source of rows is a class beside `OnnxModel`, a field of `Model` and a row of `SOURCES`; a new key of any
section is a field of its class. Reader, messages, JSON schema and printed catalog follow from the classes.

A `Model` is what the catalog names; a `ModelOnDataset` is that model on one of its datasets, which is what is opened.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Discriminator, Field, JsonValue, Tag, model_validator

from lfm_tasks.catalog.checkpoints import LOADERS, CheckpointModel, Loader
from lfm_tasks.catalog.datasets import (
    ArrayFile,
    LayerText,
    ModelFile,
    ModelIds,
    ModelText,
    PlainText,
    SourceDataset,
    with_fields,
)
from lfm_tasks.catalog.names import check_layer_name, describe, did_you_mean, pattern_fields, shorten
from lfm_tasks.config import FROM_ENVIRONMENT, PathText, Settings

# https://huggingface.co/docs/hub/model-cards#specifying-a-base-model, and copy: the same function in other units.
RELATIONS = ("finetune", "adapter", "quantized", "merge", "copy")


def check_meta(meta: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Return ``meta``; ValueError if ``base_model`` or ``base_model_relation`` cannot be what they are called."""
    base, relation = meta.get("base_model"), meta.get("base_model_relation")
    names = base if isinstance(base, list) else [base]
    if base is not None and (not names or not all(isinstance(name, str) and name for name in names)):
        raise ValueError(f"got {describe(base)} as base_model, expected the name of a model or a list of names")
    if relation is None:
        return meta
    if relation not in RELATIONS:
        known = ", ".join(RELATIONS)
        hint = did_you_mean(relation, RELATIONS) if isinstance(relation, str) else ""
        raise ValueError(f"got {describe(relation)} as base_model_relation, expected one of {known}{hint}")
    if base is None:
        raise ValueError(f"got base_model_relation {relation!r} without base_model. Name the model it came from")
    return meta


_FACTORY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*\Z")


def check_factory(name: str) -> str:
    """Return ``name``; ValueError if it does not have the form ``package.module:callable``."""
    if not _FACTORY.match(name):
        raise ValueError(
            f"got the factory {shorten(name)}, expected package.module:callable, as in my_zoo.models:resnet"
        )
    return name


Pooling = Literal["none", "flatten", "mean", "max", "cls", "last", "cls+mean"]
Shape = Literal["nd", "ntd", "nchw", "nhwc"]
Dtype = Literal["float16", "float32", "float64"]


def _shape_form(value: object) -> str:
    return "<list>" if isinstance(value, list | tuple) else "<word>"


Shapes = Annotated[
    Annotated[Shape, Tag("<word>")]
    | Annotated[tuple[Shape, ...], Field(strict=False, min_length=1, max_length=4), Tag("<list>")],
    Discriminator(_shape_form),
]

# The kinds of source of a model's rows, one for each model.
SOURCES = ("activations", "onnx", "torch", "transformers", "timm", "sentence_transformers")


class ActivationsSource(ArrayFile):
    """Activations on disk: ``{layer}`` stands in ``path`` (a file a layer) or in ``key`` (an array a layer).

    ``{shard}`` in ``path`` stands for files of rows, ``{id}`` in ``path`` or ``key`` for a stimulus each.
    """

    path: Annotated[Annotated[PlainText, with_fields("model", "layer", "dataset", "shard", "id")], FROM_ENVIRONMENT]
    key: LayerText | None = None
    dataset: SourceDataset
    shape: Shapes | None = Field(default=None, description="a list where layers have different numbers of dimensions")
    pool: Pooling = "none"
    mask: ModelFile | None = None
    prefix_tokens: int = Field(default=0, ge=0, description="first tokens that mean and max leave out")
    dtype: Dtype | None = None
    ids: ModelIds | None = None
    not_finite: Literal["refuse", "drop"] = Field(default="refuse", description="drop: rows with NaN are left out")
    repeats: Literal["mean"] | None = Field(default=None, description="mean: several rows of an id become their mean")

    @model_validator(mode="after")
    def _one_layer_field(self) -> "ActivationsSource":
        in_path, in_key = pattern_fields(self.path), pattern_fields(self.key or "")
        for name in ("layer", "id"):
            if name in in_path and name in in_key:
                raise ValueError(f"got {{{name}}} in path and in key, expected it in one of them")
        if "id" in (*in_path, *in_key):
            if self.ids is not None:
                raise ValueError("got {id} and ids, expected one of them: the names in place of {id} are the ids")
            if "shard" in in_path:
                raise ValueError("got {id} and {shard}, expected one of them: a file a stimulus, or many rows a file")
        return self


def _array_form(value: object) -> str:
    return "<word>" if isinstance(value, str) else "<file>"


# An array with a row a point: a file, or a word, which is a key of the file that the dataset's ``inputs`` name.
InputArray = Annotated[
    Annotated[ModelFile, Tag("<file>")] | Annotated[ModelText, Tag("<word>")], Discriminator(_array_form)
]
# By the names of the inputs of a network.
NamedArrays = dict[Annotated[PlainText, Field(max_length=256)], InputArray]


def _size_form(value: object) -> str:
    return "<number>" if isinstance(value, int) else "<list>"


_Pixels = Annotated[int, Field(ge=1, le=16384)]
_Sides = Annotated[tuple[_Pixels, _Pixels], Field(strict=False)]
_Channels = Annotated[tuple[float, float, float], Field(strict=False)]


class Preprocess(Settings):
    """How RGB images become the numbers of an ONNX model: resized, cropped, in [0, 1], minus ``mean``, over ``std``.

    ``size`` is one number or [height, width]; with ``crop``, one number is the shorter side.
    """

    size: Annotated[Annotated[_Pixels, Tag("<number>")] | Annotated[_Sides, Tag("<list>")], Discriminator(_size_form)]
    mean: _Channels = (0.0, 0.0, 0.0)
    std: _Channels = (1.0, 1.0, 1.0)
    layout: Literal["nchw", "nhwc"] | None = Field(default=None, description="by default as the model's input is")
    crop: _Pixels | None = Field(default=None, description="pixels of the square in the center that stays")
    resample: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"

    @model_validator(mode="after")
    def _possible(self) -> "Preprocess":
        sides = self.size if isinstance(self.size, tuple) else (self.size,)
        if self.crop is not None and self.crop > min(sides):
            raise ValueError(f"got crop: {self.crop} of images of {min(sides)}, expected at most that. Raise size")
        if not all(value > 0 for value in self.std):
            raise ValueError(f"got std {list(self.std)}, expected numbers above 0")
        return self


class OnnxModel(Settings):
    """A network in an ONNX file, or in a folder with ``model.onnx``, run on the dataset's inputs."""

    path: Annotated[ModelText, FROM_ENVIRONMENT]
    dataset: SourceDataset
    pool: Pooling = "none"
    inputs: NamedArrays = Field(default_factory=dict, description="arrays by the names of the model's inputs")
    mask: InputArray | None = Field(default=None, description="1 for a token, 0 for padding; or the name of an input")
    batch_size: int | None = Field(default=None, ge=1, description="by default 256; of texts and images 32")
    max_tokens: int | None = Field(default=None, ge=1, description="longer texts are cut; by default the model's own")
    preprocess: Preprocess | None = Field(default=None, description="of images, in place of preprocessor_config.json")


class TorchModel(Settings):
    """A PyTorch network that ``factory`` builds, run on the dataset's inputs; ``weights`` is a .safetensors file."""

    factory: Annotated[PlainText, AfterValidator(check_factory)]
    args: dict[str, JsonValue] = Field(default_factory=dict)
    reads: Annotated[tuple[Annotated[ModelText, FROM_ENVIRONMENT], ...], Field(strict=False)] = ()
    weights: Annotated[ModelText, FROM_ENVIRONMENT] | None = None
    dataset: SourceDataset
    pool: Pooling = "none"
    inputs: NamedArrays = Field(default_factory=dict, description="arrays by the names of the network's arguments")
    mask: InputArray | None = Field(default=None, description="1 for a token, 0 for padding; or the name of an input")
    batch_size: int = Field(default=64, ge=1)
    device: Literal["cpu"] = "cpu"


class HeadCut(Settings):
    """The part of an ONNX model from a recorded ``layer`` to ``output`` (without it: the model's only output)."""

    layer: Annotated[str, AfterValidator(check_layer_name)]
    output: Annotated[str, AfterValidator(check_layer_name)] | None = None


RowSource = ActivationsSource | OnnxModel | TorchModel | CheckpointModel


@dataclass(frozen=True)
class ModelOnDataset:
    """A model on one of its datasets: the ``kind`` and place of its rows, the layers that are compared, its facts."""

    kind: str
    source: RowSource
    layers: tuple[str, ...] = ("*",)
    head: HeadCut | None = None
    meta: Mapping[str, JsonValue] = field(default_factory=dict)

    @property
    def dataset(self) -> str:
        """The name of the dataset whose inputs the model's rows belong to."""
        return self.source.dataset

    @property
    def pool(self) -> str:
        """How the model's activations become rows."""
        return self.source.pool

    @property
    def activations(self) -> ActivationsSource | None:
        """The files of recorded activations; None for a model that is run."""
        return self.source if isinstance(self.source, ActivationsSource) else None

    @property
    def onnx(self) -> OnnxModel | None:
        """The ONNX graph; None for a model of another kind."""
        return self.source if isinstance(self.source, OnnxModel) else None

    @property
    def torch(self) -> TorchModel | None:
        """The PyTorch network; None for a model of another kind."""
        return self.source if isinstance(self.source, TorchModel) else None

    @property
    def checkpoint(self) -> tuple[Loader, CheckpointModel] | None:
        """The library that loads the model's checkpoint, and how; None for a model of another kind."""
        if not isinstance(self.source, CheckpointModel):
            return None
        return next((loader, self.source) for loader in LOADERS if loader == self.kind)


def _source_form(value: object) -> str:
    return "<list>" if isinstance(value, list | tuple) else "<file>"


_Kind = TypeVar("_Kind")
# A model has a source of rows for each of its datasets: one, or a list of them.
OneOrSeveral = Annotated[
    Annotated[_Kind, Tag("<file>")] | Annotated[tuple[_Kind, ...], Field(strict=False, min_length=1), Tag("<list>")],
    Discriminator(_source_form),
]


class Model(Settings):
    """One model of the zoo, the layers that are compared, and facts about it; a list has a source for each dataset."""

    activations: OneOrSeveral[ActivationsSource] | None = None
    onnx: OneOrSeveral[OnnxModel] | None = None
    torch: OneOrSeveral[TorchModel] | None = None
    transformers: OneOrSeveral[CheckpointModel] | None = None
    timm: OneOrSeveral[CheckpointModel] | None = None
    sentence_transformers: OneOrSeveral[CheckpointModel] | None = None
    head: HeadCut | None = None
    layers: Annotated[
        tuple[Annotated[str, AfterValidator(check_layer_name)], ...], Field(strict=False, min_length=1)
    ] = ("*",)
    meta: Annotated[dict[str, JsonValue], AfterValidator(check_meta)] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_source(self) -> "Model":
        kinds = [kind for kind in SOURCES if getattr(self, kind) is not None]
        if len(kinds) != 1:
            needed = f"expected exactly one of {', '.join(SOURCES)}: where do the rows come from?"
            raise ValueError(f"got {' and '.join(kinds) or 'no source'}, {needed}")
        if self.head is not None and self.onnx is None:
            raise ValueError(f"got head beside {kinds[0]}, expected onnx: only an ONNX graph can be cut")
        for dataset in self.datasets:
            if self.datasets.count(dataset) > 1:
                needed = (
                    f"expected each dataset once: a model has one source of rows on a dataset, remove one of {kinds[0]}"
                )
                raise ValueError(f"got the dataset {dataset[:100]!r} {self.datasets.count(dataset)} times, {needed}")
        return self

    @property
    def kind(self) -> str:
        """The kind of its sources, a key of `SOURCES`."""
        return next(kind for kind in SOURCES if getattr(self, kind) is not None)

    @property
    def sources(self) -> tuple[RowSource, ...]:
        """Where its rows come from, a source for each dataset."""
        found = getattr(self, self.kind)
        return found if isinstance(found, tuple) else (found,)

    @property
    def datasets(self) -> tuple[str, ...]:
        """The names of its datasets, in the order of the catalog."""
        return tuple(source.dataset for source in self.sources)

    @property
    def on_datasets(self) -> tuple[ModelOnDataset, ...]:
        """The model on each of its datasets."""
        return tuple(
            ModelOnDataset(self.kind, source, self.layers, self.head, dict(self.meta)) for source in self.sources
        )

    def on(self, dataset: str) -> ModelOnDataset:
        """Return the model on one of its datasets; KeyError if it is not on that."""
        for model in self.on_datasets:
            if model.dataset == dataset:
                return model
        raise KeyError(dataset)

    def with_sources(self, sources: tuple[RowSource, ...]) -> "Model":
        """Return the model with these sources of the same kind: one, or a list of several."""
        return self.model_copy(update={self.kind: sources[0] if len(sources) == 1 else sources})


def _texts_of(value: JsonValue) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts_of(part)


class MlflowRegistry(Settings):
    """A local MLflow registry, whose models a section takes: ``{model}`` in its paths is the folder of a version."""

    registry: PathText = Field(min_length=1, max_length=4096, description="its SQLite file, such as mlflow.db")
    versions: Literal["latest", "all"] = Field(default="latest", description="all: models are called name-v1, name-v2")
    alias: PlainText | None = Field(default=None, description="the versions with this alias, such as champion")

    @model_validator(mode="after")
    def _one_choice(self) -> "MlflowRegistry":
        if self.alias is not None and self.versions == "all":
            raise ValueError("got alias and versions: all, expected one of them")
        if "://" in self.registry:
            raise ValueError("got an address, expected the path of a SQLite file: mlflow.db for sqlite:///mlflow.db")
        return self


class Discovery(Model):
    """A pattern of paths: each file or folder that ``{model}`` fits becomes a model of that name."""

    mlflow: MlflowRegistry | None = Field(default=None, description="take the models of a registry, not of a folder")

    @model_validator(mode="after")
    def _names_models(self) -> "Discovery":
        for source in self.sources:
            _check_names_models(model_pattern(source), source, self.mlflow)
        return self


def model_pattern(source: RowSource) -> str:
    """Return the path in which ``{model}`` stands: of a factory without weights, the first such text in its args."""
    if not isinstance(source, TorchModel):
        return source.path
    return source.weights or next((text for text in _texts_of(source.args) if "{model}" in text), "")


def _check_names_models(path: str, source: RowSource, mlflow: MlflowRegistry | None) -> None:
    """Raise ValueError for a pattern that cannot name models."""
    if "://" in path:
        raise ValueError("got a remote path in discover, expected a folder of this machine. Declare these models")
    with_model = [part for part in PurePath(path).parts if "{model}" in part]
    if not with_model:
        key = "weights or args" if isinstance(source, TorchModel) else "path"
        raise ValueError(f"got no {{model}} in the {key}, expected it: what it stands for names the models")
    if mlflow is not None and PurePath(path).parts[0] != "{model}":
        raise ValueError(f"got {path[:100]!r} beside mlflow, expected {{model}}/...: the folder of a version")
    if "{layer}" in with_model[0]:
        raise ValueError("got {model} and {layer} in one part of the path, expected a folder or file name for each")
