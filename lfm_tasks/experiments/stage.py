"""The stages of the evidence: spaces derived, conclusions drawn from their atlases, tables and the page written."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lfm_tasks.catalog import Catalog, read_catalog
from lfm_tasks.errors import ReasonError
from lfm_tasks.experiments import anchors, cost, layer_matching, robustness, sensitivity
from lfm_tasks.experiments.finding import Finding, Refused, write_findings
from lfm_tasks.experiments.source_zoo import Given
from lfm_tasks.runtime.run import Run, Tally
from lfm_tasks.stages.activations.stage import RecordedSpace
from lfm_tasks.stages.inventory.stage import Zoo


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


def own_store(catalog: Catalog, output: Path) -> Catalog:
    """Return the catalog with its store in ``output``: the evidence leaves the zoo's own atlas and store alone."""
    folders = {"store": str(output.absolute() / "store"), "path": str(output.absolute() / "atlas")}
    return catalog.model_copy(update={"atlas": catalog.atlas.model_copy(update=folders)})


def given_zoo(run: Run, zoo: Zoo, spaces: tuple[RecordedSpace, ...]) -> Given:
    """Return the recorded zoo, as experiments take it."""
    return Given(run, zoo, spaces)


def derive_spaces(given: Given, name: str, folder: Path) -> tuple[Path, ...] | Refused:
    """Write what an experiment compares; return the catalogs of it, or what the given zoo lacks."""
    try:
        return EXPERIMENTS[name].derive(given, folder)
    except ReasonError as error:
        return Refused(name, EXPERIMENTS[name].title, error.reason, str(error))


def derived_run(run: Run, catalog: Path) -> Run:
    """Return a run of a derived catalog, by the same workers and in the same store."""
    return replace(run, catalog=read_catalog(catalog), tally=Tally())


def draw_conclusion(given: Given, name: str, catalogs: tuple[Path, ...]) -> Finding | Refused:
    """Read the atlases of an experiment; return what they say."""
    try:
        return EXPERIMENTS[name].conclude(given, catalogs)
    except ReasonError as error:
        return Refused(name, EXPERIMENTS[name].title, error.reason, str(error))


def write_evidence(given: Given, found: Sequence[Finding | Refused], output: Path) -> None:
    """Write all tables, figures, ``evidence.json`` and ``evidence.html``."""
    write_findings(given.catalog, found, output)
