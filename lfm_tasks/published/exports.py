"""An atlas in other formats: CSV, GraphML, embedding viewers."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from scipy.spatial import cKDTree

from lfm_tasks.published.atlas import Atlas
from lfm_tasks.published.queries import one_of, refuse_distances
from lfm_tasks.statistics.model_pairs import classical_scaling, model_distances, symmetrized
from lfm_tasks.stores.atlas.files import edge_batches, write_columns
from lfm_tasks.stores.atlas.schema import AtlasError
from lfm_tasks.stores.units.durable import atomic_write

# A cell that begins so is a formula to some spreadsheet: https://owasp.org/www-community/attacks/CSV_Injection
FORMULA_PREFIXES = ("=", "+", "-", "@", "\t", "\r", "\n")


def export_csv(atlas: Atlas, output: Path) -> None:
    """Write ``edges.parquet`` as CSV (RFC 4180, UTF-8): texts in quotes, numbers bare, nothing where there is none.

    ``comparisons`` are joined by spaces, which their names do not have.
    """
    lines: list[str] = []
    for batch in edge_batches(atlas.folder):
        lines = lines or [_line(batch)]
        lines += [_line(row) for row in zip(*batch.values(), strict=True)]
    atomic_write(output, "".join(f"{line}\r\n" for line in lines).encode())


def neutral(text: str) -> str:
    """Return ``text`` as no spreadsheet runs it: with ``'`` before it if it begins like a formula, or with ``'``.

    Examples
    --------
    >>> neutral("=1+1"), neutral("layer1"), neutral("'quoted'")
    ("'=1+1", 'layer1', "''quoted'")
    """
    return f"'{text}" if text.startswith((*FORMULA_PREFIXES, "'")) else text


def original(cell: str) -> str:
    """Return what `neutral` was given: the cell without one leading ``'``."""
    return cell.removeprefix("'")


def _line(values: Iterable[Any]) -> str:
    return ",".join(map(_cell, values))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, int | float):
        return repr(value)
    text = neutral(value if isinstance(value, str) else " ".join(value)).replace('"', '""')
    return f'"{text}"'


# http://graphml.graphdrawing.org/specification.html
_NAMESPACE = "http://graphml.graphdrawing.org/xmlns"
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_EDGE = ("score", "calibrated", "p_value", "q_value", "ci_low", "ci_high", "unrelated_rank")


def export_graphml(
    atlas: Atlas,
    output: Path,
    *,
    measure: str | None = None,
    dataset: str | None = None,
    max_q: float | None = None,
    min_value: float | None = None,
) -> None:
    """Write a directed graph: a node for each space, an edge for each pair that is significant or alike enough.

    ``max_q``: false discovery rate at most so (0.05 if neither is given); ``min_value``: calibrated value at least so.
    """
    similarity = atlas.matrix(measure, reduce=None, dataset=dataset)
    chosen = atlas.scores.sel({name: similarity[name].values for name in ("dataset", "measure", "source", "target")})
    kept = np.isfinite(chosen["score"].values) & ~np.eye(len(similarity), dtype=bool)
    if max_q is None and min_value is None:
        max_q = 0.05
    for name, limit, inside in (("q_value", max_q, np.less_equal), ("calibrated", min_value, np.greater_equal)):
        if limit is None:
            continue
        if not np.isfinite(chosen[name].values[kept]).any():
            raise AtlasError(
                f"found no {name} in the atlas, needs it to choose edges: set atlas.null.n_permutations and run again"
            )
        kept &= inside(np.nan_to_num(chosen[name].values, nan=-np.inf if name == "calibrated" else np.inf), limit)
    nodes: dict[str, Any] = {
        str(name).removeprefix("source_"): values.values
        for name, values in chosen.coords.items()
        if str(name).startswith("source_") and values.dims == ("source",)
    }
    edges = {name: chosen[name].values for name in _EDGE}
    document = _document(list(chosen["source"].values), nodes, edges, kept)
    atomic_write(output, ElementTree.tostring(document, encoding="utf-8", xml_declaration=True))


def _document(
    names: list[str], nodes: dict[str, np.ndarray], edges: dict[str, np.ndarray], kept: np.ndarray
) -> ElementTree.Element:
    root = ElementTree.Element("graphml", xmlns=_NAMESPACE)
    for kind, columns in (("node", {"label": np.array(names, dtype=object), **nodes}), ("edge", edges)):
        for name, values in columns.items():
            number = np.issubdtype(values.dtype, np.floating)
            declared = {"for": kind, "attr.name": name, "attr.type": "double" if number else "string"}
            ElementTree.SubElement(root, "key", {"id": f"{kind}_{name}", **declared})
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


