"""Pictures of an atlas in matplotlib: ``atlas.plot.matrix()``, ``.tree()``, ``.layers(a, b)``, ``.map(a, b)``."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lfm_tasks.statistics.model_pairs import model_distances
from lfm_tasks.stores.atlas.schema import AtlasError

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class AtlasPlots:
    """The pictures of one ``atlas``, an `Atlas`; each method returns the matplotlib axes it drew on.

    ``ax``: axes to draw on; new ones if left out. ``measure`` and ``dataset`` as in the other methods of `Atlas`.

    Examples
    --------
    >>> from lfm_atlas import open_atlas
    >>> atlas = open_atlas("atlas")  # of the zoo that comes with the package; the examples below use it, too
    >>> axes = atlas.plot.matrix("overlap")
    """

    atlas: Any

    def matrix(self, measure: str | None = None, *, dataset: str | None = None, ax: Any = None) -> Any:
        """Draw models by models: the mean of both directions, as the page of the atlas shows it.

        Examples
        --------
        >>> atlas.plot.matrix().get_title()
        'overlap, mean of both directions'
        """
        values = self.atlas.matrix(measure, dataset=dataset, symmetric=True)
        ax = _drawn(values, ax)
        ax.set_title(f"{values.attrs['measure']}, {values.attrs['direction']}")
        return ax

    def layers(
        self, source: str, target: str, measure: str | None = None, *, dataset: str | None = None, ax: Any = None
    ) -> Any:
        """Draw the layers of one model by those of another, both by depth.

        Examples
        --------
        >>> axes = atlas.plot.layers("mlp_s0", "mlp_s1")
        >>> [label.get_text() for label in axes.get_yticklabels()][:2]
        ['mlp_s0/relu1', 'mlp_s0/relu2']
        """
        names = self.atlas.names(self.atlas.dataset_of(dataset, source, target))
        for name in (source, target):
            if not names.is_model(name):
                raise AtlasError(f"got {name!r}, expected a model: of two spaces there is one value, pair(a, b).")
        spaces = self.atlas.matrix(measure, reduce=None, dataset=names.dataset)
        return _drawn(spaces.sel(source=names.layers(source), target=names.layers(target)), ax)

    def map(self, source: str, target: str, *, dataset: str | None = None, ax: Any = None) -> Any:
        """Draw the functional map from one space to another: large entries near the diagonal are alike.

        Examples
        --------
        >>> atlas.plot.map("mlp_s0/relu1", "mlp_s1/relu1").get_xlabel()
        'eigenpair of mlp_s0/relu1'
        """
        values = self.atlas.map(source, target, dataset=dataset)
        ax = _axes(ax)
        reach = float(np.abs(values.values).max())
        picture = ax.imshow(values.values, cmap="RdBu_r", vmin=-reach, vmax=reach)
        ax.set(xlabel=f"eigenpair of {source}", ylabel=f"eigenpair of {target}")
        ax.figure.colorbar(picture, ax=ax)
        return ax

    def tree(self, measure: str | None = None, *, dataset: str | None = None, ax: Any = None) -> Any:
        """Draw the tree of models by average linkage of 1 − similarity: 0 is alike, 1 is chance.

        Examples
        --------
        >>> atlas.plot.tree().get_xlabel()
        '1 - similarity'
        """
        from scipy.cluster.hierarchy import dendrogram, linkage
        from scipy.spatial.distance import squareform

        values = self.atlas.matrix(measure, dataset=dataset, symmetric=True)
        if len(values) < 2:
            raise AtlasError("got an atlas with fewer than 2 models, expected at least 2 for a tree.")
        distances = squareform(model_distances(values.values), checks=False)
        ax = _axes(ax)
        labels = [str(name) for name in values["source"].values]
        dendrogram(linkage(distances, "average"), labels=labels, orientation="right", ax=ax)
        ax.set_xlabel("1 - similarity")
        return ax

    def nearest(
        self,
        name: str,
        *,
        n: int = 5,
        measure: str | None = None,
        dataset: str | None = None,
        ax: Any = None,
    ) -> Any:
        """Draw how near the ``n`` nearest models, or spaces, are to one, the nearest on top.

        Examples
        --------
        >>> atlas.plot.nearest("mlp_s0", n=3).get_xlabel()
        'overlap to mlp_s0'
        """
        rows = self.atlas.nearest(name, n=n, measure=measure, dataset=dataset)
        ax = _axes(ax)
        ax.barh([row["name"] for row in rows][::-1], [row["value"] for row in rows][::-1])
        ax.set_xlabel(f"{measure or self.atlas.default_measure} to {name}")
        return ax


def _drawn(values: "xr.DataArray", ax: Any) -> Any:
    ax = _axes(ax)
    picture = ax.imshow(values.values, vmin=0, vmax=1, cmap="viridis")
    for axis, dim in ((ax.xaxis, "target"), (ax.yaxis, "source")):
        axis.set_ticks(range(values.sizes[dim]), [str(name) for name in values[dim].values])
        axis.set_label_text(dim)
    ax.tick_params("x", rotation=90)
    ax.figure.colorbar(picture, ax=ax)
    return ax


def _axes(ax: Any) -> Any:
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise AtlasError("got no matplotlib, expected it for plots. Do: pip install 'lfm-atlas[plot]'") from error
    return pyplot.subplots(layout="constrained")[1]
