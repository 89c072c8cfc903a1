"""The commands that read a published atlas: ``show``, ``diff``, ``export``."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from lfm_atlas.console import OK, USAGE, as_json, is_file_to_write, print_err, print_out, print_tables, visible

if TYPE_CHECKING:
    from lfm_tasks.published.answers import Table
    from lfm_tasks.published.atlas import Atlas

AtlasPath = Annotated[Path, Parameter(help="Folder of a published atlas.")]
Format = Annotated[Literal["table", "json"], Parameter(help="json: for programs, one object on stdout.")]
Measure = Annotated[str | None, Parameter(help="A measure of the atlas; overlap if it has it.")]
Dataset = Annotated[str | None, Parameter(help="A dataset of the atlas; needed if it has several.")]
_NAMES_NEEDED = {"nearest": 1, "pair": 2, "summary": 0}


def add_atlas_commands(app: App) -> None:
    """Add the commands to an application."""
    for command in (show, diff, export):
        app.command(command)


def show(
    atlas: AtlasPath,
    view: Annotated[Literal["nearest", "pair", "summary"], Parameter(help="nearest NAME, pair SOURCE TARGET, summary")],
    *names: Annotated[str, Parameter(help="Models, or spaces as model/layer.")],
    measure: Measure = None,
    dataset: Dataset = None,
    n: Annotated[int, Parameter(name=["--n", "-n"], help="How many neighbors.")] = 5,
    format: Format = "table",
) -> int:
    """Show what is nearest to a model or space, all numbers of a pair, or what the atlas holds."""
    if len(names) != _NAMES_NEEDED[view]:
        print_err(
            f"found {len(names)} names, show {view} needs {_NAMES_NEEDED[view]}: models, or spaces as model/layer"
        )
        return USAGE
    from lfm_tasks.published import answers

    with opened(atlas) as found:
        if view == "nearest":
            tables = answers.nearest_tables(found, names[0], n, measure, dataset)
        elif view == "pair":
            tables = answers.pair_tables(found, names[0], names[1], dataset)
        else:
            tables = answers.summary_tables(found)
    _print(tables, format)
    return OK


def diff(
    base: Annotated[Path, Parameter(help="Folder of the earlier atlas.")],
    candidate: Annotated[Path, Parameter(help="Folder of the later atlas.")],
    *,
    n: Annotated[int, Parameter(name=["--n", "-n"], help="How many pairs of each measure.")] = 10,
    format: Format = "table",
) -> int:
    """Tell what changed: spaces by content, settings, and the pairs whose score left its interval."""
    if n < 0:
        print_err(f"found -n {n}, needs 0 or more pairs of each measure")
        return USAGE
    from lfm_tasks.published.answers import difference_tables, differences

    with opened(base) as before, opened(candidate) as after:
        found = differences(before, after, n=n)
    if format == "json":
        print_out(as_json(found))
    else:
        print_tables(difference_tables(found))
    return OK


def export(
    atlas: AtlasPath,
    output: Annotated[Path, Parameter(help="File to write; of projector, the folder.")],
    *,
    format: Annotated[Literal["csv", "graphml", "projector", "embedding-atlas"], Parameter(help="What for.")],
    measure: Measure = None,
    dataset: Dataset = None,
    max_q: Annotated[float | None, Parameter(help="graphml: edges of at most this false discovery rate.")] = None,
    min_value: Annotated[float | None, Parameter(help="graphml: edges of at least this calibrated value.")] = None,
    points_of: Annotated[str | None, Parameter(help="projector, embedding-atlas: the points of this space.")] = None,
) -> int:
    """Write the atlas for other programs: the long table, a graph of spaces, or points to look at."""
    if format != "graphml" and (max_q is not None or min_value is not None):
        print_err(
            f"found --max-q or --min-value with --format {format}, needs --format graphml: only a graph has edges"
        )
        return USAGE
    if format in ("csv", "graphml") and points_of is not None:
        print_err(f"found --points-of with --format {format}, needs projector or embedding-atlas")
        return USAGE
    if format != "projector" and not is_file_to_write(output):
        return USAGE
    with opened(atlas) as found:
        if format == "csv":
            from lfm_tasks.published.exports import export_csv

            export_csv(found, output)
        elif format == "graphml":
            from lfm_tasks.published.exports import export_graphml

            export_graphml(found, output, measure=measure, dataset=dataset, max_q=max_q, min_value=min_value)
        else:
            _export_points(found, output, format, (measure, dataset, points_of))
    print_err(f"wrote {visible(str(output))}")
    return OK


def _export_points(atlas: "Atlas", output: Path, format: str, asked: tuple[str | None, str | None, str | None]) -> None:
    from lfm_tasks.published import exports

    measure, dataset, space = asked
    if space is not None:
        points = exports.embedded_points(atlas, space, dataset=dataset)
    else:
        n_axes = exports.MOST_AXES if format == "projector" else 2
        points = exports.space_points(atlas, n_axes, measure=measure, dataset=dataset)
    write = exports.export_projector if format == "projector" else exports.export_embedding_atlas
    write(points, output)
    print_err(visible(points.note))


@contextmanager
def opened(path: Path) -> Iterator["Atlas"]:
    """Give an atlas; what it cannot do is said, and the command left with `USAGE`."""
    from lfm_tasks import AtlasError, open_atlas

    try:
        with open_atlas(path) as atlas:
            yield atlas
    except AtlasError as error:
        print_err(visible(str(error)))
        sys.exit(USAGE)


def _print(tables: "list[Table]", format: str) -> None:
    if format == "json":
        print_out(as_json({table.name: table.rows for table in tables}))
    else:
        print_tables(tables)
