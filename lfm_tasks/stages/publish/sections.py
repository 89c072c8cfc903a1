"""Sections: what an atlas holds beside its scores (kept maps, the collection, transfers, embeddings)."""

from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

import xarray as xr

from lfm_tasks.runtime.run import Run


class Section(Protocol):
    """One section: a stage made its units, the atlas publishes them as groups of ``atlas.zarr``."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Everything that decides its content: the keys of its units, and reasons for what is missing."""

    @property
    def made_of(self) -> Mapping[str, Collection[str]]:
        """The keys of its units by kind, so that pruning leaves them alone."""

    def groups(self, run: Run) -> Mapping[str, xr.Dataset]:
        """Return labelled arrays by the path of their group, such as ``maps/digits``; "" joins the scores themselves.

        What joins the scores has dims among dataset, source and target, with labels of the atlas.
        """


def section_groups(run: Run, sections: Iterable[Section]) -> dict[str, xr.Dataset]:
    """Return the groups of all sections."""
    found: dict[str, xr.Dataset] = {}
    for section in sections:
        for path, content in section.groups(run).items():
            found[path] = content if path not in found else found[path].merge(content)
    return found
