"""Measures of one kind share the singular values of a pair, and have the values that they have alone."""

import numpy as np
import pytest

from lfm_tasks.config import AtlasConfig, NullConfig
from lfm_tasks.measures import MEASURES
from lfm_tasks.runtime.load import SpaceSize
from lfm_tasks.stages.inventory.correspondence import resampling
from lfm_tasks.stages.scores import cross_covariance_measures as stage
from lfm_tasks.stages.scores.cost import PairWork, block_load
from lfm_tasks.stages.scores.pairwise_measures import Activations
from lfm_tasks.stages.scores.row_measures import score_rows

KINDS = {
    "linear": ["procrustes_centered", "procrustes_centered_unit_norm", "shape_angular_alpha_1"],
    "whitened": ["cca_mean", "shape_angular_alpha_0"],
}


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e20])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_shared_values__are_those_of_each_measure_alone(
    kind: str, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    rows = {key: generator.standard_normal((120, 5)) for key in "abc"}
    rows["b"] = (rows["a"] + 0.5 * rows["b"])[:, ::-1] * scale
    pairs, drawn = [("a", "b"), ("c", "b")], NullConfig()
    of_points = resampling(np.array([f"{index:03}" for index in range(120)]), None, AtlasConfig())
    made = []
    original = stage.nuclear_norms
    monkeypatch.setattr(stage, "nuclear_norms", lambda *given: made.append(1) or original(*given))
    address = ("a store of this test", kind, scale)
    for name in KINDS[kind]:
        alone = score_rows(name, Activations(rows, {}), pairs, of_points, drawn).values
        n_before = len(made)
        shared = score_rows(name, Activations(rows, {}, address), pairs, of_points, drawn).values
        assert shared == pytest.approx(alone, rel=1e-12, nan_ok=True), name
        assert len(made) - n_before == (2 if name == KINDS[kind][0] else 0), name
        assert shared[0, 0, 0] == pytest.approx(MEASURES[name](rows["a"], rows["b"]), rel=1e-9), name


def test_plan__counts_shared_singular_values_once() -> None:
    sizes = [SpaceSize(f"m{number}/x", 2000, 64) for number in range(8)]
    of_one, of_kind = (
        block_load(sizes, 28, PairWork(names, 100, 2, 40)).work["decompositions"]
        for names in (KINDS["linear"][:1], KINDS["linear"])
    )
    assert of_one == of_kind > 0
