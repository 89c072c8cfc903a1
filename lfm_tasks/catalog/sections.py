"""The sections of a catalog together: what ``data_catalog.yaml`` holds, and the catalog that a run works from.

A new section is a field of `CatalogText` whose type is a class of settings, with a default that stands for "not there".

A value of the environment may be a secret. It is refused everywhere but in the keys that are marked with
`FROM_ENVIRONMENT`: those of a new section are refused until somebody marks them.
"""

import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Field, JsonValue, create_model, model_validator

from lfm_tasks.catalog.cluster import AddressCluster, ClusterConfig, LocalCluster, check_scheduler
from lfm_tasks.catalog.comparisons import Comparison, ModelFacts
from lfm_tasks.catalog.datasets import Dataset, Name
from lfm_tasks.catalog.discovery import RefusedModel
from lfm_tasks.catalog.models import Discovery, Model, ModelOnDataset, model_pattern
from lfm_tasks.catalog.names import Problem, did_you_mean
from lfm_tasks.catalog.yaml_tree import Entries, Items, Place
from lfm_tasks.checks import check_classes
from lfm_tasks.config import FROM_ENVIRONMENT, NO_GRAPH, AtlasConfig, PathText, Settings
from lfm_tasks.variables import NOTHING_HIDDEN, HiddenValues

# A field for each check: its key, and its settings by default.
_CHECKS = {key: (kind | None, kind()) for key, kind in check_classes().items()}


class Checks(create_model("Checks", __base__=Settings, **_CHECKS)):  # type: ignore[misc]
    """The checks of an audit; ``null`` switches one off, ``enforced: false`` makes a broken limit a warning."""


class Canary(Settings):
    """A few fixed inputs whose vectors have to stay as the first ones were, row by row."""

    dataset: Name = Field(description="the dataset of these inputs")
    at_least: float = Field(default=0.999, ge=-1, le=1, description="cosine of each row with its first vector")
    norm_within: float | None = Field(
        default=None,
        ge=0,
        description="share by which the length of a row may change; null: how far a row moves at the cosine at_least",
    )
    enforced: bool = True


class AuditConfig(Settings):
    """The checks of ``lfm-atlas audit`` and the folders it writes to; paths are relative to the catalog."""

    path: PathText = Field(default="audits", min_length=1, description="folder of audit.json, the page and the history")
    baseline: PathText = Field(default="baseline", min_length=1, description="folder of the atlas to compare with")
    promote: Literal["on_pass", "never"] = "on_pass"
    checks: Checks = Checks()
    canary: Canary | None = None


class Port(Settings):
    """Two models that should compute the same: ``lfm-atlas parity`` compares them, and so does every audit."""

    reference: str = Field(min_length=1, description="the model that is right")
    candidate: str = Field(min_length=1, description="the port or conversion of it")
    layers: dict[str, str] = Field(default_factory=dict, description="layers of the reference: those of the candidate")
    tolerance: float | None = Field(default=None, ge=0, description="of a row, relative to its largest number")
    dataset: Name | None = Field(default=None, description="the dataset of both, where they are on several")
    enforced: bool = True


class CatalogText(Settings):
    """The keys of ``data_catalog.yaml``."""

    version: Literal[1]
    datasets: Annotated[dict[Name, Dataset], Field(min_length=1)]
    models: dict[Name, Model] = Field(default_factory=dict)
    discover: dict[Name, Discovery] = Field(default_factory=dict)
    defaults: dict[str, JsonValue] = Field(default_factory=dict, repr=False)
    atlas: AtlasConfig = AtlasConfig()
    comparisons: dict[Name, Comparison] = Field(default_factory=dict)
    audit: AuditConfig = AuditConfig()
    parity: dict[Name, Port] = Field(default_factory=dict)
    cluster: ClusterConfig = LocalCluster()
    links: Annotated[tuple[PathText, ...], Field(strict=False)] = Field(
        default=(), description="folders that links may lead into, beside the catalog's own"
    )

    @model_validator(mode="after")
    def _graphs_for_maps(self) -> "CatalogText":
        for name, comparison in self.comparisons.items():
            if self.atlas.graph.landmarks is not None and comparison.maps and comparison.maps.regime != "full":
                raise ValueError(f"comparisons.{name}: {NO_GRAPH.format(comparison.maps.regime)}")
        return self

    @model_validator(mode="after")
    def _canary_of_a_dataset(self) -> "CatalogText":
        canary = self.audit.canary
        if canary is not None and canary.dataset not in self.datasets:
            hint = did_you_mean(canary.dataset, self.datasets)
            raise ValueError(f"audit.canary: got the dataset {canary.dataset!r}, expected one of the catalog{hint}")
        return self

    def port_of(self, reference: str, candidate: str) -> Port | None:
        """Return the entry of two models in the section ``parity``; None if it does not name them."""
        ports = self.parity.values()
        return next((one for one in ports if (one.reference, one.candidate) == (reference, candidate)), None)

    def model_facts(self) -> dict[str, ModelFacts]:
        """Return the facts by which comparisons choose models: the datasets and ``meta`` of each."""
        return {name: ModelFacts(model.datasets, model.meta) for name, model in self.models.items()}


