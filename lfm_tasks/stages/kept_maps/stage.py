"""Stage kept maps: functional maps that stay in the atlas, and where on the points two spaces differ."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from math import isfinite

import numpy as np
import xarray as xr

from lfm_tasks.catalog import Catalog
from lfm_tasks.runtime.run import Failure, Run
from lfm_tasks.sources.opening import DatasetRows
from lfm_tasks.spaces import Space
from lfm_tasks.spectral.bases.eigenbasis import Basis
from lfm_tasks.spectral.bases.full_map import MAP_SCORES, full_map
from lfm_tasks.spectral.maps.decoding import source_distortion, target_distortion
from lfm_tasks.stages.bases.stage import SpaceBasis, not_computed
from lfm_tasks.stages.inventory.correspondence import common_ids, labels_of, text_labels
from lfm_tasks.stages.inventory.cost import KEEP_MAPS
from lfm_tasks.stages.inventory.requests import embedded_spaces
from lfm_tasks.stages.inventory.stage import Zoo
from lfm_tasks.stages.scores.full_maps import common_rows
from lfm_tasks.stages.scores.map_measures import STATISTICS
from lfm_tasks.stages.scores.pair_index import PairScores
from lfm_tasks.stages.scores.stage import BLOCK_SIDE, ScoredPairs
from lfm_tasks.stores.units.store import Receipt, UnitStore, digest
from lfm_tasks.workers.pool import JobFailure

SpacePair = tuple[SpaceBasis, SpaceBasis]
# Rounding must not choose among pairs that are equally alike.
_DIGITS = 9
_SCORE, _CALIBRATED = (STATISTICS.index(name) for name in ("score", "calibrated"))


def kept_pairs(run: Run, zoo: Zoo, spaces: tuple[SpaceBasis, ...], scored: ScoredPairs) -> tuple[SpacePair, ...]:
    """Return (source, target) of each map that is kept, source first in the order of names, in that order."""
    refused = {failure.dataset for failure in zoo.failures if failure.model == KEEP_MAPS}
    allowed = {based.space: based for based in spaces if based.space.dataset not in refused}
    keep = run.catalog.atlas.keep_maps
    kept = set(embedded_pairs(run.catalog, zoo, allowed, scored))
    if keep == "all":
        kept |= {(source.space, target.space) for source, target, _ in _scored_pairs(zoo, allowed, scored)}
    elif keep == "best":
        kept |= _most_alike(run, zoo, allowed, scored)
    return tuple((allowed[source], allowed[target]) for source, target in sorted(kept))


def embedded_pairs(
    catalog: Catalog, zoo: Zoo, based: Mapping[Space, SpaceBasis], scored: ScoredPairs
) -> set[tuple[Space, Space]]:
    """Return the pairs of spaces with pictures that were asked for and have scores, in the order of names."""
    wanted = set(embedded_spaces(catalog, based))
    asked = {
        (min(source, target), max(source, target))
        for part in zoo.parts
        for source in wanted.intersection(part.sources)
        for target in wanted.intersection(part.targets)
        if source != target
    }
    return {pair for pair in asked if _place(scored, based[pair[0]], based[pair[1]])}


def _scored_pairs(
    zoo: Zoo, based: Mapping[Space, SpaceBasis], scored: ScoredPairs
) -> Iterator[tuple[SpaceBasis, SpaceBasis, PairScores]]:
    """Yield all pairs of different spaces that were asked for and have scores, source first in the order of names."""
    for part in zoo.parts:
        for one, other in part.pairs():
            if one == other or one not in based or other not in based:
                continue
            source, target = (based[one], based[other]) if one < other else (based[other], based[one])
            if place := _place(scored, source, target):
                yield source, target, place


def _place(scored: ScoredPairs, source: SpaceBasis, target: SpaceBasis) -> PairScores | None:
    """Return where the scores of a pair lie that has a map: known points give it, or it was grown and is stored."""
    asked, place = scored.request_of(source, target), scored.place(source, target)
    if asked is None or place is None or place.refusal:
        return None
    if asked.correspondence.regime == "full" or not asked.measures & MAP_SCORES.keys():
        return place
    failed = any(name in MAP_SCORES for name, _ in place.codes)
    return None if asked.correspondence.refine == "none" or failed else place


def _most_alike(run: Run, zoo: Zoo, based: Mapping[Space, SpaceBasis], scored: ScoredPairs) -> set[tuple[Space, Space]]:
    """Return the most alike layers of each two models: by overlap, or by the first other score of maps asked for.

    Among the layers' pairs the measure counts first, then how alike they are, then the names.
    """
    preference = list(dict.fromkeys(["overlap", *run.catalog.atlas.measures, *MAP_SCORES]))
    of_maps = [name for name in preference if name in MAP_SCORES]
    has_chance = run.catalog.atlas.null.n_permutations > 0
    blocks: dict[str, np.ndarray] = {}
    best: dict[tuple[str, str, str], tuple[int, float, Space, Space]] = {}
    for source, target, place in _scored_pairs(zoo, based, scored):
        first, second = source.space, target.space
        measures = scored.measures(source, target)
        name = next((name for name in of_maps if name in measures), None)
        if first.model == second.model or name is None:
            continue
        if place.block not in blocks:
            with run.store.open("scores", place.block) as unit:
                blocks[place.block] = unit.read("values")
        statistic = _CALIBRATED if has_chance and MAP_SCORES[name].has_null else _SCORE
        values = blocks[place.block][place.row, int(source.key > target.key), place.measures.index(name)]
        # Grown maps have a chance level only where it was asked for: they stand behind those that have one.
        value = values[statistic] if isfinite(values[statistic]) else values[_SCORE] - 1
        found = of_maps.index(name), -round(float(value), _DIGITS), first, second
        models = first.dataset, first.model, second.model
        if isfinite(value) and (models not in best or found < best[models]):
            best[models] = found
    return {(source, target) for _, _, source, target in best.values()}


# Pairs in a published chunk: copies of a model have equal maps, which compress away where they stand together.
_CHUNK = 64
# Keys of two bases, the lower one first, and the digest of what their map was grown by; empty: the bases give it.
KeptKey = tuple[str, str, str]
_MAP = "carries coefficients of functions from the source basis to the target basis"
BasisOnIds = tuple[Basis, np.ndarray]
# The map, what it loses on the source's points and misses on the target's, and the ids of these points.
MapOnPoints = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
_DISTORTION = {
    "target_distortion": "functions of the target that the source does not span, on its points; mean 1 - |C|^2/K",
    "source_distortion": "functions of the source that the target does not span, on its points; mean 1 - |C|^2/K",
}


@dataclass(frozen=True)
class KeepJob:
    """Pairs of bases, all with the same two lists of ids, whose maps are kept; block and row of those grown before."""

    store: UnitStore
    key: str
    pairs: tuple[KeptKey, ...]
    grown: Mapping[KeptKey, tuple[str, int]]


@dataclass(frozen=True)
class KeptPair:
    """Two spaces whose map is kept, and what it was grown by; empty: their bases give it, and the map back with it."""

    source: SpaceBasis
    target: SpaceBasis
    grown_by: str

    @property
    def key(self) -> KeptKey:
        """How units name it."""
        first, second = sorted((self.source.key, self.target.key))
        return first, second, self.grown_by

    @property
    def is_turned(self) -> bool:
        """Whether the stored map leads the other way."""
        return self.source.key > self.target.key


@dataclass(frozen=True)
class KeptMaps:
    """The section ``maps``: pairs, the block and row of each, what each dataset says of its points."""

    pairs: tuple[KeptPair, ...] = ()
    places: Mapping[KeptKey, tuple[str, int]] = field(default_factory=dict)
    rows: Mapping[str, DatasetRows] = field(default_factory=dict)

    @property
    def keys(self) -> tuple[str, ...]:
        """One digest of the names and bases of all pairs and of the labels; none without any."""
        if not self.pairs:
            return ()
        named = [
            [*based.space, based.key, pair.grown_by] for pair in self.pairs for based in (pair.source, pair.target)
        ]
        labels = {dataset: text_labels(rows) for dataset, rows in self.rows.items()}
        return (digest({"kind": "kept maps", "pairs": named, "labels": labels}),)

    @property
    def made_of(self) -> dict[str, set[str]]:
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
        maps, distortions = [], np.full((2, len(pairs), len(points)), np.nan, dtype=np.float32)
        for number, pair in enumerate(pairs):
            name, row = self.places[pair.key]
            stored = blocks[name]
            functional_map = stored["functional_maps"][row]
            maps.append(functional_map.T if pair.is_turned else functional_map)
            here = np.searchsorted(points, stored["ids"])
            distortions[:, number, here] = stored["distortions"][row, :: -1 if pair.is_turned else 1]
        dims, chunks = ("pair", "target_eigenpair", "source_eigenpair"), (min(len(maps), _CHUNK), *maps[0].shape)
        variables = {
            "functional_map": xr.Variable(dims, np.stack(maps), {"long_name": _MAP}, {"chunks": chunks}),
            **{
                name: xr.Variable(("pair", "point"), _short(values), {"long_name": _DISTORTION[name]})
                for name, values in zip(("source_distortion", "target_distortion"), distortions, strict=True)
            },
        }
        coordinates = {
            "source": ("pair", np.array([pair.source.space.name for pair in pairs], dtype=object)),
            "target": ("pair", np.array([pair.target.space.name for pair in pairs], dtype=object)),
            "point": points.astype(object),
            "label": ("point", labels_of(points, text_labels(self.rows[dataset]))),
        }
        grown = any(pair.grown_by for pair in pairs)
        return xr.Dataset(variables, coordinates, {"map_back": "a fit of its own" if grown else "transpose"})


def keep_maps(run: Run, zoo: Zoo, spaces: tuple[SpaceBasis, ...], scored: ScoredPairs) -> KeptMaps:
    """Compute the maps to be kept that no stored block holds; none while only a part of the scores is there."""
    if scored.n_not_computed or not_computed(run, zoo, spaces):
        return KeptMaps()
    pairs = [_oriented(pair, scored) for pair in kept_pairs(run, zoo, spaces, scored)]
    ids = {based.key: based.ids for pair in pairs for based in (pair.source, pair.target)}
    wanted = {pair.key for pair in pairs}
    places = {pair: place for pair, place in _stored(run.store.receipts("kept_maps")) if pair in wanted}
    grown = {
        pair.key: (place.block, place.row)
        for pair in pairs
        if pair.grown_by and (place := scored.place(pair.source, pair.target))
    }
    failed: list[Failure] = []
    jobs = list(_jobs(run.store, wanted - places.keys(), ids, grown))
    run.announce("maps", 0, len(jobs))
    for done, (number, result) in enumerate(run.workers.run(store_maps, jobs), start=1):
        job = jobs[number]
        if isinstance(result, JobFailure):
            failed.append(_failure(pairs, job, result))
        else:
            places |= dict(_stored([run.store.receipt("kept_maps", job.key)]))
        run.announce("maps", done, len(jobs))
    n_new = sum(job.pairs[0] in places and len(job.pairs) for job in jobs)
    run.stage_counts.count("maps", n_new, len(places) - n_new)
    made = tuple(pair for pair in pairs if pair.key in places)
    rows = {dataset: zoo.rows[dataset] for dataset in {pair.source.space.dataset for pair in made}}
    run.failures.extend(failed)
    return KeptMaps(made, places, rows)


def store_maps(job: KeepJob) -> None:
    """Read the bases of a block once, find the map of each pair and where it loses functions; commit them."""
    bases: dict[str, tuple[Basis, np.ndarray]] = {}
    for key in sorted({key for *pair, _ in job.pairs for key in pair}):
        with job.store.open("bases", key) as unit:
            bases[key] = Basis(unit.read("eigenvalues"), unit.read("eigenvectors"), np.nan), unit.read("ids")
    grown = _grown_maps(job)
    maps, distortions, common = [], [], np.empty(0, dtype=str)
    for first, second, grown_by in job.pairs:
        if grown_by:
            functional_map = grown[first, second, grown_by]
            lost, missed, common = _distortions(functional_map, bases[first], bases[second])
        else:
            functional_map, lost, missed, common = _known_map(bases[first], bases[second])
        maps.append(functional_map)
        distortions.append((lost, missed))
    with job.store.commit("kept_maps", job.key) as unit_writer:
        unit_writer.arrays.write("functional_maps", np.stack(maps))
        unit_writer.arrays.write("distortions", np.array(distortions))
        unit_writer.arrays.write("ids", common)
        unit_writer.facts |= {"pairs": [list(pair) for pair in job.pairs]}


def _known_map(source: BasisOnIds, target: BasisOnIds) -> MapOnPoints:
    """Return the map between points that are known by their ids, both distortions, and the ids."""
    (basis, ids), (other, other_ids) = source, target
    rows, other_rows, common = basis.eigenvectors, other.eigenvectors, ids
    if len(ids) != len(other_ids) or (ids != other_ids).any():
        # ScoredPairs before, so there are enough common ids.
        (rows, other_rows), common = common_rows((rows, ids), (other_rows, other_ids), 0.0)
    functional_map = full_map(rows, other_rows)
    lost = source_distortion(functional_map, Basis(basis.eigenvalues, rows, np.nan))
    return functional_map, lost, target_distortion(functional_map, Basis(other.eigenvalues, other_rows, np.nan)), common


def _grown_maps(job: KeepJob) -> dict[KeptKey, np.ndarray]:
    """Return the grown maps of a job, which lie with their scores; each block is read once."""
    found: dict[KeptKey, np.ndarray] = {}
    for block in sorted({block for block, _ in job.grown.values()}):
        with job.store.open("scores", block) as unit:
            maps = unit.read("maps")
        found |= {pair: maps[row, 0].astype(np.float64) for pair, (own, row) in job.grown.items() if own == block}
    return found


def _distortions(
    functional_map: np.ndarray, source: BasisOnIds, target: BasisOnIds
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return both distortions of a grown map on the common ids, and these: each basis is on all of its points."""
    (basis, ids), (other, other_ids) = source, target
    common, here, there = common_ids(ids, other_ids)
    lost = source_distortion(functional_map, basis)[here]
    return lost, target_distortion(functional_map, other)[there], common


