"""What a check comes to: a status, what was observed, the limit, and the evidence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

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
