"""Stage kept maps: functional maps that stay in the atlas, and where on the points two spaces differ."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from lfm_tasks.catalog import Catalog
from lfm_tasks.runtime.run import Failure, Run
from lfm_tasks.sources.opening import DatasetRows
from lfm_tasks.spaces import Space
from lfm_tasks.spectral.bases.full_map import MAP_SCORES
from lfm_tasks.stages.bases.stage import SpaceBasis, not_computed
from lfm_tasks.stages.inventory.correspondence import labels_of, text_labels
from lfm_tasks.stages.inventory.cost import KEEP_MAPS, spaces_by_dataset
from lfm_tasks.stages.inventory.requests import embedded_spaces
from lfm_tasks.stages.inventory.stage import Zoo
from lfm_tasks.stages.kept_maps.cost import group_side
from lfm_tasks.stages.kept_maps.job import KeepJob, KeptKey, ScorePlace, store_maps
from lfm_tasks.stages.scores.block import STATISTICS
from lfm_tasks.stages.scores.pair_index import PairScores, StoredBlock
from lfm_tasks.stages.scores.stage import ScoredCells, ScoredPairs
from lfm_tasks.stores.units.store import Receipt, UnitStore, digest
from lfm_tasks.workers.pool import JobFailure

SpacePair = tuple[SpaceBasis, SpaceBasis]
# Pairs in a published chunk: copies of a model have equal maps, which compress away where they stand together.
_CHUNK = 64
# Rounding must not choose among pairs that are equally alike.
_DIGITS = 9
_SCORE, _CALIBRATED = (STATISTICS.index(name) for name in ("score", "calibrated"))
_MAP = "carries coefficients of functions from the source basis to the target basis"
_DISTORTION = {
    "target_distortion": "functions of the target that the source does not span, on its points; mean 1 - |C|^2/K",
    "source_distortion": "functions of the source that the target does not span, on its points; mean 1 - |C|^2/K",
}


@dataclass(frozen=True)
class KeptPair:
    """Two spaces whose map is kept, and the digest of how it was refined.

    ``refined_by`` is empty where the bases determine the map; the map back is then its transpose.
    """

    source: SpaceBasis
    target: SpaceBasis
    refined_by: str

    @property
    def key(self) -> KeptKey:
        """The name of the pair in stored units."""
        first, second = sorted((self.source.key, self.target.key))
        return first, second, self.refined_by

    @property
    def is_reversed(self) -> bool:
        """Whether the stored map leads from the target to the source."""
        return self.source.key > self.target.key


@dataclass(frozen=True)
class KeptMaps:
    """The section ``maps``: its pairs, the block and row of each, the ids and labels of each dataset."""

    pairs: tuple[KeptPair, ...] = ()
    places: Mapping[KeptKey, ScorePlace] = field(default_factory=dict)
    rows: Mapping[str, DatasetRows] = field(default_factory=dict)

    @property
    def keys(self) -> tuple[str, ...]:
        """One digest of the names and bases of all pairs and of the labels; none without pairs."""
        if not self.pairs:
            return ()
        named = [
            [*basis.space, basis.key, pair.refined_by] for pair in self.pairs for basis in (pair.source, pair.target)
        ]
        labels = {dataset: text_labels(rows) for dataset, rows in self.rows.items()}
        return (digest({"kind": "kept maps", "pairs": named, "labels": labels}),)

    @property
    def unit_keys(self) -> dict[str, set[str]]:
        """The blocks of maps."""
        return {"kept_maps": {self.places[pair.key][0] for pair in self.pairs}}

    def groups(self, run: Run) -> dict[str, xr.Dataset]:
        """Return ``maps/<dataset>``: (pair, target_eigenpair, source_eigenpair), and distortions (pair, point)."""
        by_dataset = groupby(self.pairs, key=lambda pair: pair.source.space.dataset)
        return {f"maps/{dataset}": self._group(run.store, dataset, list(pairs)) for dataset, pairs in by_dataset}

    def _group(self, store: UnitStore, dataset: str, pairs: list[KeptPair]) -> xr.Dataset:
        blocks = {}
        for block in sorted({self.places[pair.key][0] for pair in pairs}):
            with store.open("kept_maps", block) as unit:
                blocks[block] = {name: unit.read(name) for name in ("functional_maps", "distortions", "ids")}
        points = np.unique(np.concatenate([block["ids"] for block in blocks.values()]))
        columns_of = {name: np.searchsorted(points, stored["ids"]) for name, stored in blocks.items()}
        maps, distortions = [], np.full((2, len(pairs), len(points)), np.nan, dtype=np.float32)
        for index, pair in enumerate(pairs):
            name, row = self.places[pair.key]
            stored = blocks[name]
            functional_map = stored["functional_maps"][row]
            maps.append(functional_map.T if pair.is_reversed else functional_map)
            distortions[:, index, columns_of[name]] = stored["distortions"][row, :: -1 if pair.is_reversed else 1]
        # NaN beyond the maps of smaller bases.
        shape = np.max([functional_map.shape for functional_map in maps], axis=0)
        stacked = np.full((len(maps), *shape), np.nan, dtype=np.float32)
        for filled, functional_map in zip(stacked, maps, strict=True):
            filled[: functional_map.shape[0], : functional_map.shape[1]] = functional_map
        dims, chunks = ("pair", "target_eigenpair", "source_eigenpair"), (min(len(maps), _CHUNK), *shape.tolist())
        variables = {
            "functional_map": xr.Variable(dims, stacked, {"long_name": _MAP}, {"chunks": chunks}),
            **{
                name: xr.Variable(("pair", "point"), _rounded(values), {"long_name": _DISTORTION[name]})
                for name, values in zip(("source_distortion", "target_distortion"), distortions, strict=True)
            },
        }
        coordinates = {
            "source": ("pair", np.array([pair.source.space.name for pair in pairs], dtype=object)),
            "target": ("pair", np.array([pair.target.space.name for pair in pairs], dtype=object)),
            "point": points.astype(object),
            "label": ("point", labels_of(points, text_labels(self.rows[dataset]))),
        }
        is_refined = any(pair.refined_by for pair in pairs)
        return xr.Dataset(variables, coordinates, {"map_back": "a fit of its own" if is_refined else "transpose"})


def _rounded(values: np.ndarray) -> np.ndarray:
    """Return the values rounded to 12 bits, a relative error below 2.5e-4: zeros at the end compress."""
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.round(mantissa * 4096) / 4096, exponent).astype(np.float32)


def keep_maps(run: Run, zoo: Zoo, spaces: tuple[SpaceBasis, ...], scored: ScoredPairs) -> KeptMaps:
    """Compute the maps to keep that no stored block holds; none as long as some scores are not computed."""
    if scored.n_not_computed or not_computed(run, zoo, spaces):
        return KeptMaps()
    pairs = [_oriented(pair, scored) for pair in kept_pairs(run, zoo, spaces, scored)]
    keys = {pair.key for pair in pairs}
    places = {key: place for key, place in _places(run.store.receipts("kept_maps")) if key in keys}
    failures: list[Failure] = []
    jobs = list(_jobs(run.store, [pair for pair in pairs if pair.key not in places], scored))
    for job, result in run.results("maps", store_maps, jobs):
        if isinstance(result, JobFailure):
            failures.append(_failure(pairs, job, result))
        else:
            places |= dict(_places([run.store.receipt("kept_maps", job.key)]))
    n_computed = sum(len(job.pairs) for job in jobs if job.pairs[0] in places)
    run.stage_counts.add("maps", n_computed, len(places) - n_computed)
    run.add_failures(failures)
    kept = tuple(pair for pair in pairs if pair.key in places)
    datasets = {pair.source.space.dataset for pair in kept}
    return KeptMaps(kept, places, {dataset: zoo.rows[dataset] for dataset in datasets})


def kept_pairs(run: Run, zoo: Zoo, spaces: tuple[SpaceBasis, ...], scored: ScoredPairs) -> tuple[SpacePair, ...]:
    """Return (source, target) of each map to keep, source first in the order of names, in that order."""
    refused = {failure.dataset for failure in zoo.failures if failure.model == KEEP_MAPS}
    bases = {basis.space: basis for basis in spaces if basis.space.dataset not in refused}
    keep = run.catalog.atlas.keep_maps
    kept = set(embedded_pairs(run.catalog, zoo, bases, scored))
    if keep == "all":
        for names in spaces_by_dataset(bases).values():
            for cells in _mapped_cells([bases[space] for space in names], scored):
                kept |= {(names[cells.first], names[other]) for other in cells.others.tolist()}
    elif keep == "best":
        kept |= _most_alike(run, bases, scored)
    return tuple((bases[source], bases[target]) for source, target in sorted(kept))


def embedded_pairs(
    catalog: Catalog, zoo: Zoo, bases: Mapping[Space, SpaceBasis], scored: ScoredPairs
) -> set[tuple[Space, Space]]:
    """Return the requested pairs of embedded spaces that have a map, each in the order of names."""
    embedded = set(embedded_spaces(catalog, bases))
    requested = {
        (min(source, target), max(source, target))
        for part in zoo.parts
        for source in embedded.intersection(part.sources)
        for target in embedded.intersection(part.targets)
        if source != target
    }
    return {pair for pair in requested if _scores_of_mapped(scored, bases[pair[0]], bases[pair[1]])}


def _most_alike(run: Run, bases: Mapping[Space, SpaceBasis], scored: ScoredPairs) -> set[tuple[Space, Space]]:
    """Return the most alike layers of each two models: by overlap, or by the first other requested score of maps.

    Pairs of layers are ranked by the measure first, then by how alike they are, then by their names.
    """
    preference = list(dict.fromkeys(["overlap", *run.catalog.atlas.measures, *MAP_SCORES]))
    of_maps = [name for name in preference if name in MAP_SCORES]
    kept = set[tuple[Space, Space]]()
    for spaces in spaces_by_dataset(bases).values():
        in_order = [bases[space] for space in spaces]
        names, models = np.unique([space.model for space in spaces], return_inverse=True)
        keys = np.unique([basis.key for basis in in_order], return_inverse=True)[1]
        best = BestPairs(len(names))
        levels: dict[tuple[str, str], np.ndarray] = {}
        for cells in _mapped_cells(in_order, scored):
            name = next((name for name in of_maps if name in cells.request.measures), None)
            if name is None:
                continue
            values = np.full(len(cells.others), np.nan)
            for block in np.unique(cells.blocks).tolist():
                stored = cells.table.blocks[block]
                if (stored.key, name) not in levels:
                    levels[stored.key, name] = _levels(run.store, stored, name)
                chosen = cells.blocks == block
                ways = (keys[cells.first] > keys[cells.others[chosen]]).astype(np.intp)
                values[chosen] = levels[stored.key, name][cells.rows[chosen], ways]
            usable = np.isfinite(values) & (models[cells.others] != models[cells.first])
            others = cells.others[usable]
            best.take(models[cells.first], models[others], of_maps.index(name), values[usable], (cells.first, others))
        kept |= {(spaces[first], spaces[other]) for first, other in best.pairs()}
    return kept


def _levels(store: UnitStore, block: StoredBlock, measure: str) -> Float[np.ndarray, "pairs directions"]:
    """Return how alike the pairs of a block are; those without a chance level rank behind those that have one."""
    with store.open("scores", block.key) as unit:
        values = unit.read("values")[:, :, block.measures.index(measure)]
    score, level = values[..., _SCORE], values[..., _CALIBRATED]
    return np.where(np.isfinite(level), level, score - 1)


class BestPairs:
    """The best pair of spaces of each two models, found row by row: all pairs of a large zoo take gigabytes."""

    def __init__(self, n_models: int) -> None:
        shape = n_models, n_models
        self._rank, self._value = np.full(shape, np.iinfo(np.intp).max), np.full(shape, -np.inf)
        self._ends = np.full((*shape, 2), -1)

    def take(
        self,
        model: int,
        others: Int[np.ndarray, " pairs"],
        rank: int,
        values: Float[np.ndarray, " pairs"],
        ends: tuple[int, Int[np.ndarray, " pairs"]],
    ) -> None:
        """Take the pairs of a space into account; spaces come in order.

        Parameters
        ----------
        model, others
            The model of the space, and those of the spaces that it is paired with.
        rank
            The place of the measure among those that pairs are ranked by.
        values
            How alike the pairs are.
        ends
            The space, and those that it is paired with, as places in their order.
        """
        first, second = ends
        values = np.round(values, _DIGITS)
        order = np.lexsort((second, -values, others))
        models, starts = np.unique(others[order], return_index=True)
        chosen = order[starts]
        value, place = values[chosen], (model, models)
        is_equal = (rank == self._rank[place]) & (value == self._value[place])
        is_first = is_equal & (first == self._ends[place][:, 0]) & (second[chosen] < self._ends[place][:, 1])
        is_more = (rank == self._rank[place]) & (value > self._value[place])
        better = (rank < self._rank[place]) | is_more | is_first
        place = model, models[better]
        self._rank[place], self._value[place] = rank, value[better]
        self._ends[place] = np.stack([np.full(len(models), first), second[chosen]], axis=1)[better]

    def pairs(self) -> list[tuple[int, int]]:
        """Return the best pair of each two models that have one."""
        found = self._ends[self._ends[..., 0] >= 0]
        return [(first, second) for first, second in found.tolist()]


def _mapped_cells(bases: Sequence[SpaceBasis], scored: ScoredPairs) -> Iterator[ScoredCells]:
    """Yield all pairs of a dataset's spaces that are requested and have a map."""
    for cells in scored.with_scores(bases):
        if cells.request.correspondence.regime == "full" or not cells.request.measures & MAP_SCORES.keys():
            yield cells
            continue
        kept = [bool(_scores_of_mapped(scored, bases[cells.first], bases[other])) for other in cells.others.tolist()]
        some = np.array(kept, dtype=bool)
        yield replace(cells, others=cells.others[some], blocks=cells.blocks[some], rows=cells.rows[some])


