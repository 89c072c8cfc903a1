"""The commands that read a published atlas: show, diff, export, report."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from lfm_atlas.console import (
    OK,
    USAGE,
    Force,
    as_json,
    escape_unprintable,
    exit_if_refused,
    print_err,
    print_out,
    print_tables,
)

if TYPE_CHECKING:
    from lfm_tasks.published.atlas import Atlas

AtlasPath = Annotated[Path, Parameter(name="--atlas", help="Folder of a published atlas.")]
Format = Annotated[Literal["table", "json"], Parameter(help="json: for programs, one object on stdout.")]
Measure = Annotated[str | None, Parameter(help="A measure of the atlas; overlap if it has it.")]
Dataset = Annotated[str | None, Parameter(help="A dataset of the atlas; needed if it has several.")]
_NAMES_NEEDED = {"nearest": 1, "pair": 2, "relations": 0, "summary": 0, "datasets": 0}


def add_commands(app: App) -> None:
    """Add the commands of this module to ``app``."""
    for command in (show, diff, export, report):
        app.command(command)


def show(
    atlas_path: AtlasPath,
    view: Annotated[
        Literal["nearest", "pair", "relations", "summary", "datasets"] | str,
        Parameter(
            help="nearest NAME, pair SOURCE TARGET, relations: families and who is related, summary, or datasets: "
            "models on each dataset side by side",
            show_default=False,
        ),
    ] = "",
    *names: Annotated[str, Parameter(help="Models, or spaces as model/layer.")],
    measure: Measure = None,
    dataset: Dataset = None,
    n: Annotated[int, Parameter(name=["--n", "-n"], help="Number of neighbors to show.")] = 5,
    format: Format = "table",
) -> int:
    """Show the nearest models or spaces, all numbers of a pair, the content of the atlas, or datasets side by side."""
    if view not in _NAMES_NEEDED:
        known = ", ".join(_NAMES_NEEDED)
        if str(atlas_path) in _NAMES_NEEDED and not atlas_path.exists():
            words = " ".join(filter(None, (str(atlas_path), view, *names)))
            print_err(f"got {atlas_path} where the folder of an atlas is expected. Write: lfm-atlas show atlas {words}")
        else:
            print_err(f"got {view or 'no view'} after {atlas_path}, expected one of {known}")
        return USAGE
    if len(names) != _NAMES_NEEDED[view]:
        print_err(f"got {len(names)} names, show {view} needs {_NAMES_NEEDED[view]}: models, or spaces as model/layer")
        return USAGE
    from lfm_tasks.published import answers

    with open_atlas_or_exit(atlas_path, for_tables=True) as atlas:
        if view == "nearest":
            tables = answers.nearest_tables(atlas, names[0], n, measure, dataset)
        elif view == "pair":
            tables = answers.pair_tables(atlas, names[0], names[1], dataset)
        elif view == "datasets":
            from lfm_tasks.published.across import datasets_tables

            tables = datasets_tables(atlas, measure, n=n)
        elif view == "relations":
            tables = answers.relation_tables(atlas)
        else:
            tables = answers.summary_tables(atlas)
    if format == "json":
        print_out(as_json({table.name: table.rows for table in tables}))
    else:
        print_tables(tables)
    return OK


def diff(
    base: Annotated[Path, Parameter(help="Folder of the earlier atlas.")],
    candidate: Annotated[Path, Parameter(help="Folder of the later atlas.")],
    *,
    n: Annotated[int, Parameter(name=["--n", "-n"], help="How many pairs of each measure.")] = 10,
    format: Format = "table",
) -> int:
    """Print the changes between two atlases: spaces by content, settings, and pairs whose score left its interval."""
    if n < 0:
        print_err(f"got -n {n}, expected 0 or more pairs of each measure")
        return USAGE
    from lfm_tasks.published.answers import difference_tables, differences

    with open_atlas_or_exit(base, for_tables=True) as before, open_atlas_or_exit(candidate, for_tables=True) as after:
        changes = differences(before, after, n=n)
    if format == "json":
        print_out(as_json(changes))
    else:
        print_tables(difference_tables(changes))
    return OK


def export(
    atlas_path: AtlasPath,
    output: Annotated[Path, Parameter(help="File to write; of projector, the folder.")],
    *,
    format: Annotated[Literal["csv", "graphml", "projector", "embedding-atlas"], Parameter(help="Format of the file.")],
    measure: Measure = None,
    dataset: Dataset = None,
    max_q: Annotated[float | None, Parameter(help="graphml: edges of at most this false discovery rate.")] = None,
    min_value: Annotated[float | None, Parameter(help="graphml: edges of at least this calibrated value.")] = None,
    points_of: Annotated[str | None, Parameter(help="projector, embedding-atlas: the points of this space.")] = None,
    force: Force = False,
) -> int:
    """Write the atlas for other programs: as a table, a graph of spaces, or points for a viewer."""
    if format != "graphml" and (max_q is not None or min_value is not None):
        print_err(
            f"got --max-q or --min-value with --format {format}, expected --format graphml: only a graph has edges"
        )
        return USAGE
    if format in ("csv", "graphml") and points_of is not None:
        print_err(f"got --points-of with --format {format}, expected projector or embedding-atlas")
        return USAGE
    from lfm_tasks.published import exports
    from lfm_tasks.stores.outputs import check_output_file, check_output_folder

    with exit_if_refused():
        if format == "projector":
            check_output_folder(output, exports.PROJECTOR_FILES, force=force)
        else:
            check_output_file(output, force=force)
    with open_atlas_or_exit(atlas_path) as atlas:
        if format == "csv":
            exports.export_csv(atlas, output)
        elif format == "graphml":
            exports.export_graphml(atlas, output, measure=measure, dataset=dataset, max_q=max_q, min_value=min_value)
        else:
            if points_of is not None:
                points = exports.embedded_points(atlas, points_of, dataset=dataset)
            else:
                n_axes = exports.MAX_AXES if format == "projector" else 2
                points = exports.space_points(atlas, n_axes, measure=measure, dataset=dataset)
            write = exports.export_projector if format == "projector" else exports.export_embedding_atlas
            write(points, output)
            print_err(escape_unprintable(points.note))
    print_err(f"wrote {escape_unprintable(str(output))}")
    return OK


def report(
    atlas_path: Annotated[Path, Parameter(name="--atlas", help="Folder of a published atlas.")] = Path("atlas"),
    *,
    output: Annotated[Path, Parameter(alias="-o", help="File to write.")] = Path("report.html"),
    store: Annotated[
        Path | None,
        Parameter(help="Store whose run logs date the atlas. Default: .lfm-atlas beside the atlas."),
    ] = None,
    force: Force = False,
) -> int:
    """Draw the page of a published atlas again; an existing page of lfm-atlas is replaced.

    The page says when the atlas was computed where a log of its runs is in the store.
    """
    from lfm_tasks.report import render_report
    from lfm_tasks.report.run_dates import run_dates
    from lfm_tasks.stores.atlas.files import read_groups
    from lfm_tasks.stores.outputs import check_output_file, is_page
    from lfm_tasks.stores.units.durable import atomic_write

    with exit_if_refused():
        replaces = check_output_file(output, force=force, is_ours=is_page)
    if store is not None and not (store / "runs").is_dir():
        print_err(escape_unprintable(f"{store}: got no folder of run logs in it, expected a store. Name another one"))
        return USAGE
    with open_atlas_or_exit(atlas_path) as atlas:
        summary = dict(atlas.summary)
        dates = run_dates(store or atlas_path.absolute().parent / ".lfm-atlas", summary["key"])
        page = render_report(atlas.scores.load(), summary, read_groups(atlas_path, atlas.manifest), dates=dates)
    atomic_write(output, page.encode())
    print_out(f"wrote {output}{', in place of the file that was there' if replaces else ''}")
    return OK


@contextmanager
def open_atlas_or_exit(path: Path, *, for_tables: bool = False) -> Iterator["Atlas"]:
    """Yield the atlas at ``path``; print any `AtlasError` of opening or using it and exit with `USAGE`.

    ``for_tables``: for the tables of `lfm_tasks.published.answers` and nothing else, without waiting for xarray.
    """
    from lfm_tasks.published.atlas import open_atlas, open_for_tables
    from lfm_tasks.stores.atlas.schema import AtlasError
    from lfm_tasks.workers.dask_config import import_dask

    if not for_tables:
        import_dask()  # which xarray imports, too
    try:
        with open_for_tables(path) if for_tables else open_atlas(path) as atlas:
            yield atlas
    except AtlasError as error:
        print_err(escape_unprintable(str(error)))
        sys.exit(USAGE)
