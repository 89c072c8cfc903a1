"""The summary of a zoo in words: what needs action, which models are related or unusual, what is uncertain."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lfm_tasks.lineage.levels import Level
from lfm_tasks.lineage.relations import Relation
from lfm_tasks.report.tables import ZooView


@dataclass(frozen=True)
class Link:
    """Words that lead to their evidence: the address of a part of the page."""

    text: str
    to: str


@dataclass(frozen=True)
class Sentence:
    """A sentence of the answer.

    Attributes
    ----------
    about
        What it is about, in a word or two.
    urgency
        ``act``: somebody should do something. ``look``: somebody should know. ``fine``: as it should be.
    parts
        Texts and links, one after the other.
    """

    about: str
    urgency: Literal["act", "look", "fine"]
    parts: tuple[str | Link, ...]

    @property
    def text(self) -> str:
        """The sentence without its links."""
        return "".join(part if isinstance(part, str) else part.text for part in self.parts)


# Models or pairs that a sentence names; the tables have all.
_MOST_NAMED = 3


def answer(
    view: ZooView,
    summary: Mapping[str, Any],
    groups: Sequence[Sequence[str]] = (),
    audit: Mapping[str, Any] | None = None,
) -> list[Sentence]:
    """Return three to six sentences, the most urgent first.

    Parameters
    ----------
    view
        The relations of the zoo and the rows of the page's tables.
    summary
        ``summary.json`` of the atlas: what failed.
    groups
        The models of each group in the tree, of two or more.
    audit
        ``audit.json``, where the atlas was audited.
    """
    found = [
        _action(view),
        _descent(view),
        _groups(view, groups),
        _certainty(view, summary),
        _change(audit),
        _owners(view),
    ]
    order = ("act", "look", "fine")
    return sorted((one for one in found if one is not None), key=lambda one: order.index(one.urgency))


def _action(view: ZooView) -> Sentence:
    if not view.relations:
        reason = "there is one model only" if len(view.models) < 2 else "no two models share a dataset"
        if not view.models:
            reason = "there is no model"
        return Sentence("Copies", "look", (f"There is nothing to compare it with: {reason}.",))
    if all(one.level == Level.CANNOT_TELL for one in view.relations):
        why = "there is no number that is calibrated against chance, or too few models and layers to judge by"
        return Sentence("Copies", "look", (f"Copies and relatives cannot be found: {why}.",))
    undeclared = [one for one in view.related if not one.declared]
    if not undeclared:
        said = "no two models are copies or related without saying so in base_model"
        evidence = "#pairs" if view.related else "#findings"
        return Sentence("Action", "fine", ("No pair of models needs action: ", Link(said, evidence), "."))
    parts: list[str | Link] = [
        Link(_counted(len(undeclared), "pair needs action", "pairs need action"), "#pairs"), ": "
    ]  # fmt: skip
    for place, one in enumerate(undeclared[:_MOST_NAMED]):
        words = "are copies of each other" if one.level == Level.COPY else "are related"
        parts += ["; " if place else "", Link(f"{one.source} and {one.target}", pair_address(view, one))]
        parts.append(f" {words} ({_number(one)})")
    if len(undeclared) > _MOST_NAMED:
        parts += ["; ", Link(f"and {len(undeclared) - _MOST_NAMED} more", "#pairs")]
    parts.append(". Neither model of such a pair names the other. Declare base_model, or remove one.")
    return Sentence("Action", "act", tuple(parts))


def _number(one: Relation) -> str:
    return f"similarity {one.similarity:.2f}" if one.level == Level.COPY else f"probability {one.probability:.2f}"


def pair_address(view: ZooView, one: Relation) -> str:
    """Return the address of the row of a related pair."""
    return f"#pair-{view.related.index(one) + 1}"


def model_address(view: ZooView, model: str) -> str:
    """Return the address of the first row of a model."""
    return f"#model-{view.models.index(model) + 1}" if model in view.meta else "#findings"


def _descent(view: ZooView) -> Sentence | None:
    """Return the sentences on declared origins, and whether activations agree with them."""
    if len(view.models) < 2:
        return None
    pair_of = {frozenset((one.source, one.target)): one for one in view.related}
    declared = [
        (child, base, pair_of[frozenset((child, base))])
        for child, bases in view.bases.items()
        for base in bases
        if base != child and frozenset((child, base)) in pair_of
    ]
    untold = [family for family in view.families if family.oldest is None]
    if not declared:
        if untold:
            names = ", ".join(untold[0].members[:_MOST_NAMED])
            text = f"{names} are one family; which of them is older is unknown, because none names its base."
            return Sentence("Descent", "look", (text,))
        return Sentence("Descent", "fine", ("No model names another one of this zoo as its base_model.",))
    far = [item for item in declared if not item[2].level.is_at_least(Level.RELATED)]
    near = [item for item in declared if item not in far]
    parts: list[str | Link] = []
    if 0 < len(near) <= 2 * _MOST_NAMED and len({base for _, base, _ in near}) <= 2:
        for base in dict.fromkeys(base for _, base, _ in near):
            children = [item for item in near if item[1] == base]
            parts += [". " if parts else "", *_listed(_child(view, *item) for item in children)]
            parts += [" comes from " if len(children) == 1 else " come from ", Link(base, model_address(view, base))]
            parts.append(", as declared")
    elif near:
        said = f"{len(near)} of {len(declared)} models that name a base of this zoo are like it"
        parts.append(Link(said, "#pairs"))
    if far:
        parts += [". " if parts else "", *_listed(_against(view, *item) for item in far[:_MOST_NAMED])]
        more = f" (and {len(far) - _MOST_NAMED} more)" if len(far) > _MOST_NAMED else ""
        parts.append(f"{more}, but activations do not confirm it")
    return Sentence("Descent", "look" if far else "fine", (*parts, "."))


def _child(view: ZooView, child: str, base: str, one: Relation) -> tuple[str | Link, ...]:
    word = "a copy" if one.level == Level.COPY else str(one.level)
    if frozenset((one.source, one.target)) in view.same:
        word += ", the same at every layer"
    return Link(child, pair_address(view, one)), f" ({word})"


def _against(view: ZooView, child: str, base: str, one: Relation) -> tuple[str | Link, ...]:
    return Link(child, pair_address(view, one)), f" names {base} ({one.level})"


def _listed(items: Iterable[tuple[str | Link, ...]]) -> list[str | Link]:
    every = list(items)
    parts: list[str | Link] = []
    for place, item in enumerate(every):
        if place:
            parts.append(" and " if place == len(every) - 1 else ", ")
        parts += item
    return parts


def _groups(view: ZooView, groups: Sequence[Sequence[str]]) -> Sentence | None:
    """Return how models group, against what ``meta`` says of them, and which stand apart."""
    if len(view.models) < 3 or all(one.level == Level.CANNOT_TELL for one in view.relations):
        return None
    parts: list[str | Link] = []
    if groups:
        n_grouped = sum(map(len, groups))
        found, verb = f"{_counted(len(groups), 'group')} of like models", "holds" if len(groups) == 1 else "hold"
        parts += [Link(found, "#models"), f" {verb} {n_grouped} of {len(view.models)}"]
        facet = _best_facet(view)
        if facet and all(view.meta[name].get(facet) for members in groups for name in members):
            n_alike = sum(_most_common([view.meta[name][facet] for name in members]) for members in groups)
            how_many = "all" if n_alike == n_grouped else f"{n_alike}"
            parts.append(f", {how_many} of them beside models of their own {facet}")
    else:
        parts += ["No ", Link("group of like models", "#models"), " stands out"]
    apart = view.outliers[:_MOST_NAMED]
    if apart:
        parts += [". ", *_listed((Link(one.model, model_address(view, one.model)),) for one in apart)]
        if len(view.outliers) > _MOST_NAMED:
            parts.append(f" and {len(view.outliers) - _MOST_NAMED} more")
        numbers = f": {apart[0].similarity:.2f} alike in the median, others {apart[0].usual:.2f}"
        parts.append((" stands apart" if len(view.outliers) == 1 else " stand apart") + numbers * (len(apart) == 1))
    return Sentence("Families", "look" if apart else "fine", (*parts, "."))


def _most_common(values: list[str]) -> int:
    return Counter(values).most_common(1)[0][1]


def _best_facet(view: ZooView) -> str:
    """Return the first key of meta that parts the models, but not into ones; "" if there is none."""
    for key in view.meta_columns:
        kinds = {facts.get(key, "") for facts in view.meta.values()}
        if key != "base_model" and 1 < len(kinds) < len(view.meta):
            return key
    return ""


def _certainty(view: ZooView, summary: Mapping[str, Any]) -> Sentence:
    """Return the sentences on failures and on results that are not certain."""
    parts: list[str | Link] = []
    counts = summary["counts"]
    n_failed, n_pairs = counts["failures"], counts.get("directed_pairs_without_score", 0)
    n_values = counts.get("values_without_score", 0)
    doubtful = view.doubtful
    if n_failed or n_pairs or n_values:
        failed = [_counted(n_failed, "model or layer", "models or layers")] if n_failed else []
        failed += [_counted(n_pairs, "directed pair")] if n_pairs else []
        failed += [_counted(n_values, "score of single measures", "scores of single measures")] if n_values else []
        verb = "is" if n_failed + n_pairs + n_values == 1 else "are"
        parts += [Link(f"{' and '.join(failed)} {verb} missing", "#failed")]
    if doubtful:
        parts += ["; " if parts else "", Link(f"{len(doubtful)} of {len(view.spaces)} spaces need a look", "#doubtful")]
    elif not parts:
        said = f"All {len(view.spaces)} spaces passed" if len(view.spaces) > 1 else "The space passed"
        parts += ["Nothing failed, and ", Link(f"{said[0].lower()}{said[1:]}", "#spaces"), " the self-checks"]
    known = [row for row in view.findings if row["is_clear"] is not None]
    unclear = [row for row in known if not row["is_clear"]]
    if unclear:
        of = _counted(len(known), "model") if len(view.datasets) == 1 else f"{len(known)} models and datasets"
        text = f"no clear nearest for {len(unclear)} of {of}"
        parts += ["; ", Link(text, "#findings"), ": the lead of the nearest lies within its interval"]
    elif view.findings and not known:
        parts.append("; how sure each nearest model is was not computed")
    is_missing = bool(n_failed or n_pairs or n_values)
    return Sentence("Certainty", "look" if is_missing or doubtful or unclear else "fine", (*parts, "."))


_CHANGES = ("missing", "changed_weights_same_version", "drift")


def _change(audit: Mapping[str, Any] | None) -> Sentence:
    """Return the sentences on changes against the baseline of an audit."""
    if audit is None:
        text = "What changed is not on this page: lfm-atlas audit compares the atlas with a baseline"
        return Sentence("Change", "fine", (text, "."))
    checks = [check for check in audit["checks"] if check["name"] in _CHANGES]
    if not audit["baseline"]:
        return Sentence("Change", "fine", ("There is no ", Link("baseline", "#audit"), " yet to compare with."))
    broken = [check for check in checks if check["status"] in ("fail", "warn", "error", "unjudged")]
    if not broken:
        same = "Nothing" if audit["baseline"] == audit["atlas"] else "No model that was there before"
        return Sentence("Change", "fine", (f"{same} ", Link("changed since the baseline", "#audit"), "."))
    parts: list[str | Link] = ["Since the baseline: "]
    for place, check in enumerate(broken):
        parts += ["; " if place else "", Link(check["message"].rstrip("."), f"#audit-row-{check['name']}")]
    return Sentence("Change", "act" if any(check["status"] == "fail" for check in broken) else "look", (*parts, "."))


def _owners(view: ZooView) -> Sentence | None:
    """Return who owns the models and under which licenses, where ``meta`` says so."""
    licenses = {name: facts["license"] for name, facts in view.meta.items() if facts.get("license")}
    owners = {name: facts["owner"] for name, facts in view.meta.items() if facts.get("owner")}
    if not licenses and not owners:
        return None
    parts: list[str | Link] = []
    for place, (word, of) in enumerate((("Licenses", licenses), ("owners", owners))):
        if of:
            named = ", ".join(f"{text} ({n})" for text, n in Counter(of.values()).most_common(_MOST_NAMED))
            rest = len(set(of.values())) - _MOST_NAMED
            more = f" and {rest} more" if rest > 0 else ""
            parts += ["; " if parts else "", Link(word if place == 0 or parts else word.capitalize(), "#findings")]
            parts.append(f": {named}{more}")
            if len(of) < len(view.models):
                parts.append(f", not set for {len(view.models) - len(of)}")
    differing = [
        (child, base)
        for child, bases in view.bases.items()
        for base in bases
        if child in licenses and base in licenses and licenses[child] != licenses[base]
    ]
    if differing:
        names = _listed((Link(child, model_address(view, child)),) for child, _ in differing[:_MOST_NAMED])
        more = f" and {len(differing) - _MOST_NAMED} more" if len(differing) > _MOST_NAMED else ""
        verb = "has" if len(differing) == 1 else "have"
        parts += [". ", *names, f"{more} {verb} another license than the base"]
    return Sentence("License and owner", "act" if differing else "fine", (*parts, "."))


def _counted(number: int, word: str, words: str = "") -> str:
    return f"{number:,} {word if number == 1 else words or word + 's'}"


def points_sentence(n_points: np.ndarray) -> str:
    """Return how many points spaces have: one number, or the fewest and the most."""
    has = n_points[n_points > 0]
    if not len(has):
        return "no points"
    fewest, most = int(has.min()), int(has.max())
    return f"{most:,} points" if fewest == most else f"{fewest:,} to {most:,} points"
