"""Sensitivity: how many layers still find each other when one setting, or one flaw of the data, changes."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from lfm_tasks.config import AnchorsConfig, MapsConfig
from lfm_tasks.experiments.charts import COLORS, Line, LinePanel, line_chart
from lfm_tasks.experiments.layer_matching import layer_shares, mean_share
from lfm_tasks.experiments.results import Claim, Estimate, ExperimentResult, ResultFigure, ResultTable, claim_status
from lfm_tasks.experiments.source_zoo import (
    Architecture,
    DerivedModel,
    DerivedZoo,
    SourceZoo,
    SpaceRows,
    scores_only,
    write_catalog,
    write_zoo,
)
from lfm_tasks.spectral.bases.graph_kernels import KERNELS
from lfm_tasks.statistics.resampling import pair_interval
from lfm_tasks.stores.atlas.files import read_atlas

NAME, TITLE = "sensitivity", "Sensitivity"
QUESTION = "One setting, or one flaw of the data, changes at a time. How many layers do overlap and lfm still find?"
SEED = 0
MEASURES = ("overlap", "lfm")
# Levels beside that of the catalog.
EIGENPAIRS, NEIGHBORS = (10, 20, 30, 75, 100), (10, 20, 100, 200)
METRICS = ("angular", "euclidean")
# In standard deviations of each feature; share of each network's points; number of known points.
NOISE, MISSING, ANCHORS = (0.1, 0.3, 1.0), (0.1, 0.3, 0.5), (5, 10, 20, 50)


@dataclass(frozen=True)
class Variant:
    """One level of one factor: what differs from the catalog."""

    factor: str
    level: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    noise: float = 0.0
    missing: float = 0.0

    @property
    def stem(self) -> str:
        """The name of the variant's catalog."""
        return f"{self.factor}-{self.level}"


def prepare(source: SourceZoo, folder: Path) -> tuple[Path, ...]:
    """Write a catalog for each variant; those that differ by settings alone share their spaces."""
    seeds = source.seeds()
    zoos: dict[tuple[float, float], tuple[DerivedZoo, Mapping[str, Any], Path]] = {}
    catalogs = []
    for variant in _variants(source):
        flaw = (variant.noise, variant.missing)
        if flaw not in zoos:
            zoo_folder = folder / f"noise{variant.noise:g}-missing{variant.missing:g}"
            zoo = _zoo(source, seeds, *flaw)
            zoos[flaw] = zoo, write_zoo(zoo, zoo_folder), zoo_folder
        zoo, models, zoo_folder = zoos[flaw]
        atlas = scores_only(source, path=f"atlas-{variant.stem}", measures=MEASURES, **variant.settings)
        catalogs.append(write_catalog(zoo, models, atlas, zoo_folder / f"{variant.stem}.yaml"))
    return tuple(catalogs)


