"""One block of pairs: bases and activations are read part by part, every pair is scored, the block is committed."""

from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from lfm_tasks.errors import DataError
from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.spectral.bases.full_map import DIAGNOSTICS, MAP_SCORES
from lfm_tasks.stages.inventory.correspondence import read_exchangeability
from lfm_tasks.stages.scores.block import STATISTICS, BlockJob, BlockScores, Resamplings, reads_activations
from lfm_tasks.stages.scores.cache import add_kept
from lfm_tasks.stages.scores.full_maps import score_full_maps
from lfm_tasks.stages.scores.point_pair_measures import kept_of_space, measures_that_travel
from lfm_tasks.stages.scores.row_measures import read_spaces, score_activations
from lfm_tasks.stages.scores.zoomout_maps import score_grown_maps
from lfm_tasks.statistics.resampling import rows_by_value


def store_block(job: BlockJob) -> None:
    """Score the pairs of a block, part after part, commit them."""
    resamplings = Resamplings(read_exchangeability(job.store, job.exchangeability), job.atlas)
    measures = sorted(job.atlas.measures)
    add_kept(job.kept)
    scores, ids = _no_scores(job, job.n_pairs), dict[str, np.ndarray]()
    for pairs in _parts(job, job.part_side):
        part = job.some(pairs)
        of_part = _no_scores(part, len(pairs))
        ids |= score_part(part, of_part, resamplings)
        scores.take(pairs, of_part)
    # Spaces are compared by all pairs of points many at once: their matrices are computed again for each part.
    together = [name for name in measures if name in MEASURES and MEASURES[name].compares_point_pairs]
    for pairs in _parts(job, job.tile_side) if together else ():
        part = job.some(pairs)
        of_part = scores.some(pairs)
        score_activations(part, together, ids, of_part, resamplings)
        scores.take(pairs, of_part)
    scores.settle()
    with job.store.commit("scores", job.key) as unit_writer:
        unit_writer.arrays.write("values", scores.values)
        unit_writer.arrays.write("n_common", scores.n_common)
        unit_writer.arrays.write("diagnostics", scores.diagnostics)
        if scores.maps:
            unit_writer.arrays.write("maps", stacked_maps(scores.maps, job.n_pairs))
        unit_writer.facts |= {
            "scored_by": list(job.settings),
            "bases": list(job.bases),
            "pair_runs": job.runs.tolist(),
            "refusals": _as_facts(scores.refusals),
            "unmapped": _as_facts(scores.unmapped),
            "codes": [[row, measures[column], reason] for (row, column), reason in sorted(scores.codes.items())],
            "causes": [[measures[column], *why, message] for (column, *why), message in sorted(scores.causes.items())],
        }


def keep_spaces(job: BlockJob) -> dict[str, dict[Hashable, Any]]:
    """Compute what measures of matrices need of each space of a job; return, by basis, what is small, by address.

    One space after another: a job has more of them than a part of a block.
    """
    resamplings = Resamplings(read_exchangeability(job.store, job.exchangeability), job.atlas)
    found: dict[str, dict[Hashable, Any]] = {key: {} for key in job.bases}
    too_large = set[str]()
    for key in job.bases:
        ids = job.ids(key)
        space, resampling = read_spaces(job, [key]), resamplings.of(ids, job.ids_key(key))
        for name in measures_that_travel(set(job.settings.measures) - too_large, len(ids)):
            kept = kept_of_space(name, space.on_points, key, resampling)
            if kept is None:  # so are those of the other spaces: of groups, or of many strata
                too_large.add(name)
            else:
                found[key] |= kept
    return found


def score_part(job: BlockJob, scores: BlockScores, resamplings: Resamplings) -> dict[str, np.ndarray]:
    """Read the bases of some pairs once, fill in what is computed pair by pair; return the ids of each basis."""
    keys = [job.bases[place] for place in np.unique(job.sides)]
    if job.correspondence.regime == "full":
        ids = score_full_maps(job, keys, scores, resamplings)
    elif job.correspondence.uses_zoomout:
        ids = score_grown_maps(job, keys, scores)
    else:
        # Its compiled loops take .3 s to import: only for those who need them.
        from lfm_tasks.stages.scores.closed_form_maps import score_closed_maps

        ids = score_closed_maps(job, keys, scores)
    names = [
        name for name in sorted(job.atlas.measures) if name in MEASURES and not MEASURES[name].compares_point_pairs
    ]
    if names:
        score_activations(job, names, ids, scores, resamplings)
    return ids


def _parts(job: BlockJob, side: int) -> Iterator[list[int]]:
    """Yield the indices of pairs to score together, of ``side`` bases a side; where no rows are held, all.

    Bases of two sides are held together in any case: up to so many are one part. Of a block of two groups of bases each
    is cut by itself: a part with some of both would read most of them twice.
    """
    if len(job.bases) <= 2 * side:
        yield list(range(job.n_pairs))
        return
    holds_rows = job.correspondence.regime == "full" or reads_activations(job.correspondence, job.atlas.measures)
    low, high = job.sides.T
    meeting = int(high.min()) if low.max() < high.min() else 0
    n_low = -(-meeting // side)
    places = np.arange(len(job.bases))
    part_of = np.where(places < meeting, places // side, n_low + (places - meeting) // side)
    parts = part_of[job.sides] if holds_rows else np.zeros_like(job.sides)
    codes = parts @ [len(job.bases), 1]
    for pairs in rows_by_value(codes):
        yield pairs.tolist()


def _no_scores(job: BlockJob, n_pairs: int) -> BlockScores:
    """Return the scores of so many pairs before any is known."""
    measures = sorted(job.atlas.measures)
    return BlockScores(
        np.full((n_pairs, 2, len(measures), len(STATISTICS)), np.nan),
        np.full((n_pairs, 2, len(DIAGNOSTICS)), np.nan),
        np.zeros(n_pairs, dtype=np.int32),
        {name: column for column, name in enumerate(measures) if name in MAP_SCORES},
    )


def _as_facts(errors: Mapping[int, DataError]) -> list[list[int | str]]:
    return [[row, error.reason, str(error)] for row, error in sorted(errors.items())]


def stacked_maps(
    maps: Mapping[tuple[int, int], Float[np.ndarray, "target source"]], n_pairs: int
) -> Float[np.ndarray, "pairs 2 target source"]:
    """Return maps by (pair, direction) as one array, NaN where there is none, and beyond those of smaller bases."""
    shape = np.max([functional_map.shape for functional_map in maps.values()], axis=0)
    stacked = np.full((n_pairs, 2, *shape), np.nan, dtype=np.float32)
    for place, functional_map in maps.items():
        n_target, n_source = functional_map.shape
        stacked[*place, :n_target, :n_source] = functional_map
    return stacked
