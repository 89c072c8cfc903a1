"""Scores of maps in closed form: a block of pairs in tiles, every source factored once, no map written."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from lfm_tasks.reasons import ReasonError
from lfm_tasks.spectral.anchor_map import Described
from lfm_tasks.spectral.map_tiles import TileSource, TileTargets, tile_targets
from lfm_tasks.spectral.tile_scores import TILE_SCORES, commutativity_errors, orthogonality_errors, tile_sums
from lfm_tasks.stages.blocks import BlockJob, BlockScores
from lfm_tasks.stages.described import DescribedSpaces
from lfm_tasks.stages.map_scores import MAP_SCORES
from lfm_tasks.stages.statistics import against_chance


class Direction(NamedTuple):
    """One direction of a pair: where its scores go, and its two described spaces."""

    number: int
    direction: int
    source: TileSource
    target: TileSource


def score_closed_maps(job: BlockJob, keys: list[str], scores: BlockScores) -> dict[str, np.ndarray]:
    """Fill in the measures of maps in closed form; return the ids of each base."""
    spaces = DescribedSpaces(job)
    alike: dict[tuple[str, str], list[int]] = {}
    for number, (first, second) in enumerate(job.pairs):
        alike.setdefault((spaces.ids_key(first), spaces.ids_key(second)), []).append(number)
    for numbers in alike.values():
        first, second = job.pairs[numbers[0]]
        scores.n_common[numbers] = spaces.n_common(first, second)
        try:
            known = spaces.known(first, second)
        except ReasonError as error:
            _refuse(numbers, error, scores)
            continue
        by_shape: dict[tuple[int, int], list[Direction]] = {}
        for one in _directions(spaces, numbers, known, scores):
            by_shape.setdefault((len(one.source.eigenvalues), len(one.target.eigenvalues)), []).append(one)
        for together in by_shape.values():
            _score(job, together, scores)
            if job.knowledge.regime != "unsupervised" and job.atlas.null.n_permutations:
                _score_chance(job, together, len(known[0]), scores)
    return {key: spaces.ids(key) for key in keys}


def _directions(
    spaces: DescribedSpaces, numbers: list[int], known: tuple[np.ndarray, np.ndarray], scores: BlockScores
) -> Iterator[Direction]:
    """Yield both directions of pairs that the same is known of; note why of those that cannot be described."""
    described: tuple[dict[str, TileSource | ReasonError], ...] = ({}, {})
    for number in numbers:
        for key, things, found in zip(spaces.job.pairs[number], known, described, strict=True):
            if key not in found:
                try:
                    found[key] = spaces.source(key, things)
                except ReasonError as error:
                    found[key] = error
        first, second = (found[key] for key, found in zip(spaces.job.pairs[number], described, strict=True))
        if isinstance(first, ReasonError):
            _refuse([number], first, scores)
        elif isinstance(second, ReasonError):
            _refuse([number], second, scores)
        else:
            yield Direction(number, 0, first, second)
            yield Direction(number, 1, second, first)


def _refuse(numbers: list[int], error: ReasonError, scores: BlockScores) -> None:
    for number in numbers:
        scores.unmapped[number] = error
        scores.codes.update({(number, column): error.reason for column in scores.columns})


def _score(job: BlockJob, together: list[Direction], scores: BlockScores) -> None:
    """Fill in scores and diagnostics of directions of one shape, a tile for each source."""
    by_source: dict[TileSource, list[Direction]] = {}
    for one in together:
        by_source.setdefault(one.source, []).append(one)
    # Most sources have the same targets.
    targets: dict[tuple[TileSource, ...], TileTargets] = {}
    tiles = []
    for source, own in by_source.items():
        names = tuple(one.target for one in own)
        if names not in targets:
            targets[names] = tile_targets([target.described for target in names], mask=job.knowledge.mask)
        tiles.append((source, targets[names]))
    sums = tile_sums(tiles)
    ordered = [one for own in by_source.values() for one in own]
    places = np.array([one.number for one in ordered]), np.array([one.direction for one in ordered])
    for name, column in scores.of_maps.items():
        scores.values[*places, column, 0] = TILE_SCORES[name](sums)
    scores.diagnostics[*places, 0] = orthogonality_errors(sums)
    scores.diagnostics[*places, 1] = commutativity_errors(sums)


def _score_chance(job: BlockJob, together: list[Direction], n_things: int, scores: BlockScores) -> None:
    """Fill in the level of chance: the target's things in random orders, the same ones for every pair."""
    by_target: dict[TileSource, list[Direction]] = {}
    for one in together:
        by_target.setdefault(one.target, []).append(one)
    n_drawn, seed = job.atlas.null.n_permutations, job.atlas.null.seed
    orders = [np.random.default_rng((seed, number)).permutation(n_things) for number in range(n_drawn)]
    for target, own in by_target.items():
        values, coefficients = target.described.eigenvalues, target.described.coefficients
        # Several descriptors may belong to one anchor: they stay together.
        starts = np.arange(0, coefficients.shape[1], n_things)[:, None]
        chance = [Described(values, coefficients[:, (starts + order).ravel()]) for order in orders]
        tile = tile_targets(chance, mask=job.knowledge.mask)
        sums = tile_sums([(one.source, tile) for one in own])
        for name, column in scores.of_maps.items():
            if not MAP_SCORES[name].has_null:
                continue
            for one, drawn in zip(own, TILE_SCORES[name](sums).reshape(len(own), n_drawn), strict=True):
                row = scores.values[one.number, one.direction, column]
                row[1:5] = against_chance(float(row[0]), drawn)