def analyze(source: SourceZoo, catalogs: tuple[Path, ...]) -> ExperimentResult:
    """Return the share of layers that find each other under each variant."""
    seeds = source.seeds()
    shares: dict[tuple[str, str, str, bool], np.ndarray] = {}
    points: dict[str, float] = {}
    without: list[str] = []
    for variant, path in zip(_variants(source), catalogs, strict=True):
        atlas = read_atlas(path.with_name(f"atlas-{variant.stem}"))
        for measure in MEASURES:
            for is_scaled in (True, False):
                key = (variant.factor, variant.level, measure, is_scaled)
                shares[key] = layer_shares(atlas, seeds, measure, is_scaled)
        if variant.factor == "anchors":
            points[variant.level] = _points_found(atlas, seeds)
        if reasons := missing_pairs(atlas, seeds):
            counts = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
            without.append(f"{variant.factor} {variant.level} ({counts})")
    rows = [_row(key, values) for key, values in shares.items()]
    for row in rows:
        if row["factor"] == "anchors":
            row["points found"] = points[str(row["level"])]
    numbers = source.numbers(seeds.dataset)
    settings = {
        "networks": list(seeds.models),
        "layers": list(seeds.layers),
        "the catalog's own": {
            "graph": source.catalog.atlas.graph.model_dump(),
            **numbers._asdict(),
        },
        "seed": SEED,
    }
    graph = source.catalog.atlas.graph
    defaults = {
        "eigenpairs": str(numbers.n_eigenpairs),
        "neighbors": str(numbers.n_neighbors),
        "kernel": graph.kernel,
        "metric": graph.metric,
        "noise": "0",
        "missing": "0",
    }
    factors = list(dict.fromkeys(variant.factor for variant in _variants(source)))
    figure = ResultFigure(
        "factors",
        "Share of layers found, locally scaled (raw: dashed), one factor changed at a time; the catalog’s level in "
        "brackets. Bands: 95 %, bootstrap over networks.",
        line_chart(
            [_panel(factor, shares, defaults.get(factor, "")) for factor in factors], n_columns=2, width=360, height=240
        ),
    )
    notes: tuple[str, ...] = (
        "Noise: normal, in standard deviations of each feature. Missing: every network lacks its own share of the "
        "points, so pairs have fewer in common and sample sets differ. Anchors: maps are fitted from so many known "
        "points and grown, not taken from all ids.",
    )
    if without:
        notes += (
            "Layers are matched between networks all of whose pairs of layers have a value. Directed pairs that have "
            f"none, by reason: {', '.join(without)}.",
        )
    tables = [ResultTable("levels", "Layers found under each variant", rows)]
    return ExperimentResult(NAME, TITLE, QUESTION, settings, _claims(shares), [figure], tables, notes)


def _variants(source: SourceZoo) -> Iterator[Variant]:
    """Yield all variants but the levels that the points do not suffice for."""
    atlas, n_points = source.catalog.atlas, min(one.n_points for one in source.spaces)
    graph, numbers = atlas.graph, source.numbers(source.seeds().dataset)
    most = n_points // 2
    for n in sorted({*EIGENPAIRS, numbers.n_eigenpairs}):
        if n < most:
            yield Variant("eigenpairs", str(n), {"n_eigenpairs": n})
    for n in sorted({*NEIGHBORS, numbers.n_neighbors}):
        if n < most:
            yield Variant("neighbors", str(n), {"graph": graph.model_copy(update={"n_neighbors": n})})
    for kernel in KERNELS:
        yield Variant("kernel", kernel, {"graph": graph.model_copy(update={"kernel": kernel})})
    for metric in METRICS:
        yield Variant("metric", metric, {"graph": graph.model_copy(update={"metric": metric})})
    for noise in (0.0, *NOISE):
        yield Variant("noise", f"{noise:g}", noise=noise)
    least = max(numbers) + 1
    for missing in (0.0, *MISSING):
        if (1 - missing) ** 2 * n_points > 2 * least or not missing:
            yield Variant("missing", f"{missing:g}", missing=missing)
    for count in ANCHORS:
        if count < most:
            maps = MapsConfig(regime="anchors", anchors=AnchorsConfig(count=count, seed=SEED))
            yield Variant("anchors", str(count), {"maps": maps})


def _zoo(source: SourceZoo, seeds: Architecture, noise: float, missing: float) -> DerivedZoo:
    """Return the networks with noise on every feature, each without another share of the points."""
    models = {}
    for index, model in enumerate(seeds.models):
        random = np.random.default_rng((SEED, index))
        layers = {layer: source.read(model, layer) for layer in seeds.layers}
        n_points = len(next(iter(layers.values())).ids)
        kept = np.sort(random.permutation(n_points)[: n_points - round(missing * n_points)])
        models[model] = DerivedModel(
            {
                layer: SpaceRows(
                    rows.ids[kept],
                    (
                        rows.activations
                        + noise * rows.activations.std(axis=0) * random.standard_normal(rows.activations.shape)
                    )[kept],
                )
                for layer, rows in layers.items()
            }
        )
    ids = np.unique(np.concatenate([rows.ids for model in models.values() for rows in model.layers.values()]))
    return DerivedZoo(models, ids)


