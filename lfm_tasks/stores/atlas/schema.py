"""The schema of the published atlas: its columns, its versions, and how its arrays are read.

To add a column, add a row to `COLUMNS`, raise `SCHEMA_VERSION` and put `columns_as_markdown` into docs/atlas.md;
`filled` gives it to atlases of former versions, too. The
writer of the tables, their Parquet schema, the attributes of ``atlas.zarr`` and the exports read this table. A column
of ``edges`` holds the cells of the array of its name in ``atlas.zarr``; where the atlas has no such array yet, the row
says in ``derive`` how it is computed from the arrays that are there.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lfm_tasks.stores.units.durable import checksum_of, file_digest, is_dropping, read_regular

if TYPE_CHECKING:
    import xarray as xr

Table = Literal["edges", "models", "layers", "across"]
Dtype = Literal["string", "float64", "int32", "list<string>"]

_SCORE = ("dataset", "measure", "source", "target")
_PAIR = ("dataset", "source", "target")


@dataclass(frozen=True)
class Column:
    """One column of one or more tables, in Parquet null where a number is NaN.

    Parameters
    ----------
    name
        The name of the column, and of the array in ``atlas.zarr``.
    dtype
        The type of its values in Parquet.
    meaning
        What it holds, in one line without ``|``; the ``long_name`` of the array.
    tables
        The tables that it stands in.
    dims
        The dims of the array in ``atlas.zarr``; empty where the column is computed with its table.
    in_graph
        Whether edges of an exported graph carry it.
    derive
        Computes the array, on ``dims``, from the other arrays of the atlas; None where the stage computes it.
    """

    name: str
    dtype: Dtype
    meaning: str
    tables: tuple[Table, ...]
    dims: tuple[str, ...] = ()
    in_graph: bool = False
    derive: "Callable[[xr.Dataset], xr.DataArray] | None" = None


_RANK = "share of pairs of unrelated models (by base_model) whose calibrated value is at least as high"
# In the order of their tables; edges first.
COLUMNS: tuple[Column, ...] = (
    Column("source", "string", "space that is mapped from, model/layer", ("edges",)),
    Column("target", "string", "space that is mapped to, model/layer", ("edges",)),
    Column("dataset", "string", "dataset through which both are seen", ("edges", "models", "layers")),
    Column("measure", "string", "measure that compares them", ("edges", "models", "layers")),
    Column("score", "float64", "the measure itself", ("edges",), _SCORE, in_graph=True),
    Column("null_mean", "float64", "mean over permuted rows", ("edges",), _SCORE),
    Column("null_q95", "float64", "95 % quantile over permuted rows", ("edges",), _SCORE),
    Column(
        "calibrated",
        "float64",
        "(score - null_mean) / (1 - null_mean): 0 is chance, 1 is the best there is",
        ("edges",),
        _SCORE,
        in_graph=True,
    ),
    Column(
        "p_value",
        "float64",
        "how often chance reaches the score; by which method: attribute p_values of the atlas",
        ("edges",),
        _SCORE,
        in_graph=True,
    ),
    Column("ci_low", "float64", "lower end of the 95 % interval", ("edges",), _SCORE, in_graph=True),
    Column("ci_high", "float64", "upper end of the 95 % interval", ("edges",), _SCORE, in_graph=True),
    Column(
        "q_value",
        "float64",
        "false discovery rate over the dataset's pairs by this measure (Benjamini-Hochberg)",
        ("edges",),
        _SCORE,
        in_graph=True,
    ),
    Column("unrelated_rank", "float64", _RANK, ("edges",), _SCORE, in_graph=True),
    Column("status", "string", "ok, or why there is no number or one with a reservation", ("edges",), _SCORE),
    Column("n_common", "int32", "points that both spaces have, refused pairs too", ("edges",), _PAIR),
    Column(
        "overlap_share",
        "float64",
        "n_common as a share of the smaller space's points; NaN where a pair is not computed",
        ("edges",),
        _PAIR,
    ),
    Column("comparisons", "list<string>", "names of the catalog's comparisons that ask for the pair", ("edges",)),
    Column("source", "string", "model that is mapped from", ("models",)),
    Column("target", "string", "model that is mapped to", ("models",)),
    Column("best_match", "float64", "mean over source layers of the best value of any target layer", ("models",)),
    Column(
        "depth_aligned",
        "float64",
        "mean over source layers of the value at the target layer of nearest relative depth",
        ("models",),
    ),
    Column("mean", "float64", "mean over all pairs of layers", ("models",)),
    Column("source", "string", "layer whose counterpart is searched, model/layer", ("layers",)),
    Column("target_model", "string", "model in which it is searched", ("layers",)),
    Column("target", "string", "the counterpart, model/layer", ("layers",)),
    Column(
        "margin",
        "float64",
        "by how much the counterpart beats the second best, row and column means subtracted",
        ("layers",),
    ),
    Column(
        "p_best",
        "float64",
        "p-value of the best match, corrected for choosing among the target model's layers",
        ("layers",),
    ),
    Column("comparison", "string", "comparison of the catalog that asks for the pair", ("across",)),
    Column("source", "string", "space that is mapped from, model/layer", ("across",)),
    Column("source_dataset", "string", "dataset through which the source is seen", ("across",)),
    Column("target", "string", "space that is mapped to, model/layer", ("across",)),
    Column("target_dataset", "string", "dataset through which the target is seen", ("across",)),
    Column("measure", "string", "measure of the map", ("across",)),
    Column("score", "float64", "the measure itself", ("across",)),
    Column("null_mean", "float64", "mean over random pairings of the classes", ("across",)),
    Column("null_q95", "float64", "95 % quantile over random pairings of the classes", ("across",)),
    Column("calibrated", "float64", "(score - null_mean) / (1 - null_mean)", ("across",)),
    Column("p_value", "float64", "how often chance reaches the score", ("across",)),
    Column("map_residual", "float64", "how far target rows are from their images: 0 for an isometry", ("across",)),
    Column("status", "string", "ok, or why there is no number", ("across",)),
)


def columns_of(table: Table) -> tuple[Column, ...]:
    """Return the columns of a table, in order."""
    return tuple(column for column in COLUMNS if table in column.tables)


def column_names(table: Table) -> tuple[str, ...]:
    """Return the names of the columns of a table, in order."""
    return tuple(column.name for column in columns_of(table))


def long_name(array: str) -> dict[str, str]:
    """Return the attributes of an array of ``atlas.zarr`` that `COLUMNS` has: what it holds."""
    return {"long_name": next(column.meaning for column in COLUMNS if column.name == array and column.dims)}


def with_derived_columns(atlas: "xr.Dataset") -> "xr.Dataset":
    """Return the atlas with the array of each column that is derived from others."""
    for column in COLUMNS:
        if column.derive is not None:
            values = column.derive(atlas).transpose(*column.dims).values
            atlas = atlas.assign({column.name: (column.dims, values, long_name(column.name))})
    return atlas


def columns_as_markdown(table: Table) -> str:
    """Return the reference of a table's columns as docs/atlas.md holds it."""
    rows = [f"| `{column.name}` | `{column.dtype}` | {column.meaning} |" for column in columns_of(table)]
    return "\n".join([f"| column of `{table}.parquet` | type | meaning |", "|---|---|---|", *rows])


