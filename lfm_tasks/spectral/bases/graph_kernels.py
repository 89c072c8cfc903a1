"""Graph kernels: how strong an edge between neighbors is, by the distance of its two points.

To add a kernel, write a function of `Edges` and give it a row in `KERNELS`: the graph, the extension to points outside
the sample, the check of the catalog (``atlas.graph.kernel``) and its JSON schema all read that table. The tests of
tests/unit/spectral/bases take every row up by themselves; name the new kernel in docs/catalog.md.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Edges:
    """Directed edges, each from a point to one of its nearest neighbors.

    ``reaches`` holds the distance from each edge's start to the last of its neighbors. ``smallest`` is the smallest
    distance of the sample that is not 0, or 1 if all are: copies of a point count as that far apart where a distance of
    0 has no weight.
    """

    distances: Float[np.ndarray, "*edges"]
    reaches: Float[np.ndarray, "*#edges"]
    smallest: float


@dataclass(frozen=True)
class GraphKernel:
    """The weights of directed edges, all > 0, and how the two directions of an edge become one.

    With ``averages`` the graph is (W + Wᵀ)/2, else max(W, Wᵀ). Without ``uses_distances`` every distance gives the same
    weight, and where distances cost time they are not computed but given as 0.
    """

    weights: Callable[[Edges], Float[np.ndarray, "*edges"]]
    averages: bool = False
    uses_distances: bool = True


def find_kernel(name: str) -> GraphKernel:
    """Return the kernel called ``name``; ValueError if there is none."""
    if name not in KERNELS:
        raise ValueError(f"got the graph kernel {name!r}, expected one of {', '.join(KERNELS)}")
    return KERNELS[name]


def smallest_distance(distances: Float[np.ndarray, "points neighbors"]) -> float:
    """Return the smallest distance that is not 0, or 1 if all are; never so small that 1/d overflows."""
    positive = distances[distances > 0]
    return max(float(positive.min()), float(np.finfo(np.float64).tiny)) if positive.size else 1.0


def _binary(edges: Edges) -> Float[np.ndarray, "*edges"]:
    return np.ones_like(edges.distances)


def _gaussian(edges: Edges) -> Float[np.ndarray, "*edges"]:
    """Return exp(−4 d²/d_k²) with d_k the reach of the edge's start: self-tuning."""
    widths = np.maximum(edges.reaches, np.finfo(np.float64).tiny)
    return np.exp(-4 * (edges.distances / widths) ** 2)


def _inverse(edges: Edges) -> Float[np.ndarray, "*edges"]:
    return 1 / np.maximum(edges.distances, edges.smallest)


def _distance(edges: Edges) -> Float[np.ndarray, "*edges"]:
    """Return d, which makes far neighbors strong: it exists to reproduce a published figure."""
    # A stored zero is no edge: copies of one point stay joined by the smallest weight there is.
    return np.maximum(edges.distances, edges.smallest)


KERNELS: dict[str, GraphKernel] = {
    "binary": GraphKernel(_binary, uses_distances=False),
    "gaussian": GraphKernel(_gaussian, averages=True),
    "inverse": GraphKernel(_inverse),
    "distance": GraphKernel(_distance),
}
