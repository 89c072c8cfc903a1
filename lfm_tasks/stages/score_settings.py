"""By what pairs are scored: everything but the two bases that can change a score, under one digest."""

from collections.abc import Mapping
from dataclasses import dataclass

from lfm_tasks.config import AtlasConfig, NullConfig
from lfm_tasks.spaces import Space
from lfm_tasks.stages.asked import Asked, AskedPair
from lfm_tasks.stages.blocks import ScoreSettings
from lfm_tasks.stages.knowledge import EVERY_POINT, Knowledge
from lfm_tasks.stages.map_scores import MAP_SCORES
from lfm_tasks.stages.pair_places import ScoredPair
from lfm_tasks.stores.digests import digest


@dataclass(frozen=True)
class Way:
    """How pairs under one setting are scored: their knowledge, and the units of their design and labels, or empty."""

    knowledge: Knowledge
    design: str
    labels: str


def all_settings(
    atlas: AtlasConfig, asked: Mapping[AskedPair, Asked], designs: Mapping[str, str], labels: Mapping[str, str]
) -> dict[tuple[str, Asked], ScoreSettings]:
    """Return the settings of every dataset and wish that pairs are asked for by."""
    # Pairs share their wishes, which take a while to compare: each is looked at once.
    kinds = {(space.dataset, id(wish)): wish for (space, _), wish in asked.items()}
    return {
        (dataset, wish): score_settings(atlas, wish, designs.get(dataset, ""), labels.get(dataset, ""))
        for (dataset, _), wish in kinds.items()
    }


def scored_pairs(
    asked: Mapping[AskedPair, Asked], settings: Mapping[tuple[str, Asked], ScoreSettings], keys: Mapping[Space, str]
) -> dict[AskedPair, ScoredPair]:
    """Return the pairs as blocks name them: by the keys of their bases."""
    found: dict[AskedPair, ScoredPair] = {}
    own: dict[tuple[str, int], ScoreSettings] = {}
    for (source, target), wish in asked.items():
        first, second = keys[source], keys[target]
        kind = (source.dataset, id(wish))
        if kind not in own:
            own[kind] = settings[source.dataset, wish]
        found[source, target] = (own[kind], min(first, second), max(first, second))
    return found


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
