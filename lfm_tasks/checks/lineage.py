"""Checks of what models declare: where they come from, and their licenses.

Similarity is evidence of lineage, not proof: two models may be alike because they learned the same thing.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from lfm_tasks.checks import Finding, Measurement, PublishedAtlas, Skipped, Unjudged, ZooCheck
from lfm_tasks.checks.histograms import histogram
from lfm_tasks.lineage.levels import COPY_AT_LEAST, RELATED_AT_LEAST, Level

if TYPE_CHECKING:
    from lfm_tasks.lineage.relations import Relation

# Pairs that a message names; findings hold them all.
_N_NAMED = 5


class NearDuplicate(ZooCheck):
    """Models of different families that are almost the same model."""

    at_least: float = Field(
        default=COPY_AT_LEAST, gt=0, le=1, description="calibrated similarity of two models, in (0, 1]"
    )

    def evaluate(self, current: PublishedAtlas) -> Measurement | Skipped | Unjudged:
        """Return the pairs of models without a declared relation that are at least as similar as the limit."""
        if not current.relations:
            return _NOTHING_TO_COMPARE
        known = [pair for pair in current.relations if np.isfinite(pair.similarity)]
        if not known:
            return Unjudged(
                f"no two models have a calibrated similarity by {current.measure}, so copies cannot be found. "
                "Add overlap to atlas.measures, or set atlas.null.n_permutations to 100."
            )
        close = [pair for pair in known if pair.similarity >= self.at_least]
        findings = [pair.finding() for pair in sorted(close, key=lambda pair: pair.declared)]
        undeclared = [pair for pair in close if not pair.declared]
        message = "no two models without a declared relation are near duplicates"
        if undeclared:
            names = _named(undeclared, lambda pair: f"{pair.similarity:.3f}")
            message = f"almost the same model: {names}. Declare base_model in meta, or remove one"
        message += _not_judged(current, lambda pair: not np.isfinite(pair.similarity))
        observed = max((pair.similarity for pair in known if not pair.declared), default=None)
        null = _unrelated_similarities(current)
        values = [pair.similarity for pair in known if not pair.declared]
        found = [pair.similarity for pair in close]
        null["histograms"] = histogram(values, str(null["of"]), limit=self.at_least, found=found)
        return Measurement(bool(undeclared), observed, self.at_least, message, findings, null)


class UndeclaredLineage(ZooCheck):
    """Models of different families that have a common origin."""

    at_least: float = Field(
        default=RELATED_AT_LEAST, gt=0, le=1, description="probability of a common origin, in (0, 1]"
    )
    enforced: bool = False

    def evaluate(self, current: PublishedAtlas) -> Measurement | Skipped | Unjudged:
        """Return the pairs of models that are copies or related; every one, those that declare nothing first.

        The probability is that of `lfm_tasks.lineage.evidence`: each pair is judged by a background of its own.
        """
        if not current.relations:
            return _NOTHING_TO_COMPARE
        judged = [pair for pair in current.relations if pair.level != Level.CANNOT_TELL]
        if not judged:
            return Unjudged(
                f"none of {len(current.relations)} pairs of models can be judged by {current.measure}. Give two "
                "layers or more of each model, or three models, and a measure whose chance is known, such as overlap"
            )
        high = [
            pair
            for pair in current.relations
            if pair.level == Level.COPY or pair.probability >= self.at_least or _shares_weights(current, pair)
        ]
        high.sort(key=lambda pair: pair.declared)
        undeclared = [pair for pair in high if not pair.declared]
        message = "no two models without a declared relation have a common origin, as far as activations say"
        if undeclared:
            names = _named(undeclared, partial(_evidence, current))
            message = (
                f"probably of one origin: {names}; evidence of a common origin, not proof. Declare base_model in meta"
            )
        message += _not_judged(current, lambda pair: pair.level == Level.CANNOT_TELL)
        observed = max((pair.probability for pair in judged if not pair.declared), default=None)
        findings = [
            pair.finding(family=name, weights=_weights(current, pair)) for pair, name in _with_family(current, high)
        ]
        null = _unrelated_similarities(current)
        values = [pair.probability for pair in judged if not pair.declared]
        of = "probability of a common origin of models without a declared relation"
        found = [_likeness(current, pair) for pair in high]
        null["histograms"] = histogram(values, of, limit=self.at_least, found=found)
        return Measurement(bool(undeclared), _finite(observed), self.at_least, message, findings, null)


class DeclaredParentFar(ZooCheck):
    """Models that are not like the base that they say they came from."""

    below: float = Field(default=0.5, gt=0, le=1, description="probability that a model and its base are related")
    enforced: bool = False

    def evaluate(self, current: PublishedAtlas) -> Measurement | Skipped | Unjudged:
        """Return how each model is related to the base that it names, the least probable first.

        One layer that further training left as it was is enough: the mean over all layers says little.
        """
        pairs: dict[frozenset[str], list[Relation]] = {}
        for pair in current.relations:
            pairs.setdefault(frozenset((pair.source, pair.target)), []).append(pair)
        declared = [
            (child, base, pair)
            for child, base in _declared_bases(current)
            for pair in pairs.get(frozenset((child, base)), ())
        ]
        if not declared:
            return Skipped("no model of this zoo names another of it as its base_model")
        judged = [item for item in declared if item[2].level != Level.CANNOT_TELL or _shares_weights(current, item[2])]
        if not judged:
            named = ", ".join(dict.fromkeys(child for child, _, _ in declared[:_N_NAMED]))
            return Unjudged(f"no calibrated similarity by {current.measure} of {named} to the base that each names")
        judged.sort(key=lambda item: (_likeness(current, item[2]), item[:2]))
        far = [(child, base, pair) for child, base, pair in judged if _likeness(current, pair) < self.below]
        message = "every model is like the base that it names"
        if far:
            names = "; ".join(
                f"{child} from {base} ({_evidence(current, pair)})" for child, base, pair in far[:_N_NAMED]
            )
            message = f"not like the declared base: {names}. Check base_model and which files were recorded"
        n_left = len(declared) - len(judged)
        if n_left:
            message += f"; not judged: {n_left} of {len(declared)} declared relations"
        findings = [
            pair.finding(model=child, base=base, weights=_weights(current, pair)) for child, base, pair in judged
        ]
        null = _unrelated_similarities(current)
        values = [_likeness(current, pair) for _, _, pair in judged]
        of = "probability that a model and the base that it names are related"
        found = [_likeness(current, pair) for _, _, pair in far]
        null["histograms"] = histogram(values, of, limit=self.below, found=found)
        return Measurement(bool(far), round(_likeness(current, judged[0][2]), 4), self.below, message, findings, null)


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
            return Skipped("no list of allowed licenses is set (allow), and no model and its base both name a license")
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
        message = "every license is one of the list" if self.allow else "no list of allowed licenses is set (allow)"
        if self.same_as_base and bases:
            message += "; every model that names its base has its license"
        if findings:
            names = "; ".join(
                f"{row['model']}: {row['license'] or 'no license'}, {row['problem']}" for row in findings[:5]
            )
            message = f"{names}. Check meta.license"
        null = {"of": "models", "n": len(licenses)}
        return Measurement(bool(findings), len(findings), 0, message, findings, null)


def _declared_bases(current: PublishedAtlas) -> Iterator[tuple[str, str]]:
    """Yield each model with each base that it names, also one that is not in the zoo."""
    from lfm_tasks.statistics.model_pairs import base_models

    for model, facts in sorted(current.meta.items()):
        for base in base_models(facts):
            yield model, base


_NOTHING_TO_COMPARE = Skipped("no two models share a dataset: nothing to compare")


def _likeness(current: PublishedAtlas, pair: "Relation") -> float:
    """Return the probability that a pair is related; shared weights leave no doubt."""
    return 1.0 if pair.level == Level.COPY or _shares_weights(current, pair) else pair.probability


def _shares_weights(current: PublishedAtlas, pair: "Relation") -> bool:
    agreement = current.weights.get(frozenset((pair.source, pair.target)))
    return agreement is not None and agreement.are_shared


def _weights(current: PublishedAtlas, pair: "Relation") -> str:
    """Return the evidence of the weights of two models, in words; empty without weights."""
    agreement = current.weights.get(frozenset((pair.source, pair.target)))
    if agreement is None:
        return ""
    if not agreement.says_something:
        return "other shapes"
    numbers = [f"cosine {agreement.cosine:.2f}, lengths {agreement.norm_ratio:.2f}"] if agreement.n_matched else []
    numbers += [f"embeddings {agreement.embeddings:.2f}"] if np.isfinite(agreement.embeddings) else []
    word = "unlike" if agreement.are_apart else "shared" if agreement.are_shared else "unclear"
    reason = ": trained apart, or units in another order" if agreement.are_apart else ""
    return f"{word}, {', '.join(numbers)}{reason}"


def _evidence(current: PublishedAtlas, pair: "Relation") -> str:
    activations = "a copy" if pair.level == Level.COPY else f"p {pair.probability:.3f}"
    weights = _weights(current, pair)
    return f"{activations}; weights {weights}" if weights else activations


def _finite(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else round(value, 4)


def _named(pairs: list["Relation"], number: Callable[["Relation"], str]) -> str:
    """Return the first pairs with a number each, and how many more there are."""
    first = {(pair.source, pair.target): number(pair) for pair in reversed(pairs)}
    names = [f"{source} and {target} ({text})" for (source, target), text in reversed(first.items())]
    more = f" and {len(names) - _N_NAMED} more" if len(names) > _N_NAMED else ""
    return "; ".join(names[:_N_NAMED]) + more


def _not_judged(current: PublishedAtlas, cannot: Callable[["Relation"], bool]) -> str:
    """Return which pairs of which dataset, or which dataset as a whole, were not judged; empty if all were."""
    counts = Counter(pair.dataset for pair in current.relations if cannot(pair))
    total = Counter(pair.dataset for pair in current.relations)
    parts = [f"{counts[name]} of {total[name]} pairs of {name}" for name in sorted(counts)]
    parts += [f"{name}, which has one model" for name in current.datasets if name not in total]
    return f"; not judged: {', '.join(parts)}" if parts else ""


def _with_family(current: PublishedAtlas, pairs: Iterable["Relation"]) -> Iterator[tuple["Relation", str]]:
    """Yield pairs with what their family is called, by family: the model that it comes from, or its members."""
    from lfm_tasks.lineage.families import families_of, family_of

    families = families_of(current.relations, current.meta)
    named = []
    for pair in pairs:
        family = family_of(families, pair.source)
        place = families.index(family) if family else len(families)
        name = "" if family is None else f"from {family.oldest}" if family.oldest else " / ".join(family.members[:3])
        named.append((pair, name, place))
    named.sort(key=lambda item: (item[0].declared, item[2]))
    yield from ((pair, name) for pair, name, _ in named)


def _unrelated_similarities(current: PublishedAtlas) -> dict[str, Any]:
    """Return how similar models are that declare no relation: what this zoo is like."""
    values = np.array([p.similarity for p in current.relations if not p.declared and np.isfinite(p.similarity)])
    null: dict[str, Any] = {
        "of": f"calibrated {current.measure} of models without a declared relation", "n": len(values)
    }  # fmt: skip
    if len(values):
        quartiles = np.quantile(values, [0, 0.25, 0.5, 0.75, 0.95, 1]).round(4).tolist()
        null |= dict(zip(("min", "q25", "median", "q75", "q95", "max"), quartiles, strict=True))
    return null
