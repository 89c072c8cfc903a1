"""One block of pairs, as it is scored: what to score it by, and what it comes to."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.config import AtlasConfig
from lfm_tasks.errors import DataError
from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.stages.inventory.correspondence import Correspondence, ExchangeabilityGroups, Resampling, resampling
from lfm_tasks.stores.units.store import Receipt, UnitStore, ids_digest

# Bases of a side of a part, whose rows are in memory together: so many, or as many as their rows fit into.
PART_SIDE, _PART_BYTES = 16, 2 << 30


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
    """Pairs of ``bases`` (keys, in order) to score together, by their places, lower first; and the activations of each.

    ``correspondence``: from what their maps are fitted. ``design``, ``labels``: the units that say how their rows are
    resampled and of which class they are, or empty. ``part_side``: see `part_side`.
    """

    store: UnitStore
    key: str
    settings: ScoreSettings
    bases: tuple[str, ...]
    sides: Int[np.ndarray, "pairs 2"]
    atlas: AtlasConfig
    activations: Mapping[str, str]
    correspondence: Correspondence
    design: str
    labels: str
    part_side: int

    @cached_property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The keys of both bases of each pair."""
        return tuple((self.bases[first], self.bases[second]) for first, second in self.sides.tolist())


def reads_activations(correspondence: Correspondence, measures: Collection[str]) -> bool:
    """Return whether scores need activations beside bases."""
    return correspondence.uses_zoomout or bool(MEASURES.keys() & set(measures))


def part_side(n_points: int, n_eigenpairs: int, n_features: int) -> int:
    """Return how many bases on a side are read together: their functions whole, by parts and by halves.

    ``n_features``: of activations, which are prepared three times over; 0 where they are not read.
    """
    return max(1, min(PART_SIDE, _PART_BYTES // (8 * n_points * (3 * n_eigenpairs + 4 * n_features))))


@dataclass(frozen=True)
class BlockScores:
    """What a block's pairs come to, filled pair by pair; ``of_maps`` are the columns of the measures of maps.

    ``refusals``: why pairs have no scores at all; ``unmapped``: why no map could be fitted, other measures or not.
    """

    values: Float[np.ndarray, "pairs 2 measures statistics"]
    diagnostics: Float[np.ndarray, "pairs 2 diagnostics"]
    n_common: Int[np.ndarray, " pairs"]
    of_maps: Mapping[str, int]
    maps: dict[tuple[int, int], Float[np.ndarray, "target source"]] = field(default_factory=dict)
    refusals: dict[int, DataError] = field(default_factory=dict)
    unmapped: dict[int, DataError] = field(default_factory=dict)
    codes: dict[tuple[int, int], str] = field(default_factory=dict)

    @property
    def columns(self) -> list[int]:
        """The columns of the measures of maps."""
        return list(self.of_maps.values())

    def take(self, numbers: Sequence[int], part: "BlockScores") -> None:
        """Put what some of the pairs, given by their numbers, came to in its place."""
        self.values[numbers], self.diagnostics[numbers] = part.values, part.diagnostics
        self.n_common[numbers] = part.n_common
        self.maps.update({(numbers[row], direction): own for (row, direction), own in part.maps.items()})
        self.refusals.update({numbers[row]: error for row, error in part.refusals.items()})
        self.unmapped.update({numbers[row]: error for row, error in part.unmapped.items()})
        self.codes.update({(numbers[row], column): reason for (row, column), reason in part.codes.items()})


class Resamplings:
    """The resampling of each list of ids in a block, made once."""

    def __init__(self, design: ExchangeabilityGroups | None, atlas: AtlasConfig) -> None:
        self._design, self._atlas = design, atlas
        self._known: dict[str, Resampling] = {}

    def of(self, ids: np.ndarray, ids_key: str | None = None) -> Resampling:
        """Return that of these ids; ``ids_key``: their digest, where it is known."""
        key = ids_key or ids_digest(ids)
        if key not in self._known:
            self._known[key] = resampling(ids, self._design, self._atlas)
        return self._known[key]
