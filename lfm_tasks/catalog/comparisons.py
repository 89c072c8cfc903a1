"""The section ``comparisons``: sources against targets, each chosen by globs or by what ``meta`` says.

A new key of a comparison is a field of `Comparison`; a new way to choose models is a branch of `Side` and of
`chosen_models`, `chosen_spaces` and `model_misses`.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, JsonValue, Tag, model_validator

from lfm_tasks.catalog.names import check_layer_name, describe, did_you_mean, included_and_excluded, matches
from lfm_tasks.config import MapsConfig, Settings, all_different
from lfm_tasks.spaces import Space


class Facets(Settings):
    """Models whose ``meta`` says all of this; a list allows any of its values."""

    meta: Annotated[dict[str, JsonValue], Field(min_length=1)]


def _as_globs(value: object) -> object:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list | tuple):
        needs = 'a glob such as "resnet*", a list of globs, or {meta: {family: text}}'
        raise ValueError(f"got {describe(value)}, expected {needs}")
    return value


Globs = Annotated[
    tuple[Annotated[str, AfterValidator(check_layer_name)], ...],
    Field(strict=False, min_length=1),
    BeforeValidator(_as_globs, json_schema_input_type=str | list[str]),
]
Side = Annotated[
    Annotated[Globs, Tag("<word>")] | Annotated[Facets, Tag("<file>")],
    Discriminator(lambda value: "<file>" if isinstance(value, dict | Facets) else "<word>"),
]


class DrawnAnchors(Settings):
    """How many of the common ids serve as anchors, drawn by ``seed``."""

    count: int = Field(default=10, ge=3)
    seed: int = Field(default=0, ge=0)


class TransferConfig(Settings):
    """The anchors from which the sources of a comparison are mapped into its targets' coordinates."""

    anchors: DrawnAnchors = DrawnAnchors()


def _as_transfer(value: object) -> object:
    if isinstance(value, bool):
        return TransferConfig() if value else None
    if value is not None and not isinstance(value, dict | TransferConfig):
        raise ValueError(f"got {describe(value)}, expected true, false, or {{anchors: {{count: 10, seed: 0}}}}")
    return value


Transfer = Annotated[
    TransferConfig | None, BeforeValidator(_as_transfer, json_schema_input_type=bool | TransferConfig | None)
]


class Comparison(Settings):
    """Sources against targets on one dataset. A glob is of models, or with ``/`` of spaces (model/layer).

    With ``target_dataset`` the targets are on another dataset: no point is in both, so maps are fitted from ``labels``
    or ``unsupervised``.
    """

    sources: Side
    targets: Side
    dataset: str | None = None
    target_dataset: str | None = Field(default=None, description="the dataset of the targets, where it is another one")
    measures: Annotated[tuple[str, ...], Field(strict=False, min_length=1), AfterValidator(all_different)] | None = None
    maps: MapsConfig | None = None
    transfer: Transfer = None

    @model_validator(mode="after")
    def _across_datasets(self) -> "Comparison":
        if self.target_dataset is None:
            return self
        if self.dataset is None:
            raise ValueError("got target_dataset without dataset, expected both. Say on which dataset the sources are")
        if self.target_dataset == self.dataset:
            raise ValueError(f"got {self.dataset[:100]!r} as dataset and as target_dataset. Leave target_dataset out")
        if self.transfer is not None:
            raise ValueError(
                "got transfer beside target_dataset: anchors are points of both, and two datasets share none"
            )
        return self

    @property
    def is_across(self) -> bool:
        """Whether its targets are on another dataset than its sources."""
        return self.target_dataset is not None


# What maps between two datasets may be fitted from: no point is known in both.
WITHOUT_IDS = ("labels", "unsupervised")


@dataclass(frozen=True)
class ModelFacts:
    """The facts by which comparisons choose models, beside their names."""

    datasets: tuple[str, ...]
    meta: Mapping[str, Any]


def comparison_problems(
    comparison: Comparison, models: Mapping[str, ModelFacts], maps: MapsConfig | None = None
) -> Iterator[tuple[str, str]]:
    """Yield (key, message) of each problem with the models of the catalog: a side without any, no single dataset.

    ``maps``: how the catalog fits maps where a comparison does not say.
    """
    regime = (comparison.maps or maps or MapsConfig()).regime
    if comparison.is_across and regime not in WITHOUT_IDS:
        found = f"got maps of the regime {regime}, which needs points of both sides, and two datasets share none"
        yield "maps" if comparison.maps else "", f"{found}. Set maps: {{regime: {' or '.join(WITHOUT_IDS)}}}"
    sides = []
    for key, where in (("dataset", "sources"), ("target_dataset" if comparison.is_across else "dataset", "targets")):
        dataset = getattr(comparison, key)
        candidates = models if dataset is None else _models_on(dataset, models)
        if not candidates and (key, where) != ("dataset", "targets"):
            hint = did_you_mean(dataset, {name for model in models.values() for name in model.datasets})
            yield key, f"no model is on the dataset {dataset[:100]!r}{hint}"
        if candidates:
            sides.append((where, candidates))
    missed = [(key, message) for key, among in sides for message in model_misses(getattr(comparison, key), among)]
    yield from missed
    if missed or comparison.dataset is not None or len(sides) < 2:
        return
    chosen = (name for key, candidates in sides for name in chosen_models(getattr(comparison, key), candidates))
    datasets = sorted({dataset for name in chosen for dataset in models[name].datasets})
    if len(datasets) > 1:
        yield "", f"got models on {', '.join(datasets)}, expected one dataset. Set one, dataset: {datasets[0]}"


