"""Similarities of networks by every measure: by last layers, by all layers of the same number, by fused layers.

A job of a worker computes one measure on the recorded spaces of half a dataset; from the bases follow all measures of
maps, and candidates for a score of our own.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from jaxtyping import Float

from lfm_tasks.config import AtlasConfig
from lfm_tasks.errors import DataError
from lfm_tasks.experiments.grounding_truth import KnownDataset, groundings_of
from lfm_tasks.experiments.source_zoo import SourceZoo, SpaceRows, read_space_rows
from lfm_tasks.measures.diffusion import centered_distances, centered_products, fused_operator
from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.spectral.bases.diffusion_overlap import diffusion_overlap
from lfm_tasks.spectral.bases.eigenbasis import Basis
from lfm_tasks.spectral.bases.full_map import MAP_SCORES, full_map
from lfm_tasks.spectral.bases.space import spectral_space
from lfm_tasks.stages.inventory.correspondence import common_ids, same_ids
from lfm_tasks.stages.scores.pairwise_measures import Activations, PreparedSpaces
from lfm_tasks.stages.scores.row_measures import check_rows
from lfm_tasks.stores.units.store import UnitStore
from lfm_tasks.workers.pool import JobFailure

Matrix = Float[np.ndarray, "rows columns"]
# How the layers of two networks become one number.
LAST, ALIGNED, FUSED = "last", "aligned", "fused"
OURS = "ours: "
# Steps of a walk on the graph of each space, for the candidates.
STEPS = (1, 2, 8, 32)
# What our own score may be the mean of, fixed beforehand: a name in the table, and the measure that it comes from.
_PARTS: Mapping[str, str] = {
    "diffusion overlap": "overlap",
    "mutual neighbors": "mutual_knn_10_cosine",
    "debiased radial CKA": "cka_rbf_debiased",
    "rotation": "procrustes_centered_unit_norm",
}
# Fused operators, and the measure of single layers that goes with each.
_FUSED = {
    "multiscale_cka_t_1": "cka_linear",
    "multiscale_cka_t_2": "multiscale_cka_t_2",
    "multiscale_distance_correlation_t_1": "distance_correlation",
    "multiscale_distance_correlation_t_2": "multiscale_distance_correlation_t_2",
}
_OF_MAPS, _OF_NETWORKS = "maps", "networks"
# Measures that a job computes of the spaces that it reads.
_MEASURES_OF_JOB = 4


@dataclass(frozen=True)
class Entry:
    """A competitor: a score, and how the layers of two networks become one number."""

    score: str
    way: str

    @property
    def is_ours(self) -> bool:
        """Whether it is a candidate for the score of our own."""
        return self.score.startswith(OURS)

    @property
    def layer_score(self) -> str:
        """The score of single layers, for groundings to which no score of whole networks applies."""
        return _FUSED[self.score] if self.way == FUSED else self.score

    def __str__(self) -> str:
        """Return both in words."""
        return f"{self.score}, {self.way}"


@dataclass(frozen=True)
class Scored:
    """Similarities of the networks of one dataset: high is alike, the same both ways; NaN where there is none.

    Parameters
    ----------
    layers
        Of all spaces, by score.
    rows
        The spaces of each network, first layer first.
    networks
        Of all networks, by entry.
    seconds
        Processor time to prepare a space and to compare two, by score; of an operator and two, by fused entry.
    """

    layers: Mapping[str, Matrix]
    rows: tuple[tuple[int, ...], ...]
    networks: Mapping[Entry, Matrix]
    seconds: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class ScoreJob:
    """Some measures on the spaces of one dataset: the keys of each network's layers, and pairs of places of spaces.

    ``names``: measures of activations; `_OF_MAPS` all that follow from bases; `_OF_NETWORKS` fused operators.
    """

    store: UnitStore
    keys: tuple[tuple[str, ...], ...]
    pairs: tuple[tuple[int, int], ...]
    names: tuple[str, ...]
    atlas: AtlasConfig


@dataclass(frozen=True)
class JobScores:
    """Similarities of the pairs of a job, by score, and processor time by score; of all pairs of networks, if fused."""

    values: Mapping[str, Float[np.ndarray, "..."]]
    seconds: Mapping[str, tuple[float, float]]


def score_networks(source: SourceZoo, parts: Sequence[KnownDataset]) -> list[Scored]:
    """Return the similarities of the networks of each dataset.

    Raises
    ------
    DataError
        If a job fails as a whole; a measure that fails on a pair has no value there.
    """
    jobs, of_part = list[ScoreJob](), list[int]()
    for number, part in enumerate(parts):
        keys = tuple(tuple(one.key for one in network.spaces) for network in part.networks)
        pairs = tuple(_pairs(part))
        names = (_OF_MAPS, _OF_NETWORKS, *MEASURES)
        for start in range(0, len(names), _MEASURES_OF_JOB):
            some = names[start : start + _MEASURES_OF_JOB]
            jobs.append(ScoreJob(source.run.store, keys, pairs, some, source.catalog.atlas))
            of_part.append(number)
    found: list[dict[str, Any]] = [{} for _ in parts]
    seconds: list[dict[str, tuple[float, float]]] = [{} for _ in parts]
    source.run.report_progress("measures", 0, len(jobs))
    for n_done, (index, result) in enumerate(source.run.workers.run(score_spaces, jobs), 1):
        if isinstance(result, JobFailure):
            raise DataError(result.reason, f"{parts[of_part[index]].name}: {result.message}")
        found[of_part[index]] |= result.values
        seconds[of_part[index]] |= result.seconds
        source.run.report_progress("measures", n_done, len(jobs))
    return [_scored(part, *both) for part, both in zip(parts, zip(found, seconds, strict=True), strict=True)]


def _places(part: KnownDataset) -> tuple[tuple[int, ...], ...]:
    """Return the places of each network's spaces among all."""
    ends = np.cumsum([0, *(len(network.spaces) for network in part.networks)]).tolist()
    return tuple(tuple(range(start, end)) for start, end in pairwise(ends))


