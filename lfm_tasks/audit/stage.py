"""The stage itself: read the published atlas and the baseline, check, write, promote."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from lfm_tasks import __version__
from lfm_tasks.audit.check import Check
from lfm_tasks.audit.control import control
from lfm_tasks.audit.evaluate import evaluate, guarded
from lfm_tasks.audit.files import SCHEMA_VERSION, write_audit
from lfm_tasks.audit.published import Published
from lfm_tasks.reasons import ReasonError
from lfm_tasks.report import render_report
from lfm_tasks.runtime.run import Run
from lfm_tasks.stores.atlas.baselines import age_in_days, promote
from lfm_tasks.stores.atlas.files import published_key, read_atlas, read_groups, read_json
from lfm_tasks.stores.units.references import note_folder

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
    baseline: Published | ReasonError | None
    try:
        baseline = read_published(place)
    except ReasonError as error:
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
    """Return the atlas in ``folder``; None where there is none, ReasonError where one is damaged."""
    if not (folder / "manifest.json").is_file():
        return None
    if published_key(folder) is None:
        found = f"{folder}: found an atlas whose files are not as they were published"
        raise ReasonError("missing_source", f"{found}, needs a whole one: restore it, or audit with --promote")
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
        "computed": run.tally.computed,
        "reused": run.tally.reused,
        "counts": now.summary["counts"],
        "checks": [asdict(check) for check in audit.checks],
    }
