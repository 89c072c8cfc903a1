"""Pairs of bases under one setting of the scores: which are requested, and where their scores lie."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from lfm_tasks.config import AtlasConfig, NullConfig
from lfm_tasks.runtime.run import Scope
from lfm_tasks.spaces import Space
from lfm_tasks.spectral.bases.full_map import MAP_SCORES
from lfm_tasks.stages.inventory.correspondence import FULL_CORRESPONDENCE, Correspondence
from lfm_tasks.stages.inventory.requests import PairRequest, PairSelection
from lfm_tasks.stages.scores.block import ScoreSettings
from lfm_tasks.stages.scores.pair_runs import pairs_of_runs
from lfm_tasks.stores.units.store import Receipt, UnitStore, digest
from lfm_tasks.workers.pool import JobFailure


@dataclass(frozen=True)
class RequestedPairs:
    """The requests for pairs of ``spaces``, which are in order: the index of a request by pair, −1 for none.

    Of a pair, the lower space is the row. Of spaces and not of their bases: two names of one content may be in
    comparisons with different maps.
    """

    spaces: tuple[Space, ...]
    requests: tuple[PairRequest, ...]
    request_indices: Int[np.ndarray, "spaces spaces"]

    @cached_property
    def positions(self) -> dict[Space, int]:
        """The place of each space."""
        return {space: position for position, space in enumerate(self.spaces)}

    def request_index(self, first: Space, second: Space) -> int:
        """Return the index of what is requested of two spaces, in any order; −1: nothing."""
        row, column = self.positions.get(first), self.positions.get(second)
        if row is None or column is None:
            return -1
        return int(self.request_indices.item(row, column) if row <= column else self.request_indices.item(column, row))

    def by_dataset(self) -> Iterator[tuple[str, int, slice]]:
        """Yield dataset, index of a request that some of its pairs have, and the positions of the dataset's spaces."""
        start = 0
        for dataset, spaces in groupby(self.spaces, key=lambda space: space.dataset):
            of_dataset = slice(start, start + len(list(spaces)))
            indices = self.request_indices[of_dataset, of_dataset]
            for index in range(len(self.requests)):
                if (indices == index).any():
                    yield dataset, index, of_dataset
            start = of_dataset.stop

    def pairs_of(self, index: int, spaces: slice) -> Iterator[tuple[int, Int[np.ndarray, " others"]]]:
        """Yield the position of each of the spaces, and of the later ones with which it has this request.

        Row by row: lists of all pairs of a large zoo take gigabytes.
        """
        for position in range(spaces.start, spaces.stop):
            others = np.flatnonzero(self.request_indices[position, spaces] == index)
            if len(others):
                yield position, others + spaces.start


def requested_pairs(parts: Iterable[PairSelection], spaces: Collection[Space]) -> RequestedPairs:
    """Return the request for each pair of ``spaces``; RuntimeError if two parts want different maps of one."""
    none = RequestedPairs(tuple(sorted(spaces)), (), np.full((len(spaces), len(spaces)), -1, dtype=np.int8))
    indices, requests = none.request_indices, list[PairRequest]()
    for part in parts:
        request, cells = PairRequest(frozenset(part.measures), part.correspondence), _cells(part, none.positions)
        before = indices[cells]
        index_of: dict[int, int] = {}
        for index in np.unique(before).tolist():
            both = request if index < 0 else requests[index].and_also(request)
            if both not in requests:
                requests.append(both)
            index_of[index] = requests.index(both)
        indices = _with_room_for(len(requests), indices)
        after = np.empty(before.shape, dtype=indices.dtype)
        for index, of_both in index_of.items():
            after[before == index] = of_both
        indices[cells] = after
    return RequestedPairs(none.spaces, tuple(requests), indices)


def _with_room_for(number: int, indices: Int[np.ndarray, "*cells"]) -> Int[np.ndarray, "*cells"]:
    """Return indices in a type that holds this number, too: of very many pairs each byte counts."""
    return indices if number <= np.iinfo(indices.dtype).max else indices.astype(np.int32)


