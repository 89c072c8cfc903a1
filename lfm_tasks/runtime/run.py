"""What one run carries from stage to stage: where things lie, who works, what failed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lfm_tasks import __version__
from lfm_tasks.catalog import Catalog
from lfm_tasks.catalog.names import did_you_mean, matches
from lfm_tasks.stores.units.store import UnitStore
from lfm_tasks.workers.pool import Workers


@dataclass(frozen=True)
class Scope:
    """What one run computes of what the catalog asks: models (globs) and comparisons, everything where empty."""

    only: tuple[str, ...] = ()
    comparisons: tuple[str, ...] = ()

    def problems(self, catalog: Catalog) -> list[str]:
        """Return a sentence for each name that the catalog does not have."""
        found = [
            f"--only: no model matches {pattern[:100]!r}{did_you_mean(pattern, catalog.models)}"
            for pattern in self.only
            if not any(matches(name, pattern) for name in catalog.models)
        ]
        known = catalog.comparisons
        return found + [
            f"--comparison: no {name[:100]!r}{did_you_mean(name, known) or '; the catalog has no comparisons'}"
            for name in self.comparisons
            if name not in catalog.comparisons
        ]

    def has(self, model: str) -> bool:
        """Return whether a model is one to compute."""
        return not self.only or any(matches(model, pattern) for pattern in self.only)


# (stage, done, of how many): for progress bars.
ProgressCallback = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Failure:
    """A space (or, where ``layer`` is empty, a whole model) that has no place in the atlas, and why."""

    dataset: str
    model: str
    layer: str
    stage: str
    reason: str
    message: str


@dataclass
class StageCounts:
    """How many units each stage made and how many it found done."""

    computed: dict[str, int] = field(default_factory=dict)
    reused: dict[str, int] = field(default_factory=dict)

    def count(self, stage: str, computed: int, reused: int) -> None:
        """Add to the numbers of one stage."""
        self.computed[stage] = self.computed.get(stage, 0) + computed
        self.reused[stage] = self.reused.get(stage, 0) + reused


@dataclass(frozen=True)
class Run:
    """One run: the catalog, its store, its workers. Counts, failures and the notes for its log grow as it goes on."""

    catalog: Catalog
    store: UnitStore
    workers: Workers
    announce: ProgressCallback
    stage_counts: StageCounts = field(default_factory=StageCounts)
    scope: Scope = field(default_factory=Scope)
    notes: dict[str, Any] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    @property
    def atlas_folder(self) -> Path:
        """Where the finished atlas is published."""
        return self.catalog.root / self.catalog.atlas.path


def unit_store(catalog: Catalog) -> UnitStore:
    """Return the store that holds the catalog's units."""
    root = catalog.root / catalog.atlas.store
    if catalog.atlas.remote is None:
        return UnitStore(root)
    from lfm_tasks.stores.remote import RemoteUnits

    return RemoteUnits(root, catalog.atlas.remote)


@contextmanager
def remotely_locked(catalog: Catalog, purpose: str) -> Iterator[None]:
    """Hold the lock of the catalog's object store, if it has one."""
    if catalog.atlas.remote is None:
        yield
        return
    from lfm_tasks.stores.remote import locked_remotely

    with locked_remotely(catalog.atlas.remote, purpose):
        yield


def versions() -> dict[str, str]:
    """Return the versions of what the numbers were computed with."""
    libraries = ("numpy", "scipy", "scikit-learn", "pynndescent", "onnxruntime")
    return {"lfm-atlas": __version__} | {name: version(name) for name in libraries}
