"""From catalog to audit: the atlas brought up to date, then the checks."""

from dataclasses import dataclass

from flows.pipeline import Outcome, StageCaller, build_atlas, directly
from lfm_tasks.audit import Audit, audit_atlas
from lfm_tasks.runtime.run import Run


@dataclass(frozen=True)
class Audited:
    """What the run came to, and the audit of its atlas."""

    outcome: Outcome
    audit: Audit


def audit_zoo(run: Run, promote: bool, as_stage: StageCaller = directly) -> Audited:
    """Compute what is missing, then check the atlas; ``promote``: it becomes the baseline whatever is found."""
    outcome = build_atlas(run, as_stage)
    return Audited(outcome, as_stage(audit_atlas)(run, promote))
