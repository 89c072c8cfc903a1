"""What an audit leaves: ``audit.json`` for programs, JUnit for CI, a page for people, a line of history."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, Protocol
from xml.etree import ElementTree

import numpy as np
import xarray as xr

from lfm_tasks.report.page import AuditFacts, render_audit
from lfm_tasks.stages.publish.assemble import families
from lfm_tasks.statistics.model_pairs import best_match, pairs_of_models, symmetrized
from lfm_tasks.stores.units.durable import atomic_write

Status = Literal["pass", "warn", "fail", "error", "skipped"]
Finding = Mapping[str, Any]


class Limit(Protocol):
    """What the catalog says of a check."""

    @property
    def enforced(self) -> bool:
        """Whether a broken limit fails the audit."""


@dataclass(frozen=True)
class Check:
    """One check of an audit. ``findings`` is the evidence, the worst first; ``null``: what chance or habit looks like.

    pass: within the limit. fail: beyond it. warn: beyond it, not enforced. error: it could not be told. skipped: there
    is nothing to tell it from.
    """

    name: str
    status: Status
    enforced: bool
    observed: float | None = None
    threshold: float | None = None
    message: str = ""
    findings: tuple[Finding, ...] = ()
    null: Mapping[str, Any] = field(default_factory=dict)

    @property
    def breaks(self) -> bool:
        """Whether the audit as a whole cannot pass because of it."""
        return self.enforced and self.status in ("fail", "error")


@dataclass(frozen=True)
class Measured:
    """What a check saw: the number that the limit is about, and the evidence."""

    observed: float | None
    threshold: float | None
    message: str
    findings: Sequence[Finding] = ()
    null: Mapping[str, Any] = field(default_factory=dict)


def judged(name: str, limit: Limit, is_broken: bool, measured: Measured) -> Check:
    """Return the check with the status that its limit gives it."""
    status: Status = "pass" if not is_broken else "fail" if limit.enforced else "warn"
    return Check(
        name, status, limit.enforced, measured.observed, measured.threshold, measured.message,
        tuple(measured.findings), measured.null,
    )  # fmt: skip


def skipped(name: str, limit: Limit, message: str) -> Check:
    """Return a check that there is nothing to tell from."""
    return Check(name, "skipped", limit.enforced, message=message)


SCHEMA_VERSION = 1
_N_PAST = 30


def write_audit(
    folder: Path, facts: Mapping[str, Any], checks: tuple[Check, ...], report: Callable[[AuditFacts], str]
) -> None:
    """Write all files of one audit, each whole or not at all; the history grows by a line.

    ``report`` draws the page of the atlas with a section of the audit.
    """
    history = [*read_history(folder), history_line(facts)]
    _write(folder / "history.jsonl", "".join(json.dumps(line, sort_keys=True) + "\n" for line in history))
    _write(folder / "audit.json", json.dumps(facts, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
    _write(folder / "audit.junit.xml", junit(checks))
    shown = AuditFacts(facts, history[-_N_PAST:])
    _write(folder / "audit.html", render_audit(shown))
    _write(folder / "report.html", report(shown))


def history_line(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the history keeps of an audit."""
    kept = ("time", "verdict", "atlas", "baseline", "promoted", "computed")
    checks = {check["name"]: {"status": check["status"], "observed": check["observed"]} for check in facts["checks"]}
    return {name: facts[name] for name in kept} | {"checks": checks}


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Return all earlier audits, the oldest first."""
    path = folder / "history.jsonl"
    if not path.is_file():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise ValueError(f"{path}: found a line that is no JSON ({error}): mend it, or move the file away") from error


def junit(checks: tuple[Check, ...]) -> str:
    """Return the checks as a JUnit suite: a test case each."""
    counted = {status: sum(check.status == status for check in checks) for status in ("fail", "error", "skipped")}
    suite = ElementTree.Element(
        "testsuite", name="lfm-atlas audit", tests=str(len(checks)), failures=str(counted["fail"]),
        errors=str(counted["error"]), skipped=str(counted["skipped"]),
    )  # fmt: skip
    elements = {"fail": "failure", "error": "error", "skipped": "skipped", "warn": "system-out"}
    for check in checks:
        case = ElementTree.SubElement(suite, "testcase", classname="audit", name=check.name)
        if check.status in elements:
            told = ElementTree.SubElement(case, elements[check.status])
            # XML cannot hold control characters; messages quote what errors say.
            text = "".join(character if character.isprintable() else " " for character in check.message)
            if check.status == "warn":
                told.text = f"warning: {text}"
            else:
                told.set("message", text)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def _write(path: Path, text: str) -> None:
    atomic_write(path, text.encode())


# What may differ between two atlases whose scores are still the same numbers.
_NOT_IN_SCORES = ("measures", "null")


@dataclass(frozen=True)
class ModelPair:
    """Two models of one dataset: how alike they are, and whether ``base_model`` links them.

    ``similarity`` is calibrated: each layer with its best match, averaged over layers and both directions; ``closest``
    that of the two layers that are most alike.
    """

    dataset: str
    source: str
    target: str
    similarity: float
    closest: float
    related: bool

    def finding(self, **more: Any) -> dict[str, Any]:
        """Return the pair as evidence."""
        place = {"dataset": self.dataset, "source": self.source, "target": self.target}
        return place | {"similarity": round(self.similarity, 4), "closest_layers": round(self.closest, 4)} | more


@dataclass(frozen=True)
class Published:
    """An atlas and its summary; ``days``: since it was written."""

    atlas: xr.Dataset
    summary: Mapping[str, Any]
    days: float = 0.0

    @property
    def key(self) -> str:
        """The key of the atlas."""
        return str(self.summary["key"])

    @cached_property
    def meta(self) -> dict[str, dict[str, Any]]:
        """What the catalog said of each model."""
        return {model["name"]: model["meta"] for model in self.summary["models"]}

    @property
    def measure(self) -> str:
        """The measure that models are compared by: overlap, if it is there."""
        names = [str(name) for name in self.atlas["measure"].values]
        return "overlap" if "overlap" in names else names[0]

    @cached_property
    def pairs(self) -> tuple[ModelPair, ...]:
        """Return all pairs of models that have a calibrated similarity, the most alike first."""
        return tuple(sorted(self._pairs(), key=lambda pair: (-round(pair.similarity, 6), pair.source, pair.target)))

    def spaces(self, dataset: str) -> list[str]:
        """Return the names of the spaces that a dataset has."""
        present = self.atlas["n_points"].sel(dataset=dataset).values > 0
        return [str(name) for name in self.atlas["source"].values[present]]

    def other_settings(self, other: "Published") -> list[str]:
        """Return the names of settings that make the scores of two atlases other numbers."""
        ours, theirs = self.summary["settings"], other.summary["settings"]
        names = sorted((ours.keys() & theirs.keys()).difference(_NOT_IN_SCORES))
        differing = [name for name in names if ours[name] != theirs[name]]
        same_convention = self.atlas.attrs["convention"] == other.atlas.attrs["convention"]
        return differing if same_convention else ["convention", *differing]

    def _pairs(self) -> Iterator[ModelPair]:
        family = families(self.meta)
        for dataset in map(str, self.atlas["dataset"].values):
            names = self.spaces(dataset)
            cells = self.atlas.sel(dataset=dataset, measure=self.measure, source=names, target=names)
            of_space = cells["source_model"].values
            values = cells["calibrated"].values
            models = sorted(set(map(str, of_space)))
            directed, closest = np.empty((2, len(models), len(models)))
            for own in pairs_of_models([np.flatnonzero(of_space == model) for model in models]):
                block = own.of(values)
                directed[own.source, own.targets] = best_match(block)
                closest[own.source, own.targets] = np.nan_to_num(block, nan=-np.inf).max(axis=(1, 2))
            similarities = symmetrized(directed)
            for first, second in combinations(range(len(models)), 2):
                source, target, similarity = models[first], models[second], float(similarities[first, second])
                if np.isfinite(similarity):
                    related = family[source] == family[target]
                    yield ModelPair(dataset, source, target, similarity, float(closest[first, second]), related)
