"""What a catalog holds, as frozen values: datasets, models, and the settings of the run."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, JsonValue, Tag, model_validator

from lfm_tasks.catalog.audit import AuditConfig
from lfm_tasks.catalog.cluster import AddressCluster, ClusterConfig, LocalCluster, check_scheduler
from lfm_tasks.catalog.comparisons import Comparison, Member
from lfm_tasks.catalog.names import (
    check_fields,
    check_layer_name,
    check_name,
    check_visible,
    describe,
    did_you_mean,
    fields,
    shorten,
)
from lfm_tasks.config import NO_GRAPH, AtlasConfig, Settings

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


# Comma-separated prefixes of modules whose factories may run without --trust-code.
TRUSTED_MODULES = "LFM_ATLAS_TRUSTED_MODULES"
_FACTORY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*\Z")


class Trust(Settings):
    """``everything``: any factory may run; else those in ``modules``, by their names or below them."""

    everything: bool = False
    modules: tuple[str, ...] = ()

    def covers(self, factory: str) -> bool:
        """Whether ``package.module:callable`` may run.

        Examples
        --------
        >>> Trust(modules=("zoo",)).covers("zoo.models:resnet"), Trust(modules=("zoo",)).covers("zoos:resnet")
        (True, False)
        """
        module = factory.partition(":")[0]
        return self.everything or any(module == prefix or module.startswith(f"{prefix}.") for prefix in self.modules)


def read_trust(environment: Mapping[str, str], everything: bool) -> Trust:
    """Return who is trusted: all, or the modules that the environment names."""
    prefixes = (prefix.strip() for prefix in environment.get(TRUSTED_MODULES, "").split(","))
    return Trust(everything=everything, modules=tuple(prefix for prefix in prefixes if prefix))


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
        found = "found an address with a user or a query, which may hold a secret"
        raise ValueError(f"{found}, needs a plain one: give access by storage:")
    return text


_Text = Annotated[
    str, Field(min_length=1, max_length=4096), AfterValidator(check_visible), AfterValidator(_without_secrets)
]


# Where a model's rows may come from, one of them for each model, and the key that says where that lies.
SOURCES = {"activations": "path", "onnx": "path", "torch": "weights"}


def _with_fields(*allowed: str) -> AfterValidator:
    return AfterValidator(lambda pattern: check_fields(pattern, allowed))


# Names an environment variable, LFM_ATLAS_STORAGE_<NAME>, that holds what gives access; never the access itself.
Storage = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$")]

_DatasetText = Annotated[_Text, _with_fields("dataset")]
_ModelText = Annotated[_Text, _with_fields("model", "dataset")]
_LayerText = Annotated[_Text, _with_fields("model", "layer", "dataset")]


class DatasetFile(Settings):
    """One array in a file; ``key`` names it where a file holds several."""

    path: _DatasetText
    key: _DatasetText | None = None
    storage: Storage | None = None


class ModelFile(Settings):
    """One array in a file that belongs to a model."""

    path: _ModelText
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
    storage: Storage | None = None
    shape: Shape | None = None
    pool: Pooling = "none"
    mask: ModelFile | None = None
    prefix_tokens: int = Field(default=0, ge=0, description="first tokens that mean and max leave out")
    dtype: Dtype | None = None
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


class TorchModel(Settings):
    """A PyTorch network that ``factory`` builds, run on the dataset's inputs; ``weights`` is a .safetensors file."""

    factory: Annotated[_Text, AfterValidator(check_factory)]
    args: dict[str, JsonValue] = Field(default_factory=dict)
    weights: _ModelText | None = None
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
        found = [kind for kind in SOURCES if getattr(self, kind) is not None]
        if len(found) != 1:
            needed = f"needs exactly one of {', '.join(SOURCES)}: where do the rows come from?"
            raise ValueError(f"found {' and '.join(found) or 'no source'}, {needed}")
        if self.head is not None and self.onnx is None:
            raise ValueError(f"found head beside {found[0]}, needs onnx: only an ONNX graph can be cut")
        return self

    @property
    def dataset(self) -> str:
        """The name of the dataset the model is seen through."""
        return next(str(source.dataset) for kind in SOURCES if (source := getattr(self, kind)) is not None)

    @property
    def pool(self) -> str:
        """How its rows are pooled."""
        return next(str(source.pool) for kind in SOURCES if (source := getattr(self, kind)) is not None)


class Discovery(Model):
    """A pattern of paths: each file or folder that ``{model}`` fits becomes a model of that name."""

    @property
    def pattern(self) -> str:
        """The path in which ``{model}`` stands; empty where nothing lies in a file."""
        found = ((getattr(self, kind), key) for kind, key in SOURCES.items())
        return next(getattr(source, key) or "" for source, key in found if source is not None)

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
    audit: AuditConfig = AuditConfig()
    cluster: ClusterConfig = LocalCluster()

    @model_validator(mode="after")
    def _folders_of_their_own(self) -> "CatalogText":
        folders = [self.atlas.path, self.atlas.store, self.audit.path, self.audit.baseline]
        if repeated := sorted({folder for folder in folders if folders.count(folder) > 1}):
            found = f"found {', '.join(repeated)} twice among atlas.path, atlas.store, audit.path and audit.baseline"
            raise ValueError(f"{found}, needs a folder for each: rename one")
        return self

    @model_validator(mode="after")
    def _maps_on_graphs(self) -> "CatalogText":
        for name, comparison in self.comparisons.items():
            if self.atlas.graph.landmarks is not None and comparison.maps and comparison.maps.regime != "full":
                raise ValueError(f"comparisons.{name}: {NO_GRAPH.format(comparison.maps.regime)}")
        return self


class Catalog(CatalogText):
    """A catalog that was read and found right; ``root`` is the folder of its file.

    ``models`` holds what ``discover`` found, too; ``arrivals`` says by which pattern. ``trust`` is not written in the
    file: who runs it says which code of factories may run. It is part of no key.
    """

    root: Path
    arrivals: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    refused: tuple[RefusedArrival, ...] = ()
    trust: Trust = Trust()

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
            f"discover.{name}: nothing matches {found.pattern!r} yet"
            for name, found in self.discover.items()
            if not self.arrivals.get(name) and name not in seen
        ]


def on_scheduler(catalog: Catalog, scheduler: str) -> Catalog:
    """Return the catalog with another scheduler: an address, or a scheduler file relative to the working directory.

    ValueError if it is neither.
    """
    where = scheduler if "://" in scheduler else str(Path(scheduler).absolute())
    former = catalog.cluster if isinstance(catalog.cluster, AddressCluster) else None
    moved = AddressCluster(type="address", scheduler=check_scheduler(where), tls=former.tls if former else None)
    return catalog.model_copy(update={"cluster": moved})