def _scores_of_mapped(scored: ScoredPairs, source: SpaceBasis, target: SpaceBasis) -> PairScores | None:
    """Return the scores of a pair that has a map: its ids correspond, or the map was refined and is stored."""
    request, place = scored.request_of(source, target), scored.place(source, target)
    if request is None or place is None or place.refusal:
        return None
    if request.correspondence.regime == "full" or not request.measures & MAP_SCORES.keys():
        return place
    has_failed = any(name in MAP_SCORES for name, _ in place.codes)
    return None if request.correspondence.refine == "none" or has_failed else place


def _oriented(pair: SpacePair, scored: ScoredPairs) -> KeptPair:
    """Return a pair as it is published: a refined map leads from the lower key to the higher, as it is stored."""
    source, target = pair
    refined_by = scored.grown_by(source, target)
    if refined_by and source.key > target.key:
        source, target = target, source
    return KeptPair(source, target, refined_by)


def _jobs(store: UnitStore, missing: list[KeptPair], scored: ScoredPairs) -> Iterator[KeepJob]:
    """Yield pairs in blocks of groups of bases: in each, all first bases have the same ids, and all second ones."""
    ids = {basis.key: basis.ids for pair in missing for basis in (pair.source, pair.target)}
    refined = {
        pair.key: (place.block, place.row)
        for pair in missing
        if pair.refined_by and (place := scored.place(pair.source, pair.target))
    }
    side = group_side(len(ids), len(missing))
    group = {key: position // side for position, key in enumerate(sorted(ids))}

    def block_of(key: KeptKey) -> tuple[str, str, int, int]:
        first, second, _ = key
        return ids[first], ids[second], group[first], group[second]

    keys = sorted({pair.key for pair in missing}, key=lambda key: (block_of(key), key))
    for _, block in groupby(keys, key=block_of):
        pairs = tuple(block)
        in_block = {pair: refined[pair] for pair in pairs if pair in refined}
        yield KeepJob(store, digest({"kind": "kept_maps", "pairs": pairs}), pairs, in_block)


def _places(receipts: Iterable[Receipt]) -> Iterator[tuple[KeptKey, ScorePlace]]:
    for receipt in receipts:
        for row, (first, second, refined_by) in enumerate(receipt.facts["pairs"]):
            yield (first, second, refined_by), (receipt.key, row)


def _failure(pairs: Iterable[KeptPair], job: KeepJob, failure: JobFailure) -> Failure:
    """Return why a block of maps is not kept, under the name of its first pair."""
    first = next(pair for pair in pairs if pair.key == job.pairs[0])
    what = f"map of {first.source.space.name} and {first.target.space.name}"
    return Failure(first.source.space.dataset, what, "", "maps", failure.reason, failure.message)
