"""Checks of the zoo as it stands: licenses, and whether the numbers are good enough to judge by."""

from dataclasses import dataclass

import numpy as np

from lfm_tasks.audit.files import Check, Finding, Measured, Published, judged, skipped
from lfm_tasks.audit.lineage import base_names
from lfm_tasks.catalog.audit import License, Quality
from lfm_tasks.runtime.run import Run
from lfm_tasks.spaces import Space
from lfm_tasks.spectral.bases.full_map import full_map, overlap
from lfm_tasks.stages.activations.job import read_activations
from lfm_tasks.stages.activations.stage import RecordedSpace
from lfm_tasks.stages.bases.job import compute_basis
from lfm_tasks.stages.bases.stage import basis_job
from lfm_tasks.statistics.permutation_moments import permutation_moments, permutation_profile, upper_tail


def license(limit: License, now: Published) -> Check:
    """Return whether a model's license is not allowed, or not the one of its base."""
    said = {model: facts.get("license") for model, facts in now.meta.items()}
    bases = [
        (child, base)
        for child, facts in sorted(now.meta.items())
        for base in base_names(facts)
        if said.get(base) is not None and said[child] is not None
    ]
    if not limit.allow and not (limit.same_as_base and bases):
        return skipped("license", limit, "no license is asked for (allow), and no model and its base both name one")
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
    message = "every license is one that is allowed, and that of the base"
    if found:
        names = "; ".join(f"{row['model']}: {row['license'] or 'no license'}, {row['problem']}" for row in found[:5])
        message = f"{names}: check meta.license"
    measured = Measured(len(found), 0, message, found, {"of": "models", "n": len(said)})
    return judged("license", limit, bool(found), measured)


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


# A space with its rows in another order is the same space: what is missing to 1 is rounding.
_SAME = 0.999
# Features drawn at random are as good as permuted rows; rarer than this, they are not.
_CHANCE = 1e-4
_SEED = 0


@dataclass(frozen=True)
class ControlLimit:
    """The control is always enforced: without it no other number means anything."""

    enforced: bool = True


def control(run: Run, now: Published) -> Check:
    """Return whether a space scores as itself with its rows in another order, and random features score as chance.

    The basis that the space has in the store may have been made long ago; the one of the reordered rows is made now.
    """
    recorded = _smallest(run, now)
    job = basis_job(run.store, run.catalog.atlas, recorded)
    with run.store.open("activations", recorded.key) as unit:
        activations, ids = read_activations(unit), unit.read("ids")
    with run.store.open("bases", job.key) as unit:
        stored = unit.read("eigenvectors")
    generator = np.random.default_rng(_SEED)
    order = generator.permutation(len(ids))
    # Joined on ids, as a source is that has them in any order.
    by_id = np.argsort(ids[order], kind="stable")
    rows, noise = activations[order][by_id], generator.standard_normal(activations.shape)
    again, chance = (compute_basis(lambda: iter([own]), ids, job.way).eigenvectors for own in (rows, noise))  # noqa: B023
    itself = float(overlap(full_map(stored, again)))
    random = float(overlap(full_map(stored, chance)))
    moments = permutation_moments(permutation_profile(stored[:, 1:]), permutation_profile(chance[:, 1:]))
    n_modes = stored.shape[1] - 1
    p = upper_tail(moments, random * n_modes)
    message = f"{recorded.space.name} scores {itself:.6f} with itself, {random:.3f} with random features (p {p:.2g})"
    is_broken = itself < _SAME or p < _CHANCE
    if is_broken:
        message += ": the pipeline has changed; compare the versions in summary.json with the baseline's"
    found = [
        {"pair": "rows in another order", "overlap": round(itself, 6), "p_value": None, "limit": _SAME},
        {"pair": "random features", "overlap": round(random, 4), "p_value": float(f"{p:.3g}"), "limit": _CHANCE},
    ]
    null = {"of": "overlap of permuted rows, exact", "mean": round(moments.mean / n_modes, 4)}
    return judged("control", ControlLimit(), is_broken, Measured(round(itself, 6), _SAME, message, found, null))


def _smallest(run: Run, now: Published) -> RecordedSpace:
    """Return the space of the atlas with the fewest numbers in it."""
    sizes = (now.atlas["n_points"] * now.atlas["n_features"]).values
    dataset, row = np.unravel_index(int(np.where(sizes > 0, sizes, np.inf).argmin()), sizes.shape)
    content = str(now.atlas["content"].values[dataset, row])
    receipt = next(r for r in run.store.receipts("activations") if r.facts["content"] == content)
    cell = now.atlas.isel(dataset=dataset, source=row)
    space = Space(str(cell["dataset"].item()), str(cell["source_model"].item()), str(cell["source_layer"].item()))
    return RecordedSpace(space, receipt.key, float(cell["source_depth"]), **receipt.facts)
