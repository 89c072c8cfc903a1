"""The blocks of pairs that ``plan`` expects: their bases and the number of their pairs, without the pairs.

`lfm_tasks.stages.scores.stage.blocks` lists the pairs of a run in arrays of bases x bases. Here pairs are counted by
classes of bases that no comparison tells apart, and those that are stored are taken off. The counts are the same;
memory grows with the number of spaces and of stored pairs only.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int

from lfm_tasks.catalog import Catalog
from lfm_tasks.config import NullConfig
from lfm_tasks.spaces import Space
from lfm_tasks.stages.inventory.alike import Alike, alike
from lfm_tasks.stages.inventory.requests import PairRequest, PairSelection
from lfm_tasks.stages.inventory.stage import Zoo
from lfm_tasks.stages.scores.block import ScoreSettings
from lfm_tasks.stages.scores.pair_index import (
    all_settings,
    block_places,
    correspondence_of_maps,
    known_pairs,
    requested_pairs,
)
from lfm_tasks.stages.scores.stage import block_side, new_first
from lfm_tasks.stores.units.store import Receipt, UnitStore

_Pairs = Int[np.ndarray, "pairs 2"]


@dataclass(frozen=True)
class PairCounts:
    """Pairs under one setting of the scores, of the bases ``keys``, which are in order.

    Parameters
    ----------
    groups
        The class of each basis.
    requested
        Of which classes pairs are requested, in either direction.
    stored
        The positions of both bases of each requested pair that is scored, the lower one first.
    is_grouped
        Whether their points are in groups or strata.
    has_moments
        Whether chance over permutations of these is in closed form where one is known.
    """

    settings: ScoreSettings
    request: PairRequest
    keys: tuple[str, ...]
    groups: Alike
    requested: Bool[np.ndarray, "classes classes"]
    stored: _Pairs
    is_grouped: bool
    has_moments: bool

    @cached_property
    def n_missing(self) -> int:
        """How many requested pairs are not scored."""
        sizes = self.groups.sizes
        return _n_unordered(sizes, self.requested @ sizes, sizes[self.requested.diagonal()].sum()) - len(self.stored)

    def blocks(self, null: NullConfig) -> Iterator[tuple[list[str], int]]:
        """Yield the bases (keys) of each block of missing pairs, and how many pairs it has."""
        n_partners = (self.requested @ self.groups.sizes)[self.groups.classes]
        n_missing = n_partners - _n_by_base(self.stored, len(self.keys))
        bases = np.flatnonzero(n_missing)
        if not len(bases):
            return
        bases = new_first(bases, n_missing[bases])
        maps = correspondence_of_maps(self.request)
        side = block_side(
            len(bases), self.settings, maps, null, is_grouped=self.is_grouped, has_moments=self.has_moments
        )
        n_groups = -(-len(bases) // side)
        group = np.full(len(self.keys), -1, dtype=np.intp)
        group[bases] = np.arange(len(bases)) // side
        # The bases of each class in a group; the partners in a group that a basis of each class has.
        sizes = np.zeros((n_groups, len(self.requested)), dtype=np.intp)
        np.add.at(sizes, (group[bases], self.groups.classes[bases]), 1)
        partners = sizes @ self.requested
        stored = self._stored_by_groups(group, n_groups)
        for low in range(n_groups):
            for high in range(low, n_groups):
                done = stored.get((low, high), self.stored[:0])
                own = sizes[low][self.requested.diagonal()].sum()
                n_pairs = sizes[low] @ partners[high] if low < high else _n_unordered(sizes[low], partners[low], own)
                if n_of_block := int(n_pairs) - len(done):
                    n_done = _n_by_base(done, len(self.keys))
                    sides = {low: high, high: low}
                    of_sides = [bases[side * one : side * (one + 1)] for one in sorted(sides)]
                    used = [
                        members[partners[sides[one], self.groups.classes[members]] > n_done[members]]
                        for one, members in zip(sorted(sides), of_sides, strict=True)
                    ]
                    yield [self.keys[base] for base in np.sort(np.concatenate(used))], n_of_block

    def _stored_by_groups(self, group: Int[np.ndarray, " bases"], n_groups: int) -> dict[tuple[int, int], _Pairs]:
        """Return the stored pairs of two bases that have a group each, by both groups."""
        groups = np.sort(group[self.stored], axis=1)
        pairs, groups = (one[(groups >= 0).all(axis=1)] for one in (self.stored, groups))
        codes, starts = np.unique(np.sort(groups @ [n_groups, 1]), return_index=True)
        ordered = pairs[np.argsort(groups @ [n_groups, 1], kind="stable")]
        parts = np.split(ordered, starts[1:])
        return {divmod(int(code), n_groups): part for code, part in zip(codes, parts, strict=False)}


def count_pairs(catalog: Catalog, zoo: Zoo, keys: Mapping[Space, str], store: UnitStore) -> list[PairCounts]:
    """Return the requested pairs of the catalog by their settings; ``keys`` name the basis of each space."""
    spaces = sorted(keys)
    groups = _alike_spaces(zoo.parts, spaces)
    pairs = requested_pairs(zoo.parts, [spaces[first] for first in groups.first])
    # `requested_pairs` has the first spaces in their order.
    classes = np.argsort(np.argsort(groups.first))[groups.classes]
    settings = all_settings(
        catalog.atlas,
        pairs,
        {dataset: of_dataset.key for dataset, of_dataset in zoo.exchangeability.items()},
        {dataset: of_dataset.key for dataset, of_dataset in zoo.labels.items()},
    )
    requested = {of_pairs: np.zeros(pairs.request_indices.shape, dtype=bool) for of_pairs in sorted(settings.values())}
    requests = {of_pairs: pairs.requests[index] for (_, index), of_pairs in settings.items()}
    for dataset, index, of_dataset in pairs.by_dataset():
        cells = requested[settings[dataset, index]][of_dataset, of_dataset]
        has_request = pairs.request_indices[of_dataset, of_dataset] == index
        cells |= has_request | has_request.T
    receipts = store.receipts("scores") if requested else []
    grouped = {
        of_pairs: zoo.exchangeability[dataset].has_moments
        for (dataset, _), of_pairs in settings.items()
        if dataset in zoo.exchangeability
    }
    return [
        _of_bases(
            of_pairs,
            requests[of_pairs],
            cells,
            [keys[space] for space in spaces],
            classes,
            receipts,
            is_grouped=of_pairs in grouped,
            has_moments=grouped.get(of_pairs, True),
        )
        for of_pairs, cells in requested.items()
    ]


def _alike_spaces(parts: Collection[PairSelection], spaces: list[Space]) -> Alike:
    position = {space: index for index, space in enumerate(spaces)}
    sides = (side for part in parts for side in (part.sources, part.targets))
    return alike(
        len(spaces), (np.array([position[one] for one in side if one in position], dtype=np.intp) for side in sides)
    )


def _of_bases(
    settings: ScoreSettings,
    request: PairRequest,
    cells: Bool[np.ndarray, "classes classes"],
    key_of: list[str],
    classes: Int[np.ndarray, " spaces"],
    receipts: Collection[Receipt],
    *,
    is_grouped: bool,
    has_moments: bool,
) -> PairCounts:
    """Return the pairs of spaces that are requested by their classes as pairs of their bases."""
    used = np.flatnonzero(np.asarray(cells.any(axis=1))[classes])
    keys = tuple(sorted({key_of[space] for space in used}))
    position = {key: index for index, key in enumerate(keys)}
    bases = np.array([position[key_of[space]] for space in used], dtype=np.intp)
    order = np.argsort(classes[used], kind="stable")
    of_spaces, starts = np.unique(classes[used][order], return_index=True)
    members = [np.unique(part) for part in np.split(bases[order], starts[1:])] if len(used) else []
    groups = alike(len(keys), members)
    has = np.zeros((len(groups.sizes), len(cells)), dtype=np.float32)
    for of_space, part in zip(of_spaces.tolist(), members, strict=True):
        has[groups.classes[part], of_space] = 1
    requested = np.asarray(has @ cells @ has.T > 0)
    stored = [_stored(receipt, position) for receipt in receipts if ScoreSettings.of(receipt).hold(settings)]
    codes = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *stored]))
    pairs = np.stack(np.divmod(codes, max(1, len(keys))), axis=1).astype(np.int32)
    first, second = groups.classes[pairs].T
    stored_pairs = pairs[requested[first, second]]
    return PairCounts(settings, request, keys, groups, requested, stored_pairs, is_grouped, has_moments)


def _stored(receipt: Receipt, position: Mapping[str, int]) -> Int[np.ndarray, " pairs"]:
    """Return a block's pairs, each as a number: positions among the bases; pairs of other bases are left out."""
    pairs, _ = known_pairs(*block_places(receipt, position))
    codes: Int[np.ndarray, " pairs"] = pairs @ np.array([len(position), 1], dtype=np.int64)
    return codes


def _n_unordered(sizes: Int[np.ndarray, " classes"], partners: Int[np.ndarray, " classes"], own: int) -> int:
    """Return how many unordered pairs there are, of ``own`` items with themselves and of two others."""
    return (int(sizes @ partners) + int(own)) // 2


def _n_by_base(pairs: _Pairs, n_bases: int) -> Int[np.ndarray, " bases"]:
    """Return how many partners each basis has in pairs; one with itself counts once."""
    low, high = pairs.T
    return np.bincount(low, minlength=n_bases) + np.bincount(high[high != low], minlength=n_bases)
