"""A published atlas as the checks see it: its scores, what it says of models, pairs of models."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import xarray as xr

from lfm_tasks.stages.publish.zoo_statistics import families
from lfm_tasks.statistics.model_pairs import best_match, pairs_of_models, symmetrised

# What may differ between two atlases whose scores are still the same numbers.
_NOT_IN_SCORES = ("measures", "null")


@dataclass(frozen=True)
class ModelPair:
    """Two models of one dataset: how alike they are, and whether ``base_model`` links them.

    ``similarity`` is calibrated: each layer with its best match, averaged over layers and both directions; ``closest``
    that of the two layers that are most alike.
    """

    dataset: str
    source: str
    target: str
    similarity: float
    closest: float
    related: bool

    def finding(self, **more: Any) -> dict[str, Any]:
        """Return the pair as evidence."""
        place = {"dataset": self.dataset, "source": self.source, "target": self.target}
        return place | {"similarity": round(self.similarity, 4), "closest_layers": round(self.closest, 4)} | more


@dataclass(frozen=True)
class Published:
    """An atlas and its summary; ``days``: since it was written."""

    atlas: xr.Dataset
    summary: Mapping[str, Any]
    days: float = 0.0

    @property
    def key(self) -> str:
        """The key of the atlas."""
        return str(self.summary["key"])

    @cached_property
    def meta(self) -> dict[str, dict[str, Any]]:
        """What the catalog said of each model."""
        return {model["name"]: model["meta"] for model in self.summary["models"]}

    @property
    def measure(self) -> str:
        """The measure that models are compared by: overlap, if it is there."""
        names = [str(name) for name in self.atlas["measure"].values]
        return "overlap" if "overlap" in names else names[0]

    @cached_property
    def pairs(self) -> tuple[ModelPair, ...]:
        """Return all pairs of models that have a calibrated similarity, the most alike first."""
        return tuple(sorted(self._pairs(), key=lambda pair: (-round(pair.similarity, 6), pair.source, pair.target)))

    def spaces(self, dataset: str) -> list[str]:
        """Return the names of the spaces that a dataset has."""
        present = self.atlas["n_points"].sel(dataset=dataset).values > 0
        return [str(name) for name in self.atlas["source"].values[present]]

    def other_settings(self, other: "Published") -> list[str]:
        """Return the names of settings that make the scores of two atlases other numbers."""
        ours, theirs = self.summary["settings"], other.summary["settings"]
        names = sorted((ours.keys() & theirs.keys()).difference(_NOT_IN_SCORES))
        differing = [name for name in names if ours[name] != theirs[name]]
        same_convention = self.atlas.attrs["convention"] == other.atlas.attrs["convention"]
        return differing if same_convention else ["convention", *differing]

    def _pairs(self) -> Iterator[ModelPair]:
        family = families(self.meta)
        for dataset in map(str, self.atlas["dataset"].values):
            names = self.spaces(dataset)
            cells = self.atlas.sel(dataset=dataset, measure=self.measure, source=names, target=names)
            of_space = cells["source_model"].values
            values = cells["calibrated"].values
            models = sorted(set(map(str, of_space)))
            directed, closest = np.empty((2, len(models), len(models)))
            for own in pairs_of_models([np.flatnonzero(of_space == model) for model in models]):
                block = own.of(values)
                directed[own.source, own.targets] = best_match(block)
                closest[own.source, own.targets] = np.nan_to_num(block, nan=-np.inf).max(axis=(1, 2))
            similarities = symmetrised(directed)
            for first, second in combinations(range(len(models)), 2):
                source, target, similarity = models[first], models[second], float(similarities[first, second])
                if np.isfinite(similarity):
                    related = family[source] == family[target]
                    yield ModelPair(dataset, source, target, similarity, float(closest[first, second]), related)
