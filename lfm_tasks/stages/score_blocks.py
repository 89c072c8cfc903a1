"""One block of pairs: its bases and activations are read once, every pair is scored, the block is committed."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.config import AtlasConfig
from lfm_tasks.measures.neighbourhoods import N_NEIGHBORS
from lfm_tasks.measures.permutation_moments import permutation_profile, unpack
from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.reasons import ReasonError
from lfm_tasks.spectral.full_map import whitened_rows
from lfm_tasks.stages.activations import read_activations
from lfm_tasks.stages.designs import Design, Resampling, read_design, resampling
from lfm_tasks.stages.fitted_scores import FittedScores, read_known_space
from lfm_tasks.stages.knowledge import Knowledge, common_ids, read_labels
from lfm_tasks.stages.map_scores import DIAGNOSTICS, MAP_SCORES, BasisRows, basis_rows, score_both_ways
from lfm_tasks.stages.row_scores import Activations, Ranks, check_rows, score_rows
from lfm_tasks.stages.statistics import STATISTICS
from lfm_tasks.stores.digests import ids_digest
from lfm_tasks.stores.units import Receipt, UnitStore


class ScoreSettings(NamedTuple):
    """Everything but the two bases that decides scores: the measures, in order, and a digest of all the rest.

    No measure changes what another one gives: scores under the same rest and more measures hold these, too.
    """

    rest: str
    measures: tuple[str, ...]

    @classmethod
    def of(cls, receipt: Receipt) -> "ScoreSettings":
        """Return those of a stored block; of one that an older version made, none."""
        rest, measures = receipt.facts.get("scored_by", ("", ()))
        return cls(rest, tuple(measures))

    def hold(self, wanted: "ScoreSettings") -> bool:
        """Return whether scores under these settings hold all that is wanted."""
        return self.rest == wanted.rest and set(wanted.measures) <= set(self.measures)


@dataclass(frozen=True)
class BlockJob:
    """Pairs of bases (keys, each pair in ascending order) to score together; of each base, its activations' unit.

    ``knowledge``: from what their maps are fitted. ``design``, ``labels``: the units that say how their rows are
    resampled and of which class they are, or empty.
    """

    store: UnitStore
    key: str
    settings: ScoreSettings
    pairs: tuple[tuple[str, str], ...]
    atlas: AtlasConfig
    activations: Mapping[str, str]
    knowledge: Knowledge
    design: str
    labels: str


class _Resamplings:
    """The resampling of each list of ids in a block, made once."""

    def __init__(self, design: Design | None, atlas: AtlasConfig) -> None:
        self._design, self._atlas = design, atlas
        self._known: dict[str, Resampling] = {}

    def of(self, ids: np.ndarray) -> Resampling:
        key = ids_digest(ids)
        if key not in self._known:
            self._known[key] = resampling(ids, self._design, self._atlas)
        return self._known[key]


@dataclass(frozen=True)
class BlockScores:
    """What the maps of a block's pairs come to, filled pair by pair; ``of_maps`` are their measures' columns."""

    values: Float[np.ndarray, "pairs 2 measures statistics"]
    diagnostics: Float[np.ndarray, "pairs 2 diagnostics"]
    n_common: Int[np.ndarray, " pairs"]
    of_maps: Mapping[str, int]
    maps: dict[tuple[int, int], Float[np.ndarray, "target source"]] = field(default_factory=dict)
    refusals: dict[int, ReasonError] = field(default_factory=dict)
    codes: dict[tuple[int, int], str] = field(default_factory=dict)

    @property
    def columns(self) -> list[int]:
        """The columns of the measures of maps."""
        return list(self.of_maps.values())


def store_block(job: BlockJob) -> None:
    """Read the bases of a block once, score its pairs, commit them."""
    resamplings = _Resamplings(read_design(job.store, job.design), job.atlas)
    keys = sorted({key for pair in job.pairs for key in pair})
    measures = sorted(job.atlas.measures)
    scores = BlockScores(
        np.full((len(job.pairs), 2, len(measures), len(STATISTICS)), np.nan),
        np.full((len(job.pairs), 2, len(DIAGNOSTICS)), np.nan),
        np.zeros(len(job.pairs), dtype=np.int32),
        {name: column for column, name in enumerate(measures) if name in MAP_SCORES},
    )
    if job.knowledge.regime == "full" or not scores.of_maps:
        ids = score_full_maps(job, keys, scores, resamplings)
    else:
        ids = score_fitted_maps(job, keys, scores)
    score_activations(job, ids, scores, resamplings)
    position = {key: place for place, key in enumerate(keys)}
    with job.store.commit("scores", job.key) as unit_writer:
        unit_writer.arrays.write("pairs", np.array([[position[a], position[b]] for a, b in job.pairs], dtype=np.int32))
        unit_writer.arrays.write("values", scores.values)
        unit_writer.arrays.write("n_common", scores.n_common)
        unit_writer.arrays.write("diagnostics", scores.diagnostics)
        if scores.maps:
            unit_writer.arrays.write("maps", stacked_maps(scores.maps, len(job.pairs)))
        unit_writer.facts |= {
            "scored_by": list(job.settings),
            "pairs": [list(pair) for pair in job.pairs],
            "refusals": [[row, error.reason, str(error)] for row, error in sorted(scores.refusals.items())],
            "codes": [[row, measures[column], reason] for (row, column), reason in sorted(scores.codes.items())],
        }


def score_full_maps(
    job: BlockJob, keys: list[str], scores: BlockScores, resamplings: _Resamplings
) -> dict[str, np.ndarray]:
    """Fill in the measures of maps between points that are all known by their ids; return the ids of each base."""
    bases: dict[str, BasisRows] = {}
    ids: dict[str, np.ndarray] = {}
    refused_spaces: dict[str, ReasonError] = {}
    for key in keys:
        with job.store.open("bases", key) as unit:
            eigenvectors, ids[key] = unit.read("eigenvectors"), unit.read("ids")
            eigenvalues = unit.read("eigenvalues")
            profile = unpack(unit.read("overlap_profile"), len(eigenvectors))
        try:
            bases[key] = basis_rows(eigenvalues, eigenvectors, profile, resamplings.of(ids[key]))
        except ReasonError as error:
            refused_spaces[key] = error
    scores.refusals.update(
        {number: refused_spaces[key] for number, pair in enumerate(job.pairs) for key in pair if key in refused_spaces}
    )
    names = list(scores.of_maps)
    for second, numbers in _by_target(job.pairs, scores.refusals).items():
        alike = [number for number in numbers if _same_ids(ids[job.pairs[number][0]], ids[second])]
        # Chance is sampled by permuting the target's rows: laid out once for all sources on the same points.
        sources, exchange = [bases[job.pairs[number][0]] for number in alike], resamplings.of(ids[second]).exchange
        found = score_both_ways(sources, bases[second], names, job.atlas.null, exchange)
        for number, (statistics, diagnostics) in zip(alike, found, strict=True):
            scores.n_common[number], scores.values[number][:, scores.columns] = len(ids[second]), statistics
            scores.diagnostics[number] = diagnostics
        for number in sorted(set(numbers) - set(alike)):
            first = job.pairs[number][0]
            try:
                rows, common = common_rows(
                    (bases[first].rows, ids[first]), (bases[second].rows, ids[second]), job.atlas.min_overlap
                )
                chance = resamplings.of(common)
                source, target = (
                    basis_rows(bases[key].eigenvalues, own, permutation_profile(own[:, 1:]), chance)
                    for key, own in zip((first, second), rows, strict=True)
                )
            except ReasonError as error:
                scores.refusals[number] = error
                continue
            scores.n_common[number] = len(common)
            ((statistics, scores.diagnostics[number]),) = score_both_ways(
                [source], target, names, job.atlas.null, chance.exchange
            )
            scores.values[number][:, scores.columns] = statistics
    for number in scores.refusals:
        first, second = job.pairs[number]
        scores.n_common[number] = len(common_ids(ids[first], ids[second])[0])
    return ids


def score_fitted_maps(job: BlockJob, keys: list[str], scores: BlockScores) -> dict[str, np.ndarray]:
    """Fill in the measures of maps that are fitted from little knowledge; return the ids of each base."""
    labels = read_labels(job.store, job.labels)
    spaces = {key: read_known_space(job.store, key, job.activations[key], job.atlas, labels) for key in keys}
    fitted = FittedScores(job.knowledge, job.atlas, spaces)
    for number, pair in enumerate(job.pairs):
        scores.n_common[number] = len(common_ids(spaces[pair[0]].ids, spaces[pair[1]].ids)[0])
        for direction, (source, target) in enumerate((pair, pair[::-1])):
            try:
                found = fitted.score(source, target, list(scores.of_maps))
            except ReasonError as error:
                scores.codes.update({(number, column): error.reason for column in scores.columns})
                break
            scores.values[number, direction, scores.columns] = found.values
            scores.diagnostics[number, direction] = found.diagnostics
            # Grown maps cost too much to be grown again for the collection.
            if job.knowledge.refine == "zoomout":
                scores.maps[number, direction] = found.functional_map
    return {key: known.ids for key, known in spaces.items()}


def score_activations(
    job: BlockJob, ids: Mapping[str, np.ndarray], scores: BlockScores, resamplings: _Resamplings
) -> None:
    """Fill in the measures of activations, and the reason codes of those that are not plainly ok."""
    names = [name for name in sorted(job.atlas.measures) if name in MEASURES]
    if not names:
        return
    columns = {name: sorted(job.atlas.measures).index(name) for name in names}
    apart = set() if job.knowledge.regime == "full" else _with_little_overlap(job, ids, scores)
    scores.codes.update({(number, columns[name]): "little_overlap" for number in apart for name in names})
    activations = _read_activations(job, ids)
    for numbers, common, spaces in _on_common_ids(job.pairs, ids, activations, scores.refusals.keys() | apart):
        rows = spaces.rows
        ranks = Ranks()
        for name in names:
            usable = []
            for number in numbers:
                first, second = job.pairs[number]
                try:
                    code = check_rows(name, rows[first], rows[second])
                except ReasonError as error:
                    scores.codes[number, columns[name]] = error.reason
                    continue
                usable.append(number)
                if code == "ok" and ranks.is_deficient(name, first, second, rows):
                    code = "rank_deficient"
                if code != "ok":
                    scores.codes[number, columns[name]] = code
            if usable:
                pairs = [job.pairs[number] for number in usable]
                values = score_rows(name, spaces, pairs, resamplings.of(common), job.atlas.null)
                scores.values[usable, :, columns[name]] = values


def stacked_maps(
    maps: Mapping[tuple[int, int], Float[np.ndarray, "target source"]], n_pairs: int
) -> Float[np.ndarray, "pairs 2 target source"]:
    """Return maps by (pair, direction) as one array, NaN where there is none."""
    stacked = np.full((n_pairs, 2, *next(iter(maps.values())).shape), np.nan, dtype=np.float32)
    for place, own in maps.items():
        stacked[place] = own
    return stacked


def _with_little_overlap(job: BlockJob, ids: Mapping[str, np.ndarray], scores: BlockScores) -> set[int]:
    """Return the pairs that a map can be fitted for, but whose common ids are too few to compare rows."""
    least = [job.atlas.min_overlap * min(len(ids[key]) for key in pair) for pair in job.pairs]
    return {number for number, needed in enumerate(least) if scores.n_common[number] < max(2, needed)}


def _read_activations(job: BlockJob, keys: Iterable[str]) -> Activations:
    """Return the activations of the block's spaces; their neighbours where graphs have the exact ones by cosine."""
    rows, neighbours = {}, {}
    for key in keys:
        with job.store.open("activations", job.activations[key]) as unit:
            rows[key] = read_activations(unit)
        if job.atlas.graph.metric == "angular" and job.store.receipt("bases", key).facts["method"] == "exact":
            with job.store.open("bases", key) as unit:
                neighbours[key] = unit.read("neighbours")
    return Activations(rows, {key: found for key, found in neighbours.items() if found.shape[1] >= N_NEIGHBORS})


