"""Checks of lineage: who is almost the same, who is a relative that nobody declared, who is not like its base.

Similarity is evidence of lineage, not proof: two models may be alike because they learned the same thing.
"""

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

import numpy as np

from lfm_tasks.audit.files import Check, Measured, ModelPair, Published, judged, skipped
from lfm_tasks.catalog.audit import DeclaredParentFar, NearDuplicate, UndeclaredLineage
from lfm_tasks.stages.publish.assemble import FEWEST_UNRELATED
from lfm_tasks.statistics.model_pairs import closeness, robust_scale

# Unrelated models spread by .055 to .23 (60 zoos of digits); less than this is a layer that all have in common.
_LEAST_SPREAD = 0.05
_NO_PAIRS = "no two models have a calibrated similarity: nothing to compare"


def near_duplicate(limit: NearDuplicate, now: Published) -> Check:
    """Return whether two models without a declared relation are almost the same model."""
    if not now.pairs:
        return skipped("near_duplicate", limit, _NO_PAIRS)
    unrelated = [pair for pair in now.pairs if not pair.related]
    close = [pair for pair in now.pairs if pair.similarity >= limit.at_least]
    found = [pair.finding(declared=pair.related) for pair in sorted(close, key=lambda pair: pair.related)]
    undeclared = [pair for pair in close if not pair.related]
    message = "no two models without a declared relation are near duplicates"
    if undeclared:
        names = "; ".join(f"{pair.source} and {pair.target} ({pair.similarity:.3f})" for pair in undeclared[:5])
        message = f"almost the same model: {names}: declare base_model in meta, or remove one"
    observed = max((pair.similarity for pair in unrelated), default=None)
    measured = Measured(observed, limit.at_least, message, found, _null(now.measure, unrelated))
    return judged("near_duplicate", limit, bool(undeclared), measured)


def undeclared_lineage(limit: UndeclaredLineage, now: Published) -> Check:
    """Return whether models without a declared relation are far more alike than the zoo's unrelated pairs.

    z is robust (median and MAD) on the scale of −log(1 − similarity), within each dataset; a few undeclared relatives
    among the unrelated pairs do not move it. It is the larger one of all layers together and of the closest layers:
    further training leaves some layers almost as they were.
    """
    found: list[tuple[ModelPair, float]] = []
    n_unrelated = {}
    for dataset, group in _by_dataset(now):
        pairs = list(group)
        unrelated = [pair for pair in pairs if not pair.related]
        n_unrelated[dataset] = len(unrelated)
        if len(unrelated) >= FEWEST_UNRELATED:
            found += zip(pairs, _z(pairs, unrelated), strict=True)
    if not found:
        fewest = f"{max(n_unrelated.values(), default=0)} pairs of models without a declared relation"
        return skipped("undeclared_lineage", limit, f"found {fewest}, needs {FEWEST_UNRELATED} to know what is usual")
    found.sort(key=lambda item: (item[0].related, -item[1]))
    high = [(pair, z) for pair, z in found if z > limit.z_above]
    undeclared = [(pair, z) for pair, z in high if not pair.related]
    message = "no pair of models without a declared relation stands out"
    if undeclared:
        names = "; ".join(f"{pair.source} and {pair.target} (z {z:.1f})" for pair, z in undeclared[:5])
        message = f"more alike than unrelated models are: {names}; evidence of a common origin, not proof"
    observed = max((z for pair, z in found if not pair.related), default=None)
    shown = [pair.finding(z=round(z, 2), declared=pair.related) for pair, z in high]
    unrelated = [pair for pair, _ in found if not pair.related]
    measured = Measured(observed, limit.z_above, message, shown, _null(now.measure, unrelated))
    return judged("undeclared_lineage", limit, bool(undeclared), measured)


def declared_parent_far(limit: DeclaredParentFar, now: Published) -> Check:
    """Return whether a model is unlike the base that it names."""
    pairs = {frozenset((pair.source, pair.target)): pair for pair in now.pairs}
    declared = [
        (child, base, pairs[frozenset((child, base))])
        for child, facts in sorted(now.meta.items())
        for base in base_names(facts)
        if frozenset((child, base)) in pairs
    ]
    if not declared:
        return skipped("declared_parent_far", limit, "no model of this zoo names another of it as its base_model")
    declared.sort(key=lambda item: item[2].similarity)
    far = [(child, base, pair) for child, base, pair in declared if pair.similarity < limit.below]
    message = "every model is like the base that it names"
    if far:
        names = "; ".join(f"{child} from {base} ({pair.similarity:.3f})" for child, base, pair in far[:5])
        message = f"not like the declared base: {names}: check base_model and which files were recorded"
    found = [
        {"dataset": pair.dataset, "model": child, "base": base, "similarity": round(pair.similarity, 4)}
        for child, base, pair in declared
    ]
    unrelated = [pair for pair in now.pairs if not pair.related]
    measured = Measured(declared[0][2].similarity, limit.below, message, found, _null(now.measure, unrelated))
    return judged("declared_parent_far", limit, bool(far), measured)


def _by_dataset(now: Published) -> Iterator[tuple[str, Iterator[ModelPair]]]:
    return groupby(sorted(now.pairs, key=lambda pair: pair.dataset), key=lambda pair: pair.dataset)


def _z(pairs: list[ModelPair], unrelated: list[ModelPair]) -> list[float]:
    usual, values = (
        closeness(np.array([(pair.similarity, pair.closest) for pair in chosen]).T) for chosen in (unrelated, pairs)
    )
    scales = [robust_scale(row, least=_LEAST_SPREAD) for row in usual]
    return [float(z) for z in np.max([scale.z(row) for scale, row in zip(scales, values, strict=True)], axis=0)]


def _null(measure: str, unrelated: list[ModelPair]) -> dict[str, Any]:
    """Return what pairs of unrelated models look like: the zoo's own null."""
    null: dict[str, Any] = {"of": f"calibrated {measure} of models without a declared relation", "n": len(unrelated)}
    if unrelated:
        values = np.array([pair.similarity for pair in unrelated])
        quartiles = np.quantile(values, [0, 0.25, 0.5, 0.75, 0.95, 1]).round(4).tolist()
        null |= dict(zip(("min", "q25", "median", "q75", "q95", "max"), quartiles, strict=True))
        counts, edges = np.histogram(np.clip(values, 0, 1), bins=20, range=(0, 1))
        null |= {"counts": counts.tolist(), "edges": edges.round(2).tolist()}
    return null


def base_names(facts: Mapping[str, Any]) -> list[str]:
    """Return the models that a model says it came from."""
    base = facts.get("base_model")
    if base is None:
        return []
    return [str(name) for name in base] if isinstance(base, list | tuple) else [str(base)]
