"""Layer matching: how many layers of two networks that differ by their seed find each other, by every measure."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from lfm_tasks.errors import DataError
from lfm_tasks.experiments.charts import dot_rows
from lfm_tasks.experiments.results import Claim, ClaimStatus, Estimate, ExperimentResult, ResultFigure, ResultTable
from lfm_tasks.experiments.source_zoo import (
    Architecture,
    DerivedModel,
    DerivedZoo,
    SourceZoo,
    scores_only,
    write_catalog,
    write_zoo,
)
from lfm_tasks.stages.inventory.requests import known_measures
from lfm_tasks.statistics.model_pairs import locally_scaled, same_layer_share
from lfm_tasks.statistics.resampling import N_DRAWS, pair_interval
from lfm_tasks.stores.atlas.files import read_atlas

NAME, TITLE = "layer_matching", "Layer matching"
QUESTION = (
    "Two networks of one architecture that differ by their seed: of how many layers is the best match the same layer?"
)
SEED = 0
# The paper's score, the one that this project recommends, and what both compete with.
PAPER, OURS, RIVAL = "lfm_raw", "overlap", "cka_linear"


def prepare(source: SourceZoo, folder: Path) -> tuple[Path, ...]:
    """Write one zoo of all networks of the largest architecture, to be compared by every measure."""
    seeds = source.seeds()
    if len(seeds.layers) < 2:
        message = f"got {len(seeds.layers)} layer in {', '.join(seeds.models)}, expected at least 2 to tell apart"
        raise DataError("unknown_layer", f"{message}. Name more layers in the catalog")
    models = {
        model: DerivedModel({layer: source.read(model, layer) for layer in seeds.layers}) for model in seeds.models
    }
    ids = np.unique(np.concatenate([rows.ids for model in models.values() for rows in model.layers.values()]))
    zoo = DerivedZoo(models, ids)
    atlas = scores_only(source, measures=tuple(known_measures()))
    return (write_catalog(zoo, write_zoo(zoo, folder), atlas, folder / "data_catalog.yaml"),)


def analyze(source: SourceZoo, catalogs: tuple[Path, ...]) -> ExperimentResult:
    """Return the share of layers that each measure finds, raw and locally scaled, with intervals over networks."""
    seeds = source.seeds()
    atlas = read_atlas(catalogs[0].parent / "atlas")
    shares = {
        (measure, is_scaled): layer_shares(atlas, seeds, measure, is_scaled)
        for measure in map(str, atlas["measure"].values)
        for is_scaled in (False, True)
    }
    rows = [_row(measure, shares) for measure in map(str, atlas["measure"].values)]
    applied = [row for row in rows if row["raw"] is not None]
    applied.sort(key=lambda row: (-row["scaled"], -row["raw"], row["measure"]))
    without = [row["measure"] for row in rows if row["raw"] is None]
    notes = [
        "Double centering: of the layers × layers matrix the means of rows and of columns are subtracted before the "
        "best match is taken, so that a layer that is like everything is nobody's match for that alone.",
        f"Intervals: 95 %, bootstrap over networks ({N_DRAWS:,} draws, seed {SEED}); with few networks they are rough.",
    ]
    if without:
        notes.append(f"Without a number here (rows of zeros, or too many points): {', '.join(without)}.")
    figure = ResultFigure(
        "layers",
        f"Share of the {len(seeds.layers)} layers that are found, mean over {_n_pairs(seeds)} directed pairs of "
        f"{len(seeds.models)} networks. Filled: locally scaled; open: raw. Bars: 95 % over networks.",
        dot_rows(
            [
                (
                    str(row["measure"]),
                    (Estimate(row["scaled"], *row["scaled_interval"]), Estimate(row["raw"], *row["raw_interval"])),
                )
                for row in applied
            ],
            marked={PAPER, OURS, "lfm"},
            axis="layers found",
        ),
    )
    settings = {
        "networks": list(seeds.models),
        "layers": list(seeds.layers),
        "graph": source.catalog.atlas.graph.model_dump(),
        **source.numbers(seeds.dataset)._asdict(),
        "bootstrap": {"draws": N_DRAWS, "over": "networks", "seed": SEED},
    }
    tables = [
        ResultTable("measures", "Layers found by each measure, best first", [_flat(row) for row in applied]),
        ResultTable(
            "against", f"Locally scaled {OURS} against each other measure, pair by pair", _against(shares, seeds)
        ),
        ResultTable("confusions", "Which layers are taken for which, locally scaled", _confusions(atlas, seeds), False),
        ResultTable("pairs", "Every directed pair of networks", _pairs(shares, seeds), False),
    ]
    return ExperimentResult(NAME, TITLE, QUESTION, settings, _claims(shares, rows), [figure], tables, notes)


Shares = Mapping[tuple[str, bool], np.ndarray]


def _n_pairs(seeds: Architecture) -> int:
    return len(seeds.models) * (len(seeds.models) - 1)


def _layers(atlas: xr.Dataset, seeds: Architecture, measure: str, source: str, target: str) -> np.ndarray:
    """Return layers × layers similarities: distances change their sign."""
    names = [[f"{model}/{layer}" for layer in seeds.layers] for model in (source, target)]
    values = atlas["score"].sel(measure=measure, source=names[0], target=names[1]).values[0]
    return -values if measure in atlas.attrs["distances"] else values


def layer_shares(atlas: xr.Dataset, seeds: Architecture, measure: str, is_scaled: bool) -> np.ndarray:
    """Return networks × networks: the share of layers whose best match is the same layer; NaN on the diagonal."""
    shares = np.full((len(seeds.models),) * 2, np.nan)
    for s, source in enumerate(seeds.models):
        for t, target in enumerate(seeds.models):
            if s != t:
                values = _layers(atlas, seeds, measure, source, target)
                shares[s, t] = same_layer_share(values, is_scaled=is_scaled)
    return shares


def mean_share(shares: np.ndarray) -> float | None:
    """Return the mean over pairs of different networks; None where one is missing."""
    between = shares[~np.eye(len(shares), dtype=bool)]
    return float(between.mean()) if np.isfinite(between).all() else None


def _row(measure: str, shares: Shares) -> dict[str, Any]:
    row: dict[str, Any] = {"measure": measure}
    for name, is_scaled in (("scaled", True), ("raw", False)):
        row[name] = mean_share(shares[measure, is_scaled])
        row[f"{name}_interval"] = pair_interval(shares[measure, is_scaled], seed=SEED)
    return row


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {"measure": row["measure"]}
    for name in ("scaled", "raw"):
        low, high = row[f"{name}_interval"]
        flat |= {name: row[name], f"{name} low": low, f"{name} high": high}
    return flat


def _against(shares: Shares, seeds: Architecture) -> list[dict[str, Any]]:
    """Return, for every other measure, in how many directed pairs `OURS` finds more, as many and fewer layers."""
    between = ~np.eye(len(seeds.models), dtype=bool)
    ours, rows = shares[OURS, True], []
    for (measure, is_scaled), theirs in shares.items():
        if (measure, is_scaled) == (OURS, True) or mean_share(theirs) is None:
            continue
        ahead = np.round(ours - theirs, 9)
        low, high = pair_interval(ahead, seed=SEED)
        rows.append(
            {
                "measure": f"{measure}, {'locally scaled' if is_scaled else 'raw'}",
                "wins": int((ahead[between] > 0).sum()),
                "ties": int((ahead[between] == 0).sum()),
                "losses": int((ahead[between] < 0).sum()),
                "lead": float(ahead[between].mean()),
                "lead low": low,
                "lead high": high,
            }
        )
    return sorted(rows, key=lambda row: (row["lead"], row["measure"]))


def _confusions(atlas: xr.Dataset, seeds: Architecture) -> list[dict[str, Any]]:
    rows = []
    for measure in map(str, atlas["measure"].values):
        counts = np.zeros((len(seeds.layers),) * 2)
        for source in seeds.models:
            for target in seeds.models:
                values = _layers(atlas, seeds, measure, source, target)
                if source != target and np.isfinite(values).all():
                    counts[np.arange(len(counts)), locally_scaled(values).argmax(axis=1)] += 1
        rows += [
            {"measure": measure, "layer": seeds.layers[s], "taken for": seeds.layers[t], "pairs": int(counts[s, t])}
            for s, t in zip(*np.nonzero(counts), strict=True)
            if s != t
        ]
    return rows


def _pairs(shares: Shares, seeds: Architecture) -> list[dict[str, Any]]:
    return [
        {
            "measure": measure,
            "scaled": is_scaled,
            "source": source,
            "target": target,
            "share": float(values[s, t]),
        }
        for (measure, is_scaled), values in shares.items()
        for s, source in enumerate(seeds.models)
        for t, target in enumerate(seeds.models)
        if s != t
    ]


def _claims(shares: Shares, rows: list[dict[str, Any]]) -> list[Claim]:
    by_name = {row["measure"]: row for row in rows}
    lead = shares[PAPER, False] - shares[RIVAL, False]
    low, high = pair_interval(lead, seed=SEED)
    status: ClaimStatus = "not tested"
    if mean_share(lead) is not None and np.isfinite(low):
        status = "supported" if low > 0 else "not supported" if high < 0 else "partly"
    elif mean_share(lead) is not None:
        status = "partly" if (mean_share(lead) or 0) >= 0 else "not supported"
    paper, rival, ours = (by_name[name] for name in (PAPER, RIVAL, OURS))
    better = [str(row["measure"]) for row in rows if (row["scaled"] or 0) > (ours["scaled"] or 0)]
    return [
        Claim(
            "LFM finds 99.8 % of the layers of ten CIFAR-10 networks, CKA 99.6 %: LFM matches layers at least as well",
            f"the paper's score ({PAPER}), raw: {_percent(paper['raw'])}; linear CKA, raw: {_percent(rival['raw'])}; "
            f"lead {mean_share(lead) or 0:+.3f} (95 %: {low:+.3f} to {high:+.3f})",
            status,
        ),
        Claim(
            f"(ours, docs/scores.md) {OURS} with local scaling matches layers best",
            f"{OURS}, locally scaled: {_percent(ours['scaled'])}; "
            + (f"more by {', '.join(better)}" if better else "no measure finds more, locally scaled"),
            "partly" if better else "supported",
        ),
    ]


def _percent(share: object) -> str:
    return f"{share:.1%}" if isinstance(share, float) else "no number"