def pairs_in_scope(
    parts: Iterable[PairSelection], spaces: Collection[Space], scope: Scope
) -> Bool[np.ndarray, "spaces spaces"]:
    """Return which pairs a run of this scope computes: both comparisons and models are chosen."""
    ordered = sorted(spaces)
    compared = np.zeros((len(ordered), len(ordered)), dtype=bool)
    positions = {space: position for position, space in enumerate(ordered)}
    for part in parts:
        if not scope.comparisons or part.name in scope.comparisons:
            compared |= _cells(part, positions)
    chosen = np.array([scope.has(space.model) for space in ordered], dtype=bool)
    return compared & (chosen[:, None] | chosen)


def _cells(part: PairSelection, positions: dict[Space, int]) -> Bool[np.ndarray, "spaces spaces"]:
    """Return which pairs a part has, the lower space as the row."""
    cells = np.zeros((len(positions), len(positions)), dtype=bool)
    sources, targets = (
        np.array([positions[space] for space in side if space in positions], dtype=np.intp)
        for side in (part.sources, part.targets)
    )
    cells[np.ix_(sources, targets)] = True
    return np.triu(cells | cells.T)


class PairScores(NamedTuple):
    """Where the scores of a pair of bases lie: key of the block, row in it; ``refusal``: why there are none.

    ``unmapped``: why no map could be fitted; measures of activations have their scores all the same.
    ``measures`` are those of the block, in its order, perhaps more than are requested.
    ``codes`` are (measure, reason) of single measures that have no value, or one with a reservation.
    """

    block: str
    row: int
    measures: tuple[str, ...]
    refusal: JobFailure | None = None
    unmapped: JobFailure | None = None
    codes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class StoredBlock:
    """The content of the receipt of a block of scores, by row.

    ``places``: of its bases among those of the table that knows it, -1 for others; ``runs`` of pairs of bases.
    ``causes``: by measure and reason, the messages of the spaces at fault, by key; of none, the key is empty.
    """

    key: str
    places: Int[np.ndarray, " bases"]
    runs: Int[np.ndarray, "runs 3"]
    measures: tuple[str, ...]
    refusals: Mapping[int, JobFailure]
    unmapped: Mapping[int, JobFailure]
    codes: Mapping[int, tuple[tuple[str, str], ...]]
    causes: Mapping[tuple[str, str], Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, receipt: Receipt, positions: Mapping[str, int]) -> "StoredBlock":
        """Return the content of the receipt of a block; ``positions``: the places of the keys of bases."""
        refusals, unmapped = (
            {row: JobFailure(*why) for row, *why in receipt.facts.get(name, ())} for name in ("refusals", "unmapped")
        )
        codes: dict[int, tuple[tuple[str, str], ...]] = {}
        for row, measure, reason in receipt.facts["codes"]:
            codes[row] = (*codes.get(row, ()), (measure, reason))
        causes: dict[tuple[str, str], dict[str, str]] = {}
        for measure, reason, space, message in receipt.facts.get("causes", ()):
            causes.setdefault((measure, reason), {})[space] = message
        places, runs = block_places(receipt, positions)
        return cls(receipt.key, places, runs, ScoreSettings.of(receipt).measures, refusals, unmapped, codes, causes)


def block_places(
    receipt: Receipt, positions: Mapping[str, int]
) -> tuple[Int[np.ndarray, " bases"], Int[np.ndarray, "runs 3"]]:
    """Return the place of each basis of a stored block, -1 for unknown ones, and its pairs of bases as runs."""
    places = np.array([positions.get(key, -1) for key in receipt.facts["bases"]], dtype=np.int32)
    return places, np.array(receipt.facts["pair_runs"], dtype=np.int32).reshape(-1, 3)


def known_pairs(
    places: Int[np.ndarray, " bases"], runs: Int[np.ndarray, "runs 3"]
) -> tuple[Int[np.ndarray, "pairs 2"], Int[np.ndarray, " pairs"]]:
    """Return the places of the pairs of a block whose bases are both known, and their rows in it."""
    pairs = places[pairs_of_runs(runs)]
    rows = np.flatnonzero((pairs >= 0).all(axis=1))
    return pairs[rows], rows