def _models_on(dataset: str, models: Mapping[str, ModelFacts]) -> dict[str, ModelFacts]:
    return {name: model for name, model in models.items() if dataset in model.datasets}


def comparison_dataset(comparison: Comparison, models: Mapping[str, ModelFacts]) -> str | None:
    """Return the dataset of the sources of a comparison without problems: named by it, or that of its models."""
    if comparison.dataset is not None:
        return comparison.dataset
    return next((models[name].datasets[0] for name in chosen_models(comparison.sources, models)), None)


def chosen_models(side: tuple[str, ...] | Facets, models: Mapping[str, ModelFacts]) -> list[str]:
    """Return the models that a side of a comparison may choose layers of, in their order."""
    if isinstance(side, Facets):
        return [name for name, model in models.items() if _has(model.meta, side.meta)]
    included, excluded = included_and_excluded(side)
    excluded_models = [pattern for pattern in excluded if "/" not in pattern]
    return [
        name
        for name in models
        if (not included or any(matches(name, pattern.partition("/")[0]) for pattern in included))
        and not any(matches(name, pattern) for pattern in excluded_models)
    ]


def chosen_spaces(
    side: tuple[str, ...] | Facets, spaces: Iterable[Space], models: Mapping[str, ModelFacts]
) -> list[Space]:
    """Return the spaces of one side of a comparison, in their order."""
    chosen = set(chosen_models(side, models))
    of_models = [space for space in spaces if space.model in chosen]
    if isinstance(side, Facets):
        return of_models
    included, excluded = included_and_excluded(side)
    return [
        space
        for space in of_models
        if (not included or any(_matches_space(space, pattern) for pattern in included))
        and not any(_matches_space(space, pattern) for pattern in excluded)
    ]


def layer_misses(
    side: tuple[str, ...] | Facets,
    spaces: Collection[Space],
    unopened: Collection[str],
    models: Mapping[str, ModelFacts],
) -> Iterator[str]:
    """Yield a sentence for globs of model/layer of a side that match none of the spaces of its dataset.

    The layers of ``unopened`` models are not known; the failures of these are reported where they are opened.
    """
    if not isinstance(side, Facets):
        yield from space_misses(side, spaces, unopened, models)


def space_misses(
    globs: tuple[str, ...], spaces: Collection[Space], unopened: Collection[str], models: Mapping[str, ModelFacts]
) -> Iterator[str]:
    """Yield a sentence for each glob of model/layer that matches none of the spaces, or if none is left."""
    names = [space.name for space in spaces]
    unknown = [
        pattern
        for pattern in included_and_excluded(globs)[0]
        if "/" in pattern and not any(matches(name, pattern) for name in names)
        if not any(matches(name, pattern.partition("/")[0]) for name in unopened)
    ]
    for pattern in unknown:
        yield f"no space matches {pattern[:100]!r}{did_you_mean(pattern, names)}"
    if not (unknown or chosen_spaces(globs, spaces, models) or set(chosen_models(globs, models)) & set(unopened)):
        yield f"of {len(names)} spaces none is left. Remove a pattern with !"


def unrequested_globs(
    globs: tuple[str, ...], spaces: Collection[Space], requested: Collection[Space], models: Mapping[str, ModelFacts]
) -> Iterator[str]:
    """Yield a sentence for each glob that matches spaces, but none that a comparison requests."""
    for pattern in included_and_excluded(globs)[0]:
        matching = chosen_spaces((pattern,), spaces, models)
        if matching and not any(space in requested for space in matching):
            problem = f"{pattern[:100]!r} matches {len(matching)} spaces, and no comparison asks for any of them"
            yield f"{problem}. Name them in a comparison, or remove it"


def model_misses(side: tuple[str, ...] | Facets, models: Mapping[str, ModelFacts]) -> Iterator[str]:
    """Yield a sentence for what no model fits: a glob, a value of ``meta``, or the side as a whole."""
    if isinstance(side, Facets):
        if not chosen_models(side, models):
            yield _facet_miss(side, models)
        return
    included, _ = included_and_excluded(side)
    for pattern in included:
        model = pattern.partition("/")[0]
        if not any(matches(name, model) for name in models):
            yield f"no model matches {model[:100]!r}{did_you_mean(model, models)}"
            return
    if not chosen_models(side, models):
        yield f"of {len(models)} models none is left. Remove a pattern with !"


def _facet_miss(side: Facets, models: Mapping[str, ModelFacts]) -> str:
    for key, value in side.meta.items():
        values = [model.meta[key] for model in models.values() if key in model.meta]
        if not values:
            keys = {known for model in models.values() for known in model.meta}
            return f"no model has {key[:100]!r} in its meta{did_you_mean(key, keys) if keys else '; none has any meta'}"
        if not any(_fits(value, actual) for actual in values):
            hint = did_you_mean(str(value), {str(part) for actual in values for part in _as_list(actual)})
            return f"no model has {key[:100]}: {describe(value)} in its meta{hint}"
    return f"no model has all of {', '.join(key[:100] for key in side.meta)} as wanted in its meta: ask for less"


def _matches_space(space: Space, pattern: str) -> bool:
    return matches(space.name if "/" in pattern else space.model, pattern)


def _has(meta: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(key in meta and _fits(value, meta[key]) for key, value in wanted.items())


def _fits(wanted: Any, actual: Any) -> bool:
    """Return whether one of the wanted values is an actual value of a model; true is not 1."""
    return any(
        a == b and isinstance(a, bool) == isinstance(b, bool) for a in _as_list(wanted) for b in _as_list(actual)
    )


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
