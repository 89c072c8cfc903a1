"""Spectral kernels: graphs and bases of spaces, maps between them, and what maps carry; docs/spectral.md lists them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lfm_tasks.spectral.bases.eigenbasis import Basis as Basis
    from lfm_tasks.spectral.bases.eigenbasis import spectral_basis as spectral_basis
    from lfm_tasks.spectral.bases.full_map import full_map as full_map
    from lfm_tasks.spectral.bases.full_map import lfm as lfm
    from lfm_tasks.spectral.bases.full_map import overlap as overlap
    from lfm_tasks.spectral.bases.graph import affinity_graph as affinity_graph
    from lfm_tasks.spectral.bases.graph import join_components as join_components
    from lfm_tasks.spectral.bases.space import SpectralSpace as SpectralSpace
    from lfm_tasks.spectral.bases.space import spectral_space as spectral_space
    from lfm_tasks.spectral.batched.tiles import factor_source as factor_source
    from lfm_tasks.spectral.batched.tiles import fit_map_from_factor as fit_map_from_factor
    from lfm_tasks.spectral.maps.closed_form import fit_closed_form as fit_closed_form
    from lfm_tasks.spectral.maps.closed_form import project_descriptors as project_descriptors
    from lfm_tasks.spectral.maps.collection import Collection as Collection
    from lfm_tasks.spectral.maps.collection import cycle_residuals as cycle_residuals
    from lfm_tasks.spectral.maps.collection import fit_shared_basis as fit_shared_basis
    from lfm_tasks.spectral.maps.collection import synchronized_map as synchronized_map
    from lfm_tasks.spectral.maps.decoding import embed as embed
    from lfm_tasks.spectral.maps.decoding import nearest_points as nearest_points
    from lfm_tasks.spectral.maps.decoding import sinkhorn_plan as sinkhorn_plan
    from lfm_tasks.spectral.maps.descriptors import Anchors as Anchors
    from lfm_tasks.spectral.maps.fit import fit_from_anchors as fit_from_anchors
    from lfm_tasks.spectral.maps.fit import fit_from_labels as fit_from_labels
    from lfm_tasks.spectral.maps.fit import fit_unsupervised as fit_unsupervised
    from lfm_tasks.spectral.maps.refinement import zoomout as zoomout
    from lfm_tasks.spectral.neighbors.search import exact_neighbors as exact_neighbors
    from lfm_tasks.spectral.transfer.alignment import partner_ranks as partner_ranks
    from lfm_tasks.spectral.transfer.alignment import transfer_coordinates as transfer_coordinates
    from lfm_tasks.spectral.transfer.selection import choose_alignment as choose_alignment
    from lfm_tasks.spectral.transfer.selection import fit_map as fit_map

_HOMES = {
    "neighbors.search": ("exact_neighbors",),
    "bases.eigenbasis": ("Basis", "spectral_basis"),
    "bases.full_map": ("full_map", "lfm", "overlap"),
    "bases.graph": ("affinity_graph", "join_components"),
    "bases.space": ("SpectralSpace", "spectral_space"),
    "maps.closed_form": ("fit_closed_form", "project_descriptors"),
    "maps.collection": ("Collection", "cycle_residuals", "fit_shared_basis", "synchronized_map"),
    "maps.decoding": ("embed", "nearest_points", "sinkhorn_plan"),
    "maps.descriptors": ("Anchors",),
    "maps.fit": ("fit_from_anchors", "fit_from_labels", "fit_unsupervised"),
    "maps.refinement": ("zoomout",),
    "batched.tiles": ("factor_source", "fit_map_from_factor"),
    "transfer.alignment": ("partner_ranks", "transfer_coordinates"),
    "transfer.selection": ("choose_alignment", "fit_map"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    # scipy takes a second to import: only who uses a kernel waits for it.
    if name in _HOME_OF:
        return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
