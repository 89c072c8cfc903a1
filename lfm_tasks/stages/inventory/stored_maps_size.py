"""How many bytes the maps that the catalog wants kept would take, before anything is computed."""

from collections.abc import Iterable, Mapping
from itertools import product

from lfm_tasks.catalog import Catalog
from lfm_tasks.spaces import Space
from lfm_tasks.stages.inventory.requests import Part, embedded_spaces, n_directed_pairs

# How failures name the setting.
KEEP_MAPS = "atlas.keep_maps"
# They are published in one piece, laid out in memory first (bytes, per dataset).
MOST_BYTES = 4 << 30


def oversized_maps(catalog: Catalog, parts: Iterable[Part], sizes: Mapping[Space, int]) -> dict[str, str]:
    """Return a sentence for each dataset whose kept maps would take more than 4 GiB; ``sizes`` are numbers of points.

    A map takes 4 K² bytes, its distortions 8 bytes a point.
    """
    parts, found = list(parts), {}
    for dataset in sorted({space.dataset for space in sizes}):
        own = [part for part in parts if part.dataset == dataset]
        spaces = [space for space in sizes if space.dataset == dataset]
        n_maps = n_kept_maps(catalog, own, spaces)
        n_points = max(sizes[space] for space in spaces)
        n_bytes = n_maps * (4 * catalog.atlas.n_eigenpairs**2 + 8 * n_points)
        if n_bytes > MOST_BYTES:
            size = f"found {n_maps} maps of {n_points} points to keep, {n_bytes / 2**30:.1f} GiB"
            advice = "set atlas.keep_maps to best or none, embed fewer spaces, or set atlas.max_points"
            found[dataset] = f"{size}, needs at most {MOST_BYTES >> 30} GiB: {advice}"
    return found


def n_kept_maps(catalog: Catalog, parts: list[Part], spaces: list[Space]) -> int:
    """Return how many maps of one dataset the catalog keeps, at most."""
    keep, pictured = catalog.atlas.keep_maps, set(embedded_spaces(catalog, spaces))
    embedded = {
        frozenset(pair)
        for part in parts
        for pair in product(pictured.intersection(part.sources), pictured.intersection(part.targets))
    }
    n_embedded = sum(len(pair) == 2 for pair in embedded)
    if keep == "all":
        return n_directed_pairs(parts, spaces) // 2
    if keep == "none":
        return n_embedded
    models = {
        frozenset(pair)
        for part in parts
        for pair in product({space.model for space in part.sources}, {space.model for space in part.targets})
    }
    return n_embedded + sum(len(pair) == 2 for pair in models)
