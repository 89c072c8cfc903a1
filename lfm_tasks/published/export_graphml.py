"""GraphML of the spaces, for Gephi, Cytoscape, igraph and networkx."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from lfm_tasks.published.atlas import Atlas
from lfm_tasks.stores.atlas.schema import AtlasError
from lfm_tasks.stores.units.durable import write_durably

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
    write_durably(output, ElementTree.tostring(document, encoding="utf-8", xml_declaration=True))


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
