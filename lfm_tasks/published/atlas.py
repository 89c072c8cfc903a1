"""The published atlas in Python: `open_atlas` and the class `Atlas`.

Users import `open_atlas` from ``lfm_atlas``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import compress, islice
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from lfm_tasks.catalog.names import describe, did_you_mean
from lfm_tasks.lineage.families import Family, families_of
from lfm_tasks.lineage.relations import Relation, relations_of_atlas
from lfm_tasks.published import queries
from lfm_tasks.published.queries import Names, require_one_of
from lfm_tasks.published.temporary import TemporaryFolder
from lfm_tasks.spectral.bases.full_map import full_map, whitened_rows
from lfm_tasks.stores.atlas.files import checked_manifest, open_group, open_scores, read_json
from lfm_tasks.stores.atlas.schema import ZARR, AtlasError, Manifest, manifest_key
from lfm_tasks.stores.units.store import UnitStore

if TYPE_CHECKING:
    import pandas as pd


_MAX_FAILURES = 10  # that a summary names


def as_text(summary: Mapping[str, Any], datasets: Sequence[str], measures: Sequence[str]) -> str:
    """Return a summary of an atlas in a few lines."""
    lines = [f"{name:<10} {value}" for name, value in _facts(summary, datasets, measures).items()]
    return "\n".join([f"<lfm-atlas: {summary['title']}>", *lines])


def as_html(summary: Mapping[str, Any], datasets: Sequence[str], measures: Sequence[str]) -> str:
    """Return a summary of an atlas as an HTML table for notebooks; every name is escaped."""
    facts = _facts(summary, datasets, measures)
    cells = [(escape(name), escape(value)) for name, value in facts.items()]
    rows = "".join(f'<tr><th scope="row">{name}</th><td>{value}</td></tr>' for name, value in cells)
    return f"<table><caption>{escape(summary['title'])}</caption><tbody>{rows}</tbody></table>"


def _facts(summary: Mapping[str, Any], datasets: Sequence[str], measures: Sequence[str]) -> dict[str, str]:
    counts = summary["counts"]
    facts = {
        "spaces": f"{counts['spaces']} of {counts['models']} models",
        "pairs": f"{counts['directed_pairs']} directed, {counts['directed_pairs_without_score']} without a score",
        "datasets": ", ".join(datasets),
        "measures": ", ".join(measures),
        "models": ", ".join(entry["name"] for entry in summary["models"]),
    }
    failures = [
        f"{failure.get('names') or '/'.join(filter(None, (failure['model'], failure['layer'])))} [{failure['reason']}]"
        for failure in summary["failures"]
    ]
    if failures:
        more = f" and {len(failures) - _MAX_FAILURES} more" if len(failures) > _MAX_FAILURES else ""
        facts["failed"] = ", ".join(failures[:_MAX_FAILURES]) + more
    return facts


_DIMS = ("target_eigenpair", "source_eigenpair")


def functional_map(atlas: "Atlas", dataset: str, source: str, target: str) -> xr.DataArray:
    """Return the map (target_eigenpair, source_eigenpair) of two spaces of one dataset."""
    stored = _stored_map(atlas.section(f"maps/{dataset}"), source, target)
    values = _recomputed_map(atlas, dataset, source, target) if stored is None else stored
    labels = {"source": source, "target": target, "dataset": dataset}
    attributes = {
        "long_name": "carries coefficients from the source's eigenvectors to the target's",
        "origin": "recomputed from the bases" if stored is None else "kept in the atlas",
    }
    return xr.DataArray(values, labels, _DIMS, "functional_map", attributes)


def _stored_map(maps: xr.Dataset | None, source: str, target: str) -> np.ndarray | None:
    if maps is None:
        return None
    rows = np.flatnonzero((maps["source"].values == source) & (maps["target"].values == target))
    if not len(rows):
        return None
    values: np.ndarray = maps["functional_map"].isel(pair=int(rows[0])).transpose(*_DIMS).values
    # Maps of smaller bases end with NaN.
    known = np.isfinite(values)
    return values[known.any(axis=1)][:, known.any(axis=0)]


def _recomputed_map(atlas: "Atlas", dataset: str, source: str, target: str) -> np.ndarray:
    regime = atlas.summary["settings"]["maps"]["regime"]
    if regime != "full":
        raise AtlasError(
            f"found no map {source} -> {target} in the atlas, and maps of the regime {regime!r} cannot be made of the "
            "bases alone: keep it by the catalog's atlas.maps, and run again"
        )
    first, second = (_basis(atlas, dataset, name) for name in (source, target))
    if np.array_equal(first[1], second[1]):
        return full_map(first[0], second[0])
    _, rows_of_first, rows_of_second = np.intersect1d(first[1], second[1], assume_unique=True, return_indices=True)
    if not len(rows_of_first):
        raise AtlasError(f"found no common ids of {source} and {target}, needs the same samples: record both on them")
    n_eigenpairs = min(first[0].shape[1], second[0].shape[1])
    rows = first[0][rows_of_first, :n_eigenpairs], second[0][rows_of_second, :n_eigenpairs]
    return full_map(*map(whitened_rows, rows))


def _basis(atlas: "Atlas", dataset: str, space: str) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvectors and ids of a space from the store; raise `AtlasError` if the store does not have them."""
    key = str(atlas.scores["basis"].sel(dataset=dataset, source=space).values)
    store = UnitStore(atlas.store)
    if not key or not store.has("bases", key):
        raise AtlasError(
            f"found no basis of {space} in the store {atlas.store}, and the atlas does not keep this map: give the "
            "store that the atlas was made in, open_atlas(path, store=...), or run lfm-atlas run again"
        )
    with store.open("bases", key) as unit:
        return unit.read("eigenvectors"), unit.read("ids")


