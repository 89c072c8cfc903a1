"""All checks of an audit, in the order in which they are told."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

from lfm_tasks.audit.changes import changed_weights_same_version, drift, missing, stale_baseline
from lfm_tasks.audit.check import Check
from lfm_tasks.audit.conduct import licence, quality
from lfm_tasks.audit.lineage import declared_parent_far, near_duplicate, undeclared_lineage
from lfm_tasks.audit.published import Published
from lfm_tasks.catalog.audit import Checks
from lfm_tasks.reasons import ReasonError

logger = logging.getLogger(__name__)

OF_THE_ZOO: dict[str, Callable[[Any, Published], Check]] = {
    "near_duplicate": near_duplicate,
    "undeclared_lineage": undeclared_lineage,
    "declared_parent_far": declared_parent_far,
    "licence": licence,
    "quality": quality,
}
AGAINST_BASELINE: dict[str, Callable[[Any, Published, Published | None], Check]] = {
    "drift": drift,
    "changed_weights_same_version": changed_weights_same_version,
    "missing": missing,
    "stale_baseline": stale_baseline,
}


def evaluate(checks: Checks, now: Published, baseline: Published | ReasonError | None) -> Iterator[Check]:
    """Yield every check; one that is switched off is skipped, a baseline that cannot be read is an error."""
    for name in Checks.model_fields:
        limit = getattr(checks, name)
        if limit is None:
            yield Check(name, "skipped", False, message="switched off in the catalog")
        elif name in OF_THE_ZOO:
            yield guarded(name, limit.enforced, OF_THE_ZOO[name], limit, now)
        elif isinstance(baseline, ReasonError):
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
