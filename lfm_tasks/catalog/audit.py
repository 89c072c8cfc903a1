"""The section ``audit`` of a catalog: what an audit checks, with which limits, and against which baseline."""

from typing import Annotated, Literal

from pydantic import Field

from lfm_tasks.config import Settings


class NearDuplicate(Settings):
    """Models of different families that are almost the same model."""

    at_least: float = Field(default=0.97, gt=0, le=1, description="calibrated similarity of two models, in (0, 1]")
    enforced: bool = True


class UndeclaredLineage(Settings):
    """Models of different families that are far more alike than unrelated ones."""

    z_above: float = Field(default=4.5, gt=0, description="robust standard deviations above unrelated pairs")
    enforced: bool = False


class DeclaredParentFar(Settings):
    """Models that are not like the base that they say they came from."""

    below: float = Field(default=0.6, gt=0, le=1, description="calibrated similarity of a model and its base")
    enforced: bool = False


class Drift(Settings):
    """Scores that left the interval of the baseline."""

    max_change: float = Field(default=0.02, ge=0, description="change of a score that counts, in the measure's unit")
    enforced: bool = True


class ChangedWeights(Settings):
    """Models whose activations changed while ``meta.version`` did not."""

    enforced: bool = True


class License(Settings):
    """Models with a license that is not allowed, or not that of their base."""

    allow: Annotated[tuple[str, ...], Field(strict=False)] = Field(default=(), description="nothing: any license")
    same_as_base: bool = True
    enforced: bool = False


class Missing(Settings):
    """Models of the baseline that are gone."""

    enforced: bool = True


class Quality(Settings):
    """Too few points, spaces that failed, scores that do not repeat on the other half of the points."""

    min_points: int = Field(default=200, ge=1)
    max_failed: int = Field(default=0, ge=0, description="models, spaces and pairs without a score")
    min_reliability: float = Field(default=0.5, ge=-1, le=1, description="agreement of scores from halves: noise floor")
    enforced: bool = True


class StaleBaseline(Settings):
    """A baseline that is old, or was made with other settings."""

    max_days: float = Field(default=90, gt=0, description="days since it was promoted, if the atlas has changed since")
    enforced: bool = False


class Checks(Settings):
    """The checks of an audit; ``null`` switches one off, ``enforced: false`` makes a broken limit a warning."""

    near_duplicate: NearDuplicate | None = NearDuplicate()
    undeclared_lineage: UndeclaredLineage | None = UndeclaredLineage()
    declared_parent_far: DeclaredParentFar | None = DeclaredParentFar()
    drift: Drift | None = Drift()
    changed_weights_same_version: ChangedWeights | None = ChangedWeights()
    license: License | None = License()
    missing: Missing | None = Missing()
    quality: Quality | None = Quality()
    stale_baseline: StaleBaseline | None = StaleBaseline()


class AuditConfig(Settings):
    """What ``lfm-atlas audit`` checks, and where it writes; paths are relative to the catalog."""

    path: str = Field(default="audits", min_length=1, description="folder of audit.json, the page and the history")
    baseline: str = Field(default="baseline", min_length=1, description="folder of the atlas to compare with")
    promote: Literal["on_pass", "never"] = "on_pass"
    checks: Checks = Checks()
