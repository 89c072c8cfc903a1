"""Scores of activations for one block of pairs, on the ids that both spaces of each pair have."""

from collections.abc import Collection, Iterable, Iterator, Mapping

import numpy as np

from lfm_tasks.measures.neighbourhoods import N_NEIGHBORS
from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.reasons import ReasonError
from lfm_tasks.stages.activations.rows import read_activations
from lfm_tasks.stages.inventory.correspondence import common_ids, same_ids
from lfm_tasks.stages.scores.block import BlockJob, BlockScores, Resamplings
from lfm_tasks.stages.scores.row_measures import Activations, Ranks, check_rows, score_rows
from lfm_tasks.stores.units.digests import ids_digest


def score_activations(
    job: BlockJob, ids: Mapping[str, np.ndarray], scores: BlockScores, resamplings: Resamplings
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
        if same_ids(ids[first], ids[second]):
            alike.setdefault(ids_digest(ids[second]), []).append(number)
            continue
        common, of_first, of_second = common_ids(ids[first], ids[second])
        yield [number], common, activations.among({first: of_first, second: of_second})
    for numbers in alike.values():
        keys = {key for number in numbers for key in pairs[number]}
        yield numbers, ids[pairs[numbers[0]][0]], activations.some(keys)
