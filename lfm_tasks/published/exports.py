"""An atlas in other formats: CSV, GraphML, embedding viewers."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import xarray as xr
from scipy.spatial import cKDTree

from lfm_tasks.published.atlas import Atlas
from lfm_tasks.published.queries import refuse_distances, require_one_of
from lfm_tasks.statistics.model_pairs import classical_scaling, model_distances, symmetrized
from lfm_tasks.stores.atlas.files import edge_batches, write_columns
from lfm_tasks.stores.atlas.schema import AtlasError, columns_of
from lfm_tasks.stores.outputs import replace_files
from lfm_tasks.stores.units.durable import atomic_write

# A cell that begins so is a formula to some spreadsheet: https://owasp.org/www-community/attacks/CSV_Injection
FORMULA_PREFIXES = ("=", "+", "-", "@", "\t", "\r", "\n")


def export_csv(atlas: Atlas, output: Path) -> None:
    """Write ``edges.parquet`` as CSV (RFC 4180, UTF-8): texts in quotes, numbers bare, empty cells for nulls.

    ``comparisons`` are joined by spaces, which their names do not have.
    """
    lines: list[str] = []
    for batch in edge_batches(atlas.folder, atlas.manifest):
        lines = lines or [_line(batch)]
        lines += [_line(row) for row in zip(*batch.values(), strict=True)]
    atomic_write(output, "".join(f"{line}\r\n" for line in lines).encode())


def escape_formula(text: str) -> str:
    """Return ``text`` with ``'`` before it if it begins like a formula or with ``'``: no spreadsheet runs it then.

    Examples
    --------
    >>> escape_formula("=1+1"), escape_formula("layer1"), escape_formula("'quoted'")
    ("'=1+1", 'layer1', "''quoted'")
    """
    return f"'{text}" if text.startswith((*FORMULA_PREFIXES, "'")) else text


def _line(values: Iterable[Any]) -> str:
    return ",".join(map(_cell, values))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, int | float):
        return repr(value)
    text = escape_formula(value if isinstance(value, str) else " ".join(value)).replace('"', '""')
    return f'"{text}"'


# http://graphml.graphdrawing.org/specification.html
_NAMESPACE = "http://graphml.graphdrawing.org/xmlns"
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def export_graphml(
    atlas: Atlas,
    output: Path,
    *,
    measure: str | None = None,
    dataset: str | None = None,
    max_q: float | None = None,
    min_value: float | None = None,
) -> None:
    """Write a directed graph as GraphML: a node for each space, an edge for each pair within the limits.

    Of an atlas without spaces it is a graph without nodes.

    Parameters
    ----------
    atlas, output
        The atlas, and the file to write.
    measure, dataset
        The scores to take; as in `Atlas.matrix`.
    max_q
        Highest false discovery rate of an edge; 0.05 if neither limit is given.
    min_value
        Lowest calibrated value of an edge.

    Raises
    ------
    AtlasError
        If the atlas does not have the numbers that a limit needs.
    """
    if _is_empty(atlas, measure, dataset):
        # Without any name, xarray does not know that names are text.
        nodes = {name: np.empty(0, float if name == "depth" else object) for name in _of_spaces(atlas.scores)}
        edges = {column.name: atlas.scores[column.name].values[:0] for column in columns_of("edges") if column.in_graph}
        _write_document(_document([], nodes, edges, np.zeros((0, 0), bool)), output)
        return
    similarity = atlas.matrix(measure, reduce=None, dataset=dataset)
    chosen = atlas.scores.sel({name: similarity[name].values for name in ("dataset", "measure", "source", "target")})
    kept = np.isfinite(chosen["score"].values) & ~np.eye(len(similarity), dtype=bool)
    if max_q is None and min_value is None:
        max_q = 0.05
    for name, limit, is_within in (("q_value", max_q, np.less_equal), ("calibrated", min_value, np.greater_equal)):
        if limit is None:
            continue
        if not np.isfinite(chosen[name].values[kept]).any():
            raise AtlasError(
                f"got no {name} in the atlas, expected it to choose edges. Set atlas.null.n_permutations and run again"
            )
        kept &= is_within(np.nan_to_num(chosen[name].values, nan=-np.inf if name == "calibrated" else np.inf), limit)
    edges = {column.name: chosen[column.name].values for column in columns_of("edges") if column.in_graph}
    _write_document(_document(list(chosen["source"].values), _of_spaces(chosen), edges, kept), output)


def _is_empty(atlas: Atlas, measure: str | None, dataset: str | None) -> bool:
    """Return whether there is nothing to export since the atlas has no spaces; `AtlasError` for an unknown measure."""
    if measure is not None:
        require_one_of(measure, atlas.measures, "measure")
    return dataset is None and not atlas.datasets


def _of_spaces(scores: xr.Dataset) -> dict[str, np.ndarray]:
    """Return the facts about each space, such as its model, by name."""
    return {
        str(name).removeprefix("source_"): values.values
        for name, values in scores.coords.items()
        if str(name).startswith("source_") and values.dims == ("source",)
    }


def _write_document(document: ElementTree.Element, output: Path) -> None:
    atomic_write(output, ElementTree.tostring(document, encoding="utf-8", xml_declaration=True))


def _document(
    names: list[str], nodes: dict[str, np.ndarray], edges: dict[str, np.ndarray], kept: np.ndarray
) -> ElementTree.Element:
    root = ElementTree.Element("graphml", xmlns=_NAMESPACE)
    for kind, columns in (("node", {"label": np.array(names, dtype=object), **nodes}), ("edge", edges)):
        for name, values in columns.items():
            dtype = "double" if np.issubdtype(values.dtype, np.floating) else "string"
            declaration = {"id": f"{kind}_{name}", "for": kind, "attr.name": name, "attr.type": dtype}
            ElementTree.SubElement(root, "key", declaration)
    graph = ElementTree.SubElement(root, "graph", edgedefault="directed")
    for row, name in enumerate(names):
        node = ElementTree.SubElement(graph, "node", id=f"n{row}")
        _data(node, "node_label", name)
        for key, values in nodes.items():
            _data(node, f"node_{key}", values[row])
    for source, target in np.argwhere(kept):
        edge = ElementTree.SubElement(graph, "edge", source=f"n{source}", target=f"n{target}")
        for key, values in edges.items():
            _data(edge, f"edge_{key}", values[source, target])
    return root


def _data(element: ElementTree.Element, key: str, value: Any) -> None:
    if isinstance(value, str):
        text = _NOT_XML.sub("\ufffd", value)
    elif not np.isfinite(value):
        return
    else:
        text = repr(float(value))
    ElementTree.SubElement(element, "data", key=key).text = text


MAX_AXES = 50
_N_NEIGHBORS = 10


@dataclass(frozen=True)
class Points:
    """Coordinates with ``metadata``, a column of texts by name; ``note`` says where the coordinates are from."""

    coordinates: np.ndarray
    metadata: Mapping[str, Sequence[str]]
    note: str


def space_points(atlas: Atlas, n_axes: int, *, measure: str | None = None, dataset: str | None = None) -> Points:
    """Return the spaces of a dataset by classical scaling of 1 − calibrated similarity, both directions averaged.

    Of an atlas without spaces there are no points.
    """
    if _is_empty(atlas, measure, dataset):
        names = ["space", *_of_spaces(atlas.scores)]
        return Points(np.empty((0, n_axes)), {name: [] for name in names}, "the atlas has no spaces: no points")
    similarity = atlas.matrix(measure, reduce=None, dataset=dataset)
    refuse_distances(atlas.scores, str(similarity["measure"].item()), str(similarity.name))
    scaling = classical_scaling(model_distances(symmetrized(similarity.values)), n_axes)
    metadata = {"space": similarity["source"].values} | {
        str(name).removeprefix("source_"): values.values
        for name, values in similarity.coords.items()
        if str(name).startswith("source_")
    }
    used = scaling.points[:, np.any(scaling.points != 0, axis=0)] if n_axes > 2 else scaling.points
    note = f"classical scaling of 1 - {similarity.name} {similarity['measure'].item()}, stress {scaling.stress:.3f}"
    return Points(used, {name: [str(value) for value in values] for name, values in metadata.items()}, note)


def embedded_points(atlas: Atlas, space: str, *, dataset: str | None = None) -> Points:
    """Return the points of one space as the atlas embeds them."""
    names = [dataset] if dataset else atlas.datasets
    for name in names:
        group = atlas.section(f"embeddings/{require_one_of(name, atlas.datasets, 'dataset')}")
        if group is not None and space in group["space"].values:
            chosen = group.sel(space=space)
            has_place = np.isfinite(chosen["tsne"].transpose("point", "axis").values).all(axis=1)
            metadata = {"id": chosen["point"].values[has_place], "label": chosen["label"].values[has_place]}
            columns = {column: [str(value) for value in values] for column, values in metadata.items()}
            return Points(chosen["tsne"].transpose("point", "axis").values[has_place], columns, f"t-SNE of {space}")
    raise AtlasError(
        f"got no embedding of {space!r:.80} in the atlas, expected one to export its points. Leave --points-of out for "
        "the spaces themselves, or have lfm-atlas run embed them"
    )


PROJECTOR_FILES = ("tensors.tsv", "metadata.tsv")


def export_projector(points: Points, output: Path) -> None:
    """Write a folder for TensorBoard's projector: ``tensors.tsv`` without a header, ``metadata.tsv`` with one."""
    rows = ["\t".join(repr(float(value)) for value in row) for row in points.coordinates]
    # One column alone would have to stand without a header.
    metadata = dict(points.metadata)
    if len(metadata) < 2:
        metadata = {"number": [str(row) for row in range(len(rows))], **metadata}
    table = ["\t".join(metadata), *("\t".join(map(_one_cell, row)) for row in zip(*metadata.values(), strict=True))]
    texts = ("".join(f"{line}\n" for line in lines).encode() for lines in (rows, table))
    replace_files({output / name: text for name, text in zip(PROJECTOR_FILES, texts, strict=True)})


