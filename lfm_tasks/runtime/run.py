"""The state that one run passes from stage to stage: its catalog, store, workers, counts and failures."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic

from lfm_tasks import __version__
from lfm_tasks.catalog import Catalog
from lfm_tasks.catalog.names import did_you_mean, matches
from lfm_tasks.spaces import Space
from lfm_tasks.stores.units.store import UnitStore
from lfm_tasks.variables import HiddenValues, hiding_values
from lfm_tasks.workers.pool import Job, JobFailure, Result, Workers


@dataclass(frozen=True)
class Scope:
    """The part of a catalog that one run computes: models (globs) and comparisons; empty means all of them."""

    only: tuple[str, ...] = ()
    comparisons: tuple[str, ...] = ()

    def problems(self, catalog: Catalog) -> list[str]:
        """Return a sentence for each name that the catalog does not have."""
        unknown_models = [
            f"--only: no model matches {pattern[:100]!r}{did_you_mean(pattern, catalog.models)}"
            for pattern in self.only
            if not any(matches(name, pattern) for name in catalog.models)
        ]
        comparisons = catalog.comparisons
        return unknown_models + [
            f"--comparison: no {name[:100]!r}{did_you_mean(name, comparisons) or '; the catalog has no comparisons'}"
            for name in self.comparisons
            if name not in comparisons
        ]

    def has(self, model: str) -> bool:
        """Return whether this run computes a model."""
        return not self.only or any(matches(model, pattern) for pattern in self.only)


# Takes the stage, how many of its jobs are done, and how many it has.
ProgressCallback = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Failure:
    """A space (where ``layer`` is empty, a whole model) that the atlas does without, and why."""

    dataset: str
    model: str
    layer: str
    stage: str
    reason: str
    message: str

    @classmethod
    def of_space(cls, space: Space, stage: str, failure: JobFailure) -> "Failure":
        """Return the failure of a space whose job failed in ``stage``."""
        return cls(space.dataset, space.model, space.layer, stage, failure.reason, failure.message)


def refused_arrivals(catalog: Catalog) -> list[Failure]:
    """Return the files that fit a pattern of ``discover`` and cannot be models, as failures."""
    return [
        Failure(refused.dataset, refused.name, "", "discover", "refused_arrival", refused.message)
        for refused in catalog.refused_models
    ]


@dataclass(frozen=True)
class HidingFunction(Generic[Job, Result]):
    """A function that runs one job on a worker and hides values of the environment in the error that it raises."""

    function: Callable[[Job], Result]
    hidden: HiddenValues

    @property
    def __name__(self) -> str:
        """The name that logs call the function by."""
        return getattr(self.function, "__name__", "job")

    def __call__(self, job: Job) -> Result:
        """Do the job."""
        with hiding_values(self.hidden):
            return self.function(job)


@dataclass
class StageCounts:
    """How many units each stage computed, and how many it reused from the store."""

    computed: dict[str, int] = field(default_factory=dict)
    reused: dict[str, int] = field(default_factory=dict)

    def add(self, stage: str, computed: int, reused: int) -> None:
        """Add to the counts of one stage."""
        self.computed[stage] = self.computed.get(stage, 0) + computed
        self.reused[stage] = self.reused.get(stage, 0) + reused


@dataclass(frozen=True)
class Run:
    """One run: the catalog, its store, its workers. Counts, failures and notes for the log grow from stage to stage."""

    catalog: Catalog
    store: UnitStore
    workers: Workers
    report_progress: ProgressCallback
    stage_counts: StageCounts = field(default_factory=StageCounts)
    scope: Scope = field(default_factory=Scope)
    notes: dict[str, Any] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def add_failures(self, failures: Iterable[Failure]) -> None:
        """Add spaces that the atlas does without, values of the environment hidden in their messages."""
        hide = self.catalog.hide_values
        self.failures.extend(replace(failure, message=hide(failure.message)) for failure in failures)

    @property
    def atlas_folder(self) -> Path:
        """Where the finished atlas is published."""
        return self.catalog.root / self.catalog.atlas.path

    def results(
        self,
        stage: str,
        function: Callable[[Job], Result],
        jobs: Sequence[Job],
        needs: Sequence[int] = (),
        devices: Sequence[str] = (),
    ) -> Iterator[tuple[Job, Result | JobFailure]]:
        """Yield each job with its result as the workers finish it, and report the progress of the stage.

        Parameters
        ----------
        stage
            The name that progress is reported under.
        function
            What a worker does with one job.
        jobs
            What is missing; nothing is started without any.
        needs
            For each job the memory (bytes) that its worker must have; empty if unknown.
        devices
            For each job the device that it runs on; empty if all run on CPUs.
        """
        self.report_progress(stage, 0, len(jobs))
        hidden = self.catalog.hidden
        called = HidingFunction(function, hidden) if hidden else function
        for n_done, (index, result) in enumerate(self.workers.run(called, jobs, needs, devices), start=1):
            yield jobs[index], result
            self.report_progress(stage, n_done, len(jobs))


def unit_store(catalog: Catalog, token: str = "") -> UnitStore:
    """Return the store that holds the catalog's units; ``token``: what `remotely_locked` gives, to write."""
    root = catalog.root / catalog.atlas.store
    if catalog.atlas.remote is None:
        return UnitStore(root)
    from lfm_tasks.stores.remote.store import RemoteUnitStore

    return RemoteUnitStore(root, catalog.atlas.remote, token)


@contextmanager
def remotely_locked(catalog: Catalog, purpose: str) -> Iterator[str]:
    """Hold the lock of the catalog's object store, if it has one; yield the token of its holder, "" without one."""
    if catalog.atlas.remote is None:
        yield ""
        return
    from lfm_tasks.stores.remote.store import locked_remotely

    with locked_remotely(catalog.atlas.remote, purpose) as token:
        yield token


def versions() -> dict[str, str]:
    """Return the versions of the packages that numbers depend on."""
    libraries = ("numpy", "scipy", "scikit-learn", "pynndescent", "onnxruntime")
    return {"lfm-atlas": __version__} | {name: version(name) for name in libraries}
