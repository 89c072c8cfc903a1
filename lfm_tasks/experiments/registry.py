"""All experiments by name, in the order of the page."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lfm_tasks.experiments import anchors, cost, layer_matching, robustness, sensitivity
from lfm_tasks.experiments.finding import Finding
from lfm_tasks.experiments.given import Given


@dataclass(frozen=True)
class Experiment:
    """``derive`` writes zoos and returns the catalogs that the pipeline runs; ``conclude`` reads their atlases."""

    title: str
    derive: Callable[[Given, Path], tuple[Path, ...]]
    conclude: Callable[[Given, tuple[Path, ...]], Finding]


EXPERIMENTS: Mapping[str, Experiment] = {
    module.NAME: Experiment(module.TITLE, module.derive, module.conclude)
    for module in (layer_matching, robustness, anchors, sensitivity, cost)
}
