"""What a run would do: units that are there, units that are missing."""

from lfm_tasks.catalog import Catalog
from lfm_tasks.stages.activations import recorded_space
from lfm_tasks.stages.asked import asked_pairs
from lfm_tasks.stages.bases import basis_job
from lfm_tasks.stages.map_fits import MapSide
from lfm_tasks.stages.scores import all_settings, scored_pairs, stored_pairs
from lfm_tasks.stages.store import unit_store
from lfm_tasks.stages.transfers import transfer_jobs, transfer_pairs
from lfm_tasks.stages.validate import Zoo


def plan_run(catalog: Catalog, zoo: Zoo) -> list[str]:
    """Return the plan in lines.

    What is recorded is known by its content, and so is all that follows from it. What is still to be recorded counts
    as new, although it may turn out to equal something that is there.
    """
    store = unit_store(catalog)
    recorded = [recorded_space(store, planned) for planned in zoo.spaces if store.has("activations", planned.key)]
    n_unrecorded = len(zoo.spaces) - len(recorded)
    bases = {(space.space.dataset, basis_job(store, catalog.atlas, space).key) for space in recorded}
    n_present = sum(store.has("bases", key) for _, key in bases)
    keys = {planned.space: planned.key for planned in zoo.spaces}
    keys |= {space.space: basis_job(store, catalog.atlas, space).key for space in recorded}
    asked = asked_pairs(zoo.parts, keys)
    designs = {dataset: design.key for dataset, design in zoo.designs.items()}
    labels = {dataset: own.key for dataset, own in zoo.labels.items()}
    settings = all_settings(catalog.atlas, asked, designs, labels)
    wanted = set(scored_pairs(asked, settings, keys).values())
    n_scored = len(wanted & stored_pairs(store, set(settings.values())).keys())
    carried, n_unfitted = transfer_pairs(catalog, zoo.parts), 0
    if carried:
        sides = {one.space: MapSide(one.space, one.key, one.content) for one in recorded}
        fitted = {job.key for _, job in transfer_jobs(store, catalog, carried, sides)}
        n_unrecorded_pairs = sum(pair.source not in sides or pair.target not in sides for pair in carried)
        n_unfitted = n_unrecorded_pairs + sum(not store.has("maps", key) for key in fitted)
    transfers = f"transfers    {n_unfitted} maps to fit for {len(carried)} directed pairs"
    return [
        *catalog.warnings(),
        f"spaces       {len(zoo.spaces)} ({len(zoo.failures)} models or layers cannot be used: see lfm-atlas validate)",
        f"activations  {n_unrecorded} to record, {len(recorded)} kept",
        f"bases        {len(bases) - n_present + n_unrecorded} to compute, {n_present} kept",
        f"scores       {len(wanted) - n_scored} pairs to compute, {n_scored} kept, each in both directions",
        *([transfers] if carried else []),
    ]
