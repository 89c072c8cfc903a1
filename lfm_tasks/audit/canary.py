"""The canary of an audit: a few fixed inputs, whose vectors are compared row by row with those of the baseline.

A provider that exchanges a model without a word is found by it the same night, however alike the scores of the two are.
It is no plug-in: it reads vectors, which the store has and an atlas has not.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from lfm_tasks.catalog.sections import Canary
from lfm_tasks.checks import Finding, Measurement, PublishedAtlas, Skipped, Unjudged
from lfm_tasks.stages.activations.job import read_activations
from lfm_tasks.stores.units.store import UnitStore

_N_SHOWN = 20
_TINY = np.finfo(np.float64).tiny


def evaluate_canary_of(
    canary: Canary, store: UnitStore, current: PublishedAtlas, baseline: PublishedAtlas
) -> Measurement | Skipped | Unjudged:
    """Return the rows of the canary's dataset whose vectors moved since the baseline, the farthest first.

    Models with another ``meta.version`` are meant to differ and are left out.
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
            findings.append({"space": name, "id": "all", "cosine": None, "distance": None, "limit": widths})
            least = -1.0
            continue
        cosines, distances = _moved(rows[0][0][now], rows[1][0][before])
        n_rows += len(ids)
        least = min(least, float(cosines.min(initial=1.0)))
        findings += _below(name, ids, cosines, distances, canary.at_least)
    findings.sort(key=lambda row: -2.0 if row["cosine"] is None else row["cosine"])
    message = f"the vectors of {len(kept)} spaces are those of the baseline, the least cosine is {least:.6f}"
    if findings:
        first = findings[0]
        moved = f"{len(findings)} vectors moved, the farthest {first['space']} {first['id']}"
        message = f"{moved} (cosine {_shown(first['cosine'])}): another model answers under the same name and version"
    null = {"of": "rows whose vectors are not the same bytes as in the baseline", "n": n_rows}
    return Measurement(bool(findings), least, canary.at_least, message, findings[:_N_SHOWN], null)


def _shown(cosine: float | None) -> str:
    return "-" if cosine is None else f"{cosine:.6f}"


def _is_new_version(model: str, current: PublishedAtlas, baseline: PublishedAtlas) -> bool:
    return bool(current.meta[model].get("version") != baseline.meta.get(model, {}).get("version"))


def _content(atlas: PublishedAtlas, dataset: str, space: str) -> str:
    return str(atlas.atlas["content"].sel(dataset=dataset, source=space).item())


def _rows(store: UnitStore, key: str) -> tuple[np.ndarray, np.ndarray]:
    with store.open("activations", key) as unit:
        return read_activations(unit).astype(np.float64), unit.read("ids")


def _moved(
    now: Float[np.ndarray, "points features"], before: Float[np.ndarray, "points features"]
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """Return the cosine of each row with what it was, and how far it moved in lengths of what it was."""
    lengths = np.linalg.norm(now, axis=1), np.linalg.norm(before, axis=1)
    both_zero = (lengths[0] == 0) & (lengths[1] == 0)
    cosines = np.einsum("ij,ij->i", now, before) / np.maximum(lengths[0] * lengths[1], _TINY)
    distances = np.linalg.norm(now - before, axis=1) / np.maximum(lengths[1], _TINY)
    return np.where(both_zero, 1.0, cosines), np.where(both_zero, 0.0, distances)


def _below(
    name: str, ids: np.ndarray, cosines: np.ndarray, distances: np.ndarray, at_least: float
) -> Iterator[Finding]:
    for row in np.flatnonzero(cosines < at_least):
        yield {
            "space": name, "id": str(ids[row]), "cosine": round(float(cosines[row]), 6),
            "distance": round(float(distances[row]), 6), "limit": at_least,
        }  # fmt: skip
