"""Checks against the baseline: scores that drifted, weights that changed, models that are gone, its age."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from lfm_tasks.audit.files import Check, Measured, Published, judged, skipped
from lfm_tasks.catalog.audit import ChangedWeights, Drift, Missing, StaleBaseline

NO_BASELINE = "there is no baseline yet"
_N_SHOWN = 20


def drift(limit: Drift, now: Published, baseline: Published | None) -> Check:
    """Return whether scores left the interval that the baseline has for them.

    Models with another ``meta.version`` are meant to differ and are left out. Where both spaces hold the same bytes as
    then, it is the pipeline that drifted.
    """
    if baseline is None:
        return skipped("drift", limit, NO_BASELINE)
    if others := now.other_settings(baseline):
        return skipped("drift", limit, f"the baseline was made with other settings ({', '.join(others)})")
    compared = list(_drifted(limit, now, baseline))
    n_pairs = sum(n for n, _, _ in compared)
    if not n_pairs:
        return skipped("drift", limit, "no pair of spaces has a score now and in the baseline")
    largest = max(change for _, change, _ in compared)
    found = [row for _, _, rows in compared for row in rows]
    found.sort(key=lambda row: (-abs(row["change"]), row["source"], row["target"]))
    message = f"all {n_pairs} scores are where the baseline's intervals say"
    if found:
        same = sum(row["same_content"] for row in found)
        reason = (
            f"{same} of them between unchanged activations: the pipeline drifted" if same else "activations changed"
        )
        message = f"{len(found)} of {n_pairs} scores left the baseline's interval, {reason}"
    null = {"of": "95 % interval of each score in the baseline", "n": n_pairs, "expected_outside": 0.05}
    measured = Measured(largest, limit.max_change, message, found[:_N_SHOWN], null)
    return judged("drift", limit, bool(found), measured)


def changed_weights_same_version(limit: ChangedWeights, now: Published, baseline: Published | None) -> Check:
    """Return whether activations of a model changed on the same points while its version did not."""
    if baseline is None:
        return skipped("changed_weights_same_version", limit, NO_BASELINE)
    if "content" not in baseline.atlas:
        return skipped("changed_weights_same_version", limit, "the baseline is of a program that kept no digests")
    models: dict[str, list[str]] = {}
    n_spaces = 0
    for dataset, names in _common(now, baseline):
        ours, theirs = (side.atlas.sel(dataset=dataset, source=names) for side in (now, baseline))
        same_points = ours["ids"].values == theirs["ids"].values
        n_spaces += int(same_points.sum())
        for row in np.flatnonzero(same_points & (ours["content"].values != theirs["content"].values)):
            model = str(ours["source_model"].values[row])
            if not _is_new_version(model, now, baseline):
                models.setdefault(model, []).append(names[row])
    if not n_spaces:
        return skipped("changed_weights_same_version", limit, "no space has the same points as in the baseline")
    message = "no model changed under its old version"
    if models:
        names_text = ", ".join(sorted(models)[:5])
        message = f"other activations under the same version: {names_text}: raise meta.version, or restore the weights"
    found = [
        {"model": model, "version": now.meta[model].get("version"), "spaces": spaces}
        for model, spaces in sorted(models.items())
    ]
    null = {"of": "spaces on the same points as in the baseline", "n": n_spaces}
    measured = Measured(len(models), 0, message, found, null)
    return judged("changed_weights_same_version", limit, bool(models), measured)


def missing(limit: Missing, now: Published, baseline: Published | None) -> Check:
    """Return whether models of the baseline are gone; layers that are gone are told beside."""
    if baseline is None:
        return skipped("missing", limit, NO_BASELINE)
    gone = sorted(_models(baseline) - _models(now))
    there = {name for dataset in _datasets(now) for name in now.spaces(dataset)}
    layers = sorted(
        name
        for dataset in _datasets(baseline)
        for name in baseline.spaces(dataset)
        if name not in there and name.split("/", 1)[0] not in gone
    )
    message = "every model of the baseline is there"
    if gone:
        message = f"gone since the baseline: {', '.join(gone[:5])}: bring them back, or promote this audit"
    found = [{"gone": "model", "name": name} for name in gone] + [
        {"gone": "layer", "name": name} for name in layers[:_N_SHOWN]
    ]
    null = {"of": "models of the baseline", "n": len(_models(baseline))}
    return judged("missing", limit, bool(gone), Measured(len(gone), 0, message, found, null))


def stale_baseline(limit: StaleBaseline, now: Published, baseline: Published | None) -> Check:
    """Return whether the baseline is too old to say much, or was made with other settings."""
    if baseline is None:
        return skipped("stale_baseline", limit, NO_BASELINE)
    others = now.other_settings(baseline)
    is_old = baseline.days > limit.max_days and baseline.key != now.key
    message = "the baseline can be compared with"
    if others:
        message = f"the baseline was made with other settings ({', '.join(others)}): promote an audit of these"
    elif is_old:
        message = f"the baseline is {baseline.days:.0f} days old: promote an audit that you trust"
    found: list[dict[str, Any]] = [{"setting": name} for name in others]
    measured = Measured(round(baseline.days, 2), limit.max_days, message, found)
    return judged("stale_baseline", limit, bool(others) or is_old, measured)


def _drifted(limit: Drift, now: Published, baseline: Published) -> Iterator[tuple[int, float, list[dict[str, Any]]]]:
    """Yield for each dataset and measure: how many scores were compared, the largest change, those that drifted."""
    measures = [str(name) for name in now.atlas["measure"].values if name in baseline.atlas["measure"].values]
    for dataset, names in _common(now, baseline):
        kept = [name for name in names if not _is_new_version(name.split("/", 1)[0], now, baseline)]
        for measure in measures:
            place = {"dataset": dataset, "measure": measure, "source": kept, "target": kept}
            ours, theirs = now.atlas.sel(place), baseline.atlas.sel(place)
            # A distance has no common unit; what it is worth against chance has.
            value = "calibrated" if measure in now.atlas.attrs["distances"] else "score"
            change = ours[value].values - theirs[value].values
            np.fill_diagonal(change, np.nan)
            score, low, high = ours["score"].values, theirs["ci_low"].values, theirs["ci_high"].values
            inside = (low <= score) & (score <= high)
            moved = (np.abs(change) > limit.max_change) & ~inside
            same = _same_content(ours, theirs)
            rows = [
                {
                    "dataset": dataset, "measure": measure, "source": kept[s], "target": kept[t],
                    "before": round(float(theirs["score"].values[s, t]), 5), "now": round(float(score[s, t]), 5),
                    "change": round(float(change[s, t]), 5), "same_content": bool(same[s] and same[t]),
                }
                for s, t in np.argwhere(moved)
            ]  # fmt: skip
            n_compared = int(np.isfinite(change).sum())
            yield n_compared, float(np.nanmax(np.abs(change))) if n_compared else 0.0, rows


def _same_content(ours: Any, theirs: Any) -> np.ndarray:
    if "content" not in theirs:
        return np.zeros(ours.sizes["source"], dtype=bool)
    return np.asarray(ours["content"].values == theirs["content"].values)


def _is_new_version(model: str, now: Published, baseline: Published) -> bool:
    return bool(now.meta[model].get("version") != baseline.meta.get(model, {}).get("version"))


def _common(now: Published, baseline: Published) -> Iterator[tuple[str, list[str]]]:
    for dataset in _datasets(now):
        if dataset in _datasets(baseline):
            there = set(baseline.spaces(dataset))
            yield dataset, [name for name in now.spaces(dataset) if name in there]


def _datasets(side: Published) -> list[str]:
    return [str(name) for name in side.atlas["dataset"].values]


def _models(side: Published) -> set[str]:
    return {str(name) for name in side.atlas["source_model"].values}
