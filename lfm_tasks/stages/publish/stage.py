"""Stage publish: write the atlas and its report, whole, or leave the published one if nothing has changed."""

import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import numpy as np
import xarray as xr

from lfm_tasks.errors import FolderError
from lfm_tasks.runtime.folders import ATLAS, RUN_PURPOSE, why_of_another_catalog
from lfm_tasks.runtime.folding import failures_as_json
from lfm_tasks.runtime.run import Failure, Run, versions
from lfm_tasks.spaces import Space
from lfm_tasks.stages.across_datasets.stage import AcrossDatasets
from lfm_tasks.stages.bases.stage import SpaceBasis, not_computed
from lfm_tasks.stages.inventory.requests import PairSelection, comparison_facts, n_directed_pairs
from lfm_tasks.stages.inventory.stage import Zoo
from lfm_tasks.stages.publish.assemble import assemble, meta
from lfm_tasks.stages.publish.tables import across_rows, edges, layer_rows, model_rows
from lfm_tasks.stages.scores.stage import ScoredPairs, UnscoredPairs, unscored_pairs
from lfm_tasks.stages.transfers.stage import Transfers
from lfm_tasks.stores.atlas.files import (
    checked_key,
    is_atlas,
    open_scores,
    published_key,
    write_atlas,
    write_edges,
    write_json,
    write_table,
)
from lfm_tasks.stores.atlas.publication import locked_atlas, publish
from lfm_tasks.stores.atlas.schema import SCHEMA_VERSION, AtlasError, catalog_id, manifest_key, read_manifest
from lfm_tasks.stores.references import holds_atlas, write_reference
from lfm_tasks.stores.remote.contents import read_remote_references
from lfm_tasks.stores.remote.objects import RemoteStoreError, S3Objects
from lfm_tasks.stores.remote.store import RemoteUnitStore
from lfm_tasks.stores.units.store import digest

# Heading of the page where the catalog says none.
DEFAULT_TITLE = "Similarity atlas"


class Section(Protocol):
    """One section: a stage made its units, the atlas publishes them as groups of ``atlas.zarr``."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Everything that decides its content: the keys of its units, and reasons for what is missing."""

    @property
    def unit_keys(self) -> Mapping[str, Collection[str]]:
        """The keys of its units by kind, so that pruning leaves them alone."""

    def groups(self, run: Run) -> Mapping[str, xr.Dataset]:
        """Return labeled arrays by the path of their group, such as ``maps/digits``; "" joins the scores themselves.

        What joins the scores has dims among dataset, source and target, with labels of the atlas.
        """


@dataclass(frozen=True)
class AtlasSpec:
    """Everything an atlas is made of, under one key: two atlases are the same exactly when their keys are.

    ``resampling``: the kind of units that each dataset exchanges; ``exchangeability``: the keys of the stored groups.
    ``left_out``: sentences on points and rows that spaces lack.
    """

    spaces: tuple[SpaceBasis, ...]
    scored: ScoredPairs
    failures: tuple[Failure, ...]
    resampling: Mapping[str, str]
    key: str
    parts: tuple[PairSelection, ...]
    not_computed: tuple[Space, ...] = ()
    sections: tuple[Section, ...] = ()
    exchangeability: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def unpublished(self) -> str:
        """The results that the catalog requests and no run has computed yet; empty for a whole atlas."""
        n_spaces, n_pairs = len(self.not_computed), self.scored.n_not_computed
        n_transfers = sum(section.n_not_computed for section in self.sections if isinstance(section, Transfers))
        n_pairs += sum(section.n_not_computed for section in self.sections if isinstance(section, AcrossDatasets))
        if not n_spaces and not n_pairs and not n_transfers:
            return ""
        missing = f"{n_spaces} spaces and {n_pairs} pairs of the others are not computed yet"
        if not n_spaces and not n_pairs:
            missing = f"{n_transfers} transfers are not computed yet"
        return f"{missing}, so the published atlas stays as it is. Run all of the catalog"

    @property
    def has_across(self) -> bool:
        """Whether the catalog compares spaces of two datasets."""
        return any(section.parts for section in self.sections if isinstance(section, AcrossDatasets))

    @property
    def units(self) -> dict[str, set[str]]:
        """The units that it is made of, by kind."""
        units: dict[str, set[str]] = {
            "activations": {basis.activations for basis in self.spaces},
            "bases": {basis.key for basis in self.spaces},
            "halves": {basis.halves for basis in self.spaces if basis.halves is not None},
            "scores": self.scored.blocks,
            "designs": set(self.exchangeability),
        }
        for section in self.sections:
            for kind, keys in section.unit_keys.items():
                units.setdefault(kind, set()).update(keys)
        return units

    @property
    def section_keys(self) -> list[str]:
        """The ingredients of its sections: keys of their units, among other things."""
        return [key for section in self.sections for key in section.keys]

    @cached_property
    def unscored(self) -> tuple[UnscoredPairs, ...]:
        """Pairs without scores, or without the value of a measure, by dataset and reason."""
        return unscored_pairs(self.spaces, self.scored)


