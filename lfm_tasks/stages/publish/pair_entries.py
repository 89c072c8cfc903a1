"""Stage atlas: the pairs of spaces that have scores, or a reason why not, block after block of scores."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from lfm_tasks.errors import REASONS
from lfm_tasks.runtime.run import Run
from lfm_tasks.spectral.bases.full_map import DIAGNOSTICS, MAP_SCORES
from lfm_tasks.stages.bases.stage import SpaceBasis
from lfm_tasks.stages.scores.block import MOST_TIED, STATISTICS
from lfm_tasks.stages.scores.pair_index import PairIndex, StoredBlock
from lfm_tasks.stages.scores.stage import ScoredPairKey, ScoredPairs
from lfm_tasks.statistics.map_chance import are_localized
from lfm_tasks.workers.pool import JobFailure

STATUS = ("ok", "not_computed", *REASONS)
_NONE = -1


@dataclass(frozen=True)
class PairEntries:
    """Directed pairs of one dataset with the same measures; ``sources`` and ``targets`` are indices of spaces.

    ``status``: indices of `STATUS`. ``overlap_share``: common ids as a share of the smaller space's; NaN where no block
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
    """Rows of a block; ``status`` by measure and ``refusal`` of the pair are indices of `STATUS`, -1 for none.

    ``n_common``: -1 where nothing was counted, because the block could not be computed.
    """

    status: Int[np.ndarray, "pairs measures"]
    refusal: Int[np.ndarray, " pairs"]
    n_common: Int[np.ndarray, " pairs"]
    values: Float[np.ndarray, "pairs 2 measures statistics"]
    diagnostics: Float[np.ndarray, "pairs 2 diagnostics"]


def pair_entries(
    run: Run, spaces: tuple[SpaceBasis, ...], scored: ScoredPairs, grouped: Collection[str]
) -> Iterator[PairEntries]:
    """Yield all pairs that have scores, or a reason why not, in both directions; indices are of ``spaces``.

    Blocks beside each other come one after the other: of large arrays that lie in files a few pages change at a time.

    ``grouped``: the datasets whose points are in groups or strata.
    """
    facts = _SpaceFacts(spaces)
    index_of = {basis.space: index for index, basis in enumerate(spaces)}
    indices = np.array([index_of[space] for space in scored.pairs.spaces], dtype=np.intp)
    for dataset, request, of_dataset in scored.pairs.by_dataset():
        table = scored.tables[scored.settings_of[dataset, request]]
        measures = tuple(sorted(scored.pairs.requests[request].measures))
        # Only where chance is in closed form, which does not hold there, it is drawn.
        is_closed = scored.pairs.requests[request].correspondence.regime == "full" and dataset not in grouped
        kind = _Kind(dataset, measures, is_closed)
        keys = [spaces[index].key for index in indices[of_dataset].tolist()]
        of_bases = SpacesOfBases.of([table.positions.get(key, _NONE) for key in keys], len(table.keys))
        for block, bases, rows in _blocks(table, scored.failures):
            found, which = of_bases.pairs(bases)
            pairs = found + of_dataset.start
            is_requested = scored.pairs.request_indices[*pairs.T] == request
            if is_requested.any():
                chosen = rows[which[is_requested]]
                stored = _no_rows(chosen, len(measures)) if block is None else _read_rows(run, block, measures, chosen)
                yield from _entries(kind, facts, indices[pairs[is_requested]], stored)


def _blocks(
    table: PairIndex, failures: Mapping[ScoredPairKey, JobFailure]
) -> Iterator[tuple[StoredBlock | None, Int[np.ndarray, "pairs 2"], Int[np.ndarray, " pairs"]]]:
    """Yield blocks in the order of their bases, the pairs of bases that they have scores of, and the rows of these.

    Last, as no block: the pairs of bases that could not be scored in this run, and why, as indices of `STATUS`.
    """
    lowest = [block.places[block.runs[:, :2]].min(axis=0).tolist() for block in table.blocks]
    for index in sorted(range(len(lowest)), key=lowest.__getitem__):
        yield table.blocks[index], *table.pairs_in(index)
    failed = [
        (table.positions[low], table.positions[high], STATUS.index(failure.reason))
        for (settings, low, high), failure in failures.items()
        if settings == table.settings
    ]
    pairs = np.array(failed, dtype=np.intp).reshape(-1, 3)
    yield None, pairs[:, :2], pairs[:, 2]


@dataclass(frozen=True)
class SpacesOfBases:
    """Spaces by their bases, which several have if their content is equal.

    Those of basis b are ``counts[b]`` of ``members``, from ``starts[b]`` on.
    """

    members: Int[np.ndarray, " spaces"]
    starts: Int[np.ndarray, " bases"]
    counts: Int[np.ndarray, " bases"]

    @classmethod
    def of(cls, bases: Sequence[int], n_bases: int) -> "SpacesOfBases":
        """Return spaces by their bases, given the basis of each; -1: none."""
        of_spaces = np.array(bases, dtype=np.intp)
        order = np.argsort(of_spaces, kind="stable")
        members = order[of_spaces[order] >= 0]
        counts = np.bincount(of_spaces[members], minlength=n_bases)
        return cls(members, np.cumsum(counts) - counts, counts)

    def pairs(self, bases: Int[np.ndarray, "bases 2"]) -> tuple[Int[np.ndarray, "pairs 2"], Int[np.ndarray, " pairs"]]:
        """Return each pair of spaces once, lower ones first, that has one of these pairs of bases, and which one."""
        low, high = bases.T
        n_pairs = self.counts[low] * self.counts[high]
        which = np.repeat(np.arange(len(bases)), n_pairs)
        number = np.arange(len(which)) - np.repeat(np.cumsum(n_pairs) - n_pairs, n_pairs)
        first, second = np.divmod(number, self.counts[high][which])
        places = self.starts[low][which] + first, self.starts[high][which] + second
        pairs = np.stack([self.members[side] for side in places], axis=1)
        # Of a basis with itself, two spaces are found twice.
        is_one = (low != high)[which] | (pairs[:, 0] <= pairs[:, 1])
        return np.sort(pairs[is_one], axis=1), which[is_one]


