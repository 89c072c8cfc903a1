"""The commands for one map between two spaces: map fits it, maps lists it, transfer applies it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from lfm_atlas.console import (
    DEFAULT_CATALOG,
    OK,
    USAGE,
    CatalogPath,
    DatasetOfBoth,
    Force,
    Scheduler,
    TextOrJson,
    TrustCode,
    as_json,
    escape_unprintable,
    exit_if_data_refused,
    exit_if_refused,
    load_catalog_or_exit,
    no_progress,
    print_err,
    print_out,
    progress,
)

if TYPE_CHECKING:
    from lfm_tasks.upgrades.adapters import Adapter
    from lfm_tasks.upgrades.bulk import CarryRows, KnownRows


def add_commands(app: App) -> None:
    """Add the commands of this module to ``app``."""
    app.command(fit_map, name="map")
    app.command(list_maps, name="maps")
    app.command(transfer)


def fit_map(
    source: Annotated[str, Parameter(help="The space to carry from: model/layer.")],
    target: Annotated[str, Parameter(help="The space to carry into: model/layer.")],
    *,
    catalog_path: CatalogPath = DEFAULT_CATALOG,
    regime: Annotated[
        Literal["anchors", "labels", "unsupervised", "full"],
        Parameter(help="Known correspondence: some points, their classes, none, or all points."),
    ] = "anchors",
    n_anchors: Annotated[int | None, Parameter(help="How many of the common ids are known; 10 without it.")] = None,
    seed: Annotated[int, Parameter(help="Draws the anchors, and the parts that are held out.")] = 0,
    anchors: Annotated[
        Path | None, Parameter(help="File with the ids of known points: .txt, .npy or .csv, one or two columns.")
    ] = None,
    name: Annotated[str | None, Parameter(help="Name of the map. Default: source--target.")] = None,
    dataset: DatasetOfBoth = None,
    save: Annotated[
        Path | None, Parameter(help="Folder to write the map to: NAME.safetensors, .json, .onnx for query servers.")
    ] = None,
    force: Force = False,
    format: TextOrJson = "text",
    trust_code: TrustCode = False,
) -> int:
    """Fit a map from one space to another, compare it with baselines, and store it under a name."""
    catalog = load_catalog_or_exit(catalog_path, trust_code)
    from lfm_tasks.runtime.session import open_run
    from lfm_tasks.stages.transfers.job import AnchorSpec
    from lfm_tasks.stages.transfers.named import (
        fit_named_map,
        fitted_map_as_json,
        fitted_map_as_lines,
        read_pairs,
    )

    if regime != "anchors" and (n_anchors is not None or anchors is not None):
        print_err(f"got anchors beside --regime {regime}, which uses none. Leave them out, or --regime anchors")
        return USAGE
    if anchors is not None and anchors.name.isdigit() and not anchors.exists():
        print_err(f"got --anchors {anchors}, expected a file of ids; did you mean --n-anchors {anchors}?")
        return USAGE
    if n_anchors is not None and anchors is not None:
        print_err("got --n-anchors beside --anchors, expected one of them: the file says how many there are")
        return USAGE
    if n_anchors is not None and n_anchors < 3:
        print_err(f"got --n-anchors {n_anchors}, expected at least 3: one is held out, and two remain [few_anchors]")
        return USAGE
    if seed < 0:
        print_err(f"got --seed {seed}, expected a whole number from 0 on")
        return USAGE
    with exit_if_data_refused(), progress() as report_progress:
        pairs = () if anchors is None else read_pairs(anchors)
        known = AnchorSpec(regime, 10 if n_anchors is None else n_anchors, seed, pairs)
        reported = report_progress if format == "text" else no_progress
        with _folder_to_save(save, name, force=force), open_run(catalog, reported, in_process=True) as run:
            fitted = fit_named_map(run, source, target, known, name, dataset=dataset)
            if save is not None:
                from lfm_tasks.upgrades.export import save_named_map

                save_named_map(run, fitted, known, save, force=force)
        print_out(fitted_map_as_lines(fitted) if format == "text" else fitted_map_as_json(fitted))
    return OK


@contextmanager
def _folder_to_save(folder: Path | None, name: str | None, *, force: bool) -> Iterator[None]:
    """Make the folder of a saved map before the map is fitted; exit with `USAGE` where it may not be saved there."""
    if folder is None:
        yield
        return
    from lfm_tasks.stores.outputs import check_output_folder
    from lfm_tasks.upgrades.export import files_of_map, folder_for_maps

    with exit_if_refused():
        check_output_folder(folder, files_of_map(name) if name else (), force=force)
        with folder_for_maps(folder):
            yield


def list_maps(
    *,
    catalog_path: CatalogPath = DEFAULT_CATALOG,
    format: TextOrJson = "text",
) -> int:
    """List the stored maps."""
    catalog = load_catalog_or_exit(catalog_path)
    from lfm_tasks.stages.transfers.named import named_maps_as_lines
    from lfm_tasks.stores.named_maps import named_maps

    with exit_if_data_refused():
        named = list(named_maps(catalog.root / catalog.atlas.store))
        if format == "json":
            print_out(as_json({"maps": [asdict(one) for one in named]}))
        else:
            print_out(named_maps_as_lines(named) or "no maps yet: lfm-atlas map SOURCE TARGET fits one")
    return OK


def transfer(
    map: Annotated[
        str, Parameter(help="Name of a map (lfm-atlas maps), or a .safetensors of lfm-atlas upgrade --save.")
    ],
    input: Annotated[str, Parameter(help="Vectors in the source's coordinates: .npy, .parquet, .h5, ...; file#key.")],
    output: Annotated[Path, Parameter(help="The file to write: .npy, .parquet, .arrow, .safetensors, .h5, .zarr.")],
    *,
    catalog_path: CatalogPath = DEFAULT_CATALOG,
    ids: Annotated[str | None, Parameter(help="File of the vectors' ids, if they are elsewhere.")] = None,
    dtype: Annotated[
        Literal["float32", "float64", "float16", "int8"] | None,
        Parameter(help="Type of the output. Default: float32 for most inputs."),
    ] = None,
    confidence: Annotated[
        bool, Parameter(help="Add columns that say how far each vector can be trusted.", negative="")
    ] = False,
    plan: Annotated[bool, Parameter(help="Print size, memory and columns, and write nothing.", negative="")] = False,
    workers: Annotated[int, Parameter(help="Dask processes on this machine; 0: this process does it.")] = 0,
    scheduler: Scheduler = "",
    force: Force = False,
) -> int:
    """Carry the vectors of a store through a map: in chunks, resumed after an interruption, other columns kept."""
    from lfm_tasks.upgrades.bulk import CarryOptions, carry, plan_carry
    from lfm_tasks.upgrades.export import is_saved_map
    from lfm_tasks.upgrades.stores import open_large_store

    if workers < 0 or (workers and scheduler):
        print_err(f"got --workers {workers} and --scheduler {scheduler!r}, expected workers from 0 on, or a scheduler")
        return USAGE
    with exit_if_data_refused():
        adapter, known, into = _map_to_carry_by(map, catalog_path)
        if confidence and known is None:
            print_err(f"got --confidence and the map {map}, which knows no pairs, expected one of --save that does")
            return USAGE
        options = CarryOptions(dtype, known if confidence else None, force)
        if is_saved_map(map) and os.path.realpath(map) == os.path.realpath(output):
            print_err(f"got the map {map} as the output, expected another file. Name one beside it")
            return USAGE
        planned = plan_carry(adapter, open_large_store(input, ids), output, options)
        if plan:
            for line in planned.lines(max(1, workers)):
                print_out(escape_unprintable(line))
            return OK
        for note in planned.notes:
            print_err(escape_unprintable(note))
        with progress() as report_progress, _rows_on(workers, scheduler, planned.memory_bytes) as carry_rows:
            carry(planned, adapter, report_progress, carry_rows)
        print_out(f"wrote {output}: {planned.n_rows} points in the {planned.n_results} coordinates of {into}")
    return OK


@contextmanager
def _rows_on(n_workers: int, scheduler: str, memory_bytes: int) -> "Iterator[CarryRows | None]":
    """Give the workers that carry the rows: Dask's, here or at a scheduler; None for this process."""
    if not (n_workers or scheduler):
        yield None
        return
    from lfm_tasks.catalog.cluster import check_scheduler
    from lfm_tasks.upgrades.parts import SchedulerWorkers, on_workers
    from lfm_tasks.workers.pool import ClusterError, LocalDask

    try:
        at_address = SchedulerWorkers(check_scheduler(scheduler)) if scheduler else None
    except (ValueError, ClusterError) as error:
        print_err(f"--scheduler: {error}")
        sys.exit(USAGE)
    # What a worker imports takes as much again.
    workers = at_address or LocalDask(n_workers, memory_bytes + 2**30)
    try:
        yield on_workers(workers)
    except ClusterError as error:
        print_err(escape_unprintable(str(error)))
        sys.exit(USAGE)
    finally:
        workers.close()


def _map_to_carry_by(map: str, catalog_path: Path) -> "tuple[Adapter, KnownRows | None, str]":
    """Return a map by its name or file, what confidence is computed from, and how messages call its target."""
    from lfm_tasks.errors import DataError
    from lfm_tasks.upgrades.adapters import from_alignment
    from lfm_tasks.upgrades.export import is_saved_map, read_saved_map

    if is_saved_map(map):
        return *read_saved_map(Path(map)), "the new model"
    if Path(map).suffix in (".json", ".onnx") or Path(map).is_file():
        problem = f"got the file {map}, expected the name of a map, or a .safetensors that --save wrote"
        raise DataError("missing_source", f"{problem}. Name {Path(map).with_suffix('.safetensors')}, say.")
    catalog = load_catalog_or_exit(catalog_path)
    from lfm_tasks.runtime.run import unit_store
    from lfm_tasks.stages.transfers.named import read_map
    from lfm_tasks.stores.named_maps import read_named_map

    store = unit_store(catalog)
    named = read_named_map(store.root, map)
    return from_alignment(read_map(store, named)), None, named.target