MOST_AXES = 50
_N_NEIGHBORS = 10


@dataclass(frozen=True)
class Points:
    """Coordinates with what is told of each point; ``note`` says where they are from."""

    coordinates: np.ndarray
    told: Mapping[str, Sequence[str]]
    note: str


def space_points(atlas: Atlas, n_axes: int, *, measure: str | None = None, dataset: str | None = None) -> Points:
    """Return the spaces of a dataset by classical scaling of 1 − calibrated similarity, both directions averaged."""
    similarity = atlas.matrix(measure, reduce=None, dataset=dataset)
    refuse_distances(atlas.scores, str(similarity["measure"].item()), str(similarity.name))
    scaling = classical_scaling(model_distances(symmetrized(similarity.values)), n_axes)
    told = {"space": similarity["source"].values} | {
        str(name).removeprefix("source_"): values.values
        for name, values in similarity.coords.items()
        if str(name).startswith("source_")
    }
    used = scaling.points[:, np.any(scaling.points != 0, axis=0)] if n_axes > 2 else scaling.points
    note = f"classical scaling of 1 - {similarity.name} {similarity['measure'].item()}, stress {scaling.stress:.3f}"
    return Points(used, {name: [str(value) for value in values] for name, values in told.items()}, note)


def embedded_points(atlas: Atlas, space: str, *, dataset: str | None = None) -> Points:
    """Return the points of one space as the atlas embeds them."""
    names = [dataset] if dataset else atlas.datasets
    for name in names:
        group = atlas.section(f"embeddings/{one_of(name, atlas.datasets, 'dataset')}")
        if group is not None and space in group["space"].values:
            chosen = group.sel(space=space)
            there = np.isfinite(chosen["tsne"].transpose("point", "axis").values).all(axis=1)
            told = {"id": chosen["point"].values[there], "label": chosen["label"].values[there]}
            columns = {column: [str(value) for value in values] for column, values in told.items()}
            return Points(chosen["tsne"].transpose("point", "axis").values[there], columns, f"t-SNE of {space}")
    raise AtlasError(
        f"found no embedding of {space!r:.80} in the atlas, needs one to export its points: leave --points-of out for "
        "the spaces themselves, or have lfm-atlas run embed them"
    )


def export_projector(points: Points, output: Path) -> None:
    """Write a folder for TensorBoard's projector: ``tensors.tsv`` without a header, ``metadata.tsv`` with one."""
    rows = ["\t".join(repr(float(value)) for value in row) for row in points.coordinates]
    # One column alone would have to stand without a header.
    told = (
        {"number": [str(number) for number in range(len(rows))], **points.told} if len(points.told) < 2 else points.told
    )
    table = ["\t".join(told), *("\t".join(map(_one_cell, row)) for row in zip(*told.values(), strict=True))]
    for name, lines in (("tensors.tsv", rows), ("metadata.tsv", table)):
        atomic_write(output / name, "".join(f"{line}\n" for line in lines).encode())


def export_embedding_atlas(points: Points, output: Path) -> None:
    """Write Parquet for Apple's Embedding Atlas: what is told, ``text``, ``x``, ``y``, ``neighbors`` by row number."""
    coordinates = points.coordinates[:, :2]
    n_near = min(_N_NEIGHBORS + 1, len(coordinates))
    distances, rows = cKDTree(coordinates).query(coordinates, n_near)
    neighbors = []
    for own, (near, far) in enumerate(zip(rows.reshape(-1, n_near), distances.reshape(-1, n_near), strict=True)):
        # Where several points are one, the nearest need not be the point itself.
        others = [(int(row), float(distance)) for row, distance in zip(near, far, strict=True) if row != own]
        neighbors.append({"ids": [row for row, _ in others], "distances": [distance for _, distance in others]})
    text = points.told.get("label", next(iter(points.told.values())))
    columns: dict[str, Sequence[Any]] = {**points.told, "row": range(len(coordinates)), "text": text}
    columns |= {"x": coordinates[:, 0].tolist(), "y": coordinates[:, 1].tolist(), "neighbors": neighbors}
    write_columns(columns, output)


def _one_cell(text: str) -> str:
    return re.sub(r"[\t\r\n]+", " ", text)
