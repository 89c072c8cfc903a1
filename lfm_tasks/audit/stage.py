"""Stage audit: read the published atlas and the baseline, evaluate the checks, write the files, promote."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

from lfm_tasks import __version__
from lfm_tasks.audit.canary import CanaryFiles, judge_canary
from lfm_tasks.audit.control import control
from lfm_tasks.audit.files import AUDIT_VERSION, CheckResult, Status, write_audit
from lfm_tasks.audit.first_vectors import FIRST_VECTORS
from lfm_tasks.audit.ports import judge_port, port_facts
from lfm_tasks.audit.weights import weight_agreements
from lfm_tasks.catalog import Catalog
from lfm_tasks.catalog.sections import Checks
from lfm_tasks.checks import BaselineCheck, Measurement, PublishedAtlas, Skipped, Unjudged, ZooCheck
from lfm_tasks.errors import DataError, FolderError
from lfm_tasks.parity.stage import Parity
from lfm_tasks.report import render_report
from lfm_tasks.runtime.folders import BASELINE, why_of_another_catalog
from lfm_tasks.runtime.run import Run
from lfm_tasks.stores.atlas.files import age_in_days, published_key, read_atlas, read_groups, read_json
from lfm_tasks.stores.atlas.publication import locked_atlas, promote
from lfm_tasks.stores.atlas.schema import catalog_id
from lfm_tasks.stores.references import add_reference_folder, holds_atlas

logger = logging.getLogger(__name__)
_STATUS_WORDS: dict[Status, str] = {
    "fail": "failed",
    "error": "could not be evaluated",
    "warn": "warned",
    "pass": "passed",
    "unjudged": "could not be judged",
    "skipped": "skipped",
}
AUDIT_PURPOSE = "lfm-atlas audit"


@dataclass(frozen=True)
class Audit:
    """The result of an audit; ``folder`` holds its files, ``parity`` the comparisons of the catalog's ports."""

    checks: tuple[CheckResult, ...]
    atlas: str
    baseline: str | None
    promoted: bool
    folder: Path
    parity: tuple[Mapping[str, Any], ...] = ()

    @property
    def verdict(self) -> Literal["pass", "warn", "fail"]:
        """fail: an enforced check is broken or could not be evaluated."""
        if any(check.breaks for check in self.checks):
            return "fail"
        return "warn" if any(check.status in ("warn", "error") for check in self.checks) else "pass"

    @property
    def sentence(self) -> str:
        """How many checks have each status, the worst first, those by name that are to be looked at."""
        parts = []
        for status, word in _STATUS_WORDS.items():
            names = [check.name for check in self.checks if check.status == status]
            if names:
                named = f" ({', '.join(names)})" if status not in ("pass", "skipped") else ""
                parts.append(f"{len(names)} {word}{named}")
        return ", ".join(parts)


