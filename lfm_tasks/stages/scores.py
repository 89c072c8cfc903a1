"""Stage scores: functional maps, scores and their nulls for all pairs, a task a block of pairs.

A stored block lists its pairs, so any blocks that cover all pairs do: a new model costs the pairs that it is part of.
Every pair is multiplied in shapes that depend on its two spaces only, so its numbers do not depend on its block.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations_with_replacement, groupby

import numpy as np
from jaxtyping import Float

from lfm_tasks.config import AtlasConfig
from lfm_tasks.reasons import ReasonError
from lfm_tasks.spectral import scores as map_scores
from lfm_tasks.spectral.full_map import full_map, whitened_rows
from lfm_tasks.spectral.null_maps import permutations_per_product, permuted_maps, permuted_rows
from lfm_tasks.stages.bases import BasedSpace
from lfm_tasks.stages.run import Run
from lfm_tasks.stages.workers import Trouble
from lfm_tasks.stores.digests import digest
from lfm_tasks.stores.units import Receipt, UnitStore

# Bases on a side of a block: a task reads at most twice as many, and takes seconds.
BLOCK_SIDE = 16
STATISTICS = ("score", "null_mean", "null_q95", "calibrated", "p_value", "ci_low", "ci_high")


@dataclass(frozen=True)
class MapScore:
    """A similarity computed from a functional map; ``has_null``: chance levels mean something for it."""

    function: Callable[[Float[np.ndarray, "*stack target source"]], Float[np.ndarray, "*stack"]]
    has_null: bool
    convention: str


MAP_SCORES: Mapping[str, MapScore] = {
    "lfm": MapScore(map_scores.lfm, True, "1 - |off(C'C)|^2/|C'C|^2, trivial mode dropped; asymmetric, in [0, 1]"),
    "lfm_raw": MapScore(map_scores.lfm_raw, False, "the same, trivial mode kept (the paper's); chance is close to 1"),
    "lfm_unsquared": MapScore(map_scores.lfm_unsquared, False, "unsquared norms, trivial mode kept (the paper's code)"),
    "overlap": MapScore(map_scores.overlap, True, "|C|^2/(K-1), trivial modes dropped; symmetric, in [0, 1]"),
}


@dataclass(frozen=True)
class PairScores:
    """Where the scores of a pair of bases lie: key of the block, row in it; ``refusal``: why there are none."""

    block: str
    row: int
    refusal: Trouble | None = None


@dataclass(frozen=True)
class Scored:
    """Scores of all pairs: (lower key, higher key) of two bases → their place; or what kept them from being made."""

    places: Mapping[tuple[str, str], PairScores]
    troubles: Mapping[tuple[str, str], Trouble]

    def refusal(self, pair: tuple[str, str]) -> Trouble | None:
        """Return why a pair has no scores; None if it has."""
        return self.troubles.get(pair) or self.places[pair].refusal


@dataclass(frozen=True)
class BlockJob:
    """Pairs of bases (keys, each pair in ascending order) to score together."""

    store: UnitStore
    key: str
    settings: str
    pairs: tuple[tuple[str, str], ...]
    atlas: AtlasConfig


def score_pairs(run: Run, spaces: tuple[BasedSpace, ...]) -> Scored:
    """Score all pairs within each dataset that no stored block holds yet."""
    settings = score_settings(run.catalog.atlas)
    places = stored_pairs(run.store, settings)
    wanted = wanted_pairs((based.space.dataset, based.key) for based in spaces)
    jobs = list(block_jobs(run, settings, sorted(wanted - places.keys())))
    troubles: dict[tuple[str, str], Trouble] = {}
    run.announce("scores", 0, len(jobs))
    for done, (number, result) in enumerate(run.workers.run(store_block, jobs), start=1):
        job = jobs[number]
        if isinstance(result, Trouble):
            troubles |= dict.fromkeys(job.pairs, result)
        else:
            places |= _block_places(run.store.receipt("scores", job.key))
        run.announce("scores", done, len(jobs))
    n_new = sum(len(job.pairs) for job in jobs) - len(troubles)
    run.tally.count("scores", n_new, len(wanted) - n_new - len(troubles))
    return Scored({pair: places[pair] for pair in wanted if pair in places}, troubles)


def wanted_pairs(bases: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return the pairs of bases, lower key first, of all (dataset, key) that share a dataset."""
    pairs: set[tuple[str, str]] = set()
    for _, group in groupby(sorted(set(bases)), key=lambda base: base[0]):
        pairs.update(combinations_with_replacement([key for _, key in group], 2))
    return pairs


