"""The scores of directed pairs, read from the stored blocks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np

from lfm_tasks.stages.asked import asked_measures
from lfm_tasks.stages.contents import Contents
from lfm_tasks.stages.map_scores import DIAGNOSTICS, MAP_SCORES
from lfm_tasks.stages.run import Run
from lfm_tasks.stages.statistics import STATISTICS

_READ = ("values", "n_common", "diagnostics")


@dataclass(frozen=True)
class PairEntry:
    """One directed pair: statuses and values are (measure) and (measure, statistic), in the catalog's order.

    ``overlap_share``: common ids as a share of the smaller space's; NaN where no block counted them.
    """

    dataset: str
    source: str
    target: str
    status: tuple[str, ...]
    n_common: int
    overlap_share: float
    values: np.ndarray
    diagnostics: np.ndarray


def pair_entries(run: Run, found: Contents) -> Iterator[PairEntry]:
    """Yield all directed pairs of every dataset, read from the stored blocks."""
    measures = list(asked_measures(run.catalog))
    blocks: dict[str, Mapping[str, np.ndarray]] = {}
    none = np.full(len(DIAGNOSTICS), np.nan)
    missing = np.full((len(measures), len(STATISTICS)), np.nan)
    for source, target in combinations_with_replacement(found.spaces, 2):
        if source.space.dataset != target.space.dataset:
            continue
        dataset, names = source.space.dataset, (source.space.name, target.space.name)
        both = (names,) if source is target else (names, names[::-1])
        place, refusal = found.scored.place(source, target), found.scored.refusal(source, target)
        n_common, share = 0, np.nan
        if place is not None:
            if place.block not in blocks:
                with run.store.open("scores", place.block) as unit:
                    blocks[place.block] = {name: unit.read(name) for name in _READ}
            block = blocks[place.block]
            n_common = int(block["n_common"][place.row])
            share = n_common / min(source.n_points, target.n_points)
        if refusal is not None:
            for way in both:
                yield PairEntry(dataset, *way, (refusal.reason,) * len(measures), n_common, share, missing, none)
            continue
        if place is None:
            continue
        own = found.scored.measures(source, target)
        columns = [measures.index(name) for name in own], [place.measures.index(name) for name in own]
        # Pieces that were joined are what the lowest eigenvectors then tell apart, in every space.
        in_pieces = max(source.facts["n_components"], target.facts["n_components"]) > 1
        codes = dict.fromkeys(MAP_SCORES, "joined") if in_pieces else {}
        codes |= dict(place.codes)
        status = tuple(codes.get(name, "ok") for name in measures)
        is_mapped = bool(MAP_SCORES.keys() & set(own))
        for way, direction in zip(both, (int(source.key > target.key), int(target.key > source.key)), strict=False):
            values = missing.copy()
            values[columns[0]] = block["values"][place.row, direction][columns[1]]
            # Where only activations were to be compared, nobody asked what a map would be like.
            diagnostics = block["diagnostics"][place.row, direction] if is_mapped else none
            yield PairEntry(dataset, *way, status, n_common, share, values, diagnostics)
