"""The canary of an audit: a few fixed inputs, whose vectors are compared row by row with those of the baseline.

A provider that exchanges a model without a word is found by it the same night, however alike the scores of the two are;
so is one that changes nothing but the lengths of its vectors, to which inner products answer and cosines do not.
It is no plug-in: it reads vectors, which the store has and an atlas has not.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from lfm_tasks.catalog.sections import Canary
from lfm_tasks.checks import Finding, Measurement, PublishedAtlas, Skipped, Unjudged
from lfm_tasks.checks.histograms import histogram
from lfm_tasks.stages.activations.job import read_activations
from lfm_tasks.stores.units.store import UnitStore

_N_SHOWN = 20
_GONE = "no vector now"
_TINY = np.finfo(np.float64).tiny


def evaluate_canary_of(
    canary: Canary, store: UnitStore, current: PublishedAtlas, baseline: PublishedAtlas
) -> Measurement | Skipped | Unjudged:
    """Return the rows of the canary's dataset whose vectors moved since the baseline, the farthest first.

    A row moved if its cosine is below ``at_least``, its length changed by more than `norm_limit`, or it is not there
    any more. Models with another ``meta.version`` are meant to differ and are left out.
    """
    if "content" not in baseline.atlas:
        return Unjudged("the baseline is of a program that kept no digests. Promote a new baseline.")
    if canary.dataset not in baseline.datasets or canary.dataset not in current.datasets:
        return Skipped(f"the dataset {canary.dataset} is not in both atlases yet")
    spaces = [name for name in current.spaces(canary.dataset) if name in baseline.spaces(canary.dataset)]
    kept = [name for name in spaces if not _is_new_version(name.partition("/")[0], current, baseline)]
    if not kept:
        return Skipped("no model of the canary is in the baseline under its version")
    units = {str(receipt.facts["content"]): receipt.key for receipt in store.receipts("activations")}
    findings: list[Finding] = []
    cosines: list[float] = []
    least, n_rows = 1.0, 0
    for name in kept:
        content = [_content(side, canary.dataset, name) for side in (current, baseline)]
        if content[0] == content[1]:
            continue
        if any(one not in units for one in content):
            return Unjudged(f"the store has no vectors of {name} from the baseline any more. Promote a new baseline.")
        rows = [_rows(store, units[one]) for one in content]
        ids, now, before = np.intersect1d(rows[0][1], rows[1][1], assume_unique=True, return_indices=True)
        if rows[0][0].shape[1] != rows[1][0].shape[1]:
            widths = f"{rows[1][0].shape[1]} features in the baseline, {rows[0][0].shape[1]} now"
            findings.append(_finding(name, "all", limit=widths))
            least = -1.0
            continue
        for gone in np.setdiff1d(rows[1][1], ids, assume_unique=True):
            findings.append(_finding(name, gone, limit=_GONE))
            least = -1.0
        moved = _moved(rows[0][0][now], rows[1][0][before])
        n_rows += len(ids)
        least = min(least, float(moved.cosine.min(initial=1.0)))
        cosines += moved.cosine.tolist()
        findings += _beyond(name, ids, moved, canary)
    findings.sort(key=lambda row: -np.inf if row["distance"] is None else -row["distance"])
    message = f"the vectors of {len(kept)} spaces are those of the baseline, the least cosine is {least:.6f}"
    if findings:
        first = findings[0]
        by = f"cosine {_shown(first['cosine'])}, length {_shown(first['norm'])} of what it was"
        moved_rows = f"{len(findings)} vectors moved, the farthest {first['space']} {first['id']}"
        are_gone = all(finding["limit"] == _GONE for finding in findings)
        what = "another model answers" if least < canary.at_least else "vectors of other lengths come"
        what = "inputs of the baseline have no vector" if are_gone else what
        message = f"{moved_rows} ({by}): {what} under the same name and version"
    null: dict[str, Any] = {"of": "rows whose vectors are not the same bytes as in the baseline", "n": n_rows}
    null["histograms"] = histogram(
        cosines,
        "cosine of each of these rows with what it was",
        limit=canary.at_least,
        found=[cosine for cosine in cosines if cosine < canary.at_least],
        # As far below the limit as it is below 1, or as far as rows moved.
        ends=(max(-1.0, min(2 * canary.at_least - 1, least, 0.999)), 1.0),
    )
    return Measurement(bool(findings), least, canary.at_least, message, findings[:_N_SHOWN], null)


def norm_limit(canary: Canary) -> float:
    """Return the share by which a row's length may change: as far as a row of length 1 moves at the least cosine."""
    return float(np.sqrt(2 * (1 - canary.at_least))) if canary.norm_within is None else canary.norm_within


def _finding(space: str, name: object, *, limit: str) -> Finding:
    return {"space": space, "id": str(name), "cosine": None, "norm": None, "distance": None, "limit": limit}


def _shown(number: float | None) -> str:
    return "-" if number is None else f"{number:.6f}"


def _is_new_version(model: str, current: PublishedAtlas, baseline: PublishedAtlas) -> bool:
    return bool(current.meta[model].get("version") != baseline.meta.get(model, {}).get("version"))


def _content(atlas: PublishedAtlas, dataset: str, space: str) -> str:
    return str(atlas.atlas["content"].sel(dataset=dataset, source=space).item())


def _rows(store: UnitStore, key: str) -> tuple[np.ndarray, np.ndarray]:
    with store.open("activations", key) as unit:
        return read_activations(unit).astype(np.float64), unit.read("ids")


@dataclass(frozen=True)
class _Moved:
    """Of each row: its cosine with what it was, its length and how far it moved in lengths of what it was."""

    cosine: Float[np.ndarray, " points"]
    norm: Float[np.ndarray, " points"]
    distance: Float[np.ndarray, " points"]


def _moved(now: Float[np.ndarray, "points features"], before: Float[np.ndarray, "points features"]) -> _Moved:
    """Return how rows moved; lengths and distances of rows that had none are infinite, or 1 and 0 if they stay."""
    lengths = np.linalg.norm(now, axis=1), np.linalg.norm(before, axis=1)
    had_none = lengths[1] == 0
    stays = had_none & (lengths[0] == 0)
    unit = np.where(had_none, 1.0, lengths[1])
    cosine = np.einsum("ij,ij->i", now, before) / np.maximum(lengths[0] * lengths[1], _TINY)
    norm, distance = lengths[0] / unit, np.linalg.norm(now - before, axis=1) / unit
    return _Moved(
        np.where(stays, 1.0, np.clip(cosine, -1.0, 1.0)),
        np.where(stays, 1.0, np.where(had_none, np.inf, norm)),
        np.where(stays, 0.0, np.where(had_none, np.inf, distance)),
    )


def _beyond(name: str, ids: Shaped[np.ndarray, " points"], moved: _Moved, canary: Canary) -> Iterator[Finding]:
    limit = norm_limit(canary)
    turned, resized = moved.cosine < canary.at_least, np.abs(moved.norm - 1) > limit
    for row in np.flatnonzero(turned | resized):
        yield {
            "space": name, "id": str(ids[row]), "cosine": round(float(moved.cosine[row]), 6),
            "norm": _rounded(moved.norm[row]), "distance": _rounded(moved.distance[row]),
            "limit": canary.at_least if turned[row] else f"length within {limit:.4g}",
        }  # fmt: skip


def _rounded(number: float) -> float | None:
    """Return a number as JSON takes it: None for what is infinite."""
    return round(float(number), 6) if np.isfinite(number) else None
