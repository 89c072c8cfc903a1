"""The commands ``map``, ``maps`` and ``transfer``: one map between two spaces, fitted, named, used."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from lfm_atlas.console import (
    DEFAULT_CATALOG,
    OK,
    USAGE,
    CatalogPath,
    TrustCode,
    load_catalog_or_exit,
    print_err,
    print_out,
)


def add_map_commands(app: App) -> None:
    """Add the commands to ``app``."""
    app.command(fit_map, name="map")
    app.command(list_maps, name="maps")
    app.command(transfer)


def fit_map(
    source: Annotated[str, Parameter(help="The space to carry from: model/layer.")],
    target: Annotated[str, Parameter(help="The space to carry into: model/layer.")],
    *,
    catalog: CatalogPath = DEFAULT_CATALOG,
    regime: Annotated[
        Literal["anchors", "labels", "unsupervised", "full"],
        Parameter(help="What is known: a few points, their classes, nothing, or every point."),
    ] = "anchors",
    n_anchors: Annotated[int | None, Parameter(help="How many of the common ids are known; 10 without it.")] = None,
    seed: Annotated[int, Parameter(help="Draws the anchors, and the parts that are held out.")] = 0,
    anchors: Annotated[
        Path | None, Parameter(help="File of known ids: .txt, .npy or .csv, one or two columns.")
    ] = None,
    name: Annotated[str | None, Parameter(help="What to call the map; source--target without it.")] = None,
    format: Annotated[Literal["text", "json"], Parameter(help="text for people, json for programs.")] = "text",
    trust_code: TrustCode = False,
) -> int:
    """Fit a map from one space to another, say how good it is beside the baselines, and keep it under a name."""
    settings = load_catalog_or_exit(catalog, trust_code)
    from lfm_atlas.console import no_progress, progress
    from lfm_tasks.runtime.session import open_run
    from lfm_tasks.stages.transfers.job import AnchorSpec, read_pairs
    from lfm_tasks.stages.transfers.named import fit_named_map, maps_as_json, maps_as_lines

    if regime != "anchors" and (n_anchors is not None or anchors is not None):
        print_err(f"found anchors beside --regime {regime}, which uses none: leave them out, or --regime anchors")
        return USAGE
    if n_anchors is not None and anchors is not None:
        print_err("found --n-anchors beside --anchors, needs one of them: the file says how many there are")
        return USAGE
    if n_anchors is not None and n_anchors < 3:
        print_err(f"found --n-anchors {n_anchors}, needs at least 3: one is held out, and two remain [few_anchors]")
        return USAGE
    if seed < 0:
        print_err(f"found --seed {seed}, needs a whole number from 0 on")
        return USAGE
    with _told() as trouble, progress() as announce:
        pairs = () if anchors is None else read_pairs(anchors)
        known = AnchorSpec(regime, 10 if n_anchors is None else n_anchors, seed, pairs)
        with open_run(settings, announce if format == "text" else no_progress, in_process=True) as run:
            fitted = fit_named_map(run, source, target, known, name)
        print_out(maps_as_lines(fitted) if format == "text" else maps_as_json(fitted))
    return USAGE if trouble else OK


def list_maps(*, catalog: CatalogPath = DEFAULT_CATALOG) -> int:
    """List the maps that have names."""
    settings = load_catalog_or_exit(catalog)
    from lfm_tasks.stages.transfers.named import listed
    from lfm_tasks.stores.named_maps import named_maps

    with _told() as trouble:
        lines = listed(named_maps(settings.root / settings.atlas.store))
        print_out(lines or "no maps yet: lfm-atlas map SOURCE TARGET fits one")
    return USAGE if trouble else OK


def transfer(
    map: Annotated[str, Parameter(help="Name of a map: see lfm-atlas maps.")],
    input: Annotated[str, Parameter(help="Rows in the source's coordinates: .npy, .safetensors#key, .npz#key.")],
    output: Annotated[Path, Parameter(help="A .npy to write: the rows in the target's coordinates.")],
    *,
    catalog: CatalogPath = DEFAULT_CATALOG,
    force: Annotated[bool, Parameter(help="Overwrite the output if it exists.", negative="")] = False,
) -> int:
    """Carry the rows of a file through a map, in chunks."""
    settings = load_catalog_or_exit(catalog)
    from lfm_tasks.runtime.run import unit_store
    from lfm_tasks.stages.transfers.apply import apply_map_to_file
    from lfm_tasks.stores.named_maps import read_named_map

    store = unit_store(settings)
    with _told() as trouble:
        named = read_named_map(store.root, map)
        n_points, n_features = apply_map_to_file(store, named, input, output, force=force)
        print_out(f"wrote {output}: {n_points} points in the {n_features} coordinates of {named.target}")
    return USAGE if trouble else OK


@contextmanager
def _told() -> Iterator[list[str]]:
    """Give a list that holds what a person was told if the block cannot do what they asked for."""
    from lfm_tasks.errors import DataError
    from lfm_tasks.stores.units.store import CorruptUnitError

    told: list[str] = []
    try:
        yield told
    except DataError as error:
        told.append(f"{error} [{error.reason}]")
    except CorruptUnitError as error:
        told.append(f"{error} [failed]")
    for line in told:
        print_err(line)
