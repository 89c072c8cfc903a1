"""From catalog to evidence: the paper's experiments, each made of derived spaces, the pipeline, and a conclusion."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lfm_atlas.pipeline import StageCaller, build_atlas, call_directly
from lfm_tasks.experiments.results import ExperimentResult, SkippedExperiment
from lfm_tasks.experiments.stage import prepare_spaces, prepared_run, run_analysis, source_zoo, write_evidence
from lfm_tasks.runtime.run import Failure, Run
from lfm_tasks.stages.activations.stage import record_activations
from lfm_tasks.stages.inventory.stage import validate

if TYPE_CHECKING:
    from lfm_tasks.experiments.source_zoo import SourceZoo
    from lfm_tasks.runtime.run import ProgressCallback


@dataclass(frozen=True)
class Evidence:
    """What the experiments came to, and the spaces that could take no part."""

    found: tuple[ExperimentResult | SkippedExperiment, ...]
    failures: tuple[Failure, ...]


def reproduce(run: Run, experiments: Sequence[str], output: Path, as_stage: StageCaller = call_directly) -> Evidence:
    """Record the zoo, do the experiments one after the other, write what they found into ``output``."""
    zoo = as_stage(validate)(run)
    recorded = as_stage(record_activations)(run, zoo)
    given = source_zoo(run, zoo, recorded)
    found = tuple(_experiment(given, name, output / "zoos" / name, as_stage) for name in experiments)
    as_stage(write_evidence)(given, found, output)
    return Evidence(found, tuple(run.failures))


def _experiment(
    given: "SourceZoo", name: str, folder: Path, as_stage: StageCaller
) -> ExperimentResult | SkippedExperiment:
    """Derive spaces, run the pipeline on them, draw the conclusion."""
    catalogs: tuple[Path, ...] | SkippedExperiment = as_stage(prepare_spaces)(given, name, folder)
    if isinstance(catalogs, SkippedExperiment):
        return catalogs
    for catalog in catalogs:
        build_atlas(prepared_run(given.run, catalog), as_stage)
    found: ExperimentResult | SkippedExperiment = as_stage(run_analysis)(given, name, catalogs)
    return found


def reproduce_flow(announce: "ProgressCallback") -> Callable[..., Evidence]:
    """Return the Prefect flow of it; a task a stage."""
    from prefect import flow

    from lfm_atlas.atlas import as_task
    from lfm_tasks.catalog import read_catalog
    from lfm_tasks.experiments.stage import experiment_store
    from lfm_tasks.runtime.session import open_run

    @flow(name="reproduce", flow_run_name="evidence from {catalog}", validate_parameters=True, persist_result=False)
    def collect(catalog: str, output: str, experiments: list[str], trust_code: bool = False) -> Evidence:
        """Do the paper's experiments on the models of a catalog.

        Args:
            catalog: Path of the data_catalog.yaml.
            output: Folder to write the evidence into.
            experiments: Names of the experiments, in order.
            trust_code: Run the factories that the catalog names: they are code.
        """
        settings = experiment_store(read_catalog(Path(catalog), trust_code=trust_code), Path(output))
        with open_run(settings, announce) as run:
            return reproduce(run, experiments, Path(output), as_stage=as_task)

    return collect
