"""The canary of an audit: a few fixed inputs, whose vectors are compared row by row with the first that were stored.

A provider that exchanges a model without a word is found by it the same night, however alike the scores of the two are;
so is one that changes nothing but the lengths of its vectors, to which inner products answer and cosines do not, and
one that changes so little every night that no two nights differ by much.
It is no plug-in: it reads vectors, which the store has and an atlas has not.
"""

from collections.abc import Iterator, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from lfm_tasks.audit.first_vectors import FirstVectors, Known, key_of, read_first_vectors, write_first_vectors
from lfm_tasks.catalog.sections import Canary
from lfm_tasks.checks import Finding, Measurement, PublishedAtlas, Skipped, Unjudged
from lfm_tasks.checks.histograms import histogram
from lfm_tasks.errors import DataError
from lfm_tasks.stages.activations.job import read_activations
from lfm_tasks.stores.units.store import UnitStore

_N_SHOWN = 20
_GONE = "no vector now"
_TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True)
class CanaryFiles:
    """Where vectors are: the store, and the file that keeps the first ones."""

    store: UnitStore
    first: Path


def judge_canary(
    canary: Canary,
    files: CanaryFiles,
    current: PublishedAtlas,
    baseline: PublishedAtlas | DataError | None,
    *,
    restart: bool = False,
) -> Measurement | Skipped | Unjudged:
    """Return the rows that moved since the first vectors, and keep the vectors of spaces and inputs that are new.

    The first vectors are those of the file. Where it has none of a space under its version, they are the baseline's,
    and without a baseline the ones of now.

    Parameters
    ----------
    canary
        The dataset and the limits.
    files
        The store, and the file of the first vectors, which is written.
    current, baseline
        The atlas, and the one that was accepted before; None: there is none yet.
    restart
        Forget the first vectors of these spaces after judging: those of now take their place.
    """
    today = datetime.now(UTC).date()
    if canary.dataset not in current.datasets:
        return Skipped(f"the dataset {canary.dataset} is not in the atlas yet")
    try:
        now = {one.key: one for one in _vectors_of(canary, files.store, current, today.isoformat())}
        try:
            known = read_first_vectors(files.first)
        except DataError:
            if not restart:
                raise
            known = {}
        lacking = now.keys() - known.keys()
        first = dict(known)
        if lacking and baseline is not None:
            if isinstance(baseline, DataError):
                raise baseline
            since = (today - timedelta(days=round(baseline.days))).isoformat()
            first |= {one.key: one for one in _vectors_of(canary, files.store, baseline, since, lacking)}
        found = compare_with_first(canary, list(now.values()), first)
        kept = first | now if restart else now | first
        if not (restart or (isinstance(found, Measurement) and found.is_broken)):
            kept = {key: _extended(one, now.get(key)) for key, one in kept.items()}
        if restart or _sizes(kept) != _sizes(known):
            write_first_vectors(files.first, kept)
    except DataError as error:
        return Unjudged(str(error))
    return found


def _sizes(known: Known) -> dict[tuple[str, str, str], int]:
    return {key: len(one.ids) for key, one in known.items()}


def _vectors_of(
    canary: Canary,
    store: UnitStore,
    atlas: PublishedAtlas,
    since: str,
    wanted: Set[tuple[str, str, str]] | None = None,
) -> Iterator[FirstVectors]:
    """Yield the vectors that the store has of an atlas's spaces, the baseline's if only some are wanted.

    Raises
    ------
    DataError
        ``missing_source`` if the store has them no more, or the atlas does not say which they are.
    """
    which, advice = ("atlas", "Run again") if wanted is None else ("baseline", "Promote a new baseline")
    if "content" not in atlas.atlas:
        raise DataError("missing_source", f"the {which} is of a program that kept no digests. {advice}.")
    if canary.dataset not in atlas.datasets:
        return
    units = {str(receipt.facts["content"]): receipt.key for receipt in store.receipts("activations")}
    for name in atlas.spaces(canary.dataset):
        version = atlas.meta.get(name.partition("/")[0], {}).get("version")
        if wanted is not None and key_of(canary.dataset, name, version) not in wanted:
            continue
        content = str(atlas.atlas["content"].sel(dataset=canary.dataset, source=name).item())
        if content not in units:
            problem = f"got a store without the vectors of {name}, expected those of the {which}"
            raise DataError("missing_source", f"{problem}. {advice}.")
        rows, ids = _rows(store, units[content])
        yield FirstVectors(canary.dataset, name, version, since, content, ids, rows)


