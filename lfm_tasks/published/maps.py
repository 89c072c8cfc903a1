"""A functional map: the atlas's own, or made again of the bases in the store."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from lfm_tasks.spectral.bases.full_map import full_map, whitened_rows
from lfm_tasks.stores.atlas.schema import AtlasError
from lfm_tasks.stores.units.store import UnitStore

if TYPE_CHECKING:
    from lfm_tasks.published.atlas import Atlas

_DIMS = ("target_eigenpair", "source_eigenpair")


def functional_map(atlas: "Atlas", dataset: str, source: str, target: str) -> xr.DataArray:
    """Return the map (target_eigenpair, source_eigenpair) of two spaces of one dataset."""
    kept = _kept(atlas.section(f"maps/{dataset}"), source, target)
    values = _recomputed(atlas, dataset, source, target) if kept is None else kept
    labels = {"source": source, "target": target, "dataset": dataset}
    told = {
        "long_name": "carries coefficients from the source's eigenvectors to the target's",
        "origin": "recomputed from the bases" if kept is None else "kept in the atlas",
    }
    return xr.DataArray(values, labels, _DIMS, "functional_map", told)


def _kept(maps: xr.Dataset | None, source: str, target: str) -> np.ndarray | None:
    if maps is None:
        return None
    rows = np.flatnonzero((maps["source"].values == source) & (maps["target"].values == target))
    if not len(rows):
        return None
    values: np.ndarray = maps["functional_map"].isel(pair=int(rows[0])).transpose(*_DIMS).values
    return values


def _recomputed(atlas: "Atlas", dataset: str, source: str, target: str) -> np.ndarray:
    regime = atlas.summary["settings"]["maps"]["regime"]
    if regime != "full":
        raise AtlasError(
            f"found no map {source} -> {target} in the atlas, and maps of the regime {regime!r} cannot be made of the "
            "bases alone: keep it by the catalog's atlas.maps, and run again"
        )
    first, second = (_basis(atlas, dataset, name) for name in (source, target))
    if np.array_equal(first[1], second[1]):
        return full_map(first[0], second[0])
    _, of_first, of_second = np.intersect1d(first[1], second[1], assume_unique=True, return_indices=True)
    if not len(of_first):
        raise AtlasError(f"found no common ids of {source} and {target}, needs the same samples: record both on them")
    return full_map(whitened_rows(first[0][of_first]), whitened_rows(second[0][of_second]))


def _basis(atlas: "Atlas", dataset: str, space: str) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvectors and ids."""
    key = str(atlas.scores["basis"].sel(dataset=dataset, source=space).values)
    store = UnitStore(atlas.store)
    if not key or not store.has("bases", key):
        raise AtlasError(
            f"found no basis of {space} in the store {atlas.store}, and the atlas does not keep this map: give the "
            "store that the atlas was made in, open_atlas(path, store=...), or run lfm-atlas run again"
        )
    with store.open("bases", key) as unit:
        return unit.read("eigenvectors"), unit.read("ids")