Reduce = Literal["best_match", "depth_aligned", "mean"]


@dataclass(frozen=True, repr=False)
class Atlas:
    """A published atlas, as `open_atlas` returns it.

    Where a method takes ``dataset``, it may be left out if the atlas has only one; ``measure`` is ``overlap`` if left
    out.

    Attributes
    ----------
    folder, key
        The folder of the atlas, and the key that its manifest gives it.
    summary
        The content of ``summary.json``.
    scores
        The labeled arrays, dims (dataset, measure, source, target).
    store
        The store of the run that made the atlas; `map` reads bases from it.
    manifest
        Size and SHA-256 of every file of the atlas.
    temporary
        The folder of an atlas of arrays in memory, which `close` removes; None for a published atlas.
    """

    folder: Path
    key: str
    summary: Mapping[str, Any]
    scores: xr.Dataset
    store: Path
    manifest: Manifest
    temporary: TemporaryFolder | None = None

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
        """Return ``overlap``, which matches layers best, or the first measure of an atlas without it."""
        return "overlap" if "overlap" in self.measures else self.measures[0]

    @property
    def models(self) -> list[str]:
        """Return the names of the models that have a space."""
        return sorted({str(name) for name in self.scores["source_model"].values})

    @property
    def spaces(self) -> list[str]:
        """Return the names of all spaces, ``model/layer``."""
        return [str(name) for name in self.scores["source"].values]

    @property
    def model_datasets(self) -> dict[str, list[str]]:
        """Return the datasets of each model that has a space."""
        models = np.array([str(name) for name in self.scores["source_model"].values], dtype=object)
        present = self.scores["n_points"].values > 0
        return {
            model: [dataset for row, dataset in enumerate(self.datasets) if present[row, models == model].any()]
            for model in self.models
        }

    @property
    def comparisons_across(self) -> list[str]:
        """Return the names of the comparisons of spaces of two datasets."""
        start = f"{ZARR}/across/"
        parts = [name.removeprefix(start).split("/") for name in self.manifest.files if name.startswith(start)]
        return sorted({part[0] for part in parts if len(part) > 1})

    def nearest(
        self, name: str, *, n: int = 5, measure: str | None = None, dataset: str | None = None
    ) -> list[dict[str, Any]]:
        """Return the ``n`` models nearest to a model, or spaces to a space, a row each, nearest first.

        ``value`` is calibrated (0 chance, 1 best; the score itself where chance was not sampled), of models the mean
        of both directions' `best_match`; ``margin`` how far the next one is behind, with its interval and p-value
        (``margin_low``, ``margin_high``, ``margin_p``): where the interval holds 0, the points do not tell which is
        nearer. Of models the other columns tell the pair of layers that is most alike. `pandas.DataFrame` takes the
        rows as they are.
        """
        if n < 1:
            raise AtlasError(f"found n={n}, needs at least 1 neighbor to name")
        names = self.names(self._dataset_of(dataset, name))
        measure = self._measure(measure)
        is_space = isinstance(names.spaces_of(name), str)
        ranked = queries.nearest_spaces if is_space else queries.nearest_models
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
        statistic = statistic and require_one_of(statistic, known, "statistic")
        reduction = reduce and require_one_of(reduce, queries.REDUCTIONS, "reduction")
        return queries.matrix(self.scores, names, measure, reduction, statistic)

    def pair(self, source: str, target: str, *, dataset: str | None = None) -> xr.Dataset:
        """Return all numbers of a pair by measure, with ``status`` and, where that is not ``ok``, ``reason`` in words.

        Two spaces give (measure); of a model all its layers, in the order of their depth.
        """
        names = self.names(self._dataset_of(dataset, source, target))
        return queries.pair(self.scores, names, names.spaces_of(source), names.spaces_of(target))

    def relations(self) -> tuple[Relation, ...]:
        """Return how each pair of models that share a dataset is related, the most alike first.

        A `Relation` has the level (copy, related, same family, beyond chance, unrelated, cannot tell), the probability
        of a common origin, and what they rest on. Likeness is evidence of a common origin, not proof.
        """
        return relations_of_atlas(self.scores, self._meta)

    def families(self) -> tuple[Family, ...]:
        """Return the groups of models that are related or declare it, each with its tree and, if known, its oldest."""
        return families_of(self.relations(), self._meta)

    @property
    def _meta(self) -> dict[str, Mapping[str, Any]]:
        return {entry["name"]: entry["meta"] for entry in self.summary["models"]}

    def map(self, source: str, target: str, *, dataset: str | None = None) -> xr.DataArray:
        """Return the functional map (target_eigenpair, source_eigenpair) from one space to another.

        The map that the atlas keeps; else one computed from the bases in the store, if every point was known in both.
        """
        names = self.names(self._dataset_of(dataset, source, target))
        return functional_map(self, names.dataset, names.space(source), names.space(target))

    def section(self, path: str) -> xr.Dataset | None:
        """Return a group beside the scores, such as ``maps/digits``, unread; None if the atlas does not have it."""
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
        """Close the files, and remove those of an atlas of arrays in memory."""
        self.scores.close()
        if self.temporary is not None:
            self.temporary.remove()

    def __enter__(self) -> "Atlas":
        """Return the atlas; the end of the block closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files."""
        self.close()

    def __repr__(self) -> str:
        """Return a summary of the atlas in a few lines."""
        return as_text(self.summary, self.datasets, self.measures)

    def _repr_html_(self) -> str:
        """Return a summary of the atlas for notebooks."""
        return as_html(self.summary, self.datasets, self.measures)

    def _dataset_of(self, dataset: str | None, *names: str) -> str | None:
        """Return ``dataset``, or the only one that has all of these models or spaces; `AtlasError` if none is."""
        if dataset is not None or len(self.datasets) < 2:
            return dataset
        present = {one: self.scores.sel(dataset=one)["n_points"].values > 0 for one in self.datasets}
        spaces, models = ([str(one) for one in self.scores[side].values] for side in ("source", "source_model"))
        known = {one: {*compress(spaces, there), *compress(models, there)} for one, there in present.items()}
        having = [one for one, of_dataset in known.items() if of_dataset.issuperset(names)]
        if len(having) == 1:
            return having[0]
        places = {name: having or [one for one, of_dataset in known.items() if name in of_dataset] for name in names}
        for name in names:
            if not places[name]:
                raise self._unknown(name)
        if not having:
            found = " and ".join(f"{name!r} on {', '.join(on)}" for name, on in places.items())
            raise AtlasError(f"found {found}, needs a dataset that both are on: compare others")
        said = f"found {' and '.join(map(repr, names))} on the datasets {', '.join(having)}"
        raise AtlasError(f"{said}, needs one of them: say which, dataset={having[0]!r} (--dataset {having[0]})")

    def _unknown(self, name: str) -> AtlasError:
        """Return what to say of a name that no dataset has a model or a space of."""
        errors = []
        for dataset in self.datasets:
            try:
                self.names(dataset).spaces_of(name)
            except AtlasError as error:
                errors.append(error)
        # Where it failed is told first; else what is spelled alike.
        known = [*self.models, *self.spaces]
        needed = f"found {describe(name)}, needs a model or a space of the atlas{did_you_mean(str(name), known)}"
        return next((error for error in errors if "failed" in str(error)), AtlasError(needed))

    def names(self, dataset: str | None = None) -> Names:
        """Return the models and spaces of a dataset, by model and depth."""
        if dataset is None:
            if not self.datasets:
                raise AtlasError(
                    "got an atlas without spaces, expected at least one. See its failures with lfm-atlas show summary, "
                    "mend them and run lfm-atlas run"
                )
            if len(self.datasets) != 1:
                raise AtlasError(
                    f"found {len(self.datasets)} datasets ({', '.join(self.datasets)}), needs one: give dataset=..."
                )
            (dataset,) = self.datasets
        dataset = require_one_of(dataset, self.datasets, "dataset")
        place = self.scores.sel(dataset=dataset)
        present = np.flatnonzero(place["n_points"].values > 0)
        depths = place["depth"].values
        models = [str(name) for name in place["source_model"].values]
        order = sorted(present, key=lambda row: (models[row], float(depths[row])))
        layers = {str(place["source"].values[row]): models[row] for row in order}
        failures = [failure for failure in self.summary["failures"] if failure["dataset"] == dataset]
        return Names(dataset, layers, failures)

    def _measure(self, measure: str | None) -> str:
        return self.default_measure if measure is None else require_one_of(measure, self.measures, "measure")