class _SpaceFacts:
    """The numbers of points, keys and faults of spaces, by their indices: they decide the status of a pair."""

    def __init__(self, spaces: tuple[SpaceBasis, ...]) -> None:
        self.n_points = np.array([basis.n_points for basis in spaces])
        # Equal keys have equal places.
        self.key_places = np.unique([basis.key for basis in spaces], return_inverse=True)[1]
        # Pieces that were joined are what the lowest eigenvectors then tell apart, in every space.
        self.in_pieces = np.array([basis.facts["n_components"] > 1 for basis in spaces])
        self.is_tied = np.array([basis.facts["tied"] > MOST_TIED for basis in spaces])
        self.localizations = np.array([basis.facts["localization"] for basis in spaces])


@dataclass(frozen=True)
class _Kind:
    """Pairs of a dataset by the same measures; ``is_closed``: whether the chance of maps is in closed form."""

    dataset: str
    measures: tuple[str, ...]
    is_closed: bool

    @property
    def of_maps(self) -> Bool[np.ndarray, " measures"]:
        """Which are measures of maps."""
        return np.array([name in MAP_SCORES for name in self.measures])

    @property
    def by_rotations(self) -> Bool[np.ndarray, " measures"]:
        """Which have a chance level by random rotations."""
        return np.array([name in MAP_SCORES and MAP_SCORES[name].is_energy_ratio for name in self.measures])


def _entries(
    kind: _Kind, facts: _SpaceFacts, pairs: Int[np.ndarray, "pairs 2"], rows: StoredRows
) -> Iterator[PairEntries]:
    """Yield pairs of spaces in one direction and in the other."""
    refusal = rows.refusal[:, None]
    usual = _usual(kind, facts, pairs, rows)
    # Of a joined graph little is known: that comes first.
    is_own = (rows.status >= 0) & ~((rows.status == STATUS.index("localized")) & (usual == STATUS.index("joined")))
    status = np.where(refusal >= 0, refusal, np.where(is_own, rows.status, usual))
    rows.values[rows.refusal >= 0] = np.nan
    # Where only activations are compared, no map is requested that could have diagnostics.
    rows.diagnostics[(rows.refusal >= 0) | ~kind.of_maps.any()] = np.nan
    is_counted = rows.n_common >= 0
    n_common = np.where(is_counted, rows.n_common, 0).astype(np.int32)
    share = np.where(is_counted, n_common / facts.n_points[pairs].min(axis=1), np.nan)
    keys = facts.key_places[pairs]
    for side in range(2):
        other = 1 - side
        # Direction 0 of a stored pair is from its lower key; of equal ones both are alike.
        direction = np.arange(len(pairs)), (keys[:, side] > keys[:, other]).astype(int)
        yield PairEntries(
            kind.dataset, kind.measures, pairs[:, side], pairs[:, other], status, n_common, share,
            rows.values[direction], rows.diagnostics[direction],
        )  # fmt: skip


def _usual(
    kind: _Kind, facts: _SpaceFacts, pairs: Int[np.ndarray, "pairs 2"], rows: StoredRows
) -> Int[np.ndarray, "pairs measures"]:
    """Return the status of pairs that no block has one for: that of their spaces."""
    is_joined = facts.in_pieces[pairs].any(axis=1)[:, None] & kind.of_maps
    of_sources, of_targets = facts.localizations[pairs].T
    is_localized = are_localized(of_sources, of_targets, np.maximum(rows.n_common, 0))
    is_drawn = is_localized[:, None] & kind.by_rotations & kind.is_closed
    is_tied = facts.is_tied[pairs].any(axis=1)[:, None] & kind.of_maps
    usual = np.where(is_tied, STATUS.index("tied"), STATUS.index("ok"))
    usual = np.where(is_drawn, STATUS.index("localized"), usual)
    return np.where(is_joined, STATUS.index("joined"), usual)


def _read_rows(
    run: Run, block: StoredBlock, measures: tuple[str, ...], chosen: Int[np.ndarray, " pairs"]
) -> StoredRows:
    """Return some rows of a block, by these of its measures."""
    with run.store.open("scores", block.key) as unit:
        values, n_common, diagnostics = (unit.read(name) for name in ("values", "n_common", "diagnostics"))
    status = np.full((len(values), len(block.measures)), _NONE, dtype=np.int16)
    for row, codes in block.codes.items():
        for measure, reason in codes:
            status[row, block.measures.index(measure)] = STATUS.index(reason)
    refusal = np.full(len(values), _NONE, dtype=np.int16)
    for row, failure in block.refusals.items():
        refusal[row] = STATUS.index(failure.reason)
    columns = [block.measures.index(name) for name in measures]
    return StoredRows(
        status[chosen][:, columns],
        refusal[chosen],
        n_common[chosen],
        values[chosen][:, :, columns],
        diagnostics[chosen],
    )


def _no_rows(refusal: Int[np.ndarray, " pairs"], n_measures: int) -> StoredRows:
    """Return rows for pairs that lie in no block."""
    n_pairs = len(refusal)
    return StoredRows(
        np.full((n_pairs, n_measures), _NONE),
        refusal,
        np.full(n_pairs, _NONE, dtype=np.int32),
        np.full((n_pairs, 2, n_measures, len(STATISTICS)), np.nan),
        np.full((n_pairs, 2, len(DIAGNOSTICS)), np.nan),
    )
