"""The relation of every pair of models in an atlas: its level, and the evidence for it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.lineage.evidence import pair_evidence, probability
from lfm_tasks.lineage.levels import CHANCE_AT_MOST, COPY_AT_LEAST, FAMILY_AT_LEAST, RELATED_AT_LEAST, Level
from lfm_tasks.statistics.model_pairs import best_match, families, pairs_of_models, robust_scale, symmetrized

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Relation:
    """Two models of one dataset and how they are related.

    Attributes
    ----------
    level
        The word, by what activations say.
    probability
        Of a common origin, in [0, 1]; NaN where it is unknown. A pair that declares one starts from even odds.
    similarity
        Calibrated: each layer with its best match, averaged over layers and both directions; NaN where there is none.
        ``closest``: that of the two layers that are most alike.
    layers_kept
        Layers of the model with fewer layers that the other one has, too: best match .97 or more; of ``n_layers``.
    declared
        Whether ``base_model`` leads from one to the other.
    first_changed
        Of these layers, by depth, the first that the other one has not: where further training set in, if one model
        comes from the other. Empty where all are kept.
    """

    dataset: str
    source: str
    target: str
    level: Level
    probability: float
    similarity: float
    closest: float
    layers_kept: int
    n_layers: int
    declared: bool
    first_changed: str = ""

    def is_of(self, model: str, dataset: str | None = None) -> bool:
        """Return whether the model is one of the two, on this dataset or on any."""
        return model in (self.source, self.target) and dataset in (None, self.dataset)

    def other(self, model: str) -> str:
        """Return the one of the two that is not ``model``."""
        return self.target if model == self.source else self.source

    def finding(self, **more: Any) -> dict[str, Any]:
        """Return the pair as evidence: plain values, None where there is no number."""
        return {
            "dataset": self.dataset,
            "source": self.source,
            "target": self.target,
            "level": str(self.level),
            "probability": _rounded(self.probability),
            "similarity": _rounded(self.similarity),
            "closest_layers": _rounded(self.closest),
            "layers_kept": f"{self.layers_kept} of {self.n_layers}",
            "first_changed": self.first_changed,
            "declared": self.declared,
        } | more


def _rounded(value: float) -> float | None:
    return round(value, 4) if np.isfinite(value) else None


def default_measure(measures: list[str]) -> str:
    """Return the measure that models are compared by: ``overlap``, on which all limits were measured, or the first."""
    return "overlap" if "overlap" in measures else measures[0]


def relations_of_atlas(atlas: "xr.Dataset", meta: Mapping[str, Mapping[str, Any]]) -> tuple[Relation, ...]:
    """Return every pair of models that share a dataset, the most alike first, unknown relations last.

    Parameters
    ----------
    atlas
        The arrays of an atlas, dims (dataset, measure, source, target).
    meta
        What the catalog says of each model; ``base_model`` declares a relation.
    """
    # Also models of which meta says nothing.
    family = families({str(name): {} for name in atlas["source_model"].values} | dict(meta))
    found = [relation for dataset in atlas["dataset"].values for relation in _of_dataset(atlas, str(dataset), family)]
    return tuple(sorted(found, key=_order))


@dataclass(frozen=True)
class Outlier:
    """A model that is less like all others of its dataset than they are like each other; medians of similarities."""

    dataset: str
    model: str
    similarity: float
    usual: float

    def sentence(self) -> str:
        """Return the finding in a line."""
        numbers = f"{self.similarity:.2f} in the median, that of the others {self.usual:.2f}"
        return f"stands apart: its similarity to other models is {numbers}"


# Robust deviations below the other models' from which on a model stands apart, and the least such deviation.
_FAR_BELOW, _LEAST_DEVIATION = 4.5, 0.02
# With fewer models none of them can be called usual.
_FEWEST_MODELS = 5


def outliers(relations: Sequence[Relation]) -> tuple[Outlier, ...]:
    """Return the models that stand apart, by dataset and name.

    A model's number is the median of its similarities to models that are no relatives of it.
    """
    of_model: dict[tuple[str, str], list[float]] = {}
    for one in relations:
        if np.isfinite(one.similarity) and not (one.declared or one.level.is_at_least(Level.RELATED)):
            for model in (one.source, one.target):
                of_model.setdefault((one.dataset, model), []).append(one.similarity)
    found = []
    for dataset in sorted({dataset for dataset, _ in of_model}):
        medians = {model: float(np.median(v)) for (where, model), v in sorted(of_model.items()) if where == dataset}
        if len(medians) < _FEWEST_MODELS:
            continue
        scale = robust_scale(np.array(list(medians.values())), least=_LEAST_DEVIATION)
        found += [
            Outlier(dataset, model, value, scale.median)
            for model, value in medians.items()
            if value < scale.median - _FAR_BELOW * scale.deviation
        ]
    return tuple(found)


def _order(relation: Relation) -> tuple[Any, ...]:
    # Rounded, so that equals stand in the order of their names and not of their last bits.
    similarity = round(relation.similarity, 6) if np.isfinite(relation.similarity) else -np.inf
    return (-similarity, relation.source, relation.target, relation.dataset)


def _of_dataset(atlas: "xr.Dataset", dataset: str, family: Mapping[str, int]) -> Iterator[Relation]:
    present = np.flatnonzero(atlas["n_points"].sel(dataset=dataset).values > 0)
    of_space = np.array([str(name) for name in atlas["source_model"].values], dtype=object)
    order = present[np.argsort(of_space[present], kind="stable")]
    models, n_layers = np.unique(of_space[order], return_counts=True)
    if len(models) < 2:
        return
    measure = default_measure([str(name) for name in atlas["measure"].values])
    # One array after the other: all of a large atlas would be copied where it is selected from as a whole.
    values, q_values = (
        atlas[name].sel(dataset=dataset, measure=measure).values[np.ix_(order, order)]
        for name in ("calibrated", "q_value")
    )
    ends = np.cumsum(n_layers)
    groups = [np.arange(end - n, end) for end, n in zip(ends, n_layers, strict=True)]
    of_family = np.array([family[model] for model in models])
    declared = (of_family[:, None] == of_family) & ~np.eye(len(models), dtype=bool)
    numbers = _PairNumbers(values, q_values, groups, atlas["depth"].sel(dataset=dataset).values[order])
    evidence = pair_evidence(values, groups, declared)
    probabilities = probability(evidence.log_odds, len(models), declared)
    first, second = np.triu_indices(len(models), 1)
    is_smaller = n_layers[first] <= n_layers[second]
    smaller = np.where(is_smaller, first, second), np.where(is_smaller, second, first)
    layers = np.array([str(name) for name in atlas["source_layer"].values], dtype=object)[order]
    changed = numbers.first_changed[smaller]
    columns = (
        models[first],
        models[second],
        _levels(numbers, probabilities, evidence.family)[first, second],
        probabilities[first, second],
        numbers.similarity[first, second],
        numbers.closest[first, second],
        numbers.n_kept[smaller],
        n_layers[smaller[0]],
        declared[first, second],
        np.where(changed < 0, "", layers[changed]),
    )
    levels = list(Level)
    for source, target, level, *rest in zip(*(column.tolist() for column in columns), strict=True):
        yield Relation(dataset, source, target, levels[level], *rest)


def _levels(
    numbers: "_PairNumbers", probabilities: Float[np.ndarray, "models models"], deviations: np.ndarray
) -> Int[np.ndarray, "models models"]:
    """Return the level of each pair, (model, model), as its place in `Level`."""
    is_judged, has_chance = np.isfinite(probabilities), np.isfinite(numbers.least_q)
    is_above_chance = numbers.least_q <= CHANCE_AT_MOST
    order = list(Level)
    conditions = {
        Level.COPY: numbers.similarity >= COPY_AT_LEAST,
        Level.RELATED: probabilities >= RELATED_AT_LEAST,
        Level.SAME_FAMILY: is_judged & (deviations >= FAMILY_AT_LEAST) & is_above_chance,
        Level.BEYOND_CHANCE: is_judged & is_above_chance,
        Level.UNRELATED: is_judged & has_chance,
    }
    cannot_tell = order.index(Level.CANNOT_TELL)
    found = np.full(probabilities.shape, cannot_tell)
    for level, holds in reversed(conditions.items()):
        found[holds] = order.index(level)
    found[~np.isfinite(numbers.similarity)] = cannot_tell
    return found


class _PairNumbers:
    """Summaries of all layers of every pair of models: (model, model).

    ``first_changed``: the row of the first layer, by depth, of the first model that the second has not; -1: none.
    """

    def __init__(
        self, values: np.ndarray, q_values: np.ndarray, groups: list[np.ndarray], depths: Float[np.ndarray, " spaces"]
    ) -> None:
        shape = len(groups), len(groups)
        directed, self.closest, self.least_q = np.full((3, *shape), np.nan)
        self.n_kept, self.first_changed = np.zeros(shape, dtype=int), np.full(shape, -1)
        for group in pairs_of_models(groups):
            place = group.source, group.targets
            block, chance = group.of(values), group.of(q_values)
            directed[place] = best_match(block)
            self.closest[place] = np.fmax.reduce(block, axis=(1, 2))
            self.least_q[place] = np.fmin.reduce(chance, axis=(1, 2))
            is_kept = np.fmax.reduce(block, axis=2) >= COPY_AT_LEAST
            self.n_kept[place] = is_kept.sum(axis=1)
            by_depth = np.argsort(depths[group.source_rows], kind="stable")
            first = group.source_rows[by_depth[is_kept[:, by_depth].argmin(axis=1)]]
            self.first_changed[place] = np.where(is_kept.all(axis=1), -1, first)
        self.similarity = symmetrized(directed)