def missing_pairs(atlas: xr.Dataset, seeds: Architecture) -> Counter[str]:
    """Return how many directed pairs of layers of two networks have no overlap, by reason."""
    spaces = [f"{model}/{layer}" for model in seeds.models for layer in seeds.layers]
    scores = atlas[["score", "status"]].sel(measure="overlap", source=spaces, target=spaces)
    models = np.repeat(np.arange(len(seeds.models)), len(seeds.layers))
    is_missing = ~np.isfinite(scores["score"].values) & (models[:, None] != models)
    reasons = np.array(scores["status"].attrs["flag_meanings"].split())
    return Counter(reasons[scores["status"].values[is_missing].astype(int)].tolist())


def _points_found(atlas: xr.Dataset, seeds: Architecture) -> float:
    """Return the mean share of points that maps between the same layers of two networks find."""
    shares = [
        float(atlas["points_found"].sel(source=f"{one}/{layer}", target=f"{other}/{layer}").values[0])
        for one in seeds.models
        for other in seeds.models
        for layer in seeds.layers
        if one != other
    ]
    return float(np.mean(shares))


def _row(key: tuple[str, str, str, bool], values: np.ndarray) -> dict[str, Any]:
    factor, level, measure, is_scaled = key
    low, high = pair_interval(values, seed=SEED)
    variant = {"factor": factor, "level": level, "measure": measure, "scaled": "yes" if is_scaled else "no"}
    return {**variant, "layers found": mean_share(values), "low": low, "high": high, "points found": None}


Shares = Mapping[tuple[str, str, str, bool], np.ndarray]


def _panel(factor: str, shares: Shares, default: str) -> LinePanel:
    levels = list(dict.fromkeys(level for name, level, *_ in shares if name == factor))
    lines = []
    for color, measure in zip((COLORS[2], COLORS[1]), MEASURES, strict=True):
        for is_scaled in (True, False):
            values = [_estimate(shares[factor, level, measure, is_scaled]) for level in levels]
            name = measure if is_scaled else f"{measure}, raw"
            lines.append(Line(name, list(range(len(levels))), values, color, not is_scaled))
    ticks = {float(n): f"[{level}]" if level == default else level for n, level in enumerate(levels)}
    return LinePanel(lines, "", "layers found", ticks=ticks, title=factor)


def _estimate(values: np.ndarray) -> Estimate:
    mean = mean_share(values)
    return Estimate(float("nan") if mean is None else mean, *pair_interval(values, seed=SEED))


def _claims(shares: Shares) -> list[Claim]:
    eigenpairs = [_estimate(values).value for (factor, _, name, is_scaled), values in shares.items()
                  if (factor, name, is_scaled) == ("eigenpairs", "lfm", False)]  # fmt: skip
    spread = max(eigenpairs) - min(eigenpairs)
    plain = shares["noise", "0", "overlap", True]
    better = []
    for (factor, level, measure, is_scaled), values in shares.items():
        low, _ = pair_interval(values - plain, seed=SEED)
        if measure == "overlap" and is_scaled and factor in ("eigenpairs", "neighbors", "kernel", "metric") and low > 0:
            better.append(f"{factor} {level} ({mean_share(values):.3f})")
    noisy = _estimate(shares["noise", f"{NOISE[1]:g}", "overlap", True])
    kept = noisy.value / max(_estimate(plain).value, 1e-9)
    return [
        Claim(
            "LFM depends on the number of eigenvectors (a limit that the paper states)",
            f"lfm, raw, finds {min(eigenpairs):.1%} to {max(eigenpairs):.1%} of the layers over all numbers tried",
            "supported" if spread > 0.05 else "not supported",
        ),
        Claim(
            "(ours) the settings of the catalog are not beaten by another level, locally scaled overlap",
            f"the catalog’s: {_estimate(plain)}; "
            + (f"better beyond its interval: {', '.join(better)}" if better else "none is better beyond its interval"),
            "partly" if better else "supported" if np.isfinite(_estimate(plain).low) else "not tested",
        ),
        Claim(
            "(ours) scores bear noise and missing points",
            f"locally scaled overlap: {_estimate(plain)} as it is, {noisy} with noise of {NOISE[1]:g} "
            "standard deviations",
            claim_status(kept, 0.95, 0.8),
        ),
    ]  # fmt: skip
