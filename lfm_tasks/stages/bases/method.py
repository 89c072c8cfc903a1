"""How a basis is made: its graph, the neighbor search, its landmarks."""

from dataclasses import dataclass

from lfm_tasks.config import AtlasConfig, GraphConfig
from lfm_tasks.spectral.bases.landmarks import n_landmarks_of
from lfm_tasks.spectral.neighbors.auto_method import choose_method
from lfm_tasks.spectral.neighbors.search import Method


@dataclass(frozen=True)
class Way:
    """How a basis is made: its graph, by which search, of how many landmarks drawn by which seed (None: all points)."""

    graph: GraphConfig
    method: Method
    n_eigenpairs: int
    n_landmarks: int | None = None
    seed: int = 0


def basis_way(atlas: AtlasConfig, n_points: int, n_features: int) -> Way:
    """Return how the basis of a space of this size is made."""
    graph = atlas.graph
    n_landmarks = n_landmarks_of(n_points, graph.landmarks)
    method = graph.method
    if method == "auto":
        method = choose_method(n_landmarks or n_points, n_features, graph.n_neighbors)
    return Way(graph, method, atlas.n_eigenpairs, n_landmarks, atlas.seed)
