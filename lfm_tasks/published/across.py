"""Models on several datasets: their similarity on each side by side, and comparisons across datasets, as tables."""

from typing import Any

import numpy as np

from lfm_tasks.published.answers import Table
from lfm_tasks.published.atlas import Atlas
from lfm_tasks.published.queries import model_values, require_one_of
from lfm_tasks.statistics.across_datasets import Similarities, agreements, side_by_side
from lfm_tasks.statistics.model_pairs import symmetrized
from lfm_tasks.stores.atlas.schema import AtlasError


def datasets_tables(atlas: Atlas, measure: str | None = None, *, n: int | None = None) -> list[Table]:
    """Return each model with its datasets, pairs of models on each dataset side by side, and what datasets agree on.

    Comparisons across datasets follow, the most alike spaces of each.

    Parameters
    ----------
    atlas
        The atlas.
    measure
        The measure; `Atlas.default_measure` if not given.
    n
        How many pairs of each table; all of them if not given.

    Raises
    ------
    AtlasError
        For a measure that the atlas lacks, or a distance without chance.
    """
    measure = atlas.default_measure if measure is None else measure
    of_models = atlas.model_datasets
    tables = [Table("models", "models", [{"model": name, "datasets": ", ".join(on)} for name, on in of_models.items()])]
    several = [dataset for dataset in atlas.datasets if any(dataset in on and len(on) > 1 for on in of_models.values())]
    pairs = side_by_side({dataset: _similarities(atlas, measure, dataset) for dataset in several})
    if pairs:
        rows: list[dict[str, Any]] = [
            {"model": pair.first, "other": pair.second}
            | {name: _finite_or_none(value) for name, value in zip(several, pair.values, strict=True)}
            | {"spread": pair.spread}
            for pair in pairs[:n]
        ]
        tables.append(Table("pairs", f"pairs of models by {measure} on each dataset, the largest spread first", rows))
    if agreeing := agreements(several, pairs):
        title = "how alike two datasets order the pairs of models (Spearman)"
        tables.append(Table("agreement", title, [vars(one) for one in agreeing]))
    for name in atlas.comparisons_across:
        rows = across_rows(atlas, name, measure)
        tables.append(Table(f"across_{name}", f"{name}: spaces of two datasets, the most alike first", rows[:n]))
    return tables


def _similarities(atlas: Atlas, measure: str, dataset: str) -> Similarities:
    names = atlas.names(dataset)
    known = require_one_of(measure, atlas.measures, "measure")
    return Similarities(names.models, symmetrized(model_values(atlas.scores, names, known, "best_match")))


def across_rows(atlas: Atlas, comparison: str, measure: str | None = None) -> list[dict[str, Any]]:
    """Return the pairs of a comparison across datasets, source to target, the highest score first.

    Parameters
    ----------
    atlas
        The atlas.
    comparison
        One of `Atlas.comparisons_across`.
    measure
        The measure; if it is none of the comparison's, or not given, its first one.

    Raises
    ------
    AtlasError
        If the atlas has no such comparison.
    """
    group = atlas.section(f"across/{comparison}")
    if group is None:
        raise AtlasError(f"got no comparison across datasets {comparison!r:.80} in the atlas")
    known = [str(name) for name in group["measure"].values]
    chosen = group.sel(measure=measure if measure in known else known[0], direction="forward").load()
    columns = [name for name in ("score", "calibrated", "p_value", "map_residual") if name in chosen]
    rows = [
        {
            "source": str(chosen["source"].values[s]),
            "target": str(chosen["target"].values[t]),
            "source_dataset": str(group.attrs["source_dataset"]),
            "target_dataset": str(group.attrs["target_dataset"]),
            "measure": str(chosen["measure"].item()),
        }
        | {name: _finite_or_none(float(chosen[name].values[s, t])) for name in columns}
        | {"status": str(chosen["status"].values[s, t])}
        for s, t in np.ndindex(chosen.sizes["source"], chosen.sizes["target"])
    ]
    return sorted(rows, key=lambda row: -(row["score"] if row["score"] is not None else -np.inf))


def _finite_or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None
