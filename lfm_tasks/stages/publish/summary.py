"""What a program or a hurried reader wants to know of an atlas."""

from dataclasses import asdict
from typing import Any

from lfm_tasks.runtime.run import Run
from lfm_tasks.runtime.versions import versions
from lfm_tasks.stages.inventory.requests import comparison_facts, n_directed_pairs
from lfm_tasks.stages.publish.contents import Contents, meta, settings
from lfm_tasks.stores.atlas.schema import SCHEMA_VERSION


def summary(run: Run, found: Contents) -> dict[str, Any]:
    """Return what a program or a hurried reader wants to know."""
    return {
        "schema_version": SCHEMA_VERSION,
        "title": "Similarity atlas",
        "key": found.key,
        "counts": {
            "models": len({based.space.model for based in found.spaces}),
            "spaces": len(found.spaces),
            "directed_pairs": n_directed_pairs(found.parts, {based.space for based in found.spaces}),
            "failures": len(found.failures),
            "directed_pairs_without_score": sum(refused.count for refused in found.refused),
        },
        "failures": [asdict(failure) for failure in found.failures],
        "comparisons": comparison_facts(found.parts),
        "pairs_without_score": [asdict(refused) for refused in found.refused],
        "models": [{"name": name, "meta": meta} for name, meta in meta(run).items()],
        "settings": settings(run),
        "versions": versions(),
    }
