"""What a run would do: units that are there, units that are missing."""

from lfm_tasks.catalog import Catalog
from lfm_tasks.stages.validate import Zoo
from lfm_tasks.stores.units import UnitStore


def plan_run(catalog: Catalog, zoo: Zoo) -> list[str]:
    """Return the plan in lines. What recording will find is unknown before it is done, and counted as new."""
    store = UnitStore(catalog.root / catalog.atlas.store)
    recorded = [planned for planned in zoo.spaces if store.has("activations", planned.key)]
    n_new = len(zoo.spaces) - len(recorded)
    by_dataset: dict[str, int] = {}
    for planned in zoo.spaces:
        by_dataset[planned.space.dataset] = by_dataset.get(planned.space.dataset, 0) + 1
    n_pairs = sum(n * (n + 1) // 2 for n in by_dataset.values())
    n_kept = len(recorded) * (len(recorded) + 1) // 2
    return [
        f"spaces       {len(zoo.spaces)} ({len(zoo.failures)} models cannot be used: see lfm-atlas validate)",
        f"activations  {n_new} to record, {len(recorded)} recorded",
        f"bases        at least {n_new} to compute",
        f"scores       at least {max(0, n_pairs - n_kept)} of {n_pairs} pairs to compute, each in both directions",
    ]
