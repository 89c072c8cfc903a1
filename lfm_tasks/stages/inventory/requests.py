"""The pairs of spaces that the catalog requests: all within a dataset, or those of its comparisons."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import combinations_with_replacement, product
from typing import Any

import numpy as np

from lfm_tasks.catalog import Catalog
from lfm_tasks.catalog.comparisons import chosen_spaces, comparison_dataset
from lfm_tasks.config import AtlasConfig
from lfm_tasks.measures.registry import MEASURES, PlugInError
from lfm_tasks.runtime.run import Scope
from lfm_tasks.spaces import Space
from lfm_tasks.spectral.bases.full_map import MAP_SCORES
from lfm_tasks.stages.inventory.alike import Sides, first_shared_pair, n_pairs_of_two
from lfm_tasks.stages.inventory.correspondence import FULL_CORRESPONDENCE, Correspondence


@dataclass(frozen=True)
class PairRequest:
    """The request for a pair: its measures, and the correspondence that its maps are fitted from."""

    measures: frozenset[str]
    correspondence: Correspondence = FULL_CORRESPONDENCE

    def and_also(self, other: "PairRequest") -> "PairRequest":
        """Return the request for the measures of both; RuntimeError if their maps need different correspondences."""
        if self == other:
            return self
        ours, theirs = (bool(request.measures & MAP_SCORES.keys()) for request in (self, other))
        if ours and theirs and self.correspondence != other.correspondence:
            raise RuntimeError("got one pair of spaces in comparisons with different maps. Give both the same")
        return PairRequest(self.measures | other.measures, self.correspondence if ours else other.correspondence)


@dataclass(frozen=True)
class PairSelection:
    """Sources against targets on one dataset by some measures; a comparison, or (without a name) a whole dataset.

    ``target_dataset``: that of the targets, where it is another one; else "".
    """

    name: str
    dataset: str
    measures: tuple[str, ...]
    sources: tuple[Space, ...]
    targets: tuple[Space, ...]
    correspondence: Correspondence = FULL_CORRESPONDENCE
    target_dataset: str = ""

    def spaces(self) -> set[Space]:
        """Return the spaces of both sides."""
        return {*self.sources, *self.targets}

    def pairs(self) -> Iterable[tuple[Space, Space]]:
        """Return its pairs, each in at least one direction."""
        if self.sources == self.targets:
            return combinations_with_replacement(self.sources, 2)
        return product(self.sources, self.targets)


def pair_selections(
    catalog: Catalog, spaces: Collection[Space], correspondences: Mapping[tuple[str, str], Correspondence] | None = None
) -> tuple[PairSelection, ...]:
    """Return the comparisons of the catalog, or each dataset as a whole, in its order.

    ``correspondences``: by comparison (or "") and dataset; a comparison without one is left out.
    """
    atlas = catalog.atlas
    if not catalog.comparisons:
        by_dataset = {dataset: tuple(s for s in spaces if s.dataset == dataset) for dataset in _datasets(spaces)}
        parts = [
            PairSelection("", dataset, atlas.measures, members, members) for dataset, members in by_dataset.items()
        ]
    else:
        parts = list(_comparison_parts(catalog, spaces))
    if correspondences is None:
        return tuple(parts)
    return tuple(
        replace(part, correspondence=correspondences[part.name, part.dataset])
        for part in parts
        if (part.name, part.dataset) in correspondences
    )


def _comparison_parts(catalog: Catalog, spaces: Collection[Space]) -> Iterator[PairSelection]:
    members = catalog.model_facts()
    for name, comparison in catalog.comparisons.items():
        if comparison.is_across:
            continue
        dataset = str(comparison_dataset(comparison, members))
        of_dataset = [space for space in spaces if space.dataset == dataset]
        sides = [tuple(chosen_spaces(side, of_dataset, members)) for side in (comparison.sources, comparison.targets)]
        yield PairSelection(name, dataset, comparison.measures or catalog.atlas.measures, sides[0], sides[1])


def across_selections(
    catalog: Catalog, spaces: Collection[Space], correspondences: Mapping[tuple[str, str], Correspondence]
) -> tuple[PairSelection, ...]:
    """Return the comparisons across datasets, in the order of the catalog.

    ``correspondences``: by comparison and dataset; a comparison without one of them is left out.
    """
    members, selections = catalog.model_facts(), []
    for name, comparison in catalog.comparisons.items():
        datasets = comparison.dataset, comparison.target_dataset
        if not comparison.is_across or not all((name, str(dataset)) in correspondences for dataset in datasets):
            continue
        sources, targets = (
            tuple(chosen_spaces(side, [space for space in spaces if space.dataset == dataset], members))
            for side, dataset in zip((comparison.sources, comparison.targets), datasets, strict=True)
        )
        measures = map_measures(comparison.measures or catalog.atlas.measures)
        correspondence, (dataset, target_dataset) = correspondences[name, str(datasets[0])], map(str, datasets)
        selections.append(PairSelection(name, dataset, measures, sources, targets, correspondence, target_dataset))
    return tuple(selections)


def map_measures(names: Iterable[str]) -> tuple[str, ...]:
    """Return the measures of maps among measures, in order: all others compare the same points."""
    return tuple(sorted(name for name in names if name in MAP_SCORES))


def across_facts(part: PairSelection) -> dict[str, Any]:
    """Return the facts that the atlas stores about a comparison across datasets."""
    return {
        "comparison": part.name,
        "source_dataset": part.dataset,
        "target_dataset": part.target_dataset,
        "regime": part.correspondence.regime,
        "refine": part.correspondence.refine,
    }


def embedded_spaces(catalog: Catalog, spaces: Iterable[Space]) -> list[Space]:
    """Return the spaces that the catalog wants embeddings of, in their order."""
    wanted = catalog.atlas.embeddings
    return [] if wanted is None else chosen_spaces(wanted.spaces, spaces, catalog.model_facts())


def requested_measures(catalog: Catalog) -> tuple[str, ...]:
    """Return every measure that is requested within a dataset, each once."""
    of_comparisons = [
        comparison.measures or catalog.atlas.measures
        for comparison in catalog.comparisons.values()
        if not comparison.is_across
    ]
    return tuple(dict.fromkeys(name for names in of_comparisons or [catalog.atlas.measures] for name in names))


def spaces_now(parts: Iterable[PairSelection], scope: Scope) -> frozenset[Space]:
    """Return the spaces that a run of this scope computes."""
    chosen = [part for part in parts if not scope.comparisons or part.name in scope.comparisons]
    return frozenset(space for part in chosen for space in part.spaces() if scope.has(space.model))


def requested_cells(
    parts: Iterable[PairSelection], datasets: list[str], measures: list[str], names: list[str]
) -> np.ndarray:
    """Return (dataset, measure, source, target): whether a cell is requested, in either direction."""
    requested = np.zeros((len(datasets), len(measures), len(names), len(names)), dtype=bool)
    row = {name: index for index, name in enumerate(names)}
    for part in parts:
        if part.dataset not in datasets:
            continue
        sources, targets = (
            np.array([row[space.name] for space in side if space.name in row], dtype=int)
            for side in (part.sources, part.targets)
        )
        for measure in part.measures:
            cells = requested[datasets.index(part.dataset), measures.index(measure)]
            cells[np.ix_(sources, targets)] = True
            cells[np.ix_(targets, sources)] = True
    return requested


def clashes(parts: Sequence[PairSelection]) -> Iterator[tuple[PairSelection, PairSelection, Space, Space]]:
    """Yield two parts, and a pair of spaces of both, that want maps of it from different correspondences."""
    for later, part in enumerate(parts):
        for earlier in parts[:later]:
            if earlier.dataset != part.dataset or earlier.correspondence == part.correspondence:
                continue
            if not all(MAP_SCORES.keys() & set(one.measures) for one in (earlier, part)):
                continue
            common = sorted(part.spaces() & earlier.spaces())
            position = {space: index for index, space in enumerate(common)}
            shared = first_shared_pair(len(common), *(_sides(one, position) for one in (earlier, part)))
            if shared is not None:
                yield earlier, part, common[shared[0]], common[shared[1]]


def n_directed_pairs(parts: Iterable[PairSelection], spaces: Collection[Space]) -> int:
    """Return how many directed pairs of two different spaces are requested, among ``spaces``."""
    position = {space: index for index, space in enumerate(spaces)}
    return 2 * n_pairs_of_two(len(position), [_sides(part, position) for part in parts])


def _sides(part: PairSelection, position: Mapping[Space, int]) -> Sides:
    """Return the positions of both sides of a part, those that have one."""
    sources, targets = (
        np.array([position[space] for space in side if space in position], dtype=np.intp)
        for side in (part.sources, part.targets)
    )
    return sources, targets


def comparison_facts(parts: Iterable[PairSelection]) -> dict[str, dict[str, Any]]:
    """Return the dataset, measures and names of spaces of each comparison, as the atlas publishes them."""
    return {
        part.name: {
            "dataset": part.dataset,
            "measures": list(part.measures),
            "sources": [space.name for space in part.sources],
            "targets": [space.name for space in part.targets],
        }
        for part in parts
        if part.name
    }


def _datasets(spaces: Iterable[Space]) -> list[str]:
    return sorted({space.dataset for space in spaces})


_EXACT = (
    "exact moments of all permutations, Pearson III curve, of matrices beyond z = 3 a saddle point; in up to 32 strata "
    "or at least 30 groups of one size of up to 4 exact mean and variance, leading skewness (else permutations)"
)
_ROTATED = (
    "exact energies over all permutations, spread of random rotations, Pearson III curve (permutations where groups or "
    "strata are given, or both bases are localized)"
)
_CORNERS = (
    "random rotations of the lengths of both spaces' directions, 10 or 400, Pearson III curve (permutations where "
    "groups or strata are given, or both spaces live on few points)"
)
_NEIGHBORS = (
    "moments over all permutations, Pearson III curve (permutations for few points, where groups or strata are given, "
    "or points are in most lists of neighbors)"
)
_POWERS = (
    "exact moments of all permutations, Pearson III curve (permutations where strata or unlike groups are given, or "
    "both spaces live on few points)"
)
_FITTED = "; of fitted maps, random pairings of what is known instead"
_DRAWN = "permutations, (1 + reached)/(1 + drawn); where fewer than 10 reach the score, Pearson III with their moments"


@dataclass(frozen=True)
class MeasureFacts:
    """The facts that the atlas stores about a measure; ``p_values``: their method."""

    convention: str
    p_values: str
    is_symmetric: bool
    is_distance: bool


def known_measures() -> dict[str, MeasureFacts]:
    """Return all measures, of maps and of activations, those of installed packages among them.

    Raises
    ------
    PlugInError
        If an installed package brings measures that cannot be used.
    """
    MEASURES.check_names(MAP_SCORES)
    known = {}
    for name, score in MAP_SCORES.items():
        by_chance = _EXACT if score.trace_scale is not None else _ROTATED if score.is_energy_ratio else _DRAWN
        known[name] = MeasureFacts(
            score.convention, by_chance + _FITTED if score.has_null else "none", score.is_symmetric, False
        )
    for name, measure in MEASURES.items():
        if measure.lists is not None:
            by_chance = _NEIGHBORS
        elif measure.compares_point_pairs or measure.trace is not None:
            by_chance = _EXACT
        elif measure.cross is not None or measure.alignment is not None:
            by_chance = _CORNERS
        else:
            by_chance = _DRAWN if measure.trace_chance is None else _POWERS
        known[name] = MeasureFacts(measure.convention, by_chance, measure.is_symmetric, measure.kind == "distance")
    return known


def unknown_measures(catalog: Catalog | Mapping[str, Any]) -> list[tuple[tuple[str | int, ...], str]]:
    """Return, for each measure of the catalog that does not exist, or not where it stands, its place and a sentence.

    If an installed package brings measures that cannot be used, the only sentence says so.

    Parameters
    ----------
    catalog
        The catalog, or what its file says, which may be wrong everywhere.
    """
    named = list(_named_measures(catalog))
    try:
        known = known_measures()
    except PlugInError as error:
        return [(named[0][0] if named else ("atlas", "measures"), str(error))]
    unknown: list[tuple[tuple[str | int, ...], str]] = [
        ((*where, index), f"unknown measure {name!r}{_hint(name, known)}")
        for where, names in named
        for index, name in enumerate(names)
        if isinstance(name, str) and name not in known
    ]
    return [*unknown, *_measures_across(catalog, known)]


def _measures_across(
    catalog: Catalog | Mapping[str, Any], known: Collection[str]
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield the measures of comparisons across datasets that compare the same points, which two datasets lack."""
    sections: Any = catalog.model_dump() if isinstance(catalog, Catalog) else catalog
    comparisons, atlas = sections.get("comparisons"), sections.get("atlas")
    of_atlas = atlas.get("measures") if isinstance(atlas, Mapping) else None
    usual = of_atlas if isinstance(of_atlas, list | tuple) else AtlasConfig.model_fields["measures"].default
    for name, comparison in comparisons.items() if isinstance(comparisons, Mapping) else ():
        if not isinstance(comparison, Mapping) or comparison.get("target_dataset") is None:
            continue
        own = comparison.get("measures")
        needs = f"expected measures of maps, such as {', '.join(list(MAP_SCORES)[:3])}: two datasets share no points"
        for index, measure in enumerate(own if isinstance(own, list | tuple) else ()):
            if isinstance(measure, str) and measure in known and measure not in MAP_SCORES:
                yield ("comparisons", name, "measures", index), f"got {measure!r}, {needs}"
        if own is None and not any(one in MAP_SCORES for one in usual):
            yield ("comparisons", name), f"got no measure of maps in atlas.measures, {needs}; name them in measures"


