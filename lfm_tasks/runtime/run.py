"""What one run carries from stage to stage: where things lie, who works, what failed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lfm_tasks.catalog import Catalog
from lfm_tasks.runtime.scope import Scope
from lfm_tasks.stores.units.store import UnitStore
from lfm_tasks.workers.pool import Workers

# (stage, done, of how many): for progress bars.
Announce = Callable[[str, int, int], None]


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
class Tally:
    """How many units each stage made and how many it found done."""

    computed: dict[str, int] = field(default_factory=dict)
    reused: dict[str, int] = field(default_factory=dict)

    def count(self, stage: str, computed: int, reused: int) -> None:
        """Add to the numbers of one stage."""
        self.computed[stage] = self.computed.get(stage, 0) + computed
        self.reused[stage] = self.reused.get(stage, 0) + reused


@dataclass(frozen=True)
class Run:
    """One run: the catalog, its store, its workers. The tally and the notes for its log are all in it that changes."""

    catalog: Catalog
    store: UnitStore
    workers: Workers
    announce: Announce
    tally: Tally
    scope: Scope = field(default_factory=Scope)
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def atlas_folder(self) -> Path:
        """Where the finished atlas is published."""
        return self.catalog.root / self.catalog.atlas.path