@dataclass
class PairIndex:
    """Pairs of the bases ``keys``, which are in order; of a pair, the lower key is the row.

    ``requested``: by the catalog; ``in_scope``: of this run. ``block``: the index of its block in ``blocks``, -1 where
    it is not scored; ``row``: its row there. Both, and ``blocks``, are filled in as blocks are read or computed; they
    change to wider types when they have to.
    """

    settings: ScoreSettings
    keys: tuple[str, ...]
    requested: Bool[np.ndarray, "bases bases"]
    in_scope: Bool[np.ndarray, "bases bases"]
    block: Int[np.ndarray, "bases bases"]
    row: Int[np.ndarray, "bases bases"]
    blocks: list[StoredBlock] = field(default_factory=list)

    @cached_property
    def positions(self) -> dict[str, int]:
        """The place of each key."""
        return {key: position for position, key in enumerate(self.keys)}

    @property
    def missing(self) -> Bool[np.ndarray, "bases bases"]:
        """Which pairs this run has to score."""
        return self.in_scope & (self.block < 0)

    @property
    def n_unscored(self) -> int:
        """How many requested pairs have no block."""
        return int((self.requested & (self.block < 0)).sum())

    @property
    def used(self) -> list[StoredBlock]:
        """The blocks that hold requested pairs."""
        indices = np.unique(self.block[self.requested & (self.block >= 0)])
        return [self.blocks[index] for index in indices]

    def add(self, receipt: Receipt) -> None:
        """Note where the pairs of a block lie; bases that are none of these are passed over."""
        block = StoredBlock.of(receipt, self.positions)
        pairs, rows = known_pairs(block.places, block.runs)
        if not len(rows):
            return
        self.block = _with_room_for(len(self.blocks), self.block)
        self.row = _with_room_for(int(rows[-1]), self.row)
        self.block[*pairs.T], self.row[*pairs.T] = len(self.blocks), rows
        self.blocks.append(block)

    def pairs_in(self, index: int) -> tuple[Int[np.ndarray, "pairs 2"], Int[np.ndarray, " pairs"]]:
        """Return the pairs of bases whose scores are taken from a block, lower ones first, and their rows in it."""
        block = self.blocks[index]
        pairs, rows = known_pairs(block.places, block.runs)
        is_here = (self.block[*pairs.T] == index) & (self.row[*pairs.T] == rows)
        return pairs[is_here], rows[is_here]

    def are_refused(
        self, blocks: Int[np.ndarray, " pairs"], rows: Int[np.ndarray, " pairs"]
    ) -> Bool[np.ndarray, " pairs"]:
        """Return which rows of blocks hold a reason in place of scores."""
        refused = np.zeros(len(blocks), dtype=bool)
        for index in np.unique(blocks[blocks >= 0]).tolist():
            if refusals := self.blocks[index].refusals:
                refused |= (blocks == index) & np.isin(rows, list(refusals))
        return refused

    def place(self, first: str, second: str) -> PairScores | None:
        """Return where the scores of two bases lie, in any order; None: nowhere."""
        row, column = self.positions[min(first, second)], self.positions[max(first, second)]
        if (index := self.block.item(row, column)) < 0:
            return None
        block, place = self.blocks[index], self.row.item(row, column)
        return PairScores(
            block.key, place, block.measures,
            block.refusals.get(place), block.unmapped.get(place), block.codes.get(place, ()),
        )  # fmt: skip