def _extended(first: FirstVectors, now: FirstVectors | None) -> FirstVectors:
    """Return the first vectors with those of inputs that are new."""
    if now is None or now.content == first.content or now.rows.shape[1] != first.rows.shape[1]:
        return first
    more = ~np.isin(now.ids, first.ids)
    rows = np.concatenate([first.rows, now.rows[more].astype(first.rows.dtype)])
    return replace(first, ids=np.concatenate([first.ids, now.ids[more]]), rows=rows)


def compare_with_first(canary: Canary, now: list[FirstVectors], first: Known) -> Measurement | Skipped:
    """Return the rows whose vectors moved since the first ones, the farthest first.

    A row moved if its cosine is below ``at_least``, its length changed by more than `norm_limit`, or it is not there
    any more. Models with another ``meta.version`` are meant to differ: they have first vectors of their own.
    """
    kept = [one for one in now if one.key in first]
    if not kept:
        return Skipped(f"there is nothing to compare with yet; the vectors of {len(now)} spaces are kept from now on")
    findings: list[Finding] = []
    cosines: list[float] = []
    least, n_rows = 1.0, 0
    for one in kept:
        before = first[one.key]
        if one.content == before.content:
            continue
        name = one.space
        ids, at_now, at_first = np.intersect1d(one.ids, before.ids, assume_unique=True, return_indices=True)
        if one.rows.shape[1] != before.rows.shape[1]:
            widths = f"{before.rows.shape[1]} features at first, {one.rows.shape[1]} now"
            findings.append(_finding(name, "all", limit=widths))
            least = -1.0
            continue
        for gone in np.setdiff1d(before.ids, ids, assume_unique=True):
            findings.append(_finding(name, gone, limit=_GONE))
            least = -1.0
        moved = _moved(one.rows[at_now].astype(np.float64), before.rows[at_first].astype(np.float64))
        n_rows += len(ids)
        least = min(least, float(moved.cosine.min(initial=1.0)))
        cosines += moved.cosine.tolist()
        findings += _beyond(name, ids, moved, canary)
    findings.sort(key=lambda row: -np.inf if row["distance"] is None else -row["distance"])
    since = min(first[one.key].since for one in kept)
    message = f"the vectors of {len(kept)} spaces are the first ones, of {since}: the least cosine is {least:.6f}"
    if findings:
        message = _in_words(findings, canary, least, since)
    null: dict[str, Any] = {"of": "rows whose vectors are not the same bytes as the first ones", "n": n_rows}
    null["histograms"] = histogram(
        cosines,
        "cosine of each of these rows with the first one",
        limit=canary.at_least,
        found=[cosine for cosine in cosines if cosine < canary.at_least],
        # As far below the limit as it is below 1, or as far as rows moved.
        ends=(max(-1.0, min(2 * canary.at_least - 1, least, 0.999)), 1.0),
    )
    return Measurement(bool(findings), least, canary.at_least, message, findings[:_N_SHOWN], null)


def _in_words(findings: list[Finding], canary: Canary, least: float, since: str) -> str:
    first = findings[0]
    by = f"cosine {_shown(first['cosine'])}, length {_shown(first['norm'])} of what it was"
    moved_rows = f"{len(findings)} vectors moved since {since}, the farthest {first['space']} {first['id']}"
    are_gone = all(finding["limit"] == _GONE for finding in findings)
    what = "another model answers" if least < canary.at_least else "vectors of other lengths come"
    what = "inputs of the first vectors have none now" if are_gone else what
    return f"{moved_rows} ({by}): {what} under the same name and version"


def norm_limit(canary: Canary) -> float:
    """Return the share by which a row's length may change: as far as a row of length 1 moves at the least cosine."""
    return float(np.sqrt(2 * (1 - canary.at_least))) if canary.norm_within is None else canary.norm_within


def _finding(space: str, name: object, *, limit: str) -> Finding:
    return {"space": space, "id": str(name), "cosine": None, "norm": None, "distance": None, "limit": limit}


def _shown(number: float | None) -> str:
    return "-" if number is None else f"{number:.6f}"


def _rows(store: UnitStore, key: str) -> tuple[np.ndarray, np.ndarray]:
    with store.open("activations", key) as unit:
        return read_activations(unit), np.array(unit.read("ids").tolist(), dtype=str)


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
