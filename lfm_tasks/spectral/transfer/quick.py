"""A map between two spaces from a few known pairs, in one call: for a notebook, without a catalog or a store."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lfm_tasks.reasons import ReasonError
from lfm_tasks.spectral.bases.space import spectral_space
from lfm_tasks.spectral.maps.anchors import Anchors
from lfm_tasks.spectral.transfer.alignment import transfer_coordinates
from lfm_tasks.spectral.transfer.selection import Choice, choose_alignment


@dataclass(frozen=True)
class FittedMap:
    """A map that was chosen among spectral ones and baselines; it prints as the table of all of them."""

    choice: Choice

    @property
    def name(self) -> str:
        """Which candidate was chosen."""
        return self.choice.name

    @property
    def why(self) -> str:
        """Why it was chosen."""
        return self.choice.why

    @property
    def table(self) -> Mapping[str, Mapping[str, float]]:
        """How the candidates do on anchors that are held out, and the share of points that come back."""
        return {
            one.name: {"held_out": one.held_out, "typical_rank": one.typical_rank, "round_trip": one.round_trip}
            for one in self.choice.judged
        }

    def transfer(
        self, rows: Float[np.ndarray, "points source_features"]
    ) -> Float[np.ndarray, "points target_features"]:
        """Return rows of the source, seen before or not, in the target's coordinates."""
        width = len(self.choice.alignment.source_mean)
        if rows.shape[1] != width:
            raise ReasonError(
                "wrong_shape", f"found {rows.shape[1]} features, the map needs {width}: rows of its source"
            )
        return transfer_coordinates(self.choice.alignment, np.asarray(rows, dtype=np.float64))

    def __str__(self) -> str:
        width = max(map(len, self.table))
        lines = [f"{'':<{width + 2}}  held out  rank  round trip"]
        for name, row in self.table.items():
            mark = "*" if name == self.name else " "
            numbers = f"{row['held_out']:>10.3f}{row['typical_rank']:>6.1f}{row['round_trip']:>12.3f}"
            lines.append(f"{mark} {name:<{width}}{numbers}")
        return "\n".join(lines)


def fit_map(
    source: Float[np.ndarray, "source_points source_features"],
    target: Float[np.ndarray, "target_points target_features"],
    anchors: np.ndarray,
    *,
    n_eigenpairs: int = 50,
    seed: int = 0,
) -> FittedMap:
    """Return the map from ``source`` to ``target`` that carries held-out anchors best.

    ``anchors``: row numbers that mean the same point in both, or (pairs, 2) of source and target rows; three at least.
    Everything else may be in any order and of any number.

    Raises
    ------
    ReasonError
        ``not_finite`` for NaN or infinite values, ``bad_anchors`` and ``few_anchors`` for the pairs, and as
        `spectral_space`.
    """
    pairs = np.asarray(anchors)
    if pairs.dtype.kind not in "iu" or pairs.ndim not in (1, 2) or (pairs.ndim == 2 and pairs.shape[1] != 2):
        found = f"found anchors of type {pairs.dtype} and shape {pairs.shape}"
        raise ReasonError("bad_anchors", f"{found}, needs row numbers, (anchors,) or (anchors, 2)")
    columns = (pairs, pairs) if pairs.ndim == 1 else (pairs[:, 0], pairs[:, 1])
    known = Anchors(*(column.astype(np.int64) for column in columns))
    for side, rows in (("source", source), ("target", target)):
        if not np.isfinite(rows).all():
            raise ReasonError("not_finite", f"found NaN or infinite values in the {side}, needs finite numbers")
    spaces = [spectral_space(np.asarray(rows, np.float64), n_eigenpairs=n_eigenpairs) for rows in (source, target)]
    return FittedMap(choose_alignment(spaces[0], spaces[1], known, seed=seed))