def audit_atlas(run: Run, promote_anyway: bool = False) -> Audit:
    """Check the published atlas and write the files of the audit.

    The baseline is replaced if the audit passes and the catalog says so, or if ``promote_anyway``.

    Raises
    ------
    FileNotFoundError
        If there is no atlas.
    FolderError
        If an atlas without spaces is to be promoted over a baseline that has some; and as `promote_atlas`.
    """
    run.report_progress("audit", 0, 1)
    config = run.catalog.audit
    current = read_published(run.atlas_folder)
    if current is None:
        raise FileNotFoundError(f"{run.atlas_folder}: got no atlas to audit. Run lfm-atlas run")
    current = replace(current, weights=weight_agreements(run.catalog, current.relations))
    place = run.catalog.root / config.baseline
    baseline: PublishedAtlas | DataError | None
    try:
        baseline = read_published(place)
    except DataError as error:
        baseline = error
    ports = tuple(evaluate_ports(run.catalog))
    results = (
        *evaluate(config.checks, current, baseline),
        *evaluate_canary(run, current, baseline, restart=promote_anyway),
        *(result for result, _ in ports),
        guarded("control", True, control, run, current),
    )
    # Messages may name the baseline, whose path may hold a value of the environment.
    checks = tuple(replace(result, message=run.catalog.hide_values(result.message)) for result in results)
    if kept := run.notes.get("kept"):
        checks = (
            CheckResult("keep_if_below", "fail", True, message=f"{kept}; the checks are of the published one"),
            *checks,
        )
    key = baseline.key if isinstance(baseline, PublishedAtlas) else None
    parity = tuple(facts for _, facts in ports if facts is not None)
    audit = Audit(checks, current.key, key, False, run.catalog.root / config.path, parity)
    passes = config.promote == "on_pass" and audit.verdict != "fail"
    # What a zoo that is not mounted leaves is no baseline, even for those who ask for it.
    is_emptied = isinstance(baseline, PublishedAtlas) and has_spaces(baseline) and not has_spaces(current)
    if is_emptied and promote_anyway:
        problem = f"{run.atlas_folder}: got an atlas without spaces, expected some to promote over the baseline {place}"
        raise FolderError(f"{problem}. Look whether the zoo is mounted, and run again; or remove the baseline")
    if (passes and not is_emptied) or promote_anyway:
        audit = replace(audit, promoted=promote_atlas(run, current.key))
    groups = read_groups(run.atlas_folder)
    report = partial(render_report, current.atlas, current.summary, groups)
    write_audit(audit.folder, audit_facts(run, current, audit), checks, lambda shown: report(audit=shown))
    run.report_progress("audit", 1, 1)
    return audit


def promote_atlas(run: Run, key: str) -> bool:
    """Make the atlas, whose key is ``key``, the baseline of the catalog; return whether it was not before.

    Raises
    ------
    FolderError
        If the baseline is another catalog's by now, or holds what is not ours.
    StoreBusyError
        If another process publishes there.
    """
    place, catalog = run.catalog.root / run.catalog.audit.baseline, run.catalog.root / run.catalog.file
    with locked_atlas(place, AUDIT_PURPOSE):
        if refusal := why_of_another_catalog(run.catalog, run.store.root, BASELINE):
            raise FolderError(refusal)
        identity, was_published = catalog_id(catalog, place), holds_atlas(run.store.root, place)
        is_new = promote(run.atlas_folder, place, catalog=identity, was_published=was_published)
        add_reference_folder(run.store.root, key, place, catalog)
    return is_new


def has_spaces(published: PublishedAtlas) -> bool:
    """Return whether any space of an atlas has points."""
    return bool((published.atlas["n_points"].values > 0).any())


def read_published(folder: Path) -> PublishedAtlas | None:
    """Return the atlas in ``folder``, None if there is none; DataError if one is damaged."""
    if not (folder / "manifest.json").is_file():
        return None
    if published_key(folder) is None:
        problem = f"{folder}: got an atlas whose files are not as they were published"
        raise DataError("missing_source", f"{problem}, expected a whole one. Restore it, or audit with --promote")
    return PublishedAtlas(read_atlas(folder), read_json(folder / "summary.json"), age_in_days(folder))


def evaluate(
    checks: Checks, current: PublishedAtlas, baseline: PublishedAtlas | DataError | None
) -> Iterator[CheckResult]:
    """Yield the result of every check of the catalog, in the order of the checks."""
    for name, check in checks:
        if check is None:
            yield CheckResult(name, "skipped", False, message="switched off in the catalog")
        else:
            yield evaluate_check(check, current, baseline)


def evaluate_canary(
    run: Run, current: PublishedAtlas, baseline: PublishedAtlas | DataError | None, *, restart: bool
) -> Iterator[CheckResult]:
    """Yield the result of the canary, if the catalog has one; ``restart``: the vectors of now become the first ones."""
    canary = run.catalog.audit.canary
    if canary is None:
        return
    files = CanaryFiles(run.store, run.catalog.root / run.catalog.audit.path / FIRST_VECTORS)
    judge = partial(judge_canary, restart=restart)
    yield guarded("canary", canary.enforced, judge, canary, files, current, baseline)