def atlas_spec(
    run: Run,
    zoo: Zoo,
    spaces: tuple[SpaceBasis, ...],
    scored: ScoredPairs,
    *sections: Section,
) -> AtlasSpec:
    """Return the content of the atlas and its key. No path, time or host is part of it."""
    missing = not_computed(run, zoo, spaces)
    # Messages name files, whose paths may hold values of the environment.
    published = (replace(failure, message=run.catalog.hide_values(failure.message)) for failure in run.failures)
    failures = tuple(sorted(published, key=lambda failure: tuple(asdict(failure).values())))
    key = digest(
        {
            "kind": "atlas",
            "schema": SCHEMA_VERSION,
            "spaces": [[*basis.space, basis.depth, basis.key] for basis in spaces],
            "failures": [asdict(failure) for failure in failures],
            "troubles": sorted([*pair, *asdict(failure).values()] for pair, failure in scored.failures.items()),
            "score_settings": scored.settings,
            "sections": [section.keys for section in sections],
            "parts": [asdict(part) for part in zoo.all_parts],
            "settings": settings(run),
            "meta": meta(run),
            "versions": versions(),
            **({"left_out": list(zoo.notes)} if zoo.notes else {}),
            **({"title": run.catalog.atlas.title} if run.catalog.atlas.title else {}),
        }
    )
    kinds = {dataset: groups.kind for dataset, groups in zoo.exchangeability.items()}
    exchangeability = tuple(sorted(groups.key for groups in zoo.exchangeability.values()))
    datasets = {basis.space.dataset for basis in spaces}
    resampling = {name: kinds.get(name, "rows") for name in datasets}
    of_run = (zoo.parts, missing, sections, exchangeability, zoo.notes)
    return AtlasSpec(spaces, scored, failures, resampling, key, *of_run)


@dataclass(frozen=True)
class Publication:
    """Whether an atlas was published; ``kept`` says why the one that is there stays although this one is another."""

    is_new: bool
    kept: str = ""


def publish_atlas(run: Run, spec: AtlasSpec) -> Publication:
    """Publish the atlas unless it is there already, is no whole one, or has too few of the published one's spaces."""
    run.notes.update(
        key=spec.key,
        spaces=len(spec.spaces),
        failures=failures_as_json(spec.failures),
        pairs_without_score=[pairs.as_json() for pairs in spec.unscored],
        unpublished=spec.unpublished,
    )
    if spec.unpublished:
        run.stage_counts.add("atlas", 0, 0)
        return Publication(False)
    run.report_progress("atlas", 0, 1)
    with locked_atlas(run.atlas_folder, RUN_PURPOSE):
        publication = _publish(run, spec)
    run.stage_counts.add("atlas", int(publication.is_new), int(not publication.is_new and not publication.kept))
    run.report_progress("atlas", 1, 1)
    return publication


