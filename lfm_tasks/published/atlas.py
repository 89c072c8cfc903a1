"""An atlas in Python: what is near, how two spaces compare, matrices, maps, the long table."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from lfm_tasks.published import matrices, nearest, overview, pairs
from lfm_tasks.published.maps import functional_map
from lfm_tasks.published.names import Names, one_of
from lfm_tasks.stores.atlas.files import open_group
from lfm_tasks.stores.atlas.schema import AtlasError
from lfm_tasks.stores.atlas.zarr_store import Manifest

if TYPE_CHECKING:
    import pandas as pd

Reduce = Literal["best_match", "depth_aligned", "mean"]


@dataclass(frozen=True, repr=False)
class Atlas:
    """A published atlas, as `open_atlas` gives it.

    ``scores`` are the labelled arrays, dims (dataset, measure, source, target); ``summary`` is ``summary.json``. Where
    a method takes ``dataset``, it may be left out if the atlas has one only; ``measure`` is ``overlap`` if left out.
    """

    folder: Path
    key: str
    summary: Mapping[str, Any]
    scores: xr.Dataset
    store: Path
    manifest: Manifest

    @property
    def datasets(self) -> list[str]:
        """Return the names of the datasets."""
        return [str(name) for name in self.scores["dataset"].values]

    @property
    def measures(self) -> list[str]:
        """Return the names of the measures."""
        return [str(name) for name in self.scores["measure"].values]

    @property
    def default_measure(self) -> str:
        """Return ``overlap``, which matches layers best, or the first measure where it is not there."""
        return "overlap" if "overlap" in self.measures else self.measures[0]

    @property
    def models(self) -> list[str]:
        """Return the names of the models that have a space."""
        return sorted({str(name) for name in self.scores["source_model"].values})

    @property
    def spaces(self) -> list[str]:
        """Return the names of all spaces, ``model/layer``."""
        return [str(name) for name in self.scores["source"].values]

    def nearest(
        self, name: str, *, n: int = 5, measure: str | None = None, dataset: str | None = None
    ) -> list[dict[str, Any]]:
        """Return the ``n`` models nearest to a model, or spaces to a space, a row each, nearest first.

        ``value`` is calibrated (0 chance, 1 best; the score itself where chance was not sampled), of models the mean
        of both directions' `best_match`; ``margin`` how far the next one is behind. Of models the other columns tell
        the pair of layers that is most alike. `pandas.DataFrame` takes the rows as they are.
        """
        if n < 1:
            raise AtlasError(f"found n={n}, needs at least 1 neighbour to name")
        names = self.names(dataset)
        measure = self._measure(measure)
        one_space = isinstance(names.spaces_of(name), str)
        ranked = nearest.nearest_spaces if one_space else nearest.nearest_models
        return list(islice(ranked(self.scores, names, name, measure), n))

    def matrix(
        self,
        measure: str | None = None,
        reduce: Reduce | None = "best_match",
        *,
        statistic: str | None = None,
        dataset: str | None = None,
    ) -> xr.DataArray:
        """Return models × models (source, target), or with ``reduce=None`` spaces × spaces by model and depth.

        ``best_match``: each source layer's best, averaged; ``depth_aligned``: at the target layer of nearest relative
        depth; ``mean``: over all pairs of layers. ``statistic``: any of `scores`; ``calibrated`` if left out, ``score``
        where chance was not sampled.
        """
        measure, names = self._measure(measure), self.names(dataset)
        known = [str(name) for name, values in self.scores.data_vars.items() if "measure" in values.dims]
        statistic = statistic and one_of(statistic, known, "statistic")
        reduction = reduce and one_of(reduce, matrices.REDUCTIONS, "reduction")
        return matrices.matrix(self.scores, names, measure, reduction, statistic)

    def pair(self, source: str, target: str, *, dataset: str | None = None) -> xr.Dataset:
        """Return all numbers of a pair by measure, with ``status`` and, where that is not ``ok``, ``reason`` in words.

        Two spaces give (measure); of a model all its layers, in the order of their depth.
        """
        names = self.names(dataset)
        return pairs.pair(self.scores, names, names.spaces_of(source), names.spaces_of(target))

    def map(self, source: str, target: str, *, dataset: str | None = None) -> xr.DataArray:
        """Return the functional map (target_eigenpair, source_eigenpair) from one space to another.

        The atlas's own where it is kept; else made of the bases in the store, if every point was known in both.
        """
        names = self.names(dataset)
        return functional_map(self, names.dataset, names.space(source), names.space(target))

    def section(self, path: str) -> xr.Dataset | None:
        """Return what lies beside the scores in ``atlas.zarr`` (``maps/digits``), unread; None if it does not."""
        return open_group(self.folder, path, self.manifest)

    def to_frame(self) -> "pd.DataFrame":
        """Return the long table, ``edges.parquet``, as a pandas data frame."""
        try:
            import pandas as pd
        except ImportError as error:
            raise AtlasError(
                "found no pandas, which to_frame needs: pip install pandas, or read edges.parquet by what you have"
            ) from error
        return pd.read_parquet(self.folder / "edges.parquet")

    def close(self) -> None:
        """Close the files."""
        self.scores.close()

    def __enter__(self) -> "Atlas":
        """Give the atlas; it is closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files."""
        self.close()

    def __repr__(self) -> str:
        """Return what it holds, on a few lines."""
        return overview.as_text(self.summary, self.datasets, self.measures)

    def _repr_html_(self) -> str:
        """Return the same for notebooks."""
        return overview.as_html(self.summary, self.datasets, self.measures)

    def names(self, dataset: str | None = None) -> Names:
        """Return the models and spaces of a dataset, by model and depth."""
        if dataset is None:
            if len(self.datasets) != 1:
                raise AtlasError(
                    f"found {len(self.datasets)} datasets ({', '.join(self.datasets)}), needs one: give dataset=..."
                )
            (dataset,) = self.datasets
        dataset = one_of(dataset, self.datasets, "dataset")
        place = self.scores.sel(dataset=dataset)
        present = np.flatnonzero(place["n_points"].values > 0)
        depths = place["source_depth"].values
        models = [str(name) for name in place["source_model"].values]
        order = sorted(present, key=lambda row: (models[row], float(depths[row])))
        layers = {str(place["source"].values[row]): models[row] for row in order}
        failures = [failure for failure in self.summary["failures"] if failure["dataset"] == dataset]
        return Names(dataset, layers, failures)

    def _measure(self, measure: str | None) -> str:
        return self.default_measure if measure is None else one_of(measure, self.measures, "measure")
