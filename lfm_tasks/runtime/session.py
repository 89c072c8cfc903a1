"""A run from start to end: the store's lock, the leftovers of killed runs, the workers, the log."""

import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lfm_tasks.catalog import Catalog, CatalogError
from lfm_tasks.catalog.cluster import LocalCluster
from lfm_tasks.catalog.folders import WRITTEN, Location
from lfm_tasks.catalog.yaml_tree import read_tree, to_builtins
from lfm_tasks.config import AtlasConfig
from lfm_tasks.errors import FolderError
from lfm_tasks.runtime.run import ProgressCallback, Run, Scope, remotely_locked, unit_store, versions
from lfm_tasks.stores.atlas.files import is_atlas, read_json, sweep, why_not_replaceable
from lfm_tasks.stores.units.durable import atomic_write, locked
from lfm_tasks.stores.units.integrity import quarantine_corrupt, quarantine_unfinished
from lfm_tasks.stores.units.references import holds_atlas, manifest_key, publisher, read_reference
from lfm_tasks.workers.pool import InProcess, LocalDask, Workers
from lfm_tasks.workers.resources import memory_limit, n_workers

PURPOSE = "lfm-atlas run"
LOG_VERSION = 1
# What a store has; a folder without any of it, and with something else, is none.
_STORE_NAMES = {"lock", "prefect", "units", "receipts", "references", "runs", "maps"}
# What an audit writes into its folder, the history first.
_AUDIT_FILES = ("audit.json", "audit.junit.xml", "audit.html", "report.html")
_ORCHESTRATION = ("dask", "distributed", "prefect", "pyarrow", "xarray", "zarr")


@contextmanager
def open_run(
    catalog: Catalog, report_progress: ProgressCallback, *, in_process: bool = False, scope: Scope | None = None
) -> Iterator[Run]:
    """Give a run that alone writes to the catalog's store, and stop its workers at the end.

    Parameters
    ----------
    catalog
        Names the store, the workers and the atlas.
    report_progress
        Called as the jobs of a stage finish.
    in_process
        Whether jobs run in this process, without Dask: for tests and debugging.
    scope
        The part of the catalog to compute; None: all of it.

    Raises
    ------
    StoreBusyError
        If another run holds the store.
    FolderError
        If a folder that the run would write holds what is not ours; see `refused_folders`.
    """
    root = catalog.root / catalog.atlas.store
    refuse_folders(catalog, ("atlas", "path"), ("atlas", "store"))
    with locked(root, PURPOSE), remotely_locked(catalog, PURPOSE):
        store = unit_store(catalog)
        store.sweep()
        sweep(catalog.root / catalog.atlas.path)
        workers: Workers = _workers(catalog, in_process)
        try:
            with logged(Run(catalog, store, workers, report_progress, scope=scope or Scope())) as run:
                # Copies of remote units are checked, and fetched again, when they are read.
                quarantined = () if catalog.atlas.remote else quarantine_corrupt(store)
                run.notes["quarantined"] = [f"{one.place}: {one.description}" for one in quarantined]
                yield run
                if not catalog.atlas.remote:
                    quarantine_unfinished(store)
        finally:
            workers.close()


def refuse_folders(catalog: Catalog, *keys: Location) -> None:
    """Raise `FolderError` with all that `refused_folders` says of the folders at ``keys`` of the catalog."""
    if refused := [message for _, message in refused_folders(catalog, *keys)]:
        raise FolderError("\n".join(refused))