def _publish(run: Run, spec: AtlasSpec) -> Publication:
    """Publish the atlas unless that is there already or the published one stays; for the holder of its place."""
    # Since the run has started, another catalog may have published there.
    if refusal := why_of_another_catalog(run.catalog, run.store.root, ATLAS):
        raise FolderError(refusal)
    catalog = run.catalog.root / run.catalog.file
    identity = catalog_id(catalog, run.atlas_folder)
    is_new = published_key(run.atlas_folder) != spec.key or read_manifest(run.atlas_folder, "").catalog != identity
    was_published = not is_atlas(run.atlas_folder) and holds_atlas(run.store.root, run.atlas_folder)
    remote = run.store.current_atlas() if isinstance(run.store, RemoteUnitStore) else None
    if is_new or remote not in (None, spec.key):
        share = share_kept(run, spec, remote)
        if share is not None:
            run.notes["kept"] = kept = kept_message(run, spec, share)
            if isinstance(run.store, RemoteUnitStore) and remote is not None and not is_atlas(run.atlas_folder):
                _fetch_atlas(run, run.store, remote, identity, was_published=was_published)
            return Publication(False, kept)
    # First: units that no note names may be pruned.
    write_reference(run.store.root, spec.key, spec.units, spec.section_keys, run.atlas_folder, catalog)
    if is_new:
        groups = section_groups(run, spec.sections)
        scores = assemble(run, spec.spaces, spec.scored, spec.parts, spec.resampling)
        atlas = with_group(scores, groups.pop("", None))
        facts = summary(run, spec)
        with publish(run.atlas_folder, spec.key, catalog=identity, was_published=was_published) as folder:
            write_atlas(atlas, groups, folder)
            write_edges(edges(atlas), folder)
            write_table("models", model_rows(atlas), folder)
            write_table("layers", layer_rows(atlas), folder)
            if spec.has_across:
                write_table("across", across_rows(groups), folder)
            write_json(facts, folder / "summary.json")
            # Only here: a run without news draws no page.
            from lfm_tasks.report import render_report

            (folder / "report.html").write_text(render_report(atlas, facts, groups), encoding="utf-8")
    if isinstance(run.store, RemoteUnitStore):
        run.store.publish_copy(run.atlas_folder, spec.key)
    return Publication(is_new)


def _fetch_atlas(run: Run, store: RemoteUnitStore, key: str, catalog: str, *, was_published: bool) -> None:
    """Publish here the atlas of this key from the object store: an audit looks at the one that stays.

    AtlasError if a file of it is not as it was published.
    """
    with publish(run.atlas_folder, key, catalog=catalog, was_published=was_published) as folder:
        store.objects.fetch(f"atlas/{key}", folder)
        checked_key(folder)
        (folder / "manifest.json").unlink()
    reference = read_remote_references(store).get(key)
    if reference is not None:
        units: dict[str, set[str]] = {}
        for kind, unit_key in reference.units:
            units.setdefault(kind, set()).add(unit_key)
        catalog_file = run.catalog.root / run.catalog.file
        write_reference(run.store.root, key, units, reference.section_keys, run.atlas_folder, catalog_file)


def share_kept(run: Run, spec: AtlasSpec, remote: str | None) -> float | None:
    """Return the share of the published atlas's spaces that ``spec`` has, if it is too small to replace it; else None.

    ``remote``: the key of the atlas that the object store publishes now.

    An atlas without spaces never replaces one that has some, whatever ``atlas.keep_if_below`` is: it is what a zoo that
    is not mounted leaves. Nor does it replace a damaged one, whose spaces cannot be read.
    """
    now = {(basis.space.dataset, basis.space.name) for basis in spec.spaces}
    is_elsewhere = remote not in (None, manifest_key(run.atlas_folder))
    try:
        published = remote_spaces(run, str(remote)) if is_elsewhere else published_spaces(run.atlas_folder)
    except RemoteStoreError:  # what the network denies is no damage
        raise
    except (AtlasError, OSError, ValueError, KeyError, TypeError):
        return None if now or not (is_elsewhere or is_atlas(run.atlas_folder)) else 0.0
    if not published:
        return None
    share = len(published & now) / len(published)
    return share if not now or share < run.catalog.atlas.keep_if_below else None


