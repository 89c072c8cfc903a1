"""One block of pairs: its bases and activations are read once, every pair is scored, the block is committed."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from lfm_tasks.config import AtlasConfig
from lfm_tasks.measures.permutation_moments import permutation_profile, unpack
from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.reasons import ReasonError
from lfm_tasks.spectral.full_map import whitened_rows
from lfm_tasks.stages.map_scores import MAP_SCORES, STATISTICS, BasisRows, score_both_ways
from lfm_tasks.stages.row_scores import PreparedSpaces, check_rows, score_rows
from lfm_tasks.stores.units import UnitStore


@dataclass(frozen=True)
class BlockJob:
    """Pairs of bases (keys, each pair in ascending order) to score together; of each base, its activations' unit."""

    store: UnitStore
    key: str
    settings: str
    pairs: tuple[tuple[str, str], ...]
    atlas: AtlasConfig
    activations: Mapping[str, str]


def store_block(job: BlockJob) -> None:
    """Read the bases of a block once, score its pairs, commit them."""
    keys = sorted({key for pair in job.pairs for key in pair})
    bases, ids = {}, {}
    for key in keys:
        with job.store.open("bases", key) as unit:
            eigenvectors, ids[key] = unit.read("eigenvectors"), unit.read("ids")
            bases[key] = BasisRows(eigenvectors, unpack(unit.read("overlap_profile"), len(eigenvectors)))
    measures = sorted(job.atlas.measures)
    of_maps = [name for name in measures if name in MAP_SCORES]
    columns = [measures.index(name) for name in of_maps]
    values = np.full((len(job.pairs), 2, len(measures), len(STATISTICS)), np.nan)
    n_common = np.zeros(len(job.pairs), dtype=np.int32)
    refusals: dict[int, ReasonError] = {}
    for second, numbers in _by_target(job.pairs).items():
        alike = [number for number in numbers if _same_ids(ids[job.pairs[number][0]], ids[second])]
        # Chance is sampled by permuting the target's rows: laid out once for all sources on the same points.
        sources = [bases[job.pairs[number][0]] for number in alike]
        for number, found in zip(alike, score_both_ways(sources, bases[second], of_maps, job.atlas), strict=True):
            n_common[number], values[number][:, columns] = len(ids[second]), found
        for number in sorted(set(numbers) - set(alike)):
            first = job.pairs[number][0]
            try:
                both = (bases[first].rows, ids[first]), (bases[second].rows, ids[second])
                source, target = common_rows(*both, job.atlas.min_overlap)
            except ReasonError as error:
                refusals[number] = error
                continue
            n_common[number] = len(source.rows)
            values[number][:, columns] = score_both_ways([source], target, of_maps, job.atlas)[0]
    codes = score_activations(job, ids, values, refusals.keys())
    position = {key: place for place, key in enumerate(keys)}
    with job.store.commit("scores", job.key) as unit_writer:
        unit_writer.arrays.write("pairs", np.array([[position[a], position[b]] for a, b in job.pairs], dtype=np.int32))
        unit_writer.arrays.write("values", values)
        unit_writer.arrays.write("n_common", n_common)
        unit_writer.facts |= {
            "settings": job.settings,
            "pairs": [list(pair) for pair in job.pairs],
            "refusals": [[row, error.reason, str(error)] for row, error in sorted(refusals.items())],
            "codes": [[row, measures[column], reason] for (row, column), reason in sorted(codes.items())],
        }


def score_activations(
    job: BlockJob, ids: Mapping[str, np.ndarray], values: np.ndarray, refused: Collection[int]
) -> dict[tuple[int, int], str]:
    """Fill in the measures of activations; return the reason codes of (pair, measure) that are not plainly ok."""
    names = [name for name in sorted(job.atlas.measures) if name in MEASURES]
    codes: dict[tuple[int, int], str] = {}
    if not names:
        return codes
    activations = {}
    for key in ids:
        with job.store.open("activations", job.activations[key]) as unit:
            activations[key] = unit.read("activations")
    for name in names:
        column = sorted(job.atlas.measures).index(name)
        whole = PreparedSpaces(MEASURES[name], activations)
        for second, numbers in _by_target(job.pairs).items():
            alike: list[int] = []
            for number in sorted(set(numbers) - set(refused)):
                first = job.pairs[number][0]
                same = _same_ids(ids[first], ids[second])
                rows = {first: activations[first], second: activations[second]}
                if not same:
                    _, of_first, of_second = np.intersect1d(
                        ids[first], ids[second], assume_unique=True, return_indices=True
                    )
                    rows = {first: rows[first][of_first], second: rows[second][of_second]}
                try:
                    code = check_rows(name, rows[first], rows[second])
                except ReasonError as error:
                    codes[number, column] = error.reason
                    continue
                if code != "ok":
                    codes[number, column] = code
                if same:
                    alike.append(number)
                else:
                    own = PreparedSpaces(MEASURES[name], rows)
                    values[number][:, column] = score_rows(own, [first], second, job.atlas.null)[0]
            found = score_rows(whole, [job.pairs[number][0] for number in alike], second, job.atlas.null)
            for number, statistics in zip(alike, found, strict=True):
                values[number][:, column] = statistics
    return codes


def common_rows(
    source: tuple[np.ndarray, np.ndarray], target: tuple[np.ndarray, np.ndarray], min_overlap: float
) -> tuple[BasisRows, BasisRows]:
    """Return both bases, given as (rows, ids), on the ids that they share, orthonormal there; ids are in order."""
    (first, first_ids), (second, second_ids) = source, target
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
    whitened = whitened_rows(first[of_first]), whitened_rows(second[of_second])
    there, back = (BasisRows(rows, permutation_profile(rows[:, 1:])) for rows in whitened)
    return there, back


def _by_target(pairs: tuple[tuple[str, str], ...]) -> dict[str, list[int]]:
    """Return the numbers of the pairs by their second base."""
    numbers: dict[str, list[int]] = {}
    for number, (_, second) in enumerate(pairs):
        numbers.setdefault(second, []).append(number)
    return numbers


def _same_ids(first: np.ndarray, second: np.ndarray) -> bool:
    return len(first) == len(second) and bool((first == second).all())
