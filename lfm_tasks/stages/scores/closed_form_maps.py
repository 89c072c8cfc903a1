"""Scores of maps in closed form: a block of pairs in tiles, every source factored once, no map written."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from cachetools import LRUCache
from jaxtyping import Int

from lfm_tasks.errors import DataError
from lfm_tasks.spectral.bases.eigenbasis import Basis
from lfm_tasks.spectral.bases.full_map import MAP_SCORES
from lfm_tasks.spectral.batched.tiles import (
    TILE_SCORES,
    TileSource,
    TileTargets,
    commutativity_errors,
    orthogonality_errors,
    tile_source,
    tile_sums,
    tile_targets,
)
from lfm_tasks.spectral.maps.closed_form import DescriptorCoefficients, project_descriptors
from lfm_tasks.spectral.maps.descriptors import (
    heat_signatures,
    label_descriptors,
    landmark_heat_coefficients,
    unit_descriptors,
)
from lfm_tasks.stages.inventory.correspondence import anchors_of_pair, read_labels
from lfm_tasks.stages.scores.block import BlockJob, BlockScores, against_chance
from lfm_tasks.stages.scores.zoomout_maps import LoadedSpace, load_space
from lfm_tasks.statistics.resampling import Exchange, rows_by_value

# What blocks share in one process: 70 KB a space at 50 eigenpairs and 64 descriptors.
# Content addresses are part of the keys: no entry is ever out of date.
_SOURCES: LRUCache[Hashable, TileSource] = LRUCache(1 << 28, getsizeof=lambda source: source.nbytes)


@dataclass(frozen=True)
class DescriptorCache:
    """The spaces of one block, described by what is known."""

    job: BlockJob
    _labeled: dict[str, LoadedSpace] = field(default_factory=dict)

    def known(self, first: str, second: str) -> tuple[np.ndarray, np.ndarray]:
        """Return anchors' rows on both sides, or the common classes twice, or one number for all signatures.

        It depends on the two lists of ids only. DataError as `anchors_of_pair`, and for ids without a label.
        """
        if self.job.correspondence.regime == "anchors":
            anchors = anchors_of_pair(self.job.correspondence, self.job.ids(first), self.job.ids(second))
            return anchors.source, anchors.target
        if self.job.correspondence.regime == "labels":
            common = np.intersect1d(self._with_labels(first).classes, self._with_labels(second).classes)
            return common, common
        return np.arange(1), np.arange(1)

    def source(self, key: str, given: np.ndarray) -> TileSource:
        """Return a basis described by what is known and factored; DataError if it cannot be described."""
        job = self.job
        address = (
            job.store.root,
            key,
            job.correspondence.regime,
            job.correspondence.mask,
            job.labels,
            job.atlas.graph.kernel,
            job.atlas.graph.metric,
            job.atlas.graph.center,
            given.tobytes(),
        )
        source: TileSource | None = _SOURCES.get(address)
        if source is None:
            source = tile_source(self._described(key, given), mask=job.correspondence.mask)
            if source.nbytes <= _SOURCES.maxsize:
                _SOURCES[address] = source
        return source

    def _described(self, key: str, given: np.ndarray) -> DescriptorCoefficients:
        if self.job.correspondence.regime == "labels":
            known = self._with_labels(key)
            basis = known.space.basis
            functions = label_descriptors(known.space.graph, known.classes, classes=given)
            return project_descriptors(basis, unit_descriptors(basis, functions))
        with self.job.store.open("bases", key) as unit:
            basis = Basis(unit.read("eigenvalues"), unit.read("eigenvectors"), np.nan)
        if self.job.correspondence.regime == "anchors":
            return DescriptorCoefficients(basis.eigenvalues, landmark_heat_coefficients(basis, given))
        return project_descriptors(basis, unit_descriptors(basis, heat_signatures(basis)))

    def _with_labels(self, key: str) -> LoadedSpace:
        if key not in self._labeled:
            job = self.job
            labels = read_labels(job.store, job.labels)
            self._labeled[key] = load_space(job.store, key, job.activations[key], job.atlas, labels)
        return self._labeled[key]


@dataclass(frozen=True)
class DirectedPairs:
    """Directed pairs: pair and direction, where their scores go; source and target, by their numbers in ``spaces``.

    Arrays and not objects: all scores of a pair take 20 µs, and so would a few objects.
    """

    spaces: tuple[TileSource, ...]
    pairs: Int[np.ndarray, " directed"]
    directions: Int[np.ndarray, " directed"]
    sources: Int[np.ndarray, " directed"]
    targets: Int[np.ndarray, " directed"]

    def by(self, groups: Int[np.ndarray, " directed"]) -> Iterator["DirectedPairs"]:
        """Yield the pairs of one group after the other, each in their order."""
        for group in rows_by_value(groups):
            yield replace(
                self,
                pairs=self.pairs[group],
                directions=self.directions[group],
                sources=self.sources[group],
                targets=self.targets[group],
            )

    def by_shape(self) -> Iterator["DirectedPairs"]:
        """Yield the pairs grouped by the shape of their maps."""
        sizes = np.array([len(space.eigenvalues) for space in self.spaces], dtype=np.int64)
        yield from self.by(sizes[self.sources] * (sizes.max(initial=0) + 1) + sizes[self.targets])


def score_closed_maps(job: BlockJob, keys: list[str], scores: BlockScores) -> dict[str, np.ndarray]:
    """Fill in the measures of maps in closed form; return the ids of each basis."""
    spaces = DescriptorCache(job)
    # Places among the bases of this part, in the order of ``keys``.
    sides = np.unique(job.sides, return_inverse=True)[1].reshape(-1, 2)
    lists = np.unique([job.ids_key(key) for key in keys], return_inverse=True)[1]
    # On the same two lists of ids the same points are known.
    alike = lists[sides] @ [len(keys), 1]
    for pairs in rows_by_value(alike):
        first, second = (keys[place] for place in sides[pairs[0]])
        scores.n_common[pairs] = job.n_common(first, second)
        try:
            known = spaces.known(first, second)
        except DataError as error:
            _refuse(pairs, error, scores)
            continue
        for together in _directions(spaces, keys, pairs, sides[pairs], known, scores).by_shape():
            _score(job, together, scores)
            if job.correspondence.regime != "unsupervised" and job.atlas.null.n_permutations:
                _score_chance(job, together, len(known[0]), scores)
    return {key: job.ids(key) for key in keys}


def _directions(
    spaces: DescriptorCache,
    keys: list[str],
    pairs: Int[np.ndarray, " pairs"],
    sides: Int[np.ndarray, "pairs 2"],
    known: tuple[np.ndarray, np.ndarray],
    scores: BlockScores,
) -> DirectedPairs:
    """Return both directions of pairs that the same is known of; note why some cannot be described."""
    described: dict[TileSource, int] = {}
    indices = np.full((2, len(keys)), -1)
    # The first side last: of two reasons its own stays.
    for side in (1, 0):
        for position in np.unique(sides[:, side]):
            try:
                space = spaces.source(keys[position], known[side])
            except DataError as error:
                _refuse(pairs[sides[:, side] == position], error, scores)
            else:
                indices[side, position] = described.setdefault(space, len(described))
    both = indices[[0, 1], sides]
    is_described = (both >= 0).all(axis=1)
    pairs, (first, second) = pairs[is_described], both[is_described].T
    return DirectedPairs(
        tuple(described),
        np.tile(pairs, 2),
        np.repeat([0, 1], len(pairs)),
        np.concatenate([first, second]),
        np.concatenate([second, first]),
    )


def _refuse(pairs: Int[np.ndarray, " pairs"], error: DataError, scores: BlockScores) -> None:
    for pair in pairs.tolist():
        scores.unmapped[pair] = error
        scores.codes.update({(pair, column): error.reason for column in scores.columns})


def _score(job: BlockJob, together: DirectedPairs, scores: BlockScores) -> None:
    """Fill in scores and diagnostics of directions of one shape, a tile for each source."""
    by_source = list(together.by(together.sources))
    # Most sources have the same targets.
    targets: dict[bytes, TileTargets] = {}
    tiles = []
    for group in by_source:
        names = group.targets.tobytes()
        if names not in targets:
            described = [together.spaces[target].described for target in group.targets]
            targets[names] = tile_targets(described, mask=job.correspondence.mask)
        tiles.append((together.spaces[group.sources[0]], targets[names]))
    sums = tile_sums(tiles)
    pairs = np.concatenate([group.pairs for group in by_source])
    directions = np.concatenate([group.directions for group in by_source])
    for name, column in scores.of_maps.items():
        scores.values[pairs, directions, column, 0] = TILE_SCORES[name](sums)
    scores.diagnostics[pairs, directions, 0] = orthogonality_errors(sums)
    scores.diagnostics[pairs, directions, 1] = commutativity_errors(sums)


def _score_chance(job: BlockJob, together: DirectedPairs, n_given: int, scores: BlockScores) -> None:
    """Fill in the level of chance: what is known of the target in random orders, the same ones for every pair."""
    n_drawn, seed = job.atlas.null.n_permutations, job.atlas.null.seed
    orders = [np.random.default_rng((seed, draw)).permutation(n_given) for draw in range(n_drawn)]
    for group in together.by(together.targets):
        target = group.spaces[group.targets[0]].described
        # Several descriptors may belong to one anchor: they stay together.
        starts = np.arange(0, target.coefficients.shape[1], n_given)[:, None]
        chance = [
            DescriptorCoefficients(target.eigenvalues, target.coefficients[:, (starts + order).ravel()])
            for order in orders
        ]
        tile = tile_targets(chance, mask=job.correspondence.mask)
        sums = tile_sums([(group.spaces[source], tile) for source in group.sources])
        for name, column in scores.of_maps.items():
            if not MAP_SCORES[name].has_null:
                continue
            drawn = TILE_SCORES[name](sums).reshape(len(group.pairs), n_drawn)
            for pair, direction, of_chance in zip(group.pairs, group.directions, drawn, strict=True):
                row = scores.values[pair, direction, column]
                row[1:5] = against_chance(float(row[0]), of_chance, rounding=1e-6, least_p=Exchange(n_given).least_p)
