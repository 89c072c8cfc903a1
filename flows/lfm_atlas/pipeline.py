"""The stages in their order, from a catalog to an atlas and from an atlas to an audit."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lfm_tasks.audit import Audit, audit_atlas
from lfm_tasks.planning import check_memory
from lfm_tasks.runtime.folders import AUDITS, BASELINE, refuse_folders, refuse_read_only, written_by_audit
from lfm_tasks.runtime.run import Failure, Run
from lfm_tasks.stages.across_datasets.stage import compare_across_datasets
from lfm_tasks.stages.activations.stage import record_activations
from lfm_tasks.stages.bases.stage import build_bases
from lfm_tasks.stages.collection.stage import fit_collections
from lfm_tasks.stages.embeddings.stage import embed_spaces
from lfm_tasks.stages.inventory.stage import validate
from lfm_tasks.stages.kept_maps.stage import keep_maps
from lfm_tasks.stages.previews.stage import choose_previews
from lfm_tasks.stages.publish.stage import atlas_spec, publish_atlas
from lfm_tasks.stages.scores.stage import UnscoredPairs, score_pairs
from lfm_tasks.stages.transfers.stage import fit_transfers

StageCaller = Callable[[Callable[..., Any]], Callable[..., Any]]


@dataclass(frozen=True)
class Outcome:
    """The result of a run.

    Attributes
    ----------
    n_spaces
        How many spaces the atlas has.
    failures
        Spaces that could not be used.
    unscored
        Groups of pairs that could not be scored.
    is_new
        Whether the run published an atlas; False if the published one was up to date.
    computed, reused
        How many units each stage computed, and how many it read from the store.
    unpublished
        Why the atlas was not published, in words: what is still to compute, where the run covered only a part of the
        catalog, or which spaces are not there again (``is_kept``); else "".
    is_kept
        Whether the published atlas stays because the new one has too few of its spaces (``atlas.keep_if_below``).
    quarantined
        Damaged units of the store; the run computed again those that it needed.
    recorded
        What people should know of the models that the run read or recorded: rows left out, texts that were cut.
    """

    n_spaces: int
    failures: tuple[Failure, ...]
    unscored: tuple[UnscoredPairs, ...]
    is_new: bool
    computed: dict[str, int]
    reused: dict[str, int]
    unpublished: str = ""
    is_kept: bool = False
    quarantined: tuple[str, ...] = ()
    recorded: tuple[str, ...] = ()


def call_directly(stage: Callable[..., Any]) -> Callable[..., Any]:
    """Return the stage unchanged: it runs as the plain function that it is."""
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
    across = as_stage(compare_across_datasets)(run, zoo, spaces)
    transfers = as_stage(fit_transfers)(run, zoo, spaces)
    embedded = as_stage(embed_spaces)(run, zoo, spaces, scored)
    previews = choose_previews(run, kept)
    atlas = atlas_spec(run, zoo, spaces, scored, collections, kept, across, transfers, embedded, previews)
    publication = as_stage(publish_atlas)(run, atlas)
    return Outcome(
        n_spaces=len(spaces),
        failures=tuple(run.failures),
        unscored=atlas.unscored,
        is_new=publication.is_new,
        computed=run.stage_counts.computed,
        reused=run.stage_counts.reused,
        unpublished=atlas.unpublished or publication.kept,
        is_kept=bool(publication.kept),
        quarantined=tuple(run.notes.get("quarantined", ())),
        recorded=tuple(note for kind in ("convention", "left_out", "recorded") for note in run.notes.get(kind, ())),
    )


@dataclass(frozen=True)
class AuditOutcome:
    """The result of a run, and the audit of its atlas."""

    run: Outcome
    audit: Audit


def audit_zoo(run: Run, promote: bool, as_stage: StageCaller = call_directly) -> AuditOutcome:
    """Build the atlas, then check it; ``promote`` makes it the baseline whatever the checks find."""
    # Before anything is computed.
    refuse_folders(run.catalog, AUDITS, BASELINE)
    refuse_read_only(run.catalog, *written_by_audit(run.catalog, promote))
    outcome = build_atlas(run, as_stage)
    return AuditOutcome(outcome, as_stage(audit_atlas)(run, promote))