def _pairs(part: KnownDataset) -> list[tuple[int, int]]:
    """Return the pairs of spaces that groundings ask for: of one depth, of one network, or all to match layers."""
    places, wanted = _places(part), set[tuple[int, int]]()
    for grounding in groundings_of([part]):
        members = [places[place] for place in part.with_grounding(grounding)]
        if grounding == "layer_order":
            wanted.update(pair for own in members for pair in combinations(own, 2))
        for own, other in combinations(members, 2):
            if grounding == "layer_matching":
                wanted.update((one, two) for one in own for two in other)
            elif grounding != "layer_order":
                wanted.update(zip(own, other, strict=True) if part.has_one_depth else [(own[-1], other[-1])])
    return sorted(wanted, key=lambda pair: (pair[1], pair[0]))


def score_spaces(job: ScoreJob) -> JobScores:
    """Return the similarities of the pairs of one job, on the points that all its spaces have."""
    networks = on_common_points([[read_space_rows(job.store, key) for key in keys] for keys in job.keys])
    spaces = [rows for own in networks for rows in own]
    values: dict[str, np.ndarray] = {}
    seconds: dict[str, tuple[float, float]] = {}
    for name in job.names:
        with np.errstate(all="ignore"):
            if name == _OF_NETWORKS:
                found = _fused(networks)
            else:
                found = _by_maps(job, spaces) if name == _OF_MAPS else _by_rows(job, name, spaces)
        values |= found.values
        seconds |= found.seconds
    return JobScores(values, seconds)


def on_common_points(networks: Sequence[Sequence[SpaceRows]]) -> list[list[np.ndarray]]:
    """Return the rows of all layers of all networks on the points that all have, in one order.

    Raises
    ------
    DataError
        ``no_overlap`` if no point is in all of them.
    """
    ids = networks[0][0].ids
    for rows in (rows for own in networks for rows in own):
        ids = ids if same_ids(ids, rows.ids) else common_ids(ids, rows.ids)[0]
    if not len(ids):
        n_spaces = sum(map(len, networks))
        found = f"got {n_spaces} spaces of {len(networks)} networks that share no id, expected points that all have"
        raise DataError("no_overlap", f"{found}. Record the same points of all, or give them datasets of their own")

    def kept(rows: SpaceRows) -> np.ndarray:
        return rows.activations if same_ids(ids, rows.ids) else rows.activations[common_ids(ids, rows.ids)[2]]

    return [[kept(rows) for rows in own] for own in networks]


def _by_rows(job: ScoreJob, name: str, spaces: Sequence[np.ndarray]) -> JobScores:
    """Return the similarities by one measure of activations."""
    measure = MEASURES[name]
    values, sign = np.full(len(job.pairs), np.nan), -1 if measure.kind == "distance" else 1
    prepared = PreparedSpaces(measure, Activations({str(place): rows for place, rows in enumerate(spaces)}, {}))
    spent = np.zeros(2)
    for index, (first, second) in enumerate(job.pairs):
        # Numerics of one pair, or another package's code: it has no value.
        with suppress(Exception):
            check_rows(name, spaces[first], spaces[second])
            start = time.process_time()
            for place in (first, second):
                prepared.prepared(str(place))
            ready = time.process_time()
            values[index] = sign * np.mean(prepared.both_ways(str(first), str(second)))
            spent += ready - start, time.process_time() - ready
    n_spaces = len({place for pair in job.pairs for place in pair})
    return JobScores({name: values}, {name: (spent[0] / n_spaces, spent[1] / len(job.pairs))})