def _jobs(
    store: UnitStore, missing: Iterable[KeptKey], ids: Mapping[str, str], grown: Mapping[KeptKey, tuple[str, int]]
) -> Iterator[KeepJob]:
    """Yield the missing pairs in blocks of up to 16 × 16 bases; in each, firsts have the same ids, and seconds."""
    missing = list(missing)
    keys = sorted({key for *pair, _ in missing for key in pair})
    group = {key: position // BLOCK_SIDE for position, key in enumerate(keys)}

    def block_of(pair: KeptKey) -> tuple[str, str, int, int]:
        return ids[pair[0]], ids[pair[1]], group[pair[0]], group[pair[1]]

    for _, block in groupby(sorted(missing, key=lambda pair: (block_of(pair), pair)), key=block_of):
        pairs = tuple(block)
        own = {pair: grown[pair] for pair in pairs if pair in grown}
        yield KeepJob(store, digest({"kind": "kept_maps", "pairs": pairs}), pairs, own)


def _stored(receipts: Iterable[Receipt]) -> Iterator[tuple[KeptKey, tuple[str, int]]]:
    for receipt in receipts:
        for row, (first, second, grown) in enumerate(receipt.facts["pairs"]):
            yield (first, second, grown), (receipt.key, row)


def _short(values: np.ndarray) -> np.ndarray:
    """Return the values to 12 bits, a relative error of 1e-4: what they show needs no more, and zeros compress."""
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.round(mantissa * 4096) / 4096, exponent).astype(np.float32)


def _oriented(pair: SpacePair, scored: ScoredPairs) -> KeptPair:
    """Return a pair as it is published: a grown map leads from the lower key to the higher, the way it is stored."""
    source, target = pair
    grown_by = scored.grown_by(source, target)
    if grown_by and source.key > target.key:
        source, target = target, source
    return KeptPair(source, target, grown_by)


def _failure(pairs: Iterable[KeptPair], job: KeepJob, trouble: JobFailure) -> Failure:
    """Return why a block of maps is not kept, told of its first pair."""
    first = next(pair for pair in pairs if pair.key == job.pairs[0])
    what = f"map of {first.source.space.name} and {first.target.space.name}"
    return Failure(first.source.space.dataset, what, "", "maps", trouble.reason, trouble.message)
