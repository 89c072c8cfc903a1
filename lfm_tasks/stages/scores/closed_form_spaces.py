"""Spaces described by what is known of their points, for maps in closed form: read and factored once in a process."""

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from jaxtyping import Shaped

from lfm_tasks.runtime.cache import Remembered
from lfm_tasks.spectral.bases.eigenbasis import Basis
from lfm_tasks.spectral.batched.maps import TileSource, tile_source
from lfm_tasks.spectral.maps.closed_form import Described, describe
from lfm_tasks.spectral.maps.descriptors import (
    heat_signatures,
    label_descriptors,
    landmark_heat_coefficients,
    unit_descriptors,
)
from lfm_tasks.stages.inventory.correspondence import common_ids, known_anchors, read_labels
from lfm_tasks.stages.scores.block import BlockJob
from lfm_tasks.stages.scores.zoomout_maps import KnownSpace, read_known_space
from lfm_tasks.stores.units.store import UnitStore

# What blocks share in one process: 70 KB a space at 50 eigenpairs and 64 descriptors; lists of ids, most often one.
_SOURCES: Remembered[TileSource] = Remembered(1 << 28)
_IDS: Remembered[np.ndarray] = Remembered(1 << 26)


@dataclass(frozen=True)
class DescribedSpaces:
    """The spaces of one block, described by what is known."""

    job: BlockJob
    _labelled: dict[str, KnownSpace] = field(default_factory=dict)

    def ids_key(self, key: str) -> str:
        """Return the digest of the ids of a base."""
        return _ids_key(self.job.store, self.job.activations[key])

    def ids(self, key: str) -> Shaped[np.ndarray, " points"]:
        """Return the ids of a base; those on the same points share one array."""

        def read() -> np.ndarray:
            with self.job.store.open("bases", key) as unit:
                return unit.read("ids")

        return _IDS.get(self.ids_key(key), read)

    def n_common(self, first: str, second: str) -> int:
        """Return how many ids two bases share."""
        if self.ids_key(first) == self.ids_key(second):
            return len(self.ids(first))
        return len(common_ids(self.ids(first), self.ids(second))[0])

    def known(self, first: str, second: str) -> tuple[np.ndarray, np.ndarray]:
        """Return anchors' rows on both sides, or the common classes twice, or one number for all signatures.

        It depends on the two lists of ids only. ReasonError as `known_anchors`, and for ids without a label.
        """
        if self.job.knowledge.regime == "anchors":
            anchors = known_anchors(self.job.knowledge, self.ids(first), self.ids(second))
            return anchors.source, anchors.target
        if self.job.knowledge.regime == "labels":
            common = np.intersect1d(self._with_labels(first).classes, self._with_labels(second).classes)
            return common, common
        return np.arange(1), np.arange(1)

    def source(self, key: str, things: np.ndarray) -> TileSource:
        """Return a base described by known things and factored; ReasonError if it cannot be described."""
        job = self.job
        made_of = (job.knowledge.regime, job.knowledge.mask, job.labels, job.atlas.graph.kernel, job.atlas.graph.metric)
        return _SOURCES.get(
            (job.store.root, key, *made_of, things.tobytes()),
            lambda: tile_source(self._described(key, things), mask=job.knowledge.mask),
        )

    def _described(self, key: str, things: np.ndarray) -> Described:
        if self.job.knowledge.regime == "labels":
            known = self._with_labels(key)
            basis = known.space.basis
            functions = label_descriptors(known.space.graph, known.classes, classes=things)
            return describe(basis, unit_descriptors(basis, functions))
        with self.job.store.open("bases", key) as unit:
            basis = Basis(unit.read("eigenvalues"), unit.read("eigenvectors"), np.nan)
        if self.job.knowledge.regime == "anchors":
            return Described(basis.eigenvalues, landmark_heat_coefficients(basis, things))
        return describe(basis, unit_descriptors(basis, heat_signatures(basis)))

    def _with_labels(self, key: str) -> KnownSpace:
        if key not in self._labelled:
            job = self.job
            labels = read_labels(job.store, job.labels)
            self._labelled[key] = read_known_space(job.store, key, job.activations[key], job.atlas, labels)
        return self._labelled[key]


@lru_cache(maxsize=1 << 16)
def _ids_key(store: UnitStore, activations: str) -> str:
    return str(store.receipt("activations", activations).facts["ids"])