def _on_common_ids(
    pairs: tuple[tuple[str, str], ...],
    ids: Mapping[str, np.ndarray],
    activations: Activations,
    refused: Collection[int],
) -> Iterator[tuple[list[int], np.ndarray, Activations]]:
    """Yield (numbers of pairs, their common ids, spaces on these): all pairs on equal ids at once, the others alone."""
    alike: dict[str, list[int]] = {}
    for number, (first, second) in enumerate(pairs):
        if number in refused:
            continue
        if _same_ids(ids[first], ids[second]):
            alike.setdefault(ids_digest(ids[second]), []).append(number)
            continue
        common, of_first, of_second = common_ids(ids[first], ids[second])
        yield [number], common, activations.among({first: of_first, second: of_second})
    for numbers in alike.values():
        keys = {key for number in numbers for key in pairs[number]}
        yield numbers, ids[pairs[numbers[0]][0]], activations.some(keys)


def common_rows(
    source: tuple[np.ndarray, np.ndarray], target: tuple[np.ndarray, np.ndarray], min_overlap: float
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Return both bases, given as (rows, ids), on the ids that they share, orthonormal there; and these, in order."""
    (first, first_ids), (second, second_ids) = source, target
    common, of_first, of_second = common_ids(first_ids, second_ids)
    smaller = min(len(first_ids), len(second_ids))
    if not len(of_first):
        found = f"found no common ids among {smaller}, needs the same samples"
        raise ReasonError("no_overlap", f"{found}: record both spaces on them")
    if len(of_first) < min_overlap * smaller:
        raise ReasonError(
            "little_overlap",
            f"found {len(of_first)} common ids of {smaller}, atlas.min_overlap needs a share of {min_overlap}: record "
            "both on the same samples, or lower it",
        )
    return (whitened_rows(first[of_first]), whitened_rows(second[of_second])), common


def _by_target(pairs: tuple[tuple[str, str], ...], refused: Collection[int]) -> dict[str, list[int]]:
    """Return the numbers of the pairs that are not refused by their second base."""
    numbers: dict[str, list[int]] = {}
    for number, (_, second) in enumerate(pairs):
        if number not in refused:
            numbers.setdefault(second, []).append(number)
    return numbers


def _same_ids(first: np.ndarray, second: np.ndarray) -> bool:
    return len(first) == len(second) and bool((first == second).all())
