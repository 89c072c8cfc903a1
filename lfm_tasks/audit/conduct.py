"""Checks of the zoo as it stands: licences, and whether the numbers are good enough to judge by."""

import numpy as np

from lfm_tasks.audit.check import Check, Finding, Measured, judged, skipped
from lfm_tasks.audit.lineage import base_names
from lfm_tasks.audit.published import Published
from lfm_tasks.catalog.audit import Licence, Quality


def licence(limit: Licence, now: Published) -> Check:
    """Return whether a model's licence is not allowed, or not the one of its base."""
    said = {model: facts.get("license") for model, facts in now.meta.items()}
    bases = [
        (child, base)
        for child, facts in sorted(now.meta.items())
        for base in base_names(facts)
        if said.get(base) is not None and said[child] is not None
    ]
    if not limit.allow and not (limit.same_as_base and bases):
        return skipped("licence", limit, "no licence is asked for (allow), and no model and its base both name one")
    found: list[Finding] = [
        {"model": model, "license": name, "problem": "not allowed" if name else "says none"}
        for model, name in sorted(said.items())
        if limit.allow and name not in limit.allow
    ]
    if limit.same_as_base:
        found += [
            {"model": child, "license": said[child], "problem": f"its base {base} has {said[base]}"}
            for child, base in bases
            if said[child] != said[base]
        ]
    message = "every licence is one that is allowed, and that of the base"
    if found:
        names = "; ".join(f"{row['model']}: {row['license'] or 'no licence'}, {row['problem']}" for row in found[:5])
        message = f"{names}: check meta.license"
    measured = Measured(len(found), 0, message, found, {"of": "models", "n": len(said)})
    return judged("licence", limit, bool(found), measured)


def quality(limit: Quality, now: Published) -> Check:
    """Return whether there are too few points, failures, or scores that do not repeat on half of the points."""
    n_points = now.atlas["n_points"].values
    fewest = int(n_points[n_points > 0].min(initial=np.iinfo(np.int32).max))
    counts = now.summary["counts"]
    n_failed = int(counts["failures"]) + int(counts["directed_pairs_without_score"])
    reliability = now.atlas["split_half_reliability"].values
    known = reliability[np.isfinite(reliability)]
    lowest = float(known.min()) if len(known) else None
    found: list[Finding] = []
    if fewest < limit.min_points:
        found.append({"what": "points", "observed": fewest, "limit": limit.min_points})
    if n_failed > limit.max_failed:
        found.append({"what": "failures", "observed": n_failed, "limit": limit.max_failed})
    if lowest is not None and lowest < limit.min_reliability:
        found.append({"what": "reliability", "observed": round(lowest, 4), "limit": limit.min_reliability})
    message = f"{fewest} points at least, {n_failed} failures"
    if found:
        message = "; ".join(_sentence(row) for row in found)
    null = {"of": "agreement of scores from halves of the points (noise floor), lowest", "reliability": lowest}
    return judged("quality", limit, bool(found), Measured(len(found), 0, message, found, null))


def _sentence(row: Finding) -> str:
    match row["what"]:
        case "points":
            return f"found a space of {row['observed']} points, needs {row['limit']}: give more, or lower min_points"
        case "failures":
            return (
                f"{row['observed']} models, spaces or pairs have no score, {row['limit']} are allowed: see the report"
            )
        case _:
            return f"scores from halves agree by {row['observed']:.2f}, needs {row['limit']}: give more points"
