"""Every measure against its claims and other programs' numbers; measures of new modules and of installed packages."""

import json
import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lfm_tasks.measures
from lfm_tasks.measures import registry
from lfm_tasks.measures.measure import Measure
from lfm_tasks.measures.neighborhoods import nearest_by_cosine, shared_counts
from lfm_tasks.measures.registry import MEASURES, MeasureRegistry, PlugInError, shipped_measures

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


@pytest.fixture(scope="session")
def real_pairs() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parents[2] / "golden" / "real_pairs.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


ROW_MEASURES = sorted(MEASURES)


METRICS = sorted(name for name, measure in MEASURES.items() if measure.is_metric)


def spaces(seed: int, n_points: int = 60, widths: tuple[int, ...] = (12, 15)) -> list[np.ndarray]:
    """Return related spaces, so that no value sits at the end of its range."""
    generator = np.random.default_rng(seed)
    latent = generator.standard_normal((n_points, 4))
    return [
        np.tanh(latent @ generator.standard_normal((4, width)) + 0.4 * generator.standard_normal((n_points, width)))
        + 0.3
        for width in widths
    ]


def changed(rows: np.ndarray, change: str, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    width = rows.shape[1]
    if change == "rotation":
        return rows @ np.linalg.qr(generator.standard_normal((width, width)))[0]
    if change == "permutation":
        return rows[:, generator.permutation(width)]
    if change == "scaling":
        return rows * generator.uniform(0.2, 5)
    if change == "translation":
        return rows + generator.standard_normal(width)
    return rows @ (np.eye(width) + 0.3 * generator.standard_normal((width, width)))


@pytest.mark.parametrize("change", ["rotation", "permutation", "scaling", "translation", "invertible"])
@pytest.mark.parametrize("name", ROW_MEASURES)
def test_measure__is_invariant_to_what_it_claims_and_to_nothing_else(name: str, change: str) -> None:
    measure = MEASURES[name]
    moved = []
    for seed in range(3):
        source, target = spaces(seed)
        before = measure(source, target)
        after = measure(changed(source, change, seed), changed(target, change, seed + 50))
        moved.append(abs(after - before) / max(1.0, abs(before)))
    if change in measure.invariances:
        assert max(moved) < 1e-7
    else:
        assert max(moved) > 1e-5


@pytest.mark.parametrize("name", ROW_MEASURES)
def test_measure__does_not_care_for_the_order_of_the_points(name: str) -> None:
    source, target = spaces(1)
    order = np.random.default_rng(0).permutation(len(source))
    assert MEASURES[name](source[order], target[order]) == pytest.approx(MEASURES[name](source, target), abs=1e-9)


@pytest.mark.parametrize("name", [name for name in ROW_MEASURES if MEASURES[name].permute is not None])
def test_permuted_space__is_the_prepared_space_of_permuted_rows(name: str) -> None:
    source, target = spaces(1)
    measure = MEASURES[name]
    order = np.random.default_rng(3).permutation(len(target))
    assert measure.permute is not None
    permuted = measure.permute(measure.prepare(target), order)
    expected = measure(source, target[order])
    assert measure.compare(measure.prepare(source), permuted) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("name", ROW_MEASURES)
def test_measure__tells_matched_rows_from_shuffled_ones(name: str) -> None:
    source, target = spaces(2, n_points=80)
    shuffled = target[np.random.default_rng(1).permutation(len(target))]
    matched, chance = MEASURES[name](source, target), MEASURES[name](source, shuffled)
    assert matched > chance if MEASURES[name].kind == "similarity" else matched < chance


@pytest.mark.parametrize("name", ROW_MEASURES)
def test_measure__is_symmetric_exactly_when_it_says_so(name: str) -> None:
    source, target = spaces(3)
    difference = abs(MEASURES[name](source, target) - MEASURES[name](target, source))
    assert difference < 1e-9 if MEASURES[name].is_symmetric else difference > 1e-5


@pytest.mark.parametrize("name", ROW_MEASURES)
def test_measure__of_a_space_with_itself_is_the_best_there_is(name: str) -> None:
    measure = MEASURES[name]
    [source] = spaces(4, widths=(7,))
    expected = 1.0 if measure.kind == "similarity" else 0.0
    # A cosine that misses 1 by rounding has an angle of its root; CKNNA's denominator has 1e-6 added.
    assert measure(source, source) == pytest.approx(expected, abs=1e-3 if name == "cknna_10_l2" else 2e-6)


@pytest.mark.parametrize("name", ROW_MEASURES)
@given(seed=st.integers(0, 10**6), n_points=st.integers(12, 30), width=st.integers(2, 12))
@settings(max_examples=12, deadline=None)
def test_measure__stays_in_its_range(name: str, seed: int, n_points: int, width: int) -> None:
    generator = np.random.default_rng(seed)
    value = MEASURES[name](generator.standard_normal((n_points, width)), generator.standard_normal((n_points, 5)))
    low, high = MEASURES[name].value_range
    assert low - 1e-9 <= value <= high + 1e-9


@pytest.mark.parametrize("name", METRICS)
@given(seed=st.integers(0, 10**6), noise=st.floats(0, 2))
@settings(max_examples=25, deadline=None)
def test_metric__obeys_the_triangle_inequality(name: str, seed: int, noise: float) -> None:
    generator = np.random.default_rng(seed)
    first, last = generator.standard_normal((2, 25, 4))
    # The middle space lies between the two, where the inequality is tight.
    middle = generator.uniform() * first + generator.uniform() * last + noise * generator.standard_normal((25, 4))
    measure: Measure = MEASURES[name]
    assert measure(first, last) <= measure(first, middle) + measure(middle, last) + 1e-7


def test_single_precision__is_summed_in_double() -> None:
    source, target = spaces(7)
    for name in ROW_MEASURES:
        wide = MEASURES[name](source + 1000, target + 1000)
        narrow = MEASURES[name]((source + 1000).astype(np.float32), (target + 1000).astype(np.float32))
        rounded = MEASURES[name](*(r.astype(np.float32).astype(np.float64) for r in (source + 1000, target + 1000)))
        assert narrow == pytest.approx(rounded, rel=1e-9, abs=1e-9), name
        assert np.isfinite(wide), name


def test_shared_neighbors__are_counted_for_every_point() -> None:
    source, target = (nearest_by_cosine(rows, 5) for rows in spaces(8))
    expected = [len(set(a) & set(b)) for a, b in zip(source.indices.tolist(), target.indices.tolist(), strict=True)]
    assert shared_counts(source, target).tolist() == expected


def test_spaces_of_different_points__are_refused() -> None:
    with pytest.raises(ValueError, match="got 60 and 59 rows, expected the same points in the same order"):
        MEASURES["cka_linear"](spaces(9)[0], spaces(9)[1][:-1])


TOY = Measure(lambda rows: rows.mean(), lambda source, target: float(source * target), "product of the means")
TOYS = {"toy_first": TOY, "toy_second": TOY}


class Distribution:
    name = "somebodys-measures"


def installed(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> MeasureRegistry:
    """Return the registry as it is with one more entry point, of a module that holds this one's values."""
    toys = SimpleNamespace(TOY=TOY, TOYS=TOYS, COLLIDING={"cka_linear": TOY}, MISNAMED={"two words": TOY}, NUMBER=7)
    monkeypatch.setitem(sys.modules, "toys", toys)  # type: ignore[arg-type]
    point = EntryPoint(name, value, registry.ENTRY_POINTS)
    vars(point)["dist"] = Distribution
    monkeypatch.setattr(registry, "entry_points", lambda group: (point,) if group == "lfm_atlas.measures" else ())
    return MeasureRegistry()


def test_installed_measures__are_one_or_a_family(monkeypatch: pytest.MonkeyPatch) -> None:
    assert installed(monkeypatch, "toy", "toys:TOY")["toy"] is TOY
    family = installed(monkeypatch, "whatever", "toys:TOYS")
    assert set(family) - set(MEASURES) == {"toy_first", "toy_second"}
    assert "whatever" not in family
    with pytest.raises(KeyError, match="no measure of activations is called whatever, here and in the packages"):
        family["whatever"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("toy", "toys:MISSING", r"cannot be loaded \(AttributeError: .*MISSING.*\). Fix or remove its package"),
        ("toy", "no_such_toys:TOY", r"cannot be loaded \(ModuleNotFoundError: No module named 'no_such_toys'\)"),
        ("toy", "toys:NUMBER", "got int as 'toy', expected a lfm_tasks.measures.Measure"),
        ("cka_linear", "toys:TOY", "got the measure cka_linear, a name that is taken. Rename it"),
        ("family", "toys:COLLIDING", "got the measure cka_linear, a name that is taken. Rename it"),
        ("family", "toys:MISNAMED", "got the name 'two words', expected letters, digits, _, . and -"),
    ],
)
def test_installed_measures__that_cannot_be_used_name_their_distribution(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = installed(monkeypatch, name, value)
    origin = re.escape(f"the measures of somebodys-measures ({name} = {value})")
    with pytest.raises(PlugInError, match=origin + ".*" + message):
        broken["cka_linear"]


def test_new_module__is_found_by_itself_and_may_take_no_name_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "from lfm_tasks.measures import Measure\nMEASURES = {%r: Measure(len, lambda a, b: float(max(a, b)), '')}\n"
    monkeypatch.setattr(lfm_tasks.measures, "__path__", [*lfm_tasks.measures.__path__, str(tmp_path)])
    (tmp_path / "a_new_family.py").write_text(code % "larger_number")
    assert shipped_measures()["larger_number"](np.zeros((5, 2)), np.zeros((5, 2))) == 5
    (tmp_path / "the_last_family.py").write_text(code % "cka_linear")
    with pytest.raises(RuntimeError, match="the_last_family: got cka_linear, which another module has"):
        shipped_measures()
    for name in ("a_new_family", "the_last_family"):
        sys.modules.pop(f"lfm_tasks.measures.{name}", None)


def test_import__runs_nobody_elses_code() -> None:
    code = "from lfm_tasks.measures.registry import MEASURES; print('by_name' in vars(MEASURES))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
