"""map_measures.py."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lfm_tasks.spectral.bases import map_scores

ScoreFunction = Callable[[Float[np.ndarray, "*stack target source"]], Float[np.ndarray, "*stack"]]


# What stands beside the scores of each map; the last two only where a map was grown by ZoomOut.
DIAGNOSTICS = {
    "orthogonality_error": "|C'C - I|^2/K: 0 for an isometry",
    "commutativity_error": "|L_y C - C L_x|^2/|C|^2: 0 for an isometry",
    "map_residual": "mean distance of target rows to their images, in units of the scaled bases: 0 for an isometry",
    "points_found": "share of the target's points that the map leads to, where their ids tell",
}


@dataclass(frozen=True)
class MapScore:
    """A similarity computed from a functional map; ``has_null``: chance levels mean something for it.

    ``of_fitted`` is used where the map is fitted: its singular values may be larger than 1.
    """

    function: ScoreFunction
    has_null: bool
    convention: str
    of_fitted: ScoreFunction


def _score(
    function: ScoreFunction, has_null: bool, convention: str, of_fitted: ScoreFunction | None = None
) -> MapScore:
    return MapScore(function, has_null, convention, of_fitted or function)


MAP_SCORES: Mapping[str, MapScore] = {
    "lfm": _score(map_scores.lfm, True, "1 - |off(C'C)|^2/|C'C|^2, trivial mode dropped; asymmetric, in [0, 1]"),
    "lfm_raw": _score(map_scores.lfm_raw, False, "the same, trivial mode kept (the paper's); chance is close to 1"),
    "lfm_unsquared": _score(map_scores.lfm_unsquared, False, "unsquared norms, trivial mode kept (the paper's code)"),
    "overlap": _score(
        map_scores.overlap,
        True,
        "|C|^2/(K-1), trivial modes dropped; symmetric, in [0, 1]; of fitted maps singular values count up to 1",
        map_scores.capped_overlap,
    ),
}