def export_embedding_atlas(points: Points, output: Path) -> None:
    """Write Parquet for Apple's Embedding Atlas: metadata, ``text``, ``x``, ``y``, ``neighbors`` by row number."""
    coordinates = points.coordinates[:, :2]
    text = points.metadata.get("label", next(iter(points.metadata.values())))
    # As arrays, columns have their types without any row, too.
    columns: dict[str, Any] = {name: np.array(values, dtype=str) for name, values in points.metadata.items()}
    columns |= {"row": np.arange(len(coordinates)), "text": np.array(text, dtype=str)}
    columns |= {"x": coordinates[:, 0].copy(), "y": coordinates[:, 1].copy(), "neighbors": _neighbors(coordinates)}
    write_columns(columns, output)


def _neighbors(coordinates: np.ndarray) -> list[dict[str, Any]]:
    """Return the rows and distances of the nearest points of each point."""
    if not len(coordinates):
        return []
    n_near = min(_N_NEIGHBORS + 1, len(coordinates))
    distances, rows = cKDTree(coordinates).query(coordinates, n_near)
    neighbors = []
    for point, (near, far) in enumerate(zip(rows.reshape(-1, n_near), distances.reshape(-1, n_near), strict=True)):
        # Where several points are one, the nearest need not be the point itself.
        others = [(int(row), float(distance)) for row, distance in zip(near, far, strict=True) if row != point]
        neighbors.append({"ids": [row for row, _ in others], "distances": [distance for _, distance in others]})
    return neighbors


def _one_cell(text: str) -> str:
    return re.sub(r"[\t\r\n]+", " ", text)