def refused_folders(catalog: Catalog, *keys: Location) -> Iterator[tuple[Location, str]]:
    """Yield a key of the catalog and a message for each folder that a run or an audit must not write.

    `lfm_tasks.catalog.folders` says where the folders may lie; this, what may be in them. Nothing is changed.

    Parameters
    ----------
    catalog
        Names the folders.
    keys
        Which of them to look at, such as ``("atlas", "path")``; without any, all.
    """
    root = catalog.root / catalog.atlas.store
    for key in keys or WRITTEN:
        folder = catalog.root / str(getattr(getattr(catalog, key[0]), key[1]))
        refusal = _inside_of_atlas(folder)
        if refusal is None and key in (("atlas", "path"), ("audit", "baseline")):
            refusal = why_not_replaceable(folder)
            # All references are read only where that may change something.
            if refusal is not None and holds_atlas(root, folder):
                refusal = why_not_replaceable(folder, was_published=True)
        if refusal is None and key == ("atlas", "path"):
            refusal = _of_another_catalog(catalog, folder)
        if refusal is None and key == ("atlas", "store"):
            refusal = _no_store(folder)
        if refusal is None and key == ("audit", "path"):
            refusal = _no_audits(folder)
        if refusal is not None:
            yield key, refusal


def _inside_of_atlas(folder: Path) -> str | None:
    for above in Path(os.path.realpath(folder)).parents:
        if (above / "manifest.json").is_file() and is_atlas(above):
            inside = f"got a folder inside of the atlas {above}, which is replaced as a whole"
            return f"{folder}: {inside}, expected a folder outside of it. Name another one"
    return None


def _no_store(folder: Path) -> str | None:
    if not os.path.lexists(folder):
        return None
    if not folder.is_dir():
        return (
            f"{folder}: got a file or a link that leads nowhere, expected a folder. Move it away, or name another store"
        )
    names = sorted(os.listdir(folder))
    if not names or _STORE_NAMES & set(names):
        return None
    problem = f"got a folder with {names[0]} that is no store of lfm-atlas, expected no folder, an empty one or a store"
    return f"{folder}: {problem}. Name another atlas.store, or move the folder away"


def _no_audits(folder: Path) -> str | None:
    """Return why no audit may be written into ``folder``: it would replace files of others; None if one may."""
    if not os.path.lexists(folder):
        return None
    if not folder.is_dir():
        return (
            f"{folder}: got a file or a link that leads nowhere, expected a folder. Move it away, or name another one"
        )
    there = [name for name in _AUDIT_FILES if os.path.lexists(folder / name)]
    history = folder / "history.jsonl"
    try:
        lines = [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines()]
        if all(isinstance(line, dict) and "verdict" in line for line in lines):
            return None
    except FileNotFoundError:
        if not there:
            return None
    except ValueError as error:
        expected = "expected the history of audits, a JSON object in each line. Mend it, or move the file away"
        return f"{history}: got a line that is no JSON ({error}), {expected}"
    foreign = there[0] if not history.exists() else history.name
    return (
        f"{folder}: got {foreign}, which no audit wrote, expected a folder without it, or with the history of audits. "
        "Move it away, or set another audit.path"
    )


