"""Checks of the numbers: whether they repeat on half of the points, and are still those of the baseline."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from lfm_tasks.checks import BaselineCheck, Finding, Measurement, PublishedAtlas, Skipped, Unjudged, ZooCheck
from lfm_tasks.checks.histograms import histogram

if TYPE_CHECKING:
    import xarray as xr

_N_SHOWN = 20


class Drift(BaselineCheck):
    """Scores that left the interval of the baseline."""

    max_change: float = Field(default=0.02, ge=0, description="change of a score that counts, in the measure's unit")

    def evaluate(self, current: PublishedAtlas, baseline: PublishedAtlas) -> Measurement | Skipped | Unjudged:
        """Return the scores that left the interval that the baseline has for them.

        Models with another ``meta.version`` are meant to differ and are left out. Where the activations of both spaces
        are those of the baseline, byte for byte, the pipeline drifted.
        """
        if differing := current.differing_settings(baseline):
            names = ", ".join(differing)
            return Unjudged(f"the baseline was made with other settings ({names}). Promote a new baseline.")
        compared = list(self._compare(current, baseline))
        n_pairs = sum(len(changes) for changes, _ in compared)
        if not n_pairs:
            if any(len(names) > 1 for _, names in _common_spaces(current, baseline)):
                return Unjudged("no pair of spaces has a score both now and in the baseline. Promote a new baseline.")
            return Skipped("no two spaces are in this atlas and in the baseline")
        changes = np.concatenate([changes for changes, _ in compared])
        largest = float(changes.max())
        drifted = [row for _, rows in compared for row in rows]
        drifted.sort(key=lambda row: (-abs(row["change"]), row["source"], row["target"]))
        message = f"all {n_pairs} scores are where the baseline's intervals say"
        if drifted:
            same = sum(row["same_content"] for row in drifted)
            reason = (
                f"{same} of them between unchanged activations: the pipeline drifted" if same else "activations changed"
            )
            message = f"{len(drifted)} of {n_pairs} scores left the baseline's interval, {reason}"
        null: dict[str, Any] = {
            "of": "95 % interval of each score in the baseline", "n": n_pairs, "expected_outside": 0.05
        }  # fmt: skip
        null["histograms"] = histogram(
            changes,
            "change of each score since the baseline, whether it left its interval or not",
            limit=self.max_change,
            found=[abs(row["change"]) for row in drifted],
            ends=(0.0, _end(largest, self.max_change)),
        )
        return Measurement(bool(drifted), largest, self.max_change, message, drifted[:_N_SHOWN], null)

    def _compare(
        self, current: PublishedAtlas, baseline: PublishedAtlas
    ) -> Iterator[tuple[np.ndarray, list[dict[str, Any]]]]:
        """Yield how far each compared score moved, and the drifted scores, of a dataset and measure."""
        measures = [str(name) for name in current.atlas["measure"].values if name in baseline.atlas["measure"].values]
        for dataset, names in _common_spaces(current, baseline):
            kept = [name for name in names if not _is_new_version(name.split("/", 1)[0], current, baseline)]
            for measure in measures:
                place = {"dataset": dataset, "measure": measure, "source": kept, "target": kept}
                after, before = current.atlas.sel(place), baseline.atlas.sel(place)
                # A distance has no common unit; its calibrated value has.
                value = "calibrated" if measure in current.atlas.attrs["distances"] else "score"
                change = after[value].values - before[value].values
                np.fill_diagonal(change, np.nan)
                score, low, high = after["score"].values, before["ci_low"].values, before["ci_high"].values
                inside = (low <= score) & (score <= high)
                moved = (np.abs(change) > self.max_change) & ~inside
                same = _same_content(after, before)
                rows = [
                    {
                        "dataset": dataset, "measure": measure, "source": kept[s], "target": kept[t],
                        "before": round(float(before["score"].values[s, t]), 5), "now": round(float(score[s, t]), 5),
                        "change": round(float(change[s, t]), 5), "same_content": bool(same[s] and same[t]),
                    }
                    for s, t in np.argwhere(moved)
                ]  # fmt: skip
                yield np.abs(change[np.isfinite(change)]), rows


class ChangedWeightsSameVersion(BaselineCheck):
    """Models whose activations changed while ``meta.version`` did not."""

    def evaluate(self, current: PublishedAtlas, baseline: PublishedAtlas) -> Measurement | Skipped | Unjudged:
        """Return the models whose activations on the same points changed under the same version."""
        if "content" not in baseline.atlas:
            return Unjudged("the baseline is of a program that kept no digests. Promote a new baseline.")
        changed: dict[str, list[str]] = {}
        n_spaces = 0
        for dataset, names in _common_spaces(current, baseline):
            after, before = (side.atlas.sel(dataset=dataset, source=names) for side in (current, baseline))
            same_points = after["ids"].values == before["ids"].values
            n_spaces += int(same_points.sum())
            for row in np.flatnonzero(same_points & (after["content"].values != before["content"].values)):
                model = str(after["source_model"].values[row])
                if not _is_new_version(model, current, baseline):
                    changed.setdefault(model, []).append(names[row])
        if not n_spaces:
            return Skipped("no space has the same points as in the baseline")
        message = "no model changed under its old version"
        if changed:
            models = ", ".join(sorted(changed)[:5])
            message = f"other activations under the same version: {models}. Raise meta.version, or restore the weights"
        findings = [
            {"model": model, "version": current.meta[model].get("version"), "spaces": spaces}
            for model, spaces in sorted(changed.items())
        ]
        null = {"of": "spaces on the same points as in the baseline", "n": n_spaces}
        return Measurement(bool(changed), len(changed), 0, message, findings, null)


class Missing(BaselineCheck):
    """Models of the baseline that are gone, or are gone from one of their datasets."""

    compares_numbers: ClassVar[bool] = False

    def evaluate(self, current: PublishedAtlas, baseline: PublishedAtlas) -> Measurement | Skipped:
        """Return the models of the baseline that are gone; layers that are gone are listed, and break no limit."""
        gone = sorted(baseline.models - current.models)
        present = {name for dataset in current.datasets for name in current.spaces(dataset)}
        layers = sorted(
            name
            for dataset in baseline.datasets
            for name in baseline.spaces(dataset)
            if name not in present and name.split("/", 1)[0] not in gone
        )
        # Of a model on several datasets one may be gone; a dataset that is gone as a whole is no model's fault.
        absent = [
            (model, dataset)
            for dataset in baseline.datasets
            if dataset in current.datasets
            for model in sorted(_models_on(dataset, baseline) - _models_on(dataset, current) - {*gone})
        ]
        message = "every model of the baseline is there"
        if gone or absent:
            missing = [*gone, *(f"{model} on {dataset}" for model, dataset in absent)]
            message = f"missing since the baseline: {', '.join(missing[:5])}. Restore them, or promote this audit"
        findings = [
            *({"gone": "model", "name": name} for name in gone),
            *({"gone": "model", "name": name, "dataset": dataset} for name, dataset in absent),
            *({"gone": "layer", "name": name} for name in layers[:_N_SHOWN]),
        ]
        null = {"of": "models of the baseline", "n": len(baseline.models)}
        return Measurement(bool(gone or absent), len(gone) + len(absent), 0, message, findings, null)


def _models_on(dataset: str, atlas: PublishedAtlas) -> set[str]:
    return {name.split("/", 1)[0] for name in atlas.spaces(dataset)}


class Quality(ZooCheck):
    """Too few points, spaces that failed, scores that do not repeat on the other half of the points."""

    min_points: int = Field(default=200, ge=1)
    max_failed: int = Field(default=0, ge=0, description="models, spaces and pairs without a score")
    min_reliability: float = Field(default=0.5, ge=-1, le=1, description="agreement of scores from halves: noise floor")

    def evaluate(self, current: PublishedAtlas) -> Measurement | Skipped:
        """Return which of the three limits are broken: fewest points, failures, lowest reliability."""
        n_points = current.atlas["n_points"].values
        fewest = int(n_points[n_points > 0].min(initial=np.iinfo(np.int32).max))
        counts = current.summary["counts"]
        n_failed = int(counts["failures"]) + int(counts["directed_pairs_without_score"])
        reliability = current.atlas["split_half_reliability"].values
        known = reliability[np.isfinite(reliability)]
        lowest = float(known.min()) if len(known) else None
        findings: list[Finding] = []
        if fewest < self.min_points:
            findings.append({"what": "points", "observed": fewest, "limit": self.min_points})
        if n_failed > self.max_failed:
            findings.append({"what": "failures", "observed": n_failed, "limit": self.max_failed})
        if lowest is not None and lowest < self.min_reliability:
            findings.append({"what": "reliability", "observed": round(lowest, 4), "limit": self.min_reliability})
        message = f"{fewest} points at least, {n_failed} failures"
        if findings:
            message = "; ".join(_quality_sentence(row) for row in findings)
        of = "agreement of scores from halves of the points (noise floor)"
        null: dict[str, Any] = {"of": f"{of}, lowest", "reliability": lowest}
        sizes = n_points[n_points > 0]
        few, apart = sizes[sizes < self.min_points], known[known < self.min_reliability]
        ends = (0.0, _end(float(sizes.max(initial=0)), self.min_points))
        null["histograms"] = [
            *histogram(sizes, "points of each space", limit=self.min_points, found=few.tolist(), ends=ends),
            *histogram(
                known,
                f"{of}, of each measure on each dataset",
                limit=self.min_reliability,
                found=apart.tolist(),
                ends=(min(0.0, lowest or 0.0), 1.0),
            ),
        ]
        return Measurement(bool(findings), len(findings), 0, message, findings, null)


class StaleBaseline(BaselineCheck):
    """A baseline that is old, or was made with other settings."""

    max_days: float = Field(default=90, gt=0, description="days since it was promoted, if the atlas has changed since")
    enforced: bool = False
    compares_numbers: ClassVar[bool] = False

    def evaluate(self, current: PublishedAtlas, baseline: PublishedAtlas) -> Measurement | Skipped:
        """Return the age of the baseline in days, and the settings that differ from those of the atlas."""
        differing = current.differing_settings(baseline)
        is_old = baseline.days > self.max_days and baseline.key != current.key
        message = "the baseline can be compared with"
        if differing:
            message = f"the baseline was made with other settings ({', '.join(differing)}): promote an audit of these"
        elif is_old:
            message = f"the baseline is {baseline.days:.0f} days old: promote an audit that you trust"
        findings = [{"setting": name} for name in differing]
        return Measurement(bool(differing) or is_old, round(baseline.days, 2), self.max_days, message, findings)


def _end(largest: float, limit: float) -> float:
    """Return the end of an axis from 0 on which both the largest value and the limit stand apart from the end."""
    return float(f"{max(1.05 * largest, 1.5 * limit) or 1.0:.2g}")


def _quality_sentence(row: Finding) -> str:
    match row["what"]:
        case "points":
            return f"got a space of {row['observed']} points, expected {row['limit']}. Give more, or lower min_points"
        case "failures":
            return (
                f"{row['observed']} models, spaces or pairs have no score, {row['limit']} are allowed. See the report"
            )
        case _:
            return f"scores from halves agree by {row['observed']:.2f}, expected {row['limit']}. Give more points"


def _common_spaces(current: PublishedAtlas, baseline: PublishedAtlas) -> Iterator[tuple[str, list[str]]]:
    for dataset in current.datasets:
        if dataset in baseline.datasets:
            in_baseline = set(baseline.spaces(dataset))
            yield dataset, [name for name in current.spaces(dataset) if name in in_baseline]


def _is_new_version(model: str, current: PublishedAtlas, baseline: PublishedAtlas) -> bool:
    return bool(current.meta[model].get("version") != baseline.meta.get(model, {}).get("version"))


def _same_content(after: "xr.Dataset", before: "xr.Dataset") -> np.ndarray:
    if "content" not in before:
        return np.zeros(after.sizes["source"], dtype=bool)
    return np.asarray(after["content"].values == before["content"].values)
