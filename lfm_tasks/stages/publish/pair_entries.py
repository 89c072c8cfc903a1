"""The scores of directed pairs, read from the stored blocks: all that lie in one block at a time."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.grouping import rows_by_value
from lfm_tasks.reasons import REASONS
from lfm_tasks.runtime.run import Run
from lfm_tasks.spectral.bases.map_measures import DIAGNOSTICS, MAP_SCORES
from lfm_tasks.stages.publish.contents import Contents
from lfm_tasks.stages.scores.pair_index import BasePairs, StoredBlock
from lfm_tasks.stages.scores.stage import ScoredPair
from lfm_tasks.stages.scores.statistics import STATISTICS
from lfm_tasks.workers.pool import Trouble

STATUS = ("ok", "not_computed", *REASONS)
_NONE = -1


@dataclass(frozen=True)
class PairEntries:
    """Directed pairs of a dataset that were asked for by the same measures; ``sources``, ``targets`` number spaces.

    ``status`` numbers `STATUS`. ``overlap_share``: common ids as a share of the smaller space's; NaN where no block
    counted them.
    """

    dataset: str
    measures: tuple[str, ...]
    sources: Int[np.ndarray, " pairs"]
    targets: Int[np.ndarray, " pairs"]
    status: Int[np.ndarray, "pairs measures"]
    n_common: Int[np.ndarray, " pairs"]
    overlap_share: Float[np.ndarray, " pairs"]
    values: Float[np.ndarray, "pairs measures statistics"]
    diagnostics: Float[np.ndarray, "pairs diagnostics"]


@dataclass(frozen=True)
class StoredRows:
    """Rows of a block: ``status`` and ``refused`` number `STATUS`, -1 for nothing to tell."""

    status: Int[np.ndarray, "pairs measures"]
    refused: Int[np.ndarray, " pairs"]
    n_common: Int[np.ndarray, " pairs"]
    values: Float[np.ndarray, "pairs 2 measures statistics"]
    diagnostics: Float[np.ndarray, "pairs 2 diagnostics"]


def pair_entries(run: Run, found: Contents) -> Iterator[PairEntries]:
    """Yield all pairs that have scores, or a reason why not, in both directions; numbers are of ``found.spaces``."""
    scored = found.scored
    places = {based.space: place for place, based in enumerate(found.spaces)}
    place_of = np.array([places[space] for space in scored.pairs.spaces], dtype=np.intp)
    n_points = np.array([based.n_points for based in found.spaces])
    # Pieces that were joined are what the lowest eigenvectors then tell apart, in every space.
    in_pieces = np.array([based.facts["n_components"] > 1 for based in found.spaces])
    for dataset, wish, cells in scored.pairs.by_dataset():
        table = scored.tables[scored.settings_of[dataset, wish]]
        measures = tuple(sorted(scored.pairs.wishes[wish].measures))
        of_maps = np.array([name in MAP_SCORES for name in measures])
        key_of = np.array([table.positions.get(based.key, _NONE) for based in found.spaces])
        sides = np.stack([place_of[side] for side in cells], axis=1)
        low, high = np.sort(key_of[sides], axis=1).T
        block, row, failed = table.block[low, high], table.row[low, high], _failed(table, scored.troubles)[low, high]
        told = np.flatnonzero((block >= 0) | (failed >= 0))
        for chosen in (told[rows] for rows in rows_by_value(block[told])):
            number = int(block[chosen[0]])
            own, keys = sides[chosen], key_of[sides[chosen]]
            if number < 0:
                rows, share = _no_rows(len(own), len(measures)), np.full(len(own), np.nan)
            else:
                rows = _read_rows(run, table.blocks[number], measures, row[chosen])
                share = rows.n_common / n_points[own].min(axis=1)
            refused = np.where(failed[chosen] >= 0, failed[chosen], rows.refused)[:, None]
            usual = np.where(in_pieces[own].any(axis=1)[:, None] & of_maps, STATUS.index("joined"), STATUS.index("ok"))
            status = np.where(refused >= 0, refused, np.where(rows.status >= 0, rows.status, usual))
            rows.values[refused[:, 0] >= 0] = np.nan
            # Where only activations were to be compared, nobody asked what a map would be like.
            rows.diagnostics[(refused[:, 0] >= 0) | ~of_maps.any()] = np.nan
            for side in range(2):
                other = 1 - side
                # Direction 0 of a stored pair is from its lower key; of equal ones both are alike.
                way = np.arange(len(own)), (keys[:, side] > keys[:, other]).astype(int)
                yield PairEntries(
                    dataset, measures, own[:, side], own[:, other], status, rows.n_common, share,
                    rows.values[way], rows.diagnostics[way],
                )  # fmt: skip


def _failed(table: BasePairs, troubles: Mapping[ScoredPair, Trouble]) -> Int[np.ndarray, "bases bases"]:
    """Return the reasons, as numbers of `STATUS`, why pairs of bases could not be scored in this run."""
    failed = np.full(table.block.shape, _NONE, dtype=np.int16)
    for (settings, low, high), trouble in troubles.items():
        if settings == table.settings:
            failed[table.positions[low], table.positions[high]] = STATUS.index(trouble.reason)
    return failed


def _read_rows(
    run: Run, block: StoredBlock, measures: tuple[str, ...], chosen: Int[np.ndarray, " pairs"]
) -> StoredRows:
    """Return some rows of a block, by these of its measures."""
    with run.store.open("scores", block.key) as unit:
        values, n_common, diagnostics = (unit.read(name) for name in ("values", "n_common", "diagnostics"))
    codes = np.full((len(values), len(block.measures)), _NONE, dtype=np.int16)
    for row, told in block.codes.items():
        for measure, reason in told:
            codes[row, block.measures.index(measure)] = STATUS.index(reason)
    refused = np.full(len(values), _NONE, dtype=np.int16)
    for row, trouble in block.refusals.items():
        refused[row] = STATUS.index(trouble.reason)
    columns = [block.measures.index(name) for name in measures]
    return StoredRows(
        codes[chosen][:, columns], refused[chosen], n_common[chosen], values[chosen][:, :, columns], diagnostics[chosen]
    )


def _no_rows(n_pairs: int, n_measures: int) -> StoredRows:
    """Return the rows of pairs that no block has."""
    return StoredRows(
        np.full((n_pairs, n_measures), _NONE),
        np.full(n_pairs, _NONE),
        np.zeros(n_pairs, dtype=np.int32),
        np.full((n_pairs, 2, n_measures, len(STATISTICS)), np.nan),
        np.full((n_pairs, 2, len(DIAGNOSTICS)), np.nan),
    )