def _of_another_catalog(catalog: Catalog, folder: Path) -> str | None:
    """Return that the atlas in ``folder`` is another catalog's, None if it is not.

    An atlas is ours if our store notes that it was published from here, unless the note names another catalog that
    still has this atlas.path. Of an atlas that the store does not know (the store was deleted, or a cache holds an
    earlier one) the content decides: ours has the settings of the catalog and a model of it.
    """
    key = manifest_key(folder)
    if key is None:
        return None
    root = catalog.root / catalog.atlas.store
    reference = read_reference(root, key)
    apart = f"expected a folder for each catalog. Set another atlas.path here, or remove {folder} if nobody needs it"
    if reference is not None:
        other = publisher(root, reference, folder)
        if other is not None and not _is_same(other, catalog.root / catalog.file) and _names_atlas(other, folder):
            return f"{folder}: got the atlas of the catalog {other}, which has the same atlas.path, {apart}"
        return None
    try:
        summary = read_json(folder / "summary.json")
        settings, models = summary["settings"], {model["name"] for model in summary["models"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    ours = catalog.atlas.deciding()
    differing = sorted(name for name in settings if name in ours and settings[name] != ours[name])
    if models and not models & catalog.models.keys():
        differing = ["models"]
    if not differing:
        return None
    unlike = f"got an atlas with other {', '.join(differing)} than this catalog's, which its store {root} does not know"
    return f"{folder}: {unlike}, {apart}"


def _names_atlas(catalog_file: Path, folder: Path) -> bool:
    """Return whether another catalog's atlas.path is ``folder``; True if that cannot be read, False without a file."""
    if not catalog_file.is_file():
        return False
    try:
        tree: Any = to_builtins(read_tree(catalog_file)[0])
        path = ((tree.get("atlas") or {}).get("path")) or AtlasConfig().path
        return _is_same(catalog_file.parent / path, folder)
    except (CatalogError, AttributeError, TypeError):
        return True


def _is_same(first: Path, second: Path) -> bool:
    return os.path.realpath(first) == os.path.realpath(second)


def refuse_if_busy(catalog: Catalog) -> None:
    """Raise `StoreBusyError` if another run holds the store, before anything slow is started."""
    root = catalog.root / catalog.atlas.store
    if root.is_dir():
        with locked(root, PURPOSE):
            pass


def _workers(catalog: Catalog, in_process: bool) -> Workers:
    if in_process:
        return InProcess(memory_limit(catalog, among=1))
    if isinstance(catalog.cluster, LocalCluster):
        return LocalDask(n_workers(catalog), memory_limit(catalog))
    from lfm_tasks.workers.remote import RemoteDask  # Dask takes a second to import: with nothing to do no run needs it

    return RemoteDask(catalog)


@contextmanager
def logged(run: Run) -> Iterator[Run]:
    """Give the run while its log, ``runs/<time>.json`` in the store, records the stages and how the run ends.

    The outcome in the log is ``unfinished`` until the run ends; a run that is killed stays unfinished.
    """
    started_at, start = datetime.now(UTC), time.monotonic()
    # No colons: some file systems do not take them in a name.
    path = run.store.root / "runs" / f"{started_at:%Y%m%dT%H%M%S.%fZ}.json"
    facts: dict[str, Any] = {"version": LOG_VERSION, "started": started_at.isoformat(), "ended": None}
    facts |= {"outcome": "unfinished"} | _settings(run)
    facts |= {"versions": versions() | {name: version(name) for name in _ORCHESTRATION}, "host": _host()}
    _write(path, facts)
    stages: dict[str, tuple[float, float]] = {}
    peaks: dict[str, int] = {}

    def report_progress(stage: str, n_done: int, n_jobs: int) -> None:
        now = time.monotonic()
        stages[stage] = (stages.get(stage, (now, now))[0], now)
        peaks[stage] = run.workers.peak_bytes
        run.report_progress(stage, n_done, n_jobs)

    def end(outcome: str, **more: str) -> None:
        facts["ended"], facts["seconds"] = datetime.now(UTC).isoformat(), round(time.monotonic() - start, 3)
        # Of each stage the highest so far of any worker: it never falls from one stage to the next.
        facts["worker_peak_bytes"] = peaks
        facts["stages"] = {stage: round(last - first, 3) for stage, (first, last) in stages.items()}
        _write(path, facts | asdict(run.stage_counts) | run.notes | more | {"outcome": outcome})

    try:
        yield replace(run, report_progress=report_progress)
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt | SystemExit)
        # The error that ended the run must come through, not that of a full disk that its log meets as well.
        with suppress(OSError):
            end("stopped" if stopped else "failed", error=f"{type(error).__name__}: {error}")
        raise
    end("done")


def _settings(run: Run) -> dict[str, Any]:
    return {
        "folder": str(run.catalog.root.absolute()),
        "atlas": str(run.atlas_folder.absolute()),
        "only": list(run.scope.only),
        "comparisons": list(run.scope.comparisons),
        "workers": type(run.workers).__name__,
    }


def _host() -> dict[str, Any]:
    return {
        "name": platform.node(),
        "system": platform.platform(),
        "machine": platform.machine(),
        "python": sys.version.split()[0],
        "cores": os.cpu_count(),
        "memory_bytes": _memory_bytes(),
    }


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):  # not every system says
        return None


def _write(path: Path, facts: Mapping[str, Any]) -> None:
    atomic_write(path, json.dumps(facts, indent=1, ensure_ascii=False).encode())
