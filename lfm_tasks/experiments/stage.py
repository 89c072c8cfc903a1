"""The stages of the evidence: spaces derived, conclusions drawn from their atlases, tables and the page written."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lfm_tasks.catalog import Catalog, read_catalog
from lfm_tasks.errors import DataError
from lfm_tasks.experiments import anchors, cost, layer_matching, robustness, sensitivity
from lfm_tasks.experiments.results import ExperimentResult, SkippedExperiment, write_results
from lfm_tasks.experiments.source_zoo import SourceZoo
from lfm_tasks.runtime.run import Run, StageCounts
from lfm_tasks.stages.activations.stage import RecordedSpace
from lfm_tasks.stages.inventory.stage import Zoo


@dataclass(frozen=True)
class Experiment:
    """``derive`` writes zoos and returns the catalogs that the pipeline runs; ``conclude`` reads their atlases."""

    title: str
    derive: Callable[[SourceZoo, Path], tuple[Path, ...]]
    conclude: Callable[[SourceZoo, tuple[Path, ...]], ExperimentResult]


EXPERIMENTS: Mapping[str, Experiment] = {
    module.NAME: Experiment(module.TITLE, module.derive, module.conclude)
    for module in (layer_matching, robustness, anchors, sensitivity, cost)
}


def experiment_store(catalog: Catalog, output: Path) -> Catalog:
    """Return the catalog with its store in ``output``: the evidence leaves the zoo's own atlas and store alone."""
    folders = {"store": str(output.absolute() / "store"), "path": str(output.absolute() / "atlas")}
    return catalog.model_copy(update={"atlas": catalog.atlas.model_copy(update=folders)})


def source_zoo(run: Run, zoo: Zoo, spaces: tuple[RecordedSpace, ...]) -> SourceZoo:
    """Return the recorded zoo, as experiments take it."""
    return SourceZoo(run, zoo, spaces)


def prepare_spaces(given: SourceZoo, name: str, folder: Path) -> tuple[Path, ...] | SkippedExperiment:
    """Write what an experiment compares; return the catalogs of it, or what the given zoo lacks."""
    try:
        return EXPERIMENTS[name].derive(given, folder)
    except DataError as error:
        return SkippedExperiment(name, EXPERIMENTS[name].title, error.reason, str(error))


def prepared_run(run: Run, catalog: Path) -> Run:
    """Return a run of a derived catalog, by the same workers and in the same store."""
    return replace(run, catalog=read_catalog(catalog), stage_counts=StageCounts(), failures=[])


def run_analysis(given: SourceZoo, name: str, catalogs: tuple[Path, ...]) -> ExperimentResult | SkippedExperiment:
    """Read the atlases of an experiment; return what they say."""
    try:
        return EXPERIMENTS[name].conclude(given, catalogs)
    except DataError as error:
        return SkippedExperiment(name, EXPERIMENTS[name].title, error.reason, str(error))


def write_evidence(given: SourceZoo, found: Sequence[ExperimentResult | SkippedExperiment], output: Path) -> None:
    """Write all tables, figures, ``evidence.json`` and ``evidence.html``."""
    write_results(given.catalog, found, output)