def _named_measures(catalog: Catalog | Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Sequence[Any]]]:
    """Yield each list of measures in a catalog, with its place."""
    if isinstance(catalog, Catalog):
        yield ("atlas", "measures"), catalog.atlas.measures
        for name, comparison in catalog.comparisons.items():
            yield ("comparisons", name, "measures"), comparison.measures or ()
        return
    comparisons = catalog.get("comparisons")
    entries = comparisons.items() if isinstance(comparisons, Mapping) else ()
    sections = [(("atlas",), catalog.get("atlas")), *((("comparisons", name), section) for name, section in entries)]
    for where, section in sections:
        measures = section.get("measures") if isinstance(section, Mapping) else None
        if isinstance(measures, list):
            yield (*where, "measures"), measures


def _hint(name: str, known: Collection[str]) -> str:
    """Return the measures that a misspelled name may mean: by its first letters, else by similar spelling."""
    plain = name.casefold().replace("-", "_").replace(" ", "_")
    alike = [one for one in known if one.casefold().startswith(plain)]
    # linear_cka for cka_linear: the same words in another order.
    same_words = [one for one in known if set(plain.split("_")) <= set(one.casefold().split("_"))]
    near = (alike or same_words)[:1] or get_close_matches(plain, known, n=1)
    others = f" (there are {', '.join(alike[1:4])}, too)" if len(alike) > 1 else ""
    return f"; did you mean {near[0]!r}?{others}" if near else f"; there are {', '.join(known)}"