def score_settings(atlas: AtlasConfig) -> str:
    """Return the digest of every setting that can change a score of two given bases."""
    return digest(
        {
            "kind": "scores",
            "maps": atlas.maps.model_dump(),
            "measures": sorted(atlas.measures),
            "null": atlas.null.model_dump(),
            "min_overlap": atlas.min_overlap,
        }
    )


def stored_pairs(store: UnitStore, settings: str) -> dict[tuple[str, str], PairScores]:
    """Return the place of every pair that was scored under these settings, in whichever block."""
    places: dict[tuple[str, str], PairScores] = {}
    for receipt in store.receipts("scores"):
        if receipt.facts["settings"] == settings:
            places |= _block_places(receipt)
    return places


def _block_places(receipt: Receipt) -> dict[tuple[str, str], PairScores]:
    refusals = {row: Trouble(*why) for row, *why in receipt.facts["refusals"]}
    pairs = enumerate(receipt.facts["pairs"])
    return {(first, second): PairScores(receipt.key, row, refusals.get(row)) for row, (first, second) in pairs}


def block_jobs(run: Run, settings: str, missing: list[tuple[str, str]]) -> Iterator[BlockJob]:
    """Yield the missing pairs in blocks of up to 16 × 16 bases."""
    keys = sorted({key for pair in missing for key in pair})
    group = {key: position // BLOCK_SIDE for position, key in enumerate(keys)}

    def block_of(pair: tuple[str, str]) -> tuple[int, int]:
        return group[pair[0]], group[pair[1]]

    for _, pairs in groupby(sorted(missing, key=lambda pair: (block_of(pair), pair)), key=block_of):
        block = tuple(pairs)
        key = digest({"kind": "scores", "settings": settings, "pairs": block})
        yield BlockJob(run.store, key, settings, block, run.catalog.atlas)


def store_block(job: BlockJob) -> None:
    """Read the bases of a block once, score its pairs, commit them."""
    keys = sorted({key for pair in job.pairs for key in pair})
    rows, ids = {}, {}
    for key in keys:
        with job.store.open("bases", key) as unit:
            rows[key], ids[key] = unit.read("eigenvectors"), unit.read("ids")
    measures = sorted(job.atlas.measures)
    values = np.full((len(job.pairs), 2, len(measures), len(STATISTICS)), np.nan)
    n_common = np.zeros(len(job.pairs), dtype=np.int32)
    refusals: dict[int, ReasonError] = {}
    for second, numbers in _by_target(job.pairs).items():
        alike = [number for number in numbers if _same_ids(ids[job.pairs[number][0]], ids[second])]
        # Chance is sampled by permuting the target's rows: laid out once for all sources on the same points.
        sources = [rows[job.pairs[number][0]] for number in alike]
        for number, found in zip(alike, score_both_ways(sources, rows[second], measures, job.atlas), strict=True):
            n_common[number], values[number] = len(ids[second]), found
        for number in sorted(set(numbers) - set(alike)):
            first = job.pairs[number][0]
            try:
                source, target = common_rows(rows[first], ids[first], rows[second], ids[second], job.atlas.min_overlap)
            except ReasonError as error:
                refusals[number] = error
                continue
            n_common[number], values[number] = len(source), score_both_ways([source], target, measures, job.atlas)[0]
    position = {key: place for place, key in enumerate(keys)}
    with job.store.commit("scores", job.key) as unit_writer:
        unit_writer.arrays.write("pairs", np.array([[position[a], position[b]] for a, b in job.pairs], dtype=np.int32))
        unit_writer.arrays.write("values", values)
        unit_writer.arrays.write("n_common", n_common)
        unit_writer.facts |= {
            "settings": job.settings,
            "pairs": [list(pair) for pair in job.pairs],
            "refusals": [[row, error.reason, str(error)] for row, error in sorted(refusals.items())],
        }


def common_rows(
    first: np.ndarray, first_ids: np.ndarray, second: np.ndarray, second_ids: np.ndarray, min_overlap: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return both bases on the ids that they share, orthonormal there; ids are in ascending order."""
    _, of_first, of_second = np.intersect1d(first_ids, second_ids, assume_unique=True, return_indices=True)
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
    return whitened_rows(first[of_first]), whitened_rows(second[of_second])


def score_both_ways(
    sources: list[np.ndarray], target: np.ndarray, measures: list[str], atlas: AtlasConfig
) -> list[Float[np.ndarray, "2 measures statistics"]]:
    """Return, for each source, the statistics of both directions; the map back is the transpose."""
    found = []
    for source, null in zip(sources, _null_maps(sources, target, atlas), strict=True):
        there = full_map(source, target)
        values = np.full((2, len(measures), len(STATISTICS)), np.nan)
        for direction, (maps, null_maps) in enumerate(((there, null), (there.T, np.swapaxes(null, 1, 2)))):
            for column, name in enumerate(measures):
                measure = MAP_SCORES[name]
                score = float(measure.function(maps))
                values[direction, column, 0] = score
                if len(null_maps) and measure.has_null:
                    chance = measure.function(null_maps).astype(np.float64)
                    values[direction, column, 1:5] = _against_chance(score, chance)
        found.append(values)
    return found


def _by_target(pairs: tuple[tuple[str, str], ...]) -> dict[str, list[int]]:
    """Return the numbers of the pairs by their second base."""
    numbers: dict[str, list[int]] = {}
    for number, (_, second) in enumerate(pairs):
        numbers.setdefault(second, []).append(number)
    return numbers


def _same_ids(first: np.ndarray, second: np.ndarray) -> bool:
    return len(first) == len(second) and bool((first == second).all())


def _null_maps(sources: list[np.ndarray], target: np.ndarray, atlas: AtlasConfig) -> list[np.ndarray]:
    """Return, for each source, the maps (permutations, target, source) of permuted rows.

    Permutation r of n points is the same for every pair: its generator counts (seed, r), whoever asks.
    """
    n_points, n_permutations = len(target), atlas.null.n_permutations
    maps = [np.empty((n_permutations, target.shape[1], source.shape[1]), dtype=np.float32) for source in sources]
    step = permutations_per_product(n_points, target.shape[1])
    for start in range(0, n_permutations if sources else 0, step):
        numbers = range(start, min(start + step, n_permutations))
        wide = permuted_rows(target, np.stack([_permutation(atlas.null.seed, r, n_points) for r in numbers]))
        for source, filled in zip(sources, maps, strict=True):
            filled[start : start + len(numbers)] = permuted_maps(source, wide, len(numbers))
    return maps


def _permutation(seed: int, number: int, n_points: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=[seed, number])).permutation(n_points)


def _against_chance(score: float, chance: Float[np.ndarray, " permutations"]) -> tuple[float, float, float, float]:
    """Return null mean, its 95 % quantile, calibrated score (chance 0, best 1), and p = (1 + #{≥})/(1 + n)."""
    mean = float(chance.mean())
    calibrated = (score - mean) / (1 - mean)
    p_value = (1 + int(np.count_nonzero(chance >= score))) / (1 + len(chance))
    return mean, float(np.quantile(chance, 0.95)), calibrated, p_value