# 3: meta as coordinates, `content` and `basis` of every space. 4: models on several datasets, so `depth` of every
# space, `datasets` of every model, groups `across/<comparison>`. Raise it when something is added; what is there stays.
SCHEMA_VERSION = 4
OLDEST_READ = 2
DEPTH = "relative depth of the layer among those of its model on the dataset: 0 first, 1 last"
_LONGEST_NAME = 64  # of a coordinate, which is a file name
# Report and artifact point out spaces whose approximate neighbors have a lower recall; far lower ones fail.
GOOD_RECALL = 0.95


class AtlasError(ValueError):
    """An atlas that cannot be used, or lacks what is requested; the message says why and what to do.

    Examples
    --------
    >>> from lfm_atlas import AtlasError, open_atlas
    >>> try:
    ...     open_atlas("nowhere")
    ... except AtlasError as error:
    ...     print(str(error)[:23])
    got no atlas in nowhere
    """


def check_version(version: object) -> None:
    """Raise `AtlasError` unless an atlas of this schema version can be read."""
    if not isinstance(version, int) or version < OLDEST_READ:
        raise AtlasError(
            f"got an atlas of schema version {version!r:.20}, expected {OLDEST_READ} to {SCHEMA_VERSION}. Run "
            "lfm-atlas run to publish it again; nothing that the store holds is computed again"
        )
    if version > SCHEMA_VERSION:
        raise AtlasError(
            f"got an atlas of schema version {version}, expected {OLDEST_READ} to {SCHEMA_VERSION}. Install "
            "the later lfm-atlas that wrote it"
        )


def filled(atlas: "xr.Dataset", summary: Mapping[str, Any]) -> "xr.Dataset":
    """Return the scores of an atlas of any version that is read, as the present version lays them out."""
    check_version(atlas.attrs.get("schema_version"))
    if atlas.attrs["schema_version"] == SCHEMA_VERSION:
        return atlas
    if atlas.attrs["schema_version"] < 3:
        empty = np.full(atlas["n_points"].shape, "", dtype=object)
        atlas = atlas.assign(dict.fromkeys(("content", "basis"), (("dataset", "source"), empty)))
        meta = {entry["name"]: entry["meta"] for entry in summary["models"]}
        for side in ("source", "target"):
            atlas = atlas.assign_coords(meta_coordinates(side, list(atlas[f"{side}_model"].values), meta))
    if atlas.attrs["schema_version"] < 4:  # a model was on one dataset
        depth = np.where(atlas["n_points"].values > 0, atlas["source_depth"].values, np.nan)
        atlas = atlas.assign(depth=(("dataset", "source"), depth, {"long_name": DEPTH}))
    return with_derived_columns(atlas).assign_attrs(schema_version=SCHEMA_VERSION)


