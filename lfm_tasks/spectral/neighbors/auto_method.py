"""How ``graph.method: auto`` finds neighbours: a table that is part of the convention, never measured on the spot."""

from lfm_tasks.spectral.neighbors.search import PROJECTED_COLUMNS, Method, goes_by_tiles

# Raised with every change of the table; stored with the graph.
TABLE_VERSION = 3
# Exact below, whatever the rest: what a projection saves does not pay for what it may miss; by tiles it saves nothing.
_EXACT_BELOW, _TILES_BELOW = 30_000, 60_000
# Most neighbours, and from how many points on pynndescent is the default: the rest is quadratic (docs/speed.md).
_PYNNDESCENT_FROM = ((20, 60_000), (100, 100_000))
_PYNNDESCENT_FROM_WITH_MORE = 400_000


def choose_method(n_points: int, n_features: int, n_neighbors: int) -> Method:
    """Return ``exact`` below 30,000 points, or 60,000 where it goes by tiles; then ``projection``.

    ``exact`` remains where there is nothing to project.
    ``pynndescent`` is the default from 60,000 points on for up to 20 neighbours, from 100,000 for up to 100, from
    400,000 for more: its time grows with the neighbours, that of products hardly.
    """
    largest = next((n for most, n in _PYNNDESCENT_FROM if n_neighbors <= most), _PYNNDESCENT_FROM_WITH_MORE)
    if n_points >= largest:
        return "pynndescent"
    exact_below = _TILES_BELOW if goes_by_tiles(n_points, n_features, n_neighbors) else _EXACT_BELOW
    return "exact" if n_points < exact_below or n_features <= PROJECTED_COLUMNS else "projection"
