"""Checks of what models declare: where they come from, and their licenses.

Similarity is evidence of lineage, not proof: two models may be alike because they learned the same thing.
"""

from collections.abc import Iterator
from itertools import groupby
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from lfm_tasks.checks import Finding, Measurement, ModelPair, PublishedAtlas, Skipped, Unjudged, ZooCheck

# Unrelated models spread by .055 to .23 (60 zoos of digits); less than this is a layer that all have in common.
_LEAST_SPREAD = 0.05


class NearDuplicate(ZooCheck):
    """Models of different families that are almost the same model."""

    at_least: float = Field(default=0.97, gt=0, le=1, description="calibrated similarity of two models, in (0, 1]")

    def evaluate(self, current: PublishedAtlas) -> Measurement | Skipped | Unjudged:
        """Return the pairs of models without a declared relation that are at least as similar as the limit."""
        if not current.pairs:
            if not current.has_pairs_of_models:
                return Skipped("no two models share a dataset: nothing to compare")
            return Unjudged(
                f"no two models have a calibrated similarity by {current.measure}, so copies cannot be told. "
                "Add overlap to atlas.measures, or set atlas.null.n_permutations to 100."
            )
        unrelated = [pair for pair in current.pairs if not pair.related]
        close = [pair for pair in current.pairs if pair.similarity >= self.at_least]
        findings = [pair.finding(declared=pair.related) for pair in sorted(close, key=lambda pair: pair.related)]
        undeclared = [pair for pair in close if not pair.related]
        message = "no two models without a declared relation are near duplicates"
        if undeclared:
            names = "; ".join(f"{pair.source} and {pair.target} ({pair.similarity:.3f})" for pair in undeclared[:5])
            message = f"almost the same model: {names}: declare base_model in meta, or remove one"
        observed = max((pair.similarity for pair in unrelated), default=None)
        null = _unrelated_similarities(current.measure, unrelated)
        return Measurement(bool(undeclared), observed, self.at_least, message, findings, null)


class UndeclaredLineage(ZooCheck):
    """Models of different families that are far more alike than unrelated ones."""

    z_above: float = Field(default=4.5, gt=0, description="robust standard deviations above unrelated pairs")
    enforced: bool = False

    def evaluate(self, current: PublishedAtlas) -> Measurement | Skipped | Unjudged:
        """Return the pairs of models without a declared relation that are far more alike than unrelated pairs.

        z is robust (median and MAD) on the scale of −log(1 − similarity), within each dataset; a few undeclared
        relatives among the unrelated pairs do not move it. It is the larger one of all layers together and of the
        closest layers: further training leaves some layers almost as they were.
        """
        from lfm_tasks.statistics.model_pairs import FEWEST_UNRELATED

        scored: list[tuple[ModelPair, float]] = []
        n_unrelated = {}
        for dataset, group in _by_dataset(current):
            pairs = list(group)
            unrelated = [pair for pair in pairs if not pair.related]
            n_unrelated[dataset] = len(unrelated)
            if len(unrelated) >= FEWEST_UNRELATED:
                scored += zip(pairs, _z(pairs, unrelated), strict=True)
        if not scored:
            fewest = f"{max(n_unrelated.values(), default=0)} pairs of models without a declared relation"
            return Unjudged(f"found {fewest}, needs {FEWEST_UNRELATED} to know what is usual")
        scored.sort(key=lambda item: (item[0].related, -item[1]))
        high = [(pair, z) for pair, z in scored if z > self.z_above]
        undeclared = [(pair, z) for pair, z in high if not pair.related]
        message = "no pair of models without a declared relation stands out"
        if undeclared:
            names = "; ".join(f"{pair.source} and {pair.target} (z {z:.1f})" for pair, z in undeclared[:5])
            message = f"more alike than unrelated models are: {names}; evidence of a common origin, not proof"
        observed = max((z for pair, z in scored if not pair.related), default=None)
        findings = [pair.finding(z=round(z, 2), declared=pair.related) for pair, z in high]
        null = _unrelated_similarities(current.measure, [pair for pair, _ in scored if not pair.related])
        return Measurement(bool(undeclared), observed, self.z_above, message, findings, null)