def pair_indexes(
    pairs: RequestedPairs,
    settings: Mapping[tuple[str, int], ScoreSettings],
    keys: Mapping[Space, str],
    in_scope: Bool[np.ndarray, "spaces spaces"] | None = None,
) -> dict[ScoreSettings, PairIndex]:
    """Return the pairs of spaces as pairs of their bases, by the settings of their dataset and request.

    ``in_scope``: which pairs of spaces this run computes; all where it is not given.
    """
    parts: dict[ScoreSettings, list[tuple[int, slice]]] = {}
    for dataset, index, of_dataset in pairs.by_dataset():
        parts.setdefault(settings[dataset, index], []).append((index, of_dataset))
    key_of = np.array([keys[space] for space in pairs.spaces], dtype=object)
    indexes = {}
    for of_pairs, of_settings in sorted(parts.items()):
        is_used = np.zeros(len(key_of), dtype=bool)
        for index, spaces in of_settings:
            cells = pairs.request_indices[spaces, spaces] == index
            is_used[spaces] |= cells.any(axis=0) | cells.any(axis=1)
        names, of_used = np.unique(key_of[is_used].astype(str), return_inverse=True)
        position = np.zeros(len(key_of), dtype=np.intp)
        position[is_used] = of_used
        requested = np.zeros((len(names), len(names)), dtype=bool)
        computed = requested if in_scope is None else requested.copy()
        for first, others in (row for part in of_settings for row in pairs.pairs_of(*part)):
            low, high = np.minimum(position[first], position[others]), np.maximum(position[first], position[others])
            requested[low, high] = True
            if in_scope is not None:
                chosen = in_scope[first, others]
                computed[low[chosen], high[chosen]] = True
        # Blocks have up to 65,536 pairs: 256 bases (`_LARGEST_SIDE` in `stage`) on each side.
        block, row = np.full(requested.shape, -1, dtype=np.int16), np.zeros(requested.shape, dtype=np.uint16)
        indexes[of_pairs] = PairIndex(of_pairs, tuple(names.tolist()), requested, computed, block, row)
    return indexes


def find_stored(store: UnitStore, tables: Iterable[PairIndex]) -> None:
    """Note the places of all pairs that were scored by these measures, or more, in whichever block."""
    indexes = list(tables)
    for receipt in store.receipts("scores"):
        stored = ScoreSettings.of(receipt)
        for table in indexes:
            if stored.hold(table.settings):
                table.add(receipt)


@dataclass(frozen=True)
class ScoringInputs:
    """Inputs of scores of one setting: correspondence; keys of stored exchangeability and labels, or "".

    ``has_moments``: whether the chance of measures of matrices is in closed form.
    """

    correspondence: Correspondence
    exchangeability: str
    labels: str
    has_moments: bool = True


def all_settings(
    atlas: AtlasConfig,
    pairs: RequestedPairs,
    exchangeability: Mapping[str, str],
    labels: Mapping[str, str],
) -> dict[tuple[str, int], ScoreSettings]:
    """Return the settings by dataset and index of a request; the other arguments are by dataset."""
    return {
        (dataset, index): score_settings(
            atlas,
            pairs.requests[index],
            exchangeability.get(dataset, ""),
            labels.get(dataset, ""),
        )
        for dataset, index, _ in pairs.by_dataset()
    }


def correspondence_of_maps(request: PairRequest) -> Correspondence:
    """Return the correspondence that maps are fitted from; the full one where no measure of maps is requested."""
    return request.correspondence if request.measures & MAP_SCORES.keys() else FULL_CORRESPONDENCE


def score_settings(atlas: AtlasConfig, request: PairRequest, exchangeability: str, labels: str) -> ScoreSettings:
    """Return everything but the two bases that can change a score."""
    maps = correspondence_of_maps(request)
    rest = digest(
        {
            "kind": "scores",
            "maps": maps.ingredients(),
            "labels": labels if maps.regime == "labels" else "",
            "graph": [] if maps.regime == "full" else [atlas.graph.metric, atlas.graph.kernel, atlas.graph.center],
            "null": _null(atlas.null, maps),
            "intervals": atlas.intervals.model_dump(),
            "min_overlap": atlas.min_overlap,
            "design": exchangeability,
        }
    )
    return ScoreSettings(rest, tuple(sorted(request.measures)))


def _null(null: NullConfig, maps: Correspondence) -> dict[str, int]:
    """Return the settings of chance; ``n_refined`` only where ZoomOut grows maps from anchors or labels."""
    is_grown = maps.regime in ("anchors", "labels") and maps.refine == "zoomout"
    return null.model_dump(exclude=set() if is_grown else {"n_refined"})
