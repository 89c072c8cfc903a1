"""The flow of ``reproduce``: each experiment prepares spaces, runs the pipeline and analyzes the atlases."""

from collections.abc import Callable, Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lfm_atlas.console import work_folder
from lfm_atlas.pipeline import StageCaller, build_atlas, call_directly
from lfm_tasks.experiments.charts import require_matplotlib
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
    """The results of the experiments, and the spaces that could take no part."""

    results: tuple[ExperimentResult | SkippedExperiment, ...]
    failures: tuple[Failure, ...]


def run_experiments(
    run: Run, experiments: Sequence[str], output: Path, as_stage: StageCaller = call_directly
) -> Evidence:
    """Record the zoo, do the experiments one after the other, write their results into ``output``."""
    require_matplotlib()
    zoo = as_stage(validate)(run)
    recorded = as_stage(record_activations)(run, zoo)
    source = source_zoo(run, zoo, recorded)
    results = tuple(_experiment(source, name, output / "zoos" / name, as_stage) for name in experiments)
    as_stage(write_evidence)(source, results, output)
    return Evidence(results, tuple(run.failures))


def _experiment(
    source: "SourceZoo", name: str, folder: Path, as_stage: StageCaller
) -> ExperimentResult | SkippedExperiment:
    """Prepare spaces, run the pipeline on them, analyze the atlases."""
    catalogs: tuple[Path, ...] | SkippedExperiment = as_stage(prepare_spaces)(source, name, folder)
    if isinstance(catalogs, SkippedExperiment):
        return catalogs
    for catalog in catalogs:
        build_atlas(prepared_run(source.run, catalog), as_stage)
    result: ExperimentResult | SkippedExperiment = as_stage(run_analysis)(source, name, catalogs)
    return result


def reproduce_flow(report_progress: "ProgressCallback") -> Callable[..., Evidence]:
    """Return `run_experiments` as a Prefect flow, with a task for each stage."""
    from prefect import flow

    from lfm_atlas.atlas import as_task
    from lfm_tasks.catalog import read_catalog
    from lfm_tasks.experiments.stage import experiment_store
    from lfm_tasks.runtime.session import open_run

    @flow(name="reproduce", flow_run_name="evidence from {catalog}", validate_parameters=True, persist_result=False)
    def run_flow(catalog: str, output: str, experiments: list[str], trust_code: bool = False) -> Evidence:
        """Do the paper's experiments on the models of a catalog.

        Args:
            catalog: Path of the data_catalog.yaml.
            output: Folder to write the evidence into.
            experiments: Names of the experiments, in order.
            trust_code: Run the factories that the catalog names: they are code.
        """
        zoo_catalog = read_catalog(Path(catalog), trust_code=trust_code)
        with (
            chdir(work_folder(zoo_catalog)),
            open_run(experiment_store(zoo_catalog, Path(output)), report_progress) as run,
        ):
            return run_experiments(run, experiments, Path(output), as_stage=as_task)

    return run_flow
