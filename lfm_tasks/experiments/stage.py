"""The stages of the evidence: prepare spaces, analyze their atlases, write tables, figures and the page.

An experiment is a module with ``NAME``, ``TITLE``, ``prepare`` and ``analyze``, and stands in `EXPERIMENTS`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lfm_tasks.catalog import Catalog, read_catalog
from lfm_tasks.errors import DataError
from lfm_tasks.experiments import anchors, cost, groundings, layer_matching, robustness, sensitivity
from lfm_tasks.experiments.results import (
    WRITTEN,
    ExperimentResult,
    SkippedExperiment,
    is_evidence_file,
    write_results,
)
from lfm_tasks.experiments.source_zoo import SourceZoo
from lfm_tasks.runtime.folders import refuse_folders
from lfm_tasks.runtime.run import Run, StageCounts
from lfm_tasks.stages.activations.stage import RecordedSpace
from lfm_tasks.stages.inventory.stage import Zoo
from lfm_tasks.stores.outputs import check_output_folder
from lfm_tasks.stores.units.marker import store_id


@dataclass(frozen=True)
class Experiment:
    """One experiment.

    ``prepare`` writes zoos into a folder and returns their catalogs, which the pipeline runs; ``analyze`` reads the
    atlases of these catalogs.
    """

    title: str
    prepare: Callable[[SourceZoo, Path], tuple[Path, ...]]
    analyze: Callable[[SourceZoo, tuple[Path, ...]], ExperimentResult]


EXPERIMENTS: Mapping[str, Experiment] = {
    module.NAME: Experiment(module.TITLE, module.prepare, module.analyze)
    for module in (layer_matching, robustness, anchors, sensitivity, cost, groundings)
}
# What needs no truth about the networks: done where no experiment is named.
PAPER_EXPERIMENTS = tuple(name for name in EXPERIMENTS if name != groundings.NAME)


def experiment_store(catalog: Catalog, output: Path) -> Catalog:
    """Return the catalog with its atlas and store in ``output``: the evidence leaves those of the zoo alone."""
    folders = {"store": str(output.absolute() / "store"), "path": str(output.absolute() / "atlas")}
    return catalog.model_copy(update={"atlas": catalog.atlas.model_copy(update=folders)})


def check_evidence_folder(catalog: Catalog, output: Path, *, force: bool = False) -> None:
    """Raise `FolderError` if the evidence would be written over files of others; earlier evidence gives way."""

    def is_ours(path: Path) -> bool:
        return (path.is_dir() and is_evidence) or is_evidence_file(path)

    is_evidence = is_evidence_file(output / "evidence.json") or store_id(output / "store") is not None
    check_output_folder(output, WRITTEN, force=force, is_ours=is_ours)
    refuse_folders(experiment_store(catalog, output), ("atlas", "path"), ("atlas", "store"))


def source_zoo(run: Run, zoo: Zoo, spaces: tuple[RecordedSpace, ...]) -> SourceZoo:
    """Return the recorded zoo in the form that experiments take."""
    return SourceZoo(run, zoo, spaces)


def prepare_spaces(source: SourceZoo, name: str, folder: Path) -> tuple[Path, ...] | SkippedExperiment:
    """Write the spaces that an experiment compares; return its catalogs, or the parts that the source zoo lacks."""
    try:
        return EXPERIMENTS[name].prepare(source, folder)
    except DataError as error:
        return SkippedExperiment(name, EXPERIMENTS[name].title, error.reason, str(error))


def prepared_run(run: Run, catalog: Path) -> Run:
    """Return a run of a derived catalog, with the workers and the store of ``run``."""
    return replace(run, catalog=read_catalog(catalog), stage_counts=StageCounts(), failures=[])


def run_analysis(source: SourceZoo, name: str, catalogs: tuple[Path, ...]) -> ExperimentResult | SkippedExperiment:
    """Read the atlases of an experiment; return its result, or what the source zoo lacks for it."""
    try:
        return EXPERIMENTS[name].analyze(source, catalogs)
    except DataError as error:
        return SkippedExperiment(name, EXPERIMENTS[name].title, error.reason, str(error))


def write_evidence(source: SourceZoo, results: Sequence[ExperimentResult | SkippedExperiment], output: Path) -> None:
    """Write all tables, figures, ``evidence.json`` and ``evidence.html``."""
    write_results(source.catalog, results, output)