# The folder of the store, beside the atlas, unless the catalog names another.
_STORE = ".lfm-atlas"
# Attempts to open an atlas that is replaced meanwhile.
_ATTEMPTS = 10


def open_atlas(path: str | PathLike[str], *, store: str | PathLike[str] | None = None) -> Atlas:
    """Return the atlas in the folder ``path``; its arrays are read when they are used.

    Every file is checked against the manifest when the atlas is opened, and again when it is read: if a run publishes
    again meanwhile, nothing of the next atlas mixes with this one.

    Parameters
    ----------
    path
        Folder of the atlas.
    store
        Store of its run (``atlas.store`` in the catalog); ``.lfm-atlas`` beside the atlas if not given. `Atlas.map`
        computes functional maps that the atlas does not keep from the bases in it.

    Raises
    ------
    AtlasError
        If there is no atlas, a file is not as published, or its schema version cannot be read.
    """
    folder = Path(path)
    store_folder = Path(store) if store is not None else folder.absolute().parent / _STORE
    for _ in range(_ATTEMPTS):
        before = manifest_key(folder)
        try:
            manifest = checked_manifest(folder)
            summary = read_json(folder / "summary.json")
            atlas = Atlas(folder, manifest.key, summary, open_scores(folder, manifest), store_folder, manifest)
        except (AtlasError, OSError):
            if manifest_key(folder) == before:
                raise
            continue
        if manifest_key(folder) == manifest.key:
            return atlas
    raise AtlasError(f"{folder}: found it published {_ATTEMPTS} times while it was opened: open it when that has ended")
