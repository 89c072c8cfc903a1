"""What a catalog holds, as frozen values: datasets, models, and the settings of the run."""

from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, JsonValue, Tag, model_validator

from lfm_tasks.catalog.comparisons import Comparison, Member
from lfm_tasks.catalog.meta import check_meta
from lfm_tasks.catalog.names import check_layer_name, check_name, check_visible
from lfm_tasks.catalog.patterns import check_fields, fields
from lfm_tasks.config import AtlasConfig, ClusterConfig, Settings

Pooling = Literal["none", "flatten", "mean", "max", "cls", "last"]
Name = Annotated[str, AfterValidator(check_name)]
_Text = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(check_visible)]


def _with_fields(*allowed: str) -> AfterValidator:
    return AfterValidator(lambda pattern: check_fields(pattern, allowed))


_DatasetText = Annotated[_Text, _with_fields("dataset")]
_ModelText = Annotated[_Text, _with_fields("model", "dataset")]
_LayerText = Annotated[_Text, _with_fields("model", "layer", "dataset")]


class DatasetFile(Settings):
    """One array in a file; ``key`` names it where a file holds several."""

    path: _DatasetText
    key: _DatasetText | None = None


class ModelFile(Settings):
    """One array in a file that belongs to a model."""

    path: _ModelText
    key: _ModelText | None = None


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
            found = "neither" if self.builtin is None else "both"
            raise ValueError(f"found {found} of builtin and ids, needs one: ids: {{path: ids.npy}}, or ids: positional")
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

    path: _LayerText
    key: _LayerText | None = None
    dataset: str
    pool: Pooling = "none"
    ids: ModelFile | None = None

    @model_validator(mode="after")
    def _one_layer_field(self) -> "ActivationsSource":
        if "layer" in fields(self.path) and "layer" in fields(self.key or ""):
            raise ValueError("found {layer} in path and in key, needs it in one of them")
        return self


class OnnxModel(Settings):
    """A network that is run on the dataset's inputs."""

    path: _ModelText
    dataset: str
    pool: Pooling = "none"


class Model(Settings):
    """One model of the zoo, the layers that are compared, and facts about it."""

    activations: ActivationsSource | None = None
    onnx: OnnxModel | None = None
    layers: Annotated[
        tuple[Annotated[str, AfterValidator(check_layer_name)], ...], Field(strict=False, min_length=1)
    ] = ("*",)
    meta: Annotated[dict[str, JsonValue], AfterValidator(check_meta)] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_source(self) -> "Model":
        if (self.activations is None) == (self.onnx is None):
            found = "neither" if self.onnx is None else "both"
            raise ValueError(f"found {found} of activations and onnx, needs exactly one: where do the rows come from?")
        return self

    @property
    def dataset(self) -> str:
        """The name of the dataset the model is seen through."""
        source = self.activations or self.onnx
        if source is None:
            raise TypeError("a model has activations or onnx")  # unreachable: _one_source
        return source.dataset


class Discovery(Model):
    """A pattern of paths: each file or folder that ``{model}`` fits becomes a model of that name."""

    @model_validator(mode="after")
    def _names_models(self) -> "Discovery":
        source = self.activations or self.onnx
        path = "" if source is None else source.path
        if "://" in path:
            raise ValueError("found a remote path in discover, needs a folder of this machine: declare these models")
        with_model = [part for part in PurePath(path).parts if "{model}" in part]
        if not with_model:
            raise ValueError("found no {model} in the path, needs it: what it stands for names the models")
        if "{layer}" in with_model[0]:
            raise ValueError("found {model} and {layer} in one part of the path, needs a folder or file name for each")
        return self


@dataclass(frozen=True)
class RefusedArrival:
    """A file or folder that ``discover`` found and that cannot be a model."""

    discovery: str
    dataset: str
    found: str
    message: str


class CatalogText(Settings):
    """The keys of ``data_catalog.yaml``."""

    version: Literal[1]
    datasets: Annotated[dict[Name, Dataset], Field(min_length=1)]
    models: dict[Name, Model] = Field(default_factory=dict)
    discover: dict[Name, Discovery] = Field(default_factory=dict)
    defaults: dict[str, JsonValue] = Field(default_factory=dict)
    atlas: AtlasConfig = AtlasConfig()
    comparisons: dict[Name, Comparison] = Field(default_factory=dict)
    cluster: ClusterConfig = ClusterConfig()


class Catalog(CatalogText):
    """A catalog that was read and found right; ``root`` is the folder of its file.

    ``models`` holds what ``discover`` found, too; ``arrivals`` says by which pattern.
    """

    root: Path
    arrivals: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    refused: tuple[RefusedArrival, ...] = ()

    def locate(self, path: str) -> Path:
        """Return a path of the catalog as it is on this machine: relative ones start at ``root``."""
        return self.root / path

    def members(self) -> dict[str, Member]:
        """Return what comparisons choose models by."""
        return {name: Member(model.dataset, model.meta) for name, model in self.models.items()}

    def warnings(self) -> list[str]:
        """Return a sentence for each pattern of ``discover`` that nothing fits."""
        seen = {refused.discovery for refused in self.refused}
        return [
            f"discover.{name}: nothing matches {(found.activations or found.onnx).path!r} yet"  # type: ignore[union-attr]
            for name, found in self.discover.items()
            if not self.arrivals.get(name) and name not in seen
        ]
