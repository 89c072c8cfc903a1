"""The command ``parity``: compares a port or conversion of a network with the original."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from lfm_atlas.console import (
    DEFAULT_CATALOG,
    LIMIT_BROKEN,
    OK,
    USAGE,
    CatalogPath,
    DatasetOfBoth,
    Force,
    TextOrJson,
    TrustCode,
    as_json,
    escape_unprintable,
    exit_if_data_refused,
    exit_if_refused,
    load_catalog_or_exit,
    print_err,
    print_out,
)

if TYPE_CHECKING:
    from lfm_tasks.parity.stage import Parity


def add_commands(app: App) -> None:
    """Add the commands of this module to ``app``."""
    app.command(parity)


def parity(
    reference: Annotated[str, Parameter(help="The original: a model of the catalog, a folder of layers, or a file.")],
    candidate: Annotated[str, Parameter(help="The port or conversion of it, recorded on the same inputs.")],
    *,
    catalog_path: CatalogPath = DEFAULT_CATALOG,
    dataset: DatasetOfBoth = None,
    match: Annotated[
        Literal["name", "likeness"], Parameter(help="Pair layers by name, or by the similarity of their spaces.")
    ] = "name",
    layers: Annotated[Path | None, Parameter(help="CSV of two columns: a layer of each side.")] = None,
    tolerance: Annotated[
        float | None, Parameter(help="How far a row may be off, relative to its largest number; by type without it.")
    ] = None,
    format: TextOrJson = "text",
    junit: Annotated[Path | None, Parameter(help="Write the layers as a JUnit suite.")] = None,
    page: Annotated[Path | None, Parameter(help="Write a page of HTML with the profile along the depth.")] = None,
    force: Force = False,
    trust_code: TrustCode = False,
) -> int:
    """Compare two networks that should compute the same, layer by layer, row by row; exit code 3 beyond tolerance."""
    from lfm_tasks.parity.files import parity_as_dict, parity_as_lines
    from lfm_tasks.parity.layers import read_table_of_layers
    from lfm_tasks.parity.sides import names_files, open_side
    from lfm_tasks.parity.stage import ParityOptions, compare_sides, options_of_port
    from lfm_tasks.threads import one_thread

    if tolerance is not None and not 0 <= tolerance < float("inf"):
        print_err(f"got --tolerance {tolerance}, expected a number from 0 on. 1e-5 is usual for float32.")
        return USAGE
    if layers is not None and match != "name":
        print_err(f"got --layers beside --match {match}, expected one of them. The table says which layers are paired.")
        return USAGE
    _check_outputs(junit, page, (reference, candidate), force=force)
    is_of_files = names_files(reference) and names_files(candidate)
    catalog = None if is_of_files else load_catalog_or_exit(catalog_path, trust_code)
    with exit_if_data_refused(), one_thread():
        table = None if layers is None else read_table_of_layers(layers)
        options = ParityOptions("name" if table is None else "table", table, tolerance)
        if match == "likeness":
            options = ParityOptions("likeness", None, tolerance)
        port = None if catalog is None else catalog.port_of(reference, candidate)
        if port is not None:
            options, dataset = options_of_port(port, options), dataset or port.dataset
        sides = [open_side(name, catalog, dataset) for name in (reference, candidate)]
        found = compare_sides(sides[0], sides[1], options)
    if format == "json":
        print_out(as_json(parity_as_dict(found)))
    else:
        for line in parity_as_lines(found):
            print_out(escape_unprintable(line))
    _write_outputs(found, junit, page)
    return OK if found.first_broken is None else LIMIT_BROKEN


def _check_outputs(junit: Path | None, page: Path | None, sides: tuple[str, str], *, force: bool) -> None:
    """Exit with `USAGE` for an output that may not be written, before anything is compared."""
    from lfm_tasks.errors import FolderError
    from lfm_tasks.stores.outputs import check_output_file, check_writable, is_page

    with exit_if_refused():
        if junit is not None:
            check_output_file(junit, force=force)
        if page is not None:
            check_output_file(page, force=force, is_ours=is_page)
        outputs = [os.path.realpath(path) for path in (junit, page) if path is not None]
        if len(set(outputs)) < len(outputs):
            raise FolderError(f"{page}: got one file for --junit and --page, expected two. Name another one")
        for path, output in zip((one for one in (junit, page) if one is not None), outputs, strict=True):
            for side in (os.path.realpath(one) for one in sides if os.path.exists(one)):
                if output == side or output.startswith(f"{side}{os.sep}"):
                    raise FolderError(f"{path}: got a place that is read, expected another file. Name one beside it")
            check_writable(path)


def _write_outputs(found: "Parity", junit: Path | None, page: Path | None) -> None:
    from lfm_tasks.parity.files import parity_as_junit, parity_page
    from lfm_tasks.stores.units.durable import atomic_write

    if junit is not None:
        atomic_write(junit, parity_as_junit(found).encode())
    if page is not None:
        atomic_write(page, parity_page(found).encode())
