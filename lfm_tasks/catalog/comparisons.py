"""Comparisons: named parts of the zoo, sources against targets, chosen by glob or by what ``meta`` says."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, JsonValue, Tag

from lfm_tasks.catalog.names import check_layer_name, describe, did_you_mean, matches
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
        raise ValueError(f"found {describe(value)}, needs {needs}")
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
    """How many of the common ids are taken as known, drawn by ``seed``."""

    count: int = Field(default=10, ge=3)
    seed: int = Field(default=0, ge=0)


class TransferConfig(Settings):
    """From what the sources of a comparison are carried into its targets' coordinates."""

    anchors: DrawnAnchors = DrawnAnchors()


def _as_transfer(value: object) -> object:
    if isinstance(value, bool):
        return TransferConfig() if value else None
    if value is not None and not isinstance(value, dict | TransferConfig):
        raise ValueError(f"found {describe(value)}, needs true, false, or {{anchors: {{count: 10, seed: 0}}}}")
    return value


Transfer = Annotated[
    TransferConfig | None, BeforeValidator(_as_transfer, json_schema_input_type=bool | TransferConfig | None)
]


class Comparison(Settings):
    """Sources against targets on one dataset. A glob is of models, or with ``/`` of spaces (model/layer)."""

    sources: Side
    targets: Side
    dataset: str | None = None
    measures: Annotated[tuple[str, ...], Field(strict=False, min_length=1), AfterValidator(all_different)] | None = None
    maps: MapsConfig | None = None
    transfer: Transfer = None


@dataclass(frozen=True)
class Member:
    """What comparisons choose a model by, beside its name."""

    dataset: str | None
    meta: Mapping[str, Any]


def comparison_problems(comparison: Comparison, members: Mapping[str, Member]) -> Iterator[tuple[str, str]]:
    """Yield (key, message) of what does not fit the models that there are: a side without any, no single dataset."""
    known = members
    if comparison.dataset is not None:
        known = {name: member for name, member in members.items() if member.dataset == comparison.dataset}
        if not known:
            offer = did_you_mean(comparison.dataset, {member.dataset for member in members.values() if member.dataset})
            yield "dataset", f"no model is on the dataset {comparison.dataset[:100]!r}{offer}"
            return
    missed = [(key, m) for key in ("sources", "targets") for m in model_misses(getattr(comparison, key), known)]
    yield from missed
    if missed or comparison.dataset is not None:
        return
    datasets = {
        known[name].dataset
        for name in (*chosen_models(comparison.sources, known), *chosen_models(comparison.targets, known))
    }
    if len(datasets) > 1:
        found = ", ".join(sorted(str(name) for name in datasets))
        yield "", f"found models on {found}, needs one dataset: say which, dataset: {min(map(str, datasets))}"


def comparison_dataset(comparison: Comparison, members: Mapping[str, Member]) -> str | None:
    """Return the dataset of a comparison that has no problems."""
    if comparison.dataset is not None:
        return comparison.dataset
    return next((members[name].dataset for name in chosen_models(comparison.sources, members)), None)


def chosen_models(side: tuple[str, ...] | Facets, members: Mapping[str, Member]) -> list[str]:
    """Return the models of which a side of a comparison may choose layers, in their order."""
    if isinstance(side, Facets):
        return [name for name, member in members.items() if _has(member.meta, side.meta)]
    wanted, unwanted = _signed(side)
    out = [pattern for pattern in unwanted if "/" not in pattern]
    return [
        name
        for name in members
        if (not wanted or any(matches(name, pattern.partition("/")[0]) for pattern in wanted))
        and not any(matches(name, pattern) for pattern in out)
    ]


def chosen_spaces(
    side: tuple[str, ...] | Facets, spaces: Iterable[Space], members: Mapping[str, Member]
) -> list[Space]:
    """Return the spaces of one side of a comparison, in their order."""
    models = set(chosen_models(side, members))
    own = [space for space in spaces if space.model in models]
    if isinstance(side, Facets):
        return own
    wanted, unwanted = _signed(side)
    return [
        space
        for space in own
        if (not wanted or any(_is_of(space, pattern) for pattern in wanted))
        and not any(_is_of(space, pattern) for pattern in unwanted)
    ]


