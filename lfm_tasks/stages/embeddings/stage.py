"""Stage embeddings: pictures of chosen spaces, and what linear probes read off them before and after transfer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import xarray as xr

from lfm_tasks.runtime.run import Failure, Run
from lfm_tasks.spaces import Space
from lfm_tasks.stages.bases.stage import SpaceBasis, not_computed
from lfm_tasks.stages.embeddings.job import (
    EmbeddedPoints,
    embed_by_tsne,
    probe_pairs,
    probed_pair,
    read_points,
    store_points,
)
from lfm_tasks.stages.inventory.requests import embedded_spaces
from lfm_tasks.stages.inventory.stage import Zoo
from lfm_tasks.stages.kept_maps.stage import embedded_pairs
from lfm_tasks.stages.scores.stage import ScoredPairs
from lfm_tasks.stores.units.store import UnitStore, digest

_MEANINGS = {
    "tsne": "t-SNE of a space: near points are near in it, distances and sizes of groups mean nothing",
    "probe_accuracy": "of a linear probe (ridge) on points it was not trained on, 5 stratified folds, in [0, 1]",
    "probe_after_transfer": (
        "of the target's probe on the source's points, carried by a rotation and scale fitted on the training folds; "
        "the target's own where source and target are one space"
    ),
}


@dataclass(frozen=True)
class Embeddings:
    """The section ``embeddings``: spaces in the order of names, the picture of each ("": none), accuracies.

    ``points`` are keys, by dataset.
    """

    spaces: tuple[SpaceBasis, ...] = ()
    pictures: tuple[str, ...] = ()
    accuracies: Mapping[tuple[str, str, str], float] = field(default_factory=dict)
    points: Mapping[str, str] = field(default_factory=dict)

    @property
    def keys(self) -> tuple[str, ...]:
        """One digest of names, pictures, points and accuracies; none without any space."""
        if not self.spaces:
            return ()
        named = [based.space._asdict() for based in self.spaces]
        accuracies = sorted([*pair, value] for pair, value in self.accuracies.items())
        content = {"spaces": named, "pictures": self.pictures, "points": self.points, "accuracies": accuracies}
        return (digest({"kind": "embeddings of an atlas", **content}),)

    @property
    def made_of(self) -> dict[str, set[str]]:
        """The pictures and the points that they show."""
        return {"embeddings": {key for key in self.pictures if key}, "embedded_points": set(self.points.values())}

    def groups(self, run: Run) -> dict[str, xr.Dataset]:
        """Return ``embeddings/<dataset>``: pictures (space, point, axis), accuracies (space) and (source, target)."""
        drawn = zip((based.space for based in self.spaces), self.pictures, strict=True)
        by_dataset = groupby(drawn, key=lambda one: one[0].dataset)
        return {f"embeddings/{dataset}": self._group(run, dataset, dict(own)) for dataset, own in by_dataset}

    def _group(self, run: Run, dataset: str, drawn: Mapping[Space, str]) -> xr.Dataset:
        points = read_points(run.store, self.points[dataset])
        names = [space.name for space in drawn]
        pictures = np.full((len(names), len(points.ids), 2), np.nan, dtype=np.float32)
        for number, key in enumerate(drawn.values()):
            if key:
                _fill_in(pictures[number], run.store, key, points)
        pairs = [[(dataset, source, target) for target in names] for source in names]
        accuracies = np.array([[self.accuracies.get(pair, np.nan) for pair in row] for row in pairs])
        variables = {
            "tsne": (("space", "point", "axis"), pictures),
            "probe_accuracy": (("space",), np.diag(accuracies).copy()),
            "probe_after_transfer": (("source", "target"), accuracies),
        }
        coordinates = {dim: np.array(names, dtype=object) for dim in ("space", "source", "target")}
        coordinates["point"] = points.ids.astype(object)
        settings = run.catalog.atlas.embeddings
        attributes = {"metric": run.catalog.atlas.graph.metric, "no_probe_because": points.reason}
        attributes |= {} if settings is None else settings.model_dump(include={"perplexity", "seed"})
        group = xr.Dataset(variables, coordinates, attributes)
        for name, meaning in _MEANINGS.items():
            group[name].attrs["long_name"] = meaning
        return group.assign_coords(label=("point", points.labels.astype(object)))


def embed_spaces(run: Run, zoo: Zoo, spaces: tuple[SpaceBasis, ...], scored: ScoredPairs) -> Embeddings:
    """Draw the chosen spaces and probe them, where that is not stored; nothing unless the catalog chooses some."""
    settings = run.catalog.atlas.embeddings
    if settings is None or scored.n_not_computed or not_computed(run, zoo, spaces):
        return Embeddings()
    based = {one.space: one for one in spaces}
    chosen = [based[space] for space in sorted(embedded_spaces(run.catalog, based))]
    points = {dataset: store_points(run, zoo.rows[dataset]) for dataset in sorted({b.space.dataset for b in chosen})}
    keys, undrawn = embed_by_tsne(run, settings, [(one, points[one.space.dataset]) for one in chosen])
    pairs = [(one, one) for one in chosen]
    for first, second in sorted(embedded_pairs(run.catalog, zoo, based, scored)):
        pairs += [(based[first], based[second]), (based[second], based[first])]
    probed = [(*pair, own) for pair in pairs if not (own := points[pair[0].space.dataset]).reason]
    found, unprobed = probe_pairs(run, probed)
    accuracies = {
        (source.space.dataset, source.space.name, target.space.name): found[pair]
        for source, target, own in probed
        if (pair := probed_pair(source, target, own)) in found
    }
    why = {one.space: undrawn[key] for one, key in zip(chosen, keys, strict=True) if key in undrawn}
    for source, target, own in probed:
        if trouble := unprobed.get(probed_pair(source, target, own)):
            why.setdefault(target.space, trouble)
    pictures = tuple("" if key in undrawn else key for key in keys)
    run.failures.extend(
        Failure(space.dataset, space.model, space.layer, "embeddings", trouble.reason, trouble.message)
        for space, trouble in why.items()
    )
    keys_of_points = {dataset: own.key for dataset, own in points.items()}
    return Embeddings(tuple(chosen), pictures, accuracies, keys_of_points)


def _fill_in(picture: np.ndarray, store: UnitStore, key: str, points: EmbeddedPoints) -> None:
    with store.open("embeddings", key) as unit:
        picture[np.searchsorted(points.ids, unit.read("ids"))] = unit.read("coordinates")