def remote_spaces(run: Run, key: str) -> set[tuple[str, str]]:
    """Return the spaces of an atlas in the object store, which another machine may have published."""
    scratch = run.store.root / "staging" / f"published-{uuid4().hex}"
    try:
        S3Objects(str(run.catalog.atlas.remote)).fetch(f"atlas/{key}", scratch)
        return published_spaces(scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def published_spaces(folder: Path) -> set[tuple[str, str]]:
    """Return the spaces, as (dataset, model/layer), of the atlas in ``folder``; empty if there is no atlas."""
    if not (folder / "manifest.json").is_file():
        return set()
    with open_scores(folder) as atlas:
        datasets, names = ([str(name) for name in atlas[dim].values] for dim in ("dataset", "source"))
        return {(datasets[row], names[column]) for row, column in np.argwhere(atlas["n_points"].values > 0)}


def kept_message(run: Run, spec: AtlasSpec, share: float) -> str:
    """Return why the published atlas stays, and what to do."""
    least = run.catalog.atlas.keep_if_below
    needed = f"at least {least:g} of them (atlas.keep_if_below)" if least else "at least one space"
    return (
        f"got {len(spec.spaces)} spaces, {share:.0%} of those of the published atlas, expected {needed}, so the "
        f"published atlas stays as it is. Bring the models back, or remove {run.atlas_folder} to publish without them"
    )


def section_groups(run: Run, sections: Iterable[Section]) -> dict[str, xr.Dataset]:
    """Return the groups of all sections, merged where two sections publish one path."""
    groups: dict[str, xr.Dataset] = {}
    for section in sections:
        for path, group in section.groups(run).items():
            groups[path] = group if path not in groups else groups[path].merge(group)
    return groups


def with_group(atlas: xr.Dataset, more: xr.Dataset | None) -> xr.Dataset:
    """Return the atlas with more variables on its own labels, NaN where they have none."""
    if more is None:
        return atlas
    labels = {dim: atlas[dim] for dim in ("dataset", "source", "target") if dim in more.dims}
    return atlas.merge(more.reindex(labels), join="exact", combine_attrs="override")


def summary(run: Run, spec: AtlasSpec) -> dict[str, Any]:
    """Return the content of ``summary.json``: counts, failures, comparisons, models, settings, versions."""
    return {
        "schema_version": SCHEMA_VERSION,
        "title": run.catalog.atlas.title or DEFAULT_TITLE,
        "key": spec.key,
        "counts": {
            "models": len({basis.space.model for basis in spec.spaces}),
            "spaces": len(spec.spaces),
            "directed_pairs": n_directed_pairs(spec.parts, {basis.space for basis in spec.spaces}),
            "failures": len(spec.failures),
            "directed_pairs_without_score": sum(pairs.count for pairs in spec.unscored if pairs.has_none),
            "values_without_score": sum(
                pairs.count * len(pairs.measures) for pairs in spec.unscored if not pairs.has_none
            ),
        },
        "failures": failures_as_json(spec.failures),
        "comparisons": comparison_facts(spec.parts),
        "pairs_without_score": [pairs.as_json() for pairs in spec.unscored],
        **({"left_out": list(spec.left_out)} if spec.left_out else {}),
        "models": [
            {"name": name, "datasets": list(model.datasets), "meta": dict(model.meta)}
            for name, model in run.catalog.models.items()
        ],
        "settings": settings(run),
        "versions": versions(),
    }


def settings(run: Run) -> dict[str, Any]:
    """Return the settings that decide the numbers (not where things lie)."""
    return run.catalog.atlas.deciding()