# Comma-separated prefixes of modules whose factories may run without --trust-code.
TRUSTED_MODULES = "LFM_ATLAS_TRUSTED_MODULES"


class Trust(Settings):
    """Which factories may run: all of them (``everything``), or those of ``modules`` and of modules below these."""

    everything: bool = False
    modules: tuple[str, ...] = ()

    def allows(self, factory: str) -> bool:
        """Return whether the factory ``package.module:callable`` may run.

        Examples
        --------
        >>> Trust(modules=("zoo",)).allows("zoo.models:resnet"), Trust(modules=("zoo",)).allows("zoos:resnet")
        (True, False)
        """
        module = factory.partition(":")[0]
        return self.everything or any(module == prefix or module.startswith(f"{prefix}.") for prefix in self.modules)


def read_trust(environment: Mapping[str, str], everything: bool) -> Trust:
    """Return which factories may run: all, or those of the modules that the environment names."""
    prefixes = (prefix.strip() for prefix in environment.get(TRUSTED_MODULES, "").split(","))
    return Trust(everything=everything, modules=tuple(prefix for prefix in prefixes if prefix))


class Catalog(CatalogText):
    """A catalog that was read and checked; ``root`` is the folder of its file, ``file`` the name of it.

    ``models`` holds discovered models, too; ``discovered`` names those of each pattern of ``discover``,
    ``refused_models`` the files that fit one and cannot be models, ``unclaimed`` says of each other folder why no
    section takes it, ``aliases`` says which models are called otherwise than in the file. ``facts_from`` names, for
    each model, the file of its folder that a key of ``meta`` was read from.
    ``trust`` is not in the file: the user who starts a run decides which factories may run. It is part of no key.
    ``hidden`` hides the values of the environment in its paths.
    """

    root: Path
    file: str = "data_catalog.yaml"
    discovered: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    refused_models: tuple[RefusedModel, ...] = ()
    unclaimed: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    facts_from: dict[str, dict[str, str]] = Field(default_factory=dict)
    trust: Trust = Trust()
    hidden: HiddenValues = Field(default=NOTHING_HIDDEN, exclude=True, repr=False)

    @property
    def link_homes(self) -> tuple[Path, ...]:
        """The folders that links may lead into, beside those of the files themselves."""
        return tuple(self.root / str(path) for path in self.links)

    def model_on(self, name: str, dataset: str | None = None) -> ModelOnDataset:
        """Return a model on one of its datasets, which may be left out where it has only one.

        Raises
        ------
        LookupError
            For a model that is not there, a dataset that it is not on, or no dataset although it has several; the
            message names what there is.
        """
        if name not in self.models:
            raise LookupError(f"got no model {name[:100]!r} in the catalog{did_you_mean(name, self.models)}")
        datasets = self.models[name].datasets
        if dataset is None and len(datasets) > 1:
            raise LookupError(f"model {name} has the datasets {_listed(datasets)}. Name one: --dataset {datasets[0]}")
        if dataset is not None and dataset not in datasets:
            found = f"model {name} is not on the dataset {dataset[:100]!r}, it is on {_listed(datasets)}"
            raise LookupError(f"{found}{did_you_mean(dataset, datasets)}")
        return self.models[name].on(dataset or datasets[0])

    def models_on_datasets(self) -> Iterator[tuple[str, ModelOnDataset]]:
        """Yield each model on each of its datasets, with its name."""
        for name, model in self.models.items():
            for on_dataset in model.on_datasets:
                yield name, on_dataset

    def locate(self, path: str) -> Path:
        """Return a path of the catalog on this machine: relative paths start at ``root``."""
        return self.root / path

    def hide_values(self, message: str) -> str:
        """Return a message as it may be published: variables by their names, not by their values."""
        return self.hidden(message)

    def warnings(self) -> list[str]:
        """Return a sentence for each pattern of ``discover`` that nothing fits, and for each folder that none takes."""
        refused = {model.discovery for model in self.refused_models}
        return [
            *self.aliases,
            *self.unclaimed,
            *(
                f"discover.{name}: nothing matches {' or '.join(map(repr, _patterns(discovery)))} yet"
                for name, discovery in self.discover.items()
                if not self.discovered.get(name) and name not in refused
            ),
        ]


