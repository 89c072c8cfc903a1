"""By what pairs are scored: everything but the two bases that can change a score, under one digest."""

from collections.abc import Mapping
from dataclasses import dataclass

from lfm_tasks.config import AtlasConfig, NullConfig
from lfm_tasks.spectral.bases.map_measures import MAP_SCORES
from lfm_tasks.stages.inventory.correspondence import EVERY_POINT, Knowledge
from lfm_tasks.stages.inventory.requests import Asked
from lfm_tasks.stages.scores.block import ScoreSettings
from lfm_tasks.stages.scores.requested_pairs import AskedPairs
from lfm_tasks.stores.units.digests import digest


@dataclass(frozen=True)
class Way:
    """How pairs under one setting are scored: their knowledge, and the units of their design and labels, or empty."""

    knowledge: Knowledge
    design: str
    labels: str


def all_settings(
    atlas: AtlasConfig, pairs: AskedPairs, designs: Mapping[str, str], labels: Mapping[str, str]
) -> dict[tuple[str, int], ScoreSettings]:
    """Return the settings of every dataset and (numbered) wish that pairs are asked for by."""
    return {
        (dataset, number): score_settings(
            atlas, pairs.wishes[number], designs.get(dataset, ""), labels.get(dataset, "")
        )
        for dataset, number, _ in pairs.by_dataset()
    }


def maps_from(asked: Asked) -> Knowledge:
    """Return what maps are fitted from; where none are asked for, the same for all."""
    return asked.knowledge if asked.measures & MAP_SCORES.keys() else EVERY_POINT


def score_settings(atlas: AtlasConfig, asked: Asked, design: str, labels: str) -> ScoreSettings:
    """Return everything but the two bases that can change a score."""
    maps = maps_from(asked)
    rest = digest(
        {
            "kind": "scores",
            "maps": maps.ingredients(),
            "labels": labels if maps.regime == "labels" else "",
            "graph": [] if maps.regime == "full" else [atlas.graph.metric, atlas.graph.kernel],
            "null": _null(atlas.null, maps),
            "intervals": atlas.intervals.model_dump(),
            "min_overlap": atlas.min_overlap,
            "design": design,
        }
    )
    return ScoreSettings(rest, tuple(sorted(asked.measures)))


def _null(null: NullConfig, maps: Knowledge) -> dict[str, int]:
    """Return what chance is sampled by: only maps that are grown from something known are grown from random pairs."""
    is_grown = maps.regime in ("anchors", "labels") and maps.refine == "zoomout"
    return null.model_dump(exclude=set() if is_grown else {"n_refined"})
