"""From catalog to atlas, and from atlas to audit: the stages in their order."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lfm_tasks.audit import Audit, audit_atlas
from lfm_tasks.planning import check_memory
from lfm_tasks.runtime.run import Failure, Run
from lfm_tasks.stages.activations.stage import record_activations
from lfm_tasks.stages.bases.stage import build_bases
from lfm_tasks.stages.collection.stage import fit_collections
from lfm_tasks.stages.embeddings.stage import embed_spaces
from lfm_tasks.stages.inventory.stage import validate
from lfm_tasks.stages.kept_maps.stage import keep_maps
from lfm_tasks.stages.publish.contents import contents
from lfm_tasks.stages.publish.stage import publish_atlas
from lfm_tasks.stages.scores.stage import UnscoredPairs, score_pairs
from lfm_tasks.stages.transfers.stage import fit_transfers

StageCaller = Callable[[Callable[..., Any]], Callable[..., Any]]


@dataclass(frozen=True)
class Outcome:
    """What a run came to; ``unpublished`` says what is still to compute where it was part of the catalog only.

    ``put_aside``: what was found damaged in the store, and was made again if it was needed.
    """

    n_spaces: int
    failures: tuple[Failure, ...]
    refused: tuple[UnscoredPairs, ...]
    is_new: bool
    computed: dict[str, int]
    reused: dict[str, int]
    unpublished: str = ""
    put_aside: tuple[str, ...] = ()


def call_directly(stage: Callable[..., Any]) -> Callable[..., Any]:
    """Call a stage as the plain function that it is."""
    return stage


def build_atlas(run: Run, as_stage: StageCaller = call_directly) -> Outcome:
    """Run all stages; ``as_stage`` says how each is called (directly, or as a Prefect task)."""
    zoo = as_stage(validate)(run)
    check_memory(run, zoo)
    recorded = as_stage(record_activations)(run, zoo)
    spaces = as_stage(build_bases)(run, zoo, recorded)
    scored = as_stage(score_pairs)(run, zoo, spaces)
    collections = as_stage(fit_collections)(run, spaces, scored)
    kept = as_stage(keep_maps)(run, zoo, spaces, scored)
    transfers = as_stage(fit_transfers)(run, zoo, spaces)
    embedded = as_stage(embed_spaces)(run, zoo, spaces, scored)
    found = contents(run, zoo, spaces, scored, collections, kept, transfers, embedded)
    is_new = as_stage(publish_atlas)(run, found)
    counts, failures = run.stage_counts, tuple(run.failures)
    aside = tuple(run.notes.get("put_aside", ()))
    return Outcome(
        len(spaces), failures, found.refused, is_new, counts.computed, counts.reused, found.unpublished, aside
    )


@dataclass(frozen=True)
class Audited:
    """What the run came to, and the audit of its atlas."""

    outcome: Outcome
    audit: Audit


def audit_zoo(run: Run, promote: bool, as_stage: StageCaller = call_directly) -> Audited:
    """Compute what is missing, then check the atlas; ``promote``: it becomes the baseline whatever is found."""
    outcome = build_atlas(run, as_stage)
    return Audited(outcome, as_stage(audit_atlas)(run, promote))