class DeclaredParentFar(ZooCheck):
    """Models that are not like the base that they say they came from."""

    below: float = Field(default=0.6, gt=0, le=1, description="calibrated similarity of a model and its base")
    enforced: bool = False

    def evaluate(self, current: PublishedAtlas) -> Measurement | Skipped | Unjudged:
        """Return the similarity of each model and the base that it names."""
        pairs = {frozenset((pair.source, pair.target)): pair for pair in current.pairs}
        declared = [
            (child, base, pairs[frozenset((child, base))])
            for child, base in _declared_bases(current)
            if frozenset((child, base)) in pairs
        ]
        if not declared:
            present = [child for child, base in _declared_bases(current) if base in current.models]
            if present:
                named = ", ".join(present[:5])
                return Unjudged(f"no calibrated similarity by {current.measure} of {named} to the base that each names")
            return Skipped("no model of this zoo names another of it as its base_model")
        declared.sort(key=lambda item: item[2].similarity)
        far = [(child, base, pair) for child, base, pair in declared if pair.similarity < self.below]
        message = "every model is like the base that it names"
        if far:
            names = "; ".join(f"{child} from {base} ({pair.similarity:.3f})" for child, base, pair in far[:5])
            message = f"not like the declared base: {names}: check base_model and which files were recorded"
        findings = [
            {"dataset": pair.dataset, "model": child, "base": base, "similarity": round(pair.similarity, 4)}
            for child, base, pair in declared
        ]
        null = _unrelated_similarities(current.measure, [pair for pair in current.pairs if not pair.related])
        return Measurement(bool(far), declared[0][2].similarity, self.below, message, findings, null)


class License(ZooCheck):
    """Models with a license that is not allowed, or not that of their base."""

    allow: Annotated[tuple[str, ...], Field(strict=False)] = Field(default=(), description="nothing: any license")
    same_as_base: bool = True
    enforced: bool = False

    def evaluate(self, current: PublishedAtlas) -> Measurement | Skipped:
        """Return the models whose license is not allowed, or differs from that of their base."""
        licenses = {model: facts.get("license") for model, facts in current.meta.items()}
        bases = [
            (child, base)
            for child, base in _declared_bases(current)
            if licenses.get(base) is not None and licenses[child] is not None
        ]
        if not self.allow and not (self.same_as_base and bases):
            return Skipped("no license is asked for (allow), and no model and its base both name one")
        findings: list[Finding] = [
            {"model": model, "license": name, "problem": "not allowed" if name else "says none"}
            for model, name in sorted(licenses.items())
            if self.allow and name not in self.allow
        ]
        if self.same_as_base:
            findings += [
                {"model": child, "license": licenses[child], "problem": f"its base {base} has {licenses[base]}"}
                for child, base in bases
                if licenses[child] != licenses[base]
            ]
        message = "every license is one that is allowed, and that of the base"
        if findings:
            names = "; ".join(
                f"{row['model']}: {row['license'] or 'no license'}, {row['problem']}" for row in findings[:5]
            )
            message = f"{names}: check meta.license"
        null = {"of": "models", "n": len(licenses)}
        return Measurement(bool(findings), len(findings), 0, message, findings, null)


def _declared_bases(current: PublishedAtlas) -> Iterator[tuple[str, str]]:
    """Yield each model with each base that it names, also one that is not in the zoo."""
    from lfm_tasks.statistics.model_pairs import base_models

    for model, facts in sorted(current.meta.items()):
        for base in base_models(facts):
            yield model, base


def _by_dataset(current: PublishedAtlas) -> Iterator[tuple[str, Iterator[ModelPair]]]:
    return groupby(sorted(current.pairs, key=lambda pair: pair.dataset), key=lambda pair: pair.dataset)


def _z(pairs: list[ModelPair], unrelated: list[ModelPair]) -> list[float]:
    from lfm_tasks.statistics.model_pairs import closeness, robust_scale

    usual, values = (
        closeness(np.array([(pair.similarity, pair.closest) for pair in chosen]).T) for chosen in (unrelated, pairs)
    )
    scales = [robust_scale(row, least=_LEAST_SPREAD) for row in usual]
    return [float(z) for z in np.max([scale.z(row) for scale, row in zip(scales, values, strict=True)], axis=0)]


def _unrelated_similarities(measure: str, unrelated: list[ModelPair]) -> dict[str, Any]:
    """Return how similar unrelated models are: the null that the zoo itself gives."""
    null: dict[str, Any] = {"of": f"calibrated {measure} of models without a declared relation", "n": len(unrelated)}
    if unrelated:
        values = np.array([pair.similarity for pair in unrelated])
        quartiles = np.quantile(values, [0, 0.25, 0.5, 0.75, 0.95, 1]).round(4).tolist()
        null |= dict(zip(("min", "q25", "median", "q75", "q95", "max"), quartiles, strict=True))
        counts, edges = np.histogram(np.clip(values, 0, 1), bins=20, range=(0, 1))
        null |= {"counts": counts.tolist(), "edges": edges.round(2).tolist()}
    return null