def _patterns(discovery: Discovery) -> list[str]:
    return list(dict.fromkeys(model_pattern(source) for source in discovery.sources))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else names[0]


def on_scheduler(catalog: Catalog, scheduler: str) -> Catalog:
    """Return the catalog with another scheduler: an address, or a scheduler file relative to the working directory.

    ValueError if it is neither.

    Parameters
    ----------
    catalog
        The catalog.
    scheduler
        ``tcp://`` or ``tls://`` with host and port, or the path of a scheduler file.

    Raises
    ------
    ValueError
        If ``scheduler`` is neither.
    """
    where = scheduler if "://" in scheduler else str(Path(scheduler).absolute())
    former = catalog.cluster if isinstance(catalog.cluster, AddressCluster) else None
    moved = AddressCluster(type="address", scheduler=check_scheduler(where), tls=former.tls if former else None)
    return catalog.model_copy(update={"cluster": moved})


def keys_of(kind: Any) -> list[str]:
    """Return the keys that a type allows."""
    return [key for model in _models(kind) for key in model.model_fields]


def kinds_of(kind: Any, key: str) -> list[Any]:
    """Return the types that a type allows at one of its keys: several where it is a union."""
    fields = [model.model_fields[key] for model in _models(kind) if key in model.model_fields]
    # Pydantic takes the outermost annotation off a field.
    kinds: list[Any] = [
        Annotated[field.annotation, FROM_ENVIRONMENT] if FROM_ENVIRONMENT in field.metadata else field.annotation
        for field in fields
    ]
    return [*kinds, get_args(kind)[1]] if get_origin(kind) is dict else kinds


def refused_variables(tree: Entries, file: str) -> list[Problem]:
    """Return a problem for each value of the environment whose key does not allow one; only the variable is named."""
    problems = []
    for place in _refused_places(tree, [CatalogText]):
        names = " and ".join(place.variables)
        problem = f"got the variable {names}, expected plain text: what stands here is published, stored or logged"
        advice = "Write it out; variables are for paths, storage and places of the cluster"
        problems.append(Problem(file, place.line, place.where, f"{problem}. {advice}"))
    return problems


def _allows_variables(kind: Any) -> bool:
    if hasattr(kind, "__metadata__"):
        return FROM_ENVIRONMENT in kind.__metadata__ or _allows_variables(kind.__origin__)
    is_union = get_origin(kind) in (Union, types.UnionType)
    return is_union and any(_allows_variables(part) for part in get_args(kind))


def _refused_places(value: object, kinds: Sequence[Any]) -> Iterator[Place]:
    if isinstance(value, Items):
        below = [part for kind in kinds for part in _kinds_of_items(kind)]
        for item, place in zip(value, value.places, strict=True):
            if place.variables and not (below and all(_allows_variables(kind) for kind in below)):
                yield place
            yield from _refused_places(item, below)
    elif isinstance(value, Entries):
        for key, item in value.items():
            place = value.places[key]
            # Of `defaults` that which a model takes over is checked there as well.
            is_defaults = CatalogText in kinds and key == "defaults"
            below = [Model] if is_defaults else [part for kind in kinds for part in kinds_of(kind, key)]
            if place.variables and not (below and all(_allows_variables(kind) for kind in below)):
                yield place
            yield from _refused_places(item, below)


def _kinds_of_items(kind: Any) -> list[Any]:
    """Return the types that a list allows for its items."""
    if get_origin(kind) in (tuple, list):
        return [part for part in get_args(kind) if part is not ...]
    if get_origin(kind) in (Union, types.UnionType) or hasattr(kind, "__metadata__"):
        parts = [kind.__origin__] if hasattr(kind, "__metadata__") else get_args(kind)
        return [item for part in parts for item in _kinds_of_items(part)]
    return []


def _models(kind: Any) -> list[type[BaseModel]]:
    """Return the pydantic classes that a type allows, also those inside unions, annotations and lists, each once."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    if get_origin(kind) is tuple:
        return [model for part in get_args(kind) if part is not ... for model in _models(part)]
    if get_origin(kind) in (Union, types.UnionType) or hasattr(kind, "__metadata__"):
        parts = [kind.__origin__] if hasattr(kind, "__metadata__") else get_args(kind)
        return list(dict.fromkeys(model for part in parts if part is not Literal for model in _models(part)))
    return []