def meta_coordinates(side: str, models: Sequence[str], meta: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return ``source_meta_family``, ...: what the catalog says of the model of each space, as text.

    Single values only, no lists or mappings: words as they are, others as in JSON, "" where there is none. The name is
    the key with ``_`` for whatever is no letter, digit or ``_``; the key itself is the coordinate's ``long_name``.
    """
    keys = sorted({key for model in set(models) for key, value in meta.get(model, {}).items() if _is_single(value)})
    names: dict[str, str] = {}
    for key in keys:
        stem = name = re.sub(r"[^A-Za-z0-9_]", "_", key)[:_LONGEST_NAME]
        count = 1
        # Files of two arrays must not be one file where case does not count.
        while name.casefold() in (taken.casefold() for taken in names.values()):
            count += 1
            name = f"{stem}_{count}"
        names[key] = name
    return {
        f"{side}_meta_{name}": (
            side,
            np.array([_text(meta.get(model, {}).get(key)) for model in models], dtype=object),
            {"long_name": key},
        )
        for key, name in names.items()
    }


def _is_single(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)


def _text(value: Any) -> str:
    if not _is_single(value):
        return ""
    return value if isinstance(value, str) else json.dumps(value)


ZARR = "atlas.zarr"


@dataclass(frozen=True)
class Manifest:
    """The manifest of an atlas: its key, and ``sha256`` and ``bytes`` of every file by name.

    ``catalog`` tells whose atlas it is: see `catalog_id`; "" if no catalog published it.
    """

    key: str
    files: Mapping[str, Mapping[str, Any]]
    catalog: str = ""


MANIFEST_VERSION = 3


def catalog_id(catalog: Path, folder: Path) -> str:
    """Return the id of the catalog (its file) that published an atlas in ``folder``, as the manifest has it.

    It is the SHA-256 of the way from the folder to the file, both where links lead: two catalogs never have the same
    for one folder, a catalog keeps its own when its store is deleted or the project is moved, and the same project
    gives the same bytes on every machine. A digest, because an atlas names no places.
    """
    way = os.path.relpath(Path(os.path.realpath(catalog.parent), catalog.name), os.path.realpath(folder))
    return hashlib.sha256(Path(way).as_posix().encode()).hexdigest()


def read_manifest(folder: Path, again: str) -> Manifest:
    """Return the manifest of an atlas; `AtlasError`, ending in ``again``, if it is not one that lfm-atlas wrote."""
    try:
        content = read_regular(folder / "manifest.json")
        manifest = json.loads(content)
        key, files, catalog = str(manifest["key"]), manifest["files"], str(manifest["catalog"])
        expected = {(entry["sha256"], entry["bytes"]) for entry in files.values()}
    except (FileNotFoundError, NotADirectoryError) as error:
        message = f"got no atlas in {folder} (it has no manifest.json), expected a folder that lfm-atlas published"
        raise AtlasError(f"{message}. Give its path, or run lfm-atlas run") from error
    except (OSError, KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise AtlasError(f"{folder}: got a damaged atlas, manifest.json cannot be read. {again}") from error
    found = Manifest(key, files, catalog)
    if manifest_bytes(found) != content or None in expected or (folder / "manifest.json").is_symlink():
        raise AtlasError(f"{folder}: got a damaged atlas, manifest.json is not as published. {again}")
    return found


def manifest_key(folder: Path) -> str | None:
    """Return the key of the atlas in ``folder``, without checking its files; None if there is no manifest of ours."""
    try:
        return read_manifest(folder, "").key
    except AtlasError:
        return None


def changed_file(folder: Path, name: str) -> AtlasError:
    """Return the error of a file whose content is not that of the manifest when it is read."""
    problem = f"{folder}: got another file {name} than when the atlas was published"
    advice = "Open it again; if that fails, run lfm-atlas run to publish it again"
    return AtlasError(f"{problem}, it was published again since or is damaged. {advice}")


def damages(folder: Path, files: Mapping[str, Mapping[str, Any]], *, read_contents: bool = True) -> Iterator[str]:
    """Yield a phrase for each file of an atlas that is not as published; without contents: by names and sizes only."""
    paths = (Path(current, name) for current, _, names in os.walk(folder) for name in names)
    present = {
        name for path in paths if (name := path.relative_to(folder).as_posix()) in files or not is_dropping(path)
    }
    for name in sorted(present ^ {*files, "manifest.json"}):
        yield f"{name} is {'not part of it' if name in present else 'missing'}"
    for name in sorted(present & files.keys()):
        path = folder / name
        try:
            is_sound = not path.is_symlink() and path.stat().st_size == files[name]["bytes"]
            is_sound = is_sound and (not read_contents or file_digest(path) == files[name]["sha256"])
        except OSError as error:
            yield f"{name} cannot be read ({error.strerror})"
            continue
        if not is_sound:
            yield f"{name} is not as published"


def manifest_bytes(manifest: Manifest) -> bytes:
    """Return the content of ``manifest.json``, with its own checksum."""
    contents = {"key": manifest.key, "catalog": manifest.catalog, "files": manifest.files}
    body = {"version": MANIFEST_VERSION} | contents
    return json.dumps(body | {"sha256": checksum_of(body)}, indent=1, sort_keys=True).encode()
