"""Bases as rows on their points, for maps between known points: small ones are read and prepared once in a process."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped

from lfm_tasks.reasons import ReasonError
from lfm_tasks.runtime.cache import Remembered
from lfm_tasks.stages.scores.block import BlockJob, Resamplings
from lfm_tasks.stages.scores.map_measures import BasisRows, basis_rows
from lfm_tasks.statistics.permutation_moments import unpack

# A base is read by every block that it is part of, 33 times among 1,000 spaces. To read and part one of 300 points
# takes as long as to score eight pairs; of 10,000 points it is little beside their products.
LARGEST_BASE, MOST_BASES = 2 << 20, 128 << 20


@dataclass(frozen=True)
class KnownBase:
    """A basis on its points, or why it cannot be parted; their ids, and the digest of these."""

    rows: BasisRows | ReasonError
    ids: Shaped[np.ndarray, " points"]
    ids_key: str

    @property
    def nbytes(self) -> int:
        """How much memory it takes: rows once more for each way they are parted, whiteners, ids."""
        of_ids = 64 * len(self.ids)
        if isinstance(self.rows, ReasonError):
            return of_ids
        parted = [own for own in (self.rows.parts, self.rows.halves) if own is not None]
        arrays = [self.rows.rows, *(own.whiteners for own in parted), *(rows for own in parted for rows in own.rows)]
        return of_ids + sum(array.nbytes for array in arrays)


_BASES: Remembered[KnownBase] = Remembered(MOST_BASES, LARGEST_BASE)


def known_base(job: BlockJob, key: str, resamplings: Resamplings) -> KnownBase:
    """Return a base with its rows in the parts that its resampled scores need."""

    def read() -> KnownBase:
        ids_key = str(job.store.receipt("activations", job.activations[key]).facts["ids"])
        with job.store.open("bases", key) as unit:
            eigenvalues, eigenvectors, ids = unit.read("eigenvalues"), unit.read("eigenvectors"), unit.read("ids")
            profile = unpack(unit.read("overlap_profile"), len(eigenvectors))
        try:
            rows = basis_rows(eigenvalues, eigenvectors, profile, resamplings.of(ids, ids_key))
        except ReasonError as error:
            return KnownBase(error, ids, ids_key)
        return KnownBase(rows, ids, ids_key)

    intervals = job.atlas.intervals
    return _BASES.get((job.store.root, key, job.design, intervals.n_groups, intervals.seed), read)