def layer_misses(
    comparison: Comparison, spaces: Collection[Space], unopened: Collection[str], members: Mapping[str, Member]
) -> Iterator[tuple[str, str]]:
    """Yield (key, message) for globs of model/layer that match none of the spaces of the comparison's dataset.

    What the layers of ``unopened`` models are called is not known: that these fail is told elsewhere.
    """
    for key in ("sources", "targets"):
        side = getattr(comparison, key)
        if not isinstance(side, Facets):
            yield from ((key, message) for message in space_misses(side, spaces, unopened, members))


def space_misses(
    globs: tuple[str, ...], spaces: Collection[Space], unopened: Collection[str], members: Mapping[str, Member]
) -> Iterator[str]:
    """Yield a sentence for each glob of model/layer that matches none of the spaces, or if none is left."""
    names = [space.name for space in spaces]
    unknown = [
        pattern
        for pattern in _signed(globs)[0]
        if "/" in pattern and not any(matches(name, pattern) for name in names)
        if not any(matches(name, pattern.partition("/")[0]) for name in unopened)
    ]
    for pattern in unknown:
        yield f"no space matches {pattern[:100]!r}{did_you_mean(pattern, names)}"
    if not (unknown or chosen_spaces(globs, spaces, members) or set(chosen_models(globs, members)) & set(unopened)):
        yield f"of {len(names)} spaces none is left: remove a pattern with !"


def unasked_globs(
    globs: tuple[str, ...], spaces: Collection[Space], asked: Collection[Space], members: Mapping[str, Member]
) -> Iterator[str]:
    """Yield a sentence for each glob that matches spaces, but none of those that comparisons ask for."""
    for pattern in _signed(globs)[0]:
        own = chosen_spaces((pattern,), spaces, members)
        if own and not any(space in asked for space in own):
            found = f"{pattern[:100]!r} matches {len(own)} spaces, and no comparison asks for any of them"
            yield f"{found}: name them in a comparison, or remove it"


def model_misses(side: tuple[str, ...] | Facets, members: Mapping[str, Member]) -> Iterator[str]:
    """Yield a sentence for what no model fits: a glob, a value of ``meta``, all of it."""
    if isinstance(side, Facets):
        if not chosen_models(side, members):
            yield _facet_miss(side, members)
        return
    wanted, _ = _signed(side)
    for pattern in wanted:
        model = pattern.partition("/")[0]
        if not any(matches(name, model) for name in members):
            yield f"no model matches {model[:100]!r}{did_you_mean(model, members)}"
            return
    if not chosen_models(side, members):
        yield f"of {len(members)} models none is left: remove a pattern with !"


def _facet_miss(side: Facets, members: Mapping[str, Member]) -> str:
    for key, value in side.meta.items():
        found = [member.meta[key] for member in members.values() if key in member.meta]
        if not found:
            keys = {known for member in members.values() for known in member.meta}
            return f"no model has {key[:100]!r} in its meta{did_you_mean(key, keys) if keys else '; none has any meta'}"
        if not any(_fits(value, own) for own in found):
            offer = did_you_mean(str(value), {str(part) for own in found for part in _several(own)})
            return f"no model has {key[:100]}: {describe(value)} in its meta{offer}"
    return f"no model has all of {', '.join(key[:100] for key in side.meta)} as wanted in its meta: ask for less"


def _signed(patterns: Sequence[str]) -> tuple[list[str], list[str]]:
    wanted = [pattern for pattern in patterns if not pattern.startswith("!")]
    return wanted, [pattern[1:] for pattern in patterns if pattern.startswith("!")]


def _is_of(space: Space, pattern: str) -> bool:
    return matches(space.name if "/" in pattern else space.model, pattern)


def _has(meta: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(key in meta and _fits(value, meta[key]) for key, value in wanted.items())


def _fits(wanted: Any, own: Any) -> bool:
    """Return whether one of the wanted values is one of a model's own; true is not 1."""
    return any(a == b and isinstance(a, bool) == isinstance(b, bool) for a in _several(wanted) for b in _several(own))


def _several(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