def _by_maps(job: ScoreJob, spaces: Sequence[np.ndarray]) -> JobScores:
    """Return the similarities by all measures of maps, and by walks of some steps."""
    start = time.process_time()
    bases = [_basis(rows, job.atlas) for rows in spaces]
    of_space = (time.process_time() - start) / len(bases)
    scores = {name: score.of_both_ways for name, score in MAP_SCORES.items()}
    values = {name: np.full(len(job.pairs), np.nan) for name in [*scores, *map(_walk, STEPS)]}
    spent = dict.fromkeys(values, 0.0)
    for index, (first, second) in enumerate(job.pairs):
        source, target = bases[first], bases[second]
        if source is None or target is None:
            continue
        start = time.process_time()
        functional_map = full_map(source.eigenvectors, target.eigenvectors)
        of_map = time.process_time() - start
        of_walks = {_walk(steps): _walked(functional_map, source, target, steps) for steps in STEPS}
        for name, function in {
            **{name: _mean_of(score, functional_map) for name, score in scores.items()},
            **of_walks,
        }.items():
            start = time.process_time()
            values[name][index] = function()
            spent[name] += of_map + time.process_time() - start
    return JobScores(values, {name: (of_space, total / len(job.pairs)) for name, total in spent.items()})


def _mean_of(score: Callable[[Any], tuple[Any, Any]], functional_map: np.ndarray) -> Callable[[], float]:
    return lambda: float(np.mean(score(functional_map)))


def _walked(functional_map: np.ndarray, source: Basis, target: Basis, steps: int) -> Callable[[], float]:
    return lambda: float(diffusion_overlap(functional_map, source.eigenvalues, target.eigenvalues, steps))


def _walk(steps: int) -> str:
    return f"{OURS}diffusion overlap, {steps} step{'s' * (steps > 1)}"


def _basis(rows: np.ndarray, atlas: AtlasConfig) -> Basis | None:
    """Return the basis that an atlas of the catalog has of a space, or None."""
    numbers, graph = atlas.numbers(len(rows)), atlas.graph
    try:
        space = spectral_space(rows, **numbers._asdict(), metric=graph.metric, kernel=graph.kernel, center=graph.center)
    except DataError:
        return None
    return space.basis


def _fused(networks: Sequence[Sequence[np.ndarray]]) -> JobScores:
    """Return the similarities of all networks by fused operators."""
    values, seconds = {}, {}
    for score in _FUSED:
        name, _, power = score.rpartition("_t_")
        matrix_of = centered_products if name == "multiscale_cka" else centered_distances
        start = time.process_time()
        operators = [fused_operator(own, matrix_of, power=int(power)).astype(np.float32).ravel() for own in networks]
        ready = time.process_time()
        products = np.array([[float(np.vdot(one, other)) for other in operators] for one in operators])
        n = len(networks)
        entry = str(Entry(score, FUSED))
        values[entry] = products
        seconds[entry] = ((ready - start) / n, (time.process_time() - ready) / n**2)
    return JobScores(values, seconds)


def _scored(part: KnownDataset, values: Mapping[str, Any], seconds: Mapping[str, tuple[float, float]]) -> Scored:
    rows, pairs = _places(part), np.array(_pairs(part))
    layers, networks = dict[str, Matrix](), dict[Entry, Matrix]()
    for name, of_pairs in values.items():
        if of_pairs.ndim == 2:
            networks[Entry(name.removesuffix(f", {FUSED}"), FUSED)] = of_pairs
            continue
        layers[name] = np.full((rows[-1][-1] + 1,) * 2, np.nan)
        layers[name][pairs[:, 0], pairs[:, 1]] = layers[name][pairs[:, 1], pairs[:, 0]] = of_pairs
        np.fill_diagonal(layers[name], 1.0)
    layers = _with_candidates(layers)
    last = [own[-1] for own in rows]
    for name, matrix in layers.items():
        networks[Entry(name, LAST)] = matrix[np.ix_(last, last)]
        if part.has_one_depth:
            by_depth = [matrix[np.ix_(own, own)] for own in zip(*rows, strict=True)]
            networks[Entry(name, ALIGNED)] = np.mean(by_depth, axis=0)
    return Scored(layers, rows, networks, seconds)


def _with_candidates(layers: Mapping[str, Matrix]) -> dict[str, Matrix]:
    """Return the scores with the candidates for one of our own, which are means of others."""
    walks = {steps: layers[_walk(steps)] for steps in STEPS}
    parts = {name: layers[measure] for name, measure in _PARTS.items()}
    parts["diffusion overlap"] = walks[8]
    parts["rotation"] = 1 - np.square(parts["rotation"]) / 2
    np.fill_diagonal(parts["rotation"], 1.0)
    found = {name: values for name, values in layers.items() if name != _walk(8)}
    for size in range(1, len(parts) + 1):
        for chosen in combinations(parts, size):
            found[f"{OURS}{' + '.join(chosen)}"] = np.mean([parts[name] for name in chosen], axis=0)
    return found | {f"{OURS}diffusion overlap, all scales": np.mean(list(walks.values()), axis=0)}


def parts_of(score: str) -> Iterator[str]:
    """Yield the scores that a candidate takes the time of."""
    for name in score.removeprefix(OURS).split(", ")[0].split(" + "):
        yield _PARTS[name]