def evaluate_ports(catalog: Catalog) -> Iterator[tuple[CheckResult, Mapping[str, Any] | None]]:
    """Yield the result of each port of the catalog, and the whole comparison; None where it could not be made."""
    for name, port in catalog.parity.items():
        check = f"parity.{name}"
        compared: list[Parity] = []
        result = guarded(check, port.enforced, judge_port, catalog, port, compared.append)
        yield result, port_facts(catalog, check, compared[0]) if compared else None


def evaluate_check(
    check: ZooCheck | BaselineCheck, current: PublishedAtlas, baseline: PublishedAtlas | DataError | None = None
) -> CheckResult:
    """Return the result of one check; a baseline that cannot be read is an error of a check that needs it."""
    name = check.key()
    if not isinstance(check, BaselineCheck):
        return guarded(name, check.enforced, check.evaluate, current)
    if isinstance(baseline, DataError):
        return CheckResult(name, "error", check.enforced, message=str(baseline))
    if baseline is None:
        return CheckResult(name, "skipped", check.enforced, message="there is no baseline yet")
    if check.compares_numbers and current.convention != baseline.convention:
        found = f"baseline: convention {baseline.convention}, atlas: {current.convention}"
        return CheckResult(name, "error", check.enforced, message=f"{found}. Promote a new baseline.")
    return guarded(name, check.enforced, check.evaluate, current, baseline)


def guarded(name: str, enforced: bool, measure: Callable[..., object], *arguments: Any) -> CheckResult:
    """Return the result of a check; one that stops with an unexpected error must not take the others with it."""
    start = perf_counter()
    result = _measured(name, enforced, measure, *arguments)
    return replace(result, seconds=round(perf_counter() - start, 4))


def _measured(name: str, enforced: bool, measure: Callable[..., object], *arguments: Any) -> CheckResult:
    try:
        measured = measure(*arguments)
    except OSError:
        # A full disk or a lost right ends the audit.
        raise
    except Exception as error:
        logger.exception("check %s failed", name)
        return CheckResult(name, "error", enforced, message=f"could not be judged: {type(error).__name__}: {error}")
    if isinstance(measured, Skipped):
        return CheckResult(name, "skipped", enforced, message=measured.message)
    if isinstance(measured, Unjudged):
        return CheckResult(name, "error" if enforced else "unjudged", enforced, message=measured.message)
    if not isinstance(measured, Measurement):
        message = f"could not be judged: got {measured!r} as result, expected a Measurement, Skipped or Unjudged"
        return CheckResult(name, "error", enforced, message=message)
    status: Status = "pass" if not measured.is_broken else "fail" if enforced else "warn"
    return CheckResult(
        name, status, enforced, measured.observed, measured.threshold, measured.message,
        tuple(measured.findings), measured.null,
    )  # fmt: skip


_NOTE = (
    "Similarity is evidence of lineage, not proof. Limits are only as good as the zoo they are measured on. "
    "Compare them with the null of each check."
)


def audit_facts(run: Run, current: PublishedAtlas, audit: Audit) -> dict[str, Any]:
    """Return the content of ``audit.json`` for an audit."""
    return {
        "schema_version": AUDIT_VERSION,
        "program": f"lfm-atlas {__version__}",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "verdict": audit.verdict,
        "sentence": audit.sentence,
        "note": _NOTE,
        "atlas": audit.atlas,
        "baseline": audit.baseline,
        "promoted": audit.promoted,
        "computed": run.stage_counts.computed,
        "reused": run.stage_counts.reused,
        "counts": current.summary["counts"],
        "checks": [asdict(check) for check in audit.checks],
        "parity": list(audit.parity),
    }
