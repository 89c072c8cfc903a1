"""What an atlas is made of, under one key: the same exactly when the atlas would be."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import xarray as xr

from lfm_tasks.runtime.run import Failure, Run, versions
from lfm_tasks.spaces import Space
from lfm_tasks.stages.bases.stage import SpaceBasis, not_computed
from lfm_tasks.stages.inventory.requests import PairSelection, comparison_facts, n_directed_pairs
from lfm_tasks.stages.inventory.stage import Zoo
from lfm_tasks.stages.scores.stage import ScoredPairs, UnscoredPairs, unscored_pairs
from lfm_tasks.stages.transfers.stage import Transfers
from lfm_tasks.stores.atlas.schema import SCHEMA_VERSION
from lfm_tasks.stores.units.store import digest


class Section(Protocol):
    """One section: a stage made its units, the atlas publishes them as groups of ``atlas.zarr``."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Everything that decides its content: the keys of its units, and reasons for what is missing."""

    @property
    def made_of(self) -> Mapping[str, Collection[str]]:
        """The keys of its units by kind, so that pruning leaves them alone."""

    def groups(self, run: Run) -> Mapping[str, xr.Dataset]:
        """Return labeled arrays by the path of their group, such as ``maps/digits``; "" joins the scores themselves.

        What joins the scores has dims among dataset, source and target, with labels of the atlas.
        """


def section_groups(run: Run, sections: Iterable[Section]) -> dict[str, xr.Dataset]:
    """Return the groups of all sections."""
    found: dict[str, xr.Dataset] = {}
    for section in sections:
        for path, content in section.groups(run).items():
            found[path] = content if path not in found else found[path].merge(content)
    return found


@dataclass(frozen=True)
class Contents:
    """Everything an atlas is made of; its key is the same exactly when the atlas would be."""

    spaces: tuple[SpaceBasis, ...]
    scored: ScoredPairs
    failures: tuple[Failure, ...]
    resampling: Mapping[str, str]
    key: str
    parts: tuple[PairSelection, ...]
    not_computed: tuple[Space, ...] = ()
    sections: tuple[Section, ...] = ()
    designs: tuple[str, ...] = ()

    @property
    def unpublished(self) -> str:
        """What the catalog asks for and no run has computed yet, so that this is no whole atlas; empty: it is one."""
        n_spaces, n_pairs = len(self.not_computed), self.scored.n_not_computed
        n_transfers = sum(own.n_not_computed for own in self.sections if isinstance(own, Transfers))
        if not n_spaces and not n_pairs and not n_transfers:
            return ""
        found = f"{n_spaces} spaces and {n_pairs} pairs of the others are not computed yet"
        if not n_spaces and not n_pairs:
            found = f"{n_transfers} transfers are not computed yet"
        return f"{found}, so the published atlas stays as it is: run all of the catalog"

    @property
    def units(self) -> dict[str, set[str]]:
        """The units that it is made of, by kind."""
        own: dict[str, set[str]] = {
            "activations": {based.activations for based in self.spaces},
            "bases": {based.key for based in self.spaces},
            "scores": self.scored.blocks,
            "designs": set(self.designs),
        }
        for section in self.sections:
            for kind, keys in section.made_of.items():
                own.setdefault(kind, set()).update(keys)
        return own

    @property
    def section_keys(self) -> list[str]:
        """What its sections are made of: keys of their units, among other things."""
        return [key for section in self.sections for key in section.keys]

    @property
    def refused(self) -> tuple[UnscoredPairs, ...]:
        """Pairs without scores, by dataset and reason."""
        return unscored_pairs(self.spaces, self.scored)


def contents(
    run: Run,
    zoo: Zoo,
    spaces: tuple[SpaceBasis, ...],
    scored: ScoredPairs,
    *sections: Section,
) -> Contents:
    """Return what the atlas will hold, under one key. No path, time or host is part of it."""
    left_out = not_computed(run, zoo, spaces)
    ordered = tuple(sorted(run.failures, key=lambda failure: tuple(asdict(failure).values())))
    key = digest(
        {
            "kind": "atlas",
            "schema": SCHEMA_VERSION,
            "spaces": [[*based.space, based.depth, based.key] for based in spaces],
            "failures": [asdict(failure) for failure in ordered],
            "troubles": sorted([*pair, *asdict(trouble).values()] for pair, trouble in scored.troubles.items()),
            "score_settings": scored.settings,
            "sections": [section.keys for section in sections],
            "parts": [asdict(part) for part in zoo.parts],
            "settings": settings(run),
            "meta": meta(run),
            "versions": versions(),
        }
    )
    moved = {dataset: design.kind for dataset, design in zoo.designs.items()}
    designs = tuple(sorted(design.key for design in zoo.designs.values()))
    datasets = {based.space.dataset for based in spaces}
    resampled = {name: moved.get(name, "rows") for name in datasets}
    return Contents(spaces, scored, ordered, resampled, key, zoo.parts, left_out, sections, designs)


def settings(run: Run) -> dict[str, Any]:
    """Return the settings that decide the numbers (not where things lie)."""
    return run.catalog.atlas.model_dump(mode="json", exclude={"path", "store", "remote"})


def meta(run: Run) -> dict[str, Any]:
    """Return what the catalog says of each model."""
    return {name: dict(model.meta) for name, model in run.catalog.models.items()}


def summary(run: Run, found: Contents) -> dict[str, Any]:
    """Return what a program or a hurried reader wants to know."""
    return {
        "schema_version": SCHEMA_VERSION,
        "title": "Similarity atlas",
        "key": found.key,
        "counts": {
            "models": len({based.space.model for based in found.spaces}),
            "spaces": len(found.spaces),
            "directed_pairs": n_directed_pairs(found.parts, {based.space for based in found.spaces}),
            "failures": len(found.failures),
            "directed_pairs_without_score": sum(refused.count for refused in found.refused),
        },
        "failures": [asdict(failure) for failure in found.failures],
        "comparisons": comparison_facts(found.parts),
        "pairs_without_score": [asdict(refused) for refused in found.refused],
        "models": [{"name": name, "meta": meta} for name, meta in meta(run).items()],
        "settings": settings(run),
        "versions": versions(),
    }
