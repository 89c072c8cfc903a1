"""The stage itself: read the published atlas and the baseline, check, write, promote."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from lfm_tasks import __version__
from lfm_tasks.audit.changes import changed_weights_same_version, drift, missing, stale_baseline
from lfm_tasks.audit.files import SCHEMA_VERSION, Check, Published, write_audit
from lfm_tasks.audit.lineage import declared_parent_far, near_duplicate, undeclared_lineage
from lfm_tasks.audit.zoo_checks import control, license, quality
from lfm_tasks.catalog.audit import Checks
from lfm_tasks.errors import DataError
from lfm_tasks.report import render_report
from lfm_tasks.runtime.run import Run
from lfm_tasks.stores.atlas.files import age_in_days, promote, published_key, read_atlas, read_groups, read_json
from lfm_tasks.stores.units.references import note_folder

logger = logging.getLogger(__name__)

OF_THE_ZOO: dict[str, Callable[[Any, Published], Check]] = {
    "near_duplicate": near_duplicate,
    "undeclared_lineage": undeclared_lineage,
    "declared_parent_far": declared_parent_far,
    "license": license,
    "quality": quality,
}
AGAINST_BASELINE: dict[str, Callable[[Any, Published, Published | None], Check]] = {
    "drift": drift,
    "changed_weights_same_version": changed_weights_same_version,
    "missing": missing,
    "stale_baseline": stale_baseline,
}


def evaluate(checks: Checks, now: Published, baseline: Published | DataError | None) -> Iterator[Check]:
    """Yield every check; one that is switched off is skipped, a baseline that cannot be read is an error."""
    for name in Checks.model_fields:
        limit = getattr(checks, name)
        if limit is None:
            yield Check(name, "skipped", False, message="switched off in the catalog")
        elif name in OF_THE_ZOO:
            yield guarded(name, limit.enforced, OF_THE_ZOO[name], limit, now)
        elif isinstance(baseline, DataError):
            yield Check(name, "error", limit.enforced, message=str(baseline))
        else:
            yield guarded(name, limit.enforced, AGAINST_BASELINE[name], limit, now, baseline)


def guarded(name: str, enforced: bool, check: Callable[..., Check], *arguments: Any) -> Check:
    """Return a check; one that stops with an unexpected error must not take the others with it."""
    try:
        return check(*arguments)
    except OSError:
        # A full disk or a lost right ends the audit.
        raise
    except Exception as error:
        logger.exception("check %s failed", name)
        return Check(name, "error", enforced, message=f"could not be told: {type(error).__name__}: {error}")


_NOTE = (
    "Similarity is evidence of lineage, not proof. Limits are only as good as the zoo they are measured on: "
    "compare them with the null of each check."
)


@dataclass(frozen=True)
class Audit:
    """What an audit came to; ``folder`` holds its files."""

    checks: tuple[Check, ...]
    atlas: str
    baseline: str | None
    promoted: bool
    folder: Path

    @property
    def verdict(self) -> Literal["pass", "warn", "fail"]:
        """fail: an enforced check is broken or could not be told."""
        if any(check.breaks for check in self.checks):
            return "fail"
        return "warn" if any(check.status in ("warn", "error") for check in self.checks) else "pass"

    @property
    def sentence(self) -> str:
        """The verdict in a line."""
        broken = [check.name for check in self.checks if check.breaks]
        if broken:
            return f"{len(broken)} of {len(self.checks)} checks broke their limit: {', '.join(broken)}"
        warned = [check.name for check in self.checks if check.status in ("warn", "error")]
        return f"{len(self.checks)} checks, {len(warned)} warnings" + (f": {', '.join(warned)}" if warned else "")


def audit_atlas(run: Run, promote_anyway: bool = False) -> Audit:
    """Check the published atlas, write what was found; the baseline is replaced after a pass, or when asked for."""
    run.announce("audit", 0, 1)
    config = run.catalog.audit
    now = read_published(run.atlas_folder)
    if now is None:
        raise FileNotFoundError(f"{run.atlas_folder}: found no atlas to audit: run lfm-atlas run")
    place = run.catalog.root / config.baseline
    baseline: Published | DataError | None
    try:
        baseline = read_published(place)
    except DataError as error:
        baseline = error
    checks = (*evaluate(config.checks, now, baseline), guarded("control", True, control, run, now))
    key = baseline.key if isinstance(baseline, Published) else None
    audit = Audit(checks, now.key, key, False, run.catalog.root / config.path)
    passes = config.promote == "on_pass" and audit.verdict != "fail"
    if passes or promote_anyway:
        audit = Audit(checks, now.key, key, promote(run.atlas_folder, place), audit.folder)
        note_folder(run.store.root, now.key, place)
    groups = read_groups(run.atlas_folder)
    report = partial(render_report, now.atlas, now.summary, groups)
    write_audit(audit.folder, _facts(run, now, audit), checks, lambda shown: report(audit=shown))
    run.announce("audit", 1, 1)
    return audit


def read_published(folder: Path) -> Published | None:
    """Return the atlas in ``folder``; None where there is none, DataError where one is damaged."""
    if not (folder / "manifest.json").is_file():
        return None
    if published_key(folder) is None:
        found = f"{folder}: found an atlas whose files are not as they were published"
        raise DataError("missing_source", f"{found}, needs a whole one: restore it, or audit with --promote")
    return Published(read_atlas(folder), read_json(folder / "summary.json"), age_in_days(folder))


def _facts(run: Run, now: Published, audit: Audit) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
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
        "counts": now.summary["counts"],
        "checks": [asdict(check) for check in audit.checks],
    }
