"""All measures against other programs' numbers, on fixed random fixtures and on real layers."""

import json
from pathlib import Path

import numpy as np
import pytest

from lfm_tasks.measures.registry import MEASURES

GOLDEN = Path(__file__).parents[2] / "golden"
VALUES = json.loads((GOLDEN / "values.json").read_text())
REAL = json.loads((GOLDEN / "real_pairs.json").read_text())

# Program and measure there: our name, and what turns our value into theirs.
SAME = {
    "resi/CKA": ("cka_linear", float),
    "netrep/LinearCKA": ("cka_angular_arccos", float),
    "naive/cka_debiased (raw ip kernel)": ("cka_linear_debiased_song", float),
    "platonic/unbiased_cka(ip)": ("cka_linear_debiased_song", float),
    "resi/OrthogonalProcrustesCenteredAndNormalized": ("procrustes_centered_unit_norm", float),
    "resi/ProcrustesSizeAndShapeDistance": ("procrustes_centered", float),
    "netrep/LinearMetric(alpha=1.0) angular": ("shape_angular_alpha_1", float),
    "netrep/LinearMetric(alpha=0.5) angular": ("shape_angular_alpha_half", float),
    "netrep/LinearMetric(alpha=0.0) angular": ("shape_angular_alpha_0", float),
    "resi/RSA": ("rsa_pearson_rdm_spearman", float),
    "resi/DistanceCorrelation": ("distance_correlation", float),
    "platonic/mutual_knn(k=10,l2-normalized)": ("mutual_knn_10_cosine", float),
    "resi/JaccardSimilarity(k=10,cosine)": ("jaccard_knn_10_cosine", float),
    "resi/RankSimilarity": ("rank_similarity_10", float),
    "platonic/cknna(k=10)": ("cknna_10_l2", float),
}


# netrep lifts eigenvalues of XᵀX to at least 1e-7, in the units of the activations. Those of the untrained network are
# so small that this bites: see the test of it below.
FLOORED = {"netrep/LinearMetric(alpha=0.5) angular": 0.5, "netrep/LinearMetric(alpha=0.0) angular": 0.0}


@pytest.mark.parametrize("fixture", ["A", "B", "C"])
@pytest.mark.parametrize("name", VALUES)
def test_measure__gives_the_golden_value(name: str, fixture: str) -> None:
    with np.load(GOLDEN / f"fixture_{fixture}.npz") as arrays:
        source, target = arrays["X"], arrays["Y"]
    expected = VALUES[name][fixture]
    if expected is None:
        # Fewer points than features: the value is degenerate, and the measure says so.
        assert len(source) <= MEASURES[name].n_factor * max(source.shape[1], target.shape[1])
        return
    digits = 5 if expected > 1.5 else 6
    assert MEASURES[name](source, target) == pytest.approx(expected, abs=0.6 * 10**-digits if expected < 10 else 6e-5)


def test_registry__holds_all_golden_measures_under_their_conventions() -> None:
    assert set(MEASURES) == set(VALUES)
    assert all(measure.convention and measure.source for measure in MEASURES.values())


@pytest.mark.parametrize("theirs", SAME)
def test_measure__agrees_with_other_programs_on_real_layers(theirs: str, real_pairs: dict[str, np.ndarray]) -> None:
    ours, convert = SAME[theirs]
    for pair, expected in REAL[theirs].items():
        if pair == "f1_s0_random" and theirs in FLOORED:
            continue
        found = MEASURES[ours](real_pairs[f"{pair}__x"], real_pairs[f"{pair}__y"])
        assert convert(found) == pytest.approx(expected, rel=1e-4, abs=1e-4), pair


@pytest.mark.parametrize("theirs", FLOORED)
def test_half_whitened_shapes__differ_from_netrep_only_by_its_absolute_floor(
    theirs: str, real_pairs: dict[str, np.ndarray]
) -> None:
    alpha, expected = FLOORED[theirs], REAL[theirs]["f1_s0_random"]

    def floored(name: str) -> np.ndarray:
        rows = real_pairs[f"f1_s0_random__{name}"].astype(np.float64)
        left, values, right = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
        return (left * (alpha * values + (1 - alpha) * values / np.sqrt(np.maximum(values**2, 1e-7)))) @ right

    source, target = floored("x"), floored("y")
    cosine = np.linalg.svd(target.T @ source, compute_uv=False).sum() / np.linalg.norm(source) / np.linalg.norm(target)
    assert np.arccos(cosine) == pytest.approx(expected, abs=1e-9)
    ours = MEASURES[SAME[theirs][0]](real_pairs["f1_s0_random__x"], real_pairs["f1_s0_random__y"])
    assert ours == pytest.approx(expected, abs=5e-3)
