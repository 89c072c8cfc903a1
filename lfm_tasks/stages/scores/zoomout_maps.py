"""Scores of maps grown by ZoomOut from anchors, labels or nothing; each direction has a map of its own."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int, Shaped

from lfm_tasks.config import AtlasConfig
from lfm_tasks.errors import DataError
from lfm_tasks.spectral.bases.eigenbasis import Basis
from lfm_tasks.spectral.bases.full_map import MAP_SCORES
from lfm_tasks.spectral.bases.graph import affinity_graph, join_components
from lfm_tasks.spectral.bases.space import SpectralSpace
from lfm_tasks.spectral.maps.descriptors import Anchors
from lfm_tasks.spectral.maps.fit import fit_from_anchors, fit_from_labels, fit_unsupervised
from lfm_tasks.spectral.maps.refinement import Effort, MapFit, Start
from lfm_tasks.spectral.neighbors.centering import from_center
from lfm_tasks.spectral.neighbors.search import Neighbors
from lfm_tasks.stages.activations.job import read_activations
from lfm_tasks.stages.inventory.correspondence import Correspondence, Labels, anchors_of_pair, common_ids, read_labels
from lfm_tasks.stages.scores.block import STATISTICS, BlockJob, BlockScores, against_chance
from lfm_tasks.statistics.resampling import Exchange
from lfm_tasks.stores.units.store import UnitStore, ids_digest

# One start for each kind of descriptor: a third of the time of all nine, which docs/spectral.md has figures of.
_ANCHOR_STARTS = (Start("heat", 20), Start("geodesic", 20), Start("cosine", 20))


def score_grown_maps(job: BlockJob, keys: list[str], scores: BlockScores) -> dict[str, np.ndarray]:
    """Fill in the measures of maps that ZoomOut grows; return the ids of each basis."""
    labels = read_labels(job.store, job.labels)
    spaces = {key: load_space(job.store, key, job.activations[key], job.atlas, labels) for key in keys}
    fitted = ZoomOutScores(job.correspondence, job.atlas, spaces)
    for index, pair in enumerate(job.pairs):
        first, second = (spaces[key] for key in pair)
        scores.n_common[index] = len(first.ids)
        if first.ids_key != second.ids_key:
            scores.n_common[index] = len(common_ids(first.ids, second.ids)[0])
        try:
            both = [fitted.score(source, target, list(scores.of_maps)) for source, target in (pair, pair[::-1])]
        except DataError as error:
            scores.unmapped[index] = error
            scores.codes.update({(index, column): error.reason for column in scores.columns})
            continue
        for direction, scored in enumerate(both):
            scores.values[index, direction, scores.columns] = scored.values
            scores.diagnostics[index, direction] = scored.diagnostics
            # They cost too much to be grown again for the collection.
            scores.maps[index, direction] = scored.functional_map
    return {key: space.ids for key, space in spaces.items()}


@dataclass(frozen=True)
class LoadedSpace:
    """A space with the ids of its points, in order, and the labels of the dataset where maps are fitted from these."""

    space: SpectralSpace
    ids: Shaped[np.ndarray, " points"]
    labels: Labels | None

    @cached_property
    def ids_key(self) -> str:
        """The digest of the ids: spaces on the same points have the same anchors."""
        return ids_digest(self.ids)

    @cached_property
    def classes(self) -> Int[np.ndarray, " points"]:
        """The class of each point; an id without one keeps only the maps of this space from being fitted."""
        if self.labels is None:
            raise DataError("missing_source", "got no labels, expected some to fit from. Add them to the dataset")
        return self.labels.of(self.ids)


@dataclass(frozen=True)
class ScoredMap:
    """A fitted map with its statistics and diagnostics."""

    functional_map: Float[np.ndarray, "target source"]
    values: Float[np.ndarray, "measures statistics"]
    diagnostics: Float[np.ndarray, " diagnostics"]


@dataclass
class ZoomOutScores:
    """Fits maps between the spaces of one block and scores them."""

    correspondence: Correspondence
    atlas: AtlasConfig
    spaces: Mapping[str, LoadedSpace]
    _known_anchors: dict[tuple[str, str], Anchors] = field(default_factory=dict)

    def score(self, source: str, target: str, measures: list[str]) -> ScoredMap:
        """Return the map from one space to another with its statistics and diagnostics.

        Raises
        ------
        DataError
            ``few_anchors``, ``one_class``, or what else keeps a map from being fitted.
        """
        fit = self._grown(source, target, None)
        maps = fit.functional_map
        others = [self._grown(source, target, r).functional_map for r in self._pairings(self.atlas.null.n_refined)]
        chance = np.array(others).reshape(len(others), *maps.shape)
        values = np.full((len(measures), len(STATISTICS)), np.nan)
        for column, name in enumerate(measures):
            measure = MAP_SCORES[name]
            values[column, 0] = measure.of_fitted(maps)
            if len(chance) and measure.has_null:
                of_chance, least_p = measure.of_fitted(chance), Exchange(self._n_known(source, target)).least_p
                values[column, 1:5] = against_chance(float(values[column, 0]), of_chance, least_p=least_p)
        return ScoredMap(maps, values, self._quality(fit, source, target))

    def _n_known(self, source: str, target: str) -> int:
        """Return how many anchors or classes are paired at random."""
        ours, theirs = self.spaces[source], self.spaces[target]
        if self.correspondence.regime == "labels":
            return len(np.unique(theirs.classes))
        return len(self._anchors(ours, theirs).target)

    def _pairings(self, n_wanted: int) -> Iterator[np.random.Generator]:
        """Yield a generator for each random pairing of anchors or classes; none where the fit is unsupervised."""
        for index in range(n_wanted if self.correspondence.regime != "unsupervised" else 0):
            yield np.random.default_rng((self.atlas.null.seed, index))

    def _grown(self, source: str, target: str, pairing: np.random.Generator | None) -> MapFit:
        ours, theirs = self.spaces[source], self.spaces[target]
        effort = Effort(self.correspondence.n_samples, n_matched=self.correspondence.n_samples)
        if self.correspondence.regime == "unsupervised":
            return fit_unsupervised(ours.space, theirs.space, effort=effort)
        if self.correspondence.regime == "labels":
            first, second = ours.classes, theirs.classes
            if pairing is not None:
                known = np.unique(second)
                second = pairing.permutation(known)[np.searchsorted(known, second)]
            return fit_from_labels(ours.space, theirs.space, first, second, effort=effort)
        anchors = self._anchors(ours, theirs)
        if pairing is not None:
            anchors = Anchors(anchors.source, pairing.permutation(anchors.target))
        return fit_from_anchors(ours.space, theirs.space, anchors, starts=_ANCHOR_STARTS, effort=effort)

    def _anchors(self, ours: LoadedSpace, theirs: LoadedSpace) -> Anchors:
        place = (ours.ids_key, theirs.ids_key)
        if place not in self._known_anchors:
            self._known_anchors[place] = anchors_of_pair(self.correspondence, ours.ids, theirs.ids)
        return self._known_anchors[place]

    def _quality(self, fit: MapFit, source: str, target: str) -> Float[np.ndarray, " diagnostics"]:
        ours, theirs = self.spaces[source].ids, self.spaces[target].ids[fit.rows]
        answerable = np.isin(theirs, ours)
        right = ours[fit.matches] == theirs
        accuracy = float(right[answerable].mean()) if answerable.any() else np.nan
        return np.array([fit.orthogonality_error, fit.commutativity_error, fit.residual, accuracy])


def load_space(store: UnitStore, key: str, activations: str, atlas: AtlasConfig, labels: Labels | None) -> LoadedSpace:
    """Return a space with its graph, made once more from the neighbors that its basis was made of."""
    with store.open("activations", activations) as unit:
        rows = read_activations(unit)
    with store.open("bases", key) as unit:
        neighbors = Neighbors(unit.read("neighbors"), unit.read("distances"))
        basis = Basis(unit.read("eigenvalues"), unit.read("eigenvectors"), np.nan)
        ids = unit.read("ids")
        center = unit.read("center") if atlas.graph.is_centered else None
    graph = affinity_graph(neighbors, kernel=atlas.graph.kernel)
    graph, _ = join_components(graph, from_center(rows, center), metric=atlas.graph.metric)
    return LoadedSpace(SpectralSpace(rows, neighbors, graph, basis, center), ids, labels)
