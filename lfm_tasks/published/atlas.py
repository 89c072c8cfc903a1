"""The published atlas in Python: `open_atlas` and the class `Atlas`.

Users import `open_atlas` from ``lfm_atlas``.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress, islice
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from lfm_tasks.catalog.names import describe, did_you_mean, matches
from lfm_tasks.lineage.families import Family, families_of
from lfm_tasks.lineage.relations import Relation, relations_of_atlas
from lfm_tasks.published import queries
from lfm_tasks.published.descriptions import MOST_IN_NOTEBOOK, as_html, as_text, counted, matrix_as_html
from lfm_tasks.published.plots import AtlasPlots
from lfm_tasks.published.queries import Names, require_one_of
from lfm_tasks.published.rows import Rows
from lfm_tasks.published.temporary import TemporaryFolder
from lfm_tasks.statistics.model_pairs import symmetrized
from lfm_tasks.stores.atlas.files import checked_file, checked_manifest, open_group, open_scores, read_json
from lfm_tasks.stores.atlas.schema import ZARR, AtlasError, Manifest, manifest_key
from lfm_tasks.stores.atlas.score_arrays import read_score_arrays

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


_DIMS = ("target_eigenpair", "source_eigenpair")


def functional_map(atlas: "Atlas", dataset: str, source: str, target: str) -> "xr.DataArray":
    """Return the map (target_eigenpair, source_eigenpair) of two spaces of one dataset."""
    import xarray as xr

    stored = _stored_map(atlas.section(f"maps/{dataset}"), source, target)
    values = _recomputed_map(atlas, dataset, source, target) if stored is None else stored
    labels = {"source": source, "target": target, "dataset": dataset}
    attributes = {
        "long_name": "carries coefficients from the source's eigenvectors to the target's",
        "origin": "recomputed from the bases" if stored is None else "kept in the atlas",
    }
    return xr.DataArray(values, labels, _DIMS, "functional_map", attributes)


def _stored_map(maps: "xr.Dataset | None", source: str, target: str) -> np.ndarray | None:
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
    from lfm_tasks.spectral.bases.full_map import full_map, whitened_rows

    regime = atlas.summary["settings"]["maps"]["regime"]
    if regime != "full":
        raise AtlasError(
            f"got no map {source} -> {target} in the atlas, and maps of the regime {regime!r} cannot be made of the "
            "bases alone. Keep it by the catalog's atlas.maps, and run again"
        )
    first, second = (_basis(atlas, dataset, name) for name in (source, target))
    if np.array_equal(first[1], second[1]):
        return full_map(first[0], second[0])
    _, rows_of_first, rows_of_second = np.intersect1d(first[1], second[1], assume_unique=True, return_indices=True)
    if not len(rows_of_first):
        raise AtlasError(f"got no common ids of {source} and {target}, expected the same samples. Record both on them")
    n_eigenpairs = min(first[0].shape[1], second[0].shape[1])
    rows = first[0][rows_of_first, :n_eigenpairs], second[0][rows_of_second, :n_eigenpairs]
    return full_map(*map(whitened_rows, rows))


def _basis(atlas: "Atlas", dataset: str, space: str) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvectors and ids of a space from the store; raise `AtlasError` if the store does not have them."""
    from lfm_tasks.stores.units.store import UnitStore

    key = str(atlas.scores["basis"].sel(dataset=dataset, source=space).values)
    store = UnitStore(atlas.store)
    if not key or not store.has("bases", key):
        raise AtlasError(
            f"got no basis of {space} in the store {atlas.store}, and the atlas does not keep this map. Give the "
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

    Examples
    --------
    >>> from lfm_atlas import open_atlas
    >>> atlas = open_atlas("atlas")  # of the zoo that comes with the package; the examples below use it, too
    >>> len(atlas), "mlp_s0" in atlas, atlas["mlp_s0"][0]["name"]
    (40, True, 'mlp_s0_permuted')
    """

    folder: Path
    key: str
    summary: Mapping[str, Any]
    scores: "xr.Dataset"
    store: Path
    manifest: Manifest
    temporary: TemporaryFolder | None = None

    @property
    def datasets(self) -> list[str]:
        """Return the names of the datasets.

        Examples
        --------
        >>> atlas.datasets
        ['digits']
        """
        return [str(name) for name in self.scores["dataset"].values]

    @property
    def measures(self) -> list[str]:
        """Return the names of the measures.

        Examples
        --------
        >>> atlas.measures
        ['lfm', 'overlap']
        """
        return [str(name) for name in self.scores["measure"].values]

    @property
    def default_measure(self) -> str:
        """Return ``overlap``, which matches layers best, or the first measure of an atlas without it.

        Examples
        --------
        >>> atlas.default_measure
        'overlap'
        """
        return "overlap" if "overlap" in self.measures else self.measures[0]

    @property
    def models(self) -> list[str]:
        """Return the names of the models that have a space.

        Examples
        --------
        >>> atlas.models[:3]
        ['cnn_s0', 'mlp_s0', 'mlp_s0_finetuned']
        """
        return sorted({str(name) for name in self.scores["source_model"].values})

    @property
    def spaces(self) -> list[str]:
        """Return the names of all spaces, ``model/layer``.

        Examples
        --------
        >>> atlas.spaces[:2]
        ['cnn_s0/logits', 'cnn_s0/relu1']
        """
        return [str(name) for name in self.scores["source"].values]

    @property
    def model_datasets(self) -> dict[str, list[str]]:
        """Return the datasets of each model that has a space.

        Examples
        --------
        >>> atlas.model_datasets["mlp_s0"]
        ['digits']
        """
        models = np.array([str(name) for name in self.scores["source_model"].values], dtype=object)
        present = self.scores["n_points"].values > 0
        return {
            model: [dataset for row, dataset in enumerate(self.datasets) if present[row, models == model].any()]
            for model in self.models
        }

    @property
    def comparisons_across(self) -> list[str]:
        """Return the names of the comparisons of spaces of two datasets.

        Examples
        --------
        >>> atlas.comparisons_across  # the models of the shipped zoo are on one dataset
        []
        """
        start = f"{ZARR}/across/"
        parts = [name.removeprefix(start).split("/") for name in self.manifest.files if name.startswith(start)]
        return sorted({part[0] for part in parts if len(part) > 1})

    def __len__(self) -> int:
        """Return the number of spaces."""
        return self.scores.sizes["source"]

    def __bool__(self) -> bool:
        """Return True: an atlas without spaces is one, too."""
        return True

    def __iter__(self) -> Iterator[str]:
        """Return the names of all spaces, one by one."""
        return iter(self.spaces)

    def __contains__(self, name: object) -> bool:
        """Return whether a model or a space of this name is in the atlas."""
        return name in self.spaces or name in self.models

    def __getitem__(self, key: str | tuple[str, str]) -> "Rows | xr.Dataset":
        """Return ``atlas[source, target]``, their `pair`, or ``atlas[name]``, what is `nearest` to a model or space."""
        return self.nearest(key) if isinstance(key, str) else self.pair(*key)

    @property
    def plot(self) -> AtlasPlots:
        """Return the pictures: ``plot.matrix()``, ``tree()``, ``layers(a, b)``, ``map(a, b)``, ``nearest(name)``.

        Examples
        --------
        >>> axes = atlas.plot.matrix()
        """
        return AtlasPlots(self)

    def sel(
        self, models: str | Sequence[str] = "*", *, layers: str = "*", meta: Mapping[str, Any] | None = None
    ) -> "Atlas":
        """Return the atlas of some of the spaces; their numbers, false discovery rates included, stay as they are.

        Parameters
        ----------
        models, layers
            Globs of names of models, one or several, and of layers.
        meta
            What ``meta`` of a model has to say: ``{"family": "resnet"}``.

        Raises
        ------
        AtlasError
            If no space is left.

        Examples
        --------
        >>> relatives = atlas.sel("mlp_*", layers="relu1", meta={"family": "mlp"})
        >>> len(relatives), relatives.models[:2]
        (6, ['mlp_s0', 'mlp_s0_finetuned'])
        """
        globs = (models,) if isinstance(models, str) else tuple(models)
        wanted = {
            name
            for name, facts in self._meta.items()
            if any(matches(name, glob) for glob in globs)
            and all(key in facts and facts[key] == value for key, value in (meta or {}).items())
        }
        of_model, of_layer = (self.scores[f"source_{one}"].values for one in ("model", "layer"))
        rows = [
            row
            for row, (model, layer) in enumerate(zip(of_model, of_layer, strict=True))
            if str(model) in wanted and matches(str(layer), layers)
        ]
        if not rows:
            chosen = f"models {', '.join(globs)}, layers {layers}" + (f", meta {dict(meta)}" if meta else "")
            raise AtlasError(f"got no space of {chosen}, expected at least one of {', '.join(self.models)}")
        left = {str(of_model[row]) for row in rows}
        entries = [entry for entry in self.summary["models"] if entry["name"] in left]
        failures = [failure for failure in self.summary["failures"] if failure["model"] in wanted]
        scores = self.scores.isel(source=rows, target=rows)
        return replace(self, scores=scores, summary={**self.summary, **counted(scores, entries, failures)})

    def nearest(self, name: str, *, n: int = 5, measure: str | None = None, dataset: str | None = None) -> Rows:
        """Return the ``n`` models nearest to a model, or spaces to a space, a row each, nearest first.

        The rows are a list, which prints as a table; ``to_frame`` makes a data frame of them.

        ``value`` is calibrated (0 chance, 1 best; the score itself where chance was not sampled), of models the mean
        of both directions' `best_match`; ``margin`` how far the next one is behind, with its interval and p-value
        (``margin_low``, ``margin_high``, ``margin_p``): where the interval holds 0, the points do not tell which is
        nearer. Of models the other columns tell the pair of layers that is most alike.

        Examples
        --------
        >>> atlas.nearest("mlp_s0/relu1", n=2)[0]["name"]
        'mlp_s0_permuted/relu1'
        """
        if n < 1:
            raise AtlasError(f"got n={n}, expected at least 1 neighbor to name")
        names = self.names(self.dataset_of(dataset, name))
        measure = self._measure(measure)
        is_space = isinstance(names.spaces_of(name), str)
        ranked = queries.nearest_spaces if is_space else queries.nearest_models
        return Rows(islice(ranked(self.scores, names, name, measure), n))

    def matrix(
        self,
        measure: str | None = None,
        reduce: Reduce | None = "best_match",
        *,
        statistic: str | None = None,
        dataset: str | None = None,
        symmetric: bool = False,
    ) -> "xr.DataArray":
        """Return models × models (source, target), or with ``reduce=None`` spaces × spaces by model and depth.

        Each source is matched to the target's layers, so the two directions differ. ``symmetric``: their mean, which
        the page of the atlas shows. The attribute ``direction`` says which it is.

        ``best_match``: each source layer's best, averaged; ``depth_aligned``: at the target layer of nearest relative
        depth; ``mean``: over all pairs of layers. ``statistic``: any of `scores`; ``calibrated`` if left out, ``score``
        where chance was not sampled.

        Examples
        --------
        >>> directed, both = atlas.matrix(), atlas.matrix(symmetric=True)
        >>> both.attrs["direction"], both.shape
        ('mean of both directions', (8, 8))
        >>> mean = (directed.sel(source="mlp_s0", target="mlp_s1") + directed.sel(source="mlp_s1", target="mlp_s0")) / 2
        >>> abs(float(mean - both.sel(source="mlp_s0", target="mlp_s1"))) < 1e-12
        True
        """
        measure, names = self._measure(measure), self.names(dataset)
        if statistic is not None:
            known = [str(name) for name, values in self.scores.data_vars.items() if "measure" in values.dims]
            require_one_of(statistic, known, "statistic")
        reduction = reduce and require_one_of(reduce, queries.REDUCTIONS, "reduction")
        directed = queries.matrix(self.scores, names, measure, reduction, statistic)
        if not symmetric:
            return directed.assign_attrs(direction="from source to target")
        return directed.copy(data=symmetrized(directed.values)).assign_attrs(direction="mean of both directions")

    def pair(self, source: str, target: str, *, dataset: str | None = None) -> "xr.Dataset":
        """Return all numbers of a pair by measure, with ``status`` and, where that is not ``ok``, ``reason`` in words.

        Two spaces give (measure); of a model all its layers, in the order of their depth.

        Examples
        --------
        >>> pair = atlas.pair("mlp_s0/relu1", "mlp_s1/relu1").sel(measure="overlap")
        >>> round(float(pair["score"]), 2), str(pair["status"].values)
        (0.86, 'ok')
        """
        names = self.names(self.dataset_of(dataset, source, target))
        return queries.pair(self.scores, names, names.spaces_of(source), names.spaces_of(target))

    def relations(self) -> tuple[Relation, ...]:
        """Return how each pair of models that share a dataset is related, the most alike first.

        A `Relation` has the level (copy, related, same family, beyond chance, unrelated, cannot tell), the probability
        of a common origin, and what they rest on. Likeness is evidence of a common origin, not proof.

        Examples
        --------
        >>> closest = atlas.relations()[0]
        >>> closest.source, closest.target, str(closest.level)
        ('mlp_s0', 'mlp_s0_permuted', 'copy')
        """
        return relations_of_atlas(self.scores, self._meta)

    def families(self) -> tuple[Family, ...]:
        """Return the groups of models that are related or declare it, each with its tree and, if known, its oldest.

        Examples
        --------
        >>> atlas.families()[0].sentence()
        'mlp_s0_finetuned, mlp_s0_permuted: from mlp_s0'
        """
        return families_of(self.relations(), self._meta)

    @property
    def _meta(self) -> dict[str, Mapping[str, Any]]:
        return {entry["name"]: entry["meta"] for entry in self.summary["models"]}

    def map(self, source: str, target: str, *, dataset: str | None = None) -> "xr.DataArray":
        """Return the functional map (target_eigenpair, source_eigenpair) from one space to another.

        The map that the atlas keeps; else one computed from the bases in the store, if every point was known in both.

        Examples
        --------
        >>> functional_map = atlas.map("mlp_s0/relu1", "mlp_s1/relu1")
        >>> functional_map.dims
        ('target_eigenpair', 'source_eigenpair')
        """
        names = self.names(self.dataset_of(dataset, source, target))
        return functional_map(self, names.dataset, names.space(source), names.space(target))

    def section(self, path: str) -> "xr.Dataset | None":
        """Return a group beside the scores, such as ``maps/digits``, unread; None if the atlas does not have it.

        Examples
        --------
        >>> atlas.section("maps/digits").sizes["point"]
        797
        """
        return open_group(self.folder, path, self.manifest)

    def to_frame(self) -> "pd.DataFrame":
        """Return the long table, ``edges.parquet``, as a pandas data frame.

        Examples
        --------
        >>> bool((atlas.to_frame()["q_value"] <= 1).all())
        True
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise AtlasError(
                "got no pandas, which to_frame needs: pip install pandas, or read edges.parquet by what you have"
            ) from error
        rows = pd.read_parquet(checked_file(self.folder, self.manifest, "edges.parquet"))
        chosen = rows["source"].isin(self.spaces) & rows["target"].isin(self.spaces)
        return rows if chosen.all() else rows[chosen].reset_index(drop=True)

    def to_networkx(self, measure: str | None = None, *, dataset: str | None = None, max_q: float = 0.05) -> Any:
        """Return a `networkx.DiGraph`: a node for each space, an edge for each pair beyond chance.

        Nodes have ``model``, ``layer`` and ``depth``, edges ``score``, ``calibrated``, ``p_value`` and ``q_value``.
        ``max_q`` is the highest false discovery rate of an edge; 1 for all pairs that have one.

        Examples
        --------
        >>> graph = atlas.to_networkx(max_q=0.01)
        >>> graph.number_of_nodes(), graph.has_edge("mlp_s0/relu1", "mlp_s1/relu1")
        (40, True)
        """
        try:
            import networkx
        except ImportError as error:
            raise AtlasError("got no networkx, expected it for to_networkx. Do: pip install networkx") from error
        names, chosen = self.names(dataset), self._measure(measure)
        spaces = list(names.model_of)
        cells = self.scores.sel(dataset=names.dataset, measure=chosen, source=spaces, target=spaces).load()
        graph = networkx.DiGraph(dataset=names.dataset, measure=chosen)
        for row, space in enumerate(spaces):
            facts = {name: cells[f"source_{name}"].values[row] for name in ("model", "layer", "depth")}
            graph.add_node(space, **{name: float(one) if name == "depth" else str(one) for name, one in facts.items()})
        columns = {name: cells[name].values for name in ("score", "calibrated", "p_value", "q_value")}
        kept = (columns["q_value"] <= max_q) & ~np.eye(len(spaces), dtype=bool)
        for source, target in np.argwhere(kept):
            values = {name: float(column[source, target]) for name, column in columns.items()}
            graph.add_edge(spaces[source], spaces[target], **values)
        return graph

    def close(self) -> None:
        """Close the files, and remove those of an atlas of arrays in memory.

        Examples
        --------
        >>> with open_atlas("atlas") as opened:  # the end of the block closes it
        ...     len(opened)
        40
        """
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
        summary = as_html(self.summary, self.datasets, self.measures)
        if len(self.datasets) != 1 or not 2 <= len(self.models) <= MOST_IN_NOTEBOOK:
            return summary
        try:
            return summary + matrix_as_html(self.matrix(symmetric=True))
        except AtlasError:  # a distance without chance has no order that colors could show
            return summary

    def dataset_of(self, dataset: str | None, *names: str) -> str | None:
        """Return ``dataset``, or the only one that has all of these models or spaces; `AtlasError` if none is.

        Examples
        --------
        >>> atlas.sel("cnn_s0").dataset_of("digits", "cnn_s0")
        'digits'
        """
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
            raise AtlasError(f"got {found}, expected a dataset that both are on. Compare others")
        said = f"got {' and '.join(map(repr, names))} on the datasets {', '.join(having)}"
        raise AtlasError(f"{said}, expected one of them. Name one: dataset={having[0]!r} (--dataset {having[0]})")

    def _unknown(self, name: str) -> AtlasError:
        """Return the message for a name that is no model and no space of any dataset."""
        errors = []
        for dataset in self.datasets:
            try:
                self.names(dataset).spaces_of(name)
            except AtlasError as error:
                errors.append(error)
        # A failure is reported first, otherwise names with a similar spelling.
        known = [*self.models, *self.spaces]
        needed = f"got {describe(name)}, expected a model or a space of the atlas{did_you_mean(str(name), known)}"
        return next((error for error in errors if "failed" in str(error)), AtlasError(needed))

    def names(self, dataset: str | None = None) -> Names:
        """Return the models and spaces of a dataset, by model and depth.

        Examples
        --------
        >>> atlas.names("digits").layers("mlp_s0")[:2]
        ['mlp_s0/relu1', 'mlp_s0/relu2']
        """
        if dataset is None:
            if not self.datasets:
                raise AtlasError(
                    "got an atlas without spaces, expected at least one. See its failures with lfm-atlas show summary, "
                    "fix them and run lfm-atlas run"
                )
            if len(self.datasets) != 1:
                raise AtlasError(
                    f"got {len(self.datasets)} datasets ({', '.join(self.datasets)}), expected one. Give dataset=..."
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

    Names and sizes of all files are checked against the manifest when the atlas is opened, the content of each when it
    is read: if a run publishes again meanwhile, nothing of the next atlas mixes with this one. ``lfm-atlas verify``
    reads all files.

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
        If there is no atlas, a file is missing or of another size, or its schema version cannot be read.

    Examples
    --------
    >>> from lfm_atlas import open_atlas
    >>> with open_atlas("atlas") as atlas:  # what ``lfm-atlas run`` has published in this folder
    ...     print(atlas)
    <lfm-atlas: Similarity atlas>
    spaces     40 of 8 models
    pairs      1560 directed, 0 without a score
    datasets   digits
    measures   lfm, overlap
    models     mlp_s0, mlp_s1, mlp_s2, mlp_s0_finetuned, mlp_s0_permuted, mlp_untrained, cnn_s0, tanh_s0
    """
    folder = Path(path)
    return _open(folder, Path(store) if store is not None else folder.absolute().parent / _STORE, open_scores)


def open_for_tables(folder: Path) -> Atlas:
    """Return the atlas in ``folder`` for the tables of `lfm_tasks.published.answers`, without waiting for xarray.

    Its scores are `ScoreArrays`, which have what these tables need of an `xarray.Dataset`; large ones are as
    `open_atlas` has them.

    Raises
    ------
    AtlasError
        As `open_atlas`.
    """

    def scores(folder: Path, manifest: Manifest) -> "xr.Dataset":
        arrays = read_score_arrays(folder, manifest)
        return open_scores(folder, manifest) if arrays is None else cast("xr.Dataset", arrays)

    return _open(folder, folder.absolute().parent / _STORE, scores)


def _open(folder: Path, store: Path, scores: "Callable[[Path, Manifest], xr.Dataset]") -> Atlas:
    for _ in range(_ATTEMPTS):
        before = manifest_key(folder)
        try:
            manifest = checked_manifest(folder, read_contents=False)
            summary = read_json(checked_file(folder, manifest, "summary.json"))
            atlas = Atlas(folder, manifest.key, summary, scores(folder, manifest), store, manifest)
        except (AtlasError, OSError):
            if manifest_key(folder) == before:
                raise
            continue
        if manifest_key(folder) == manifest.key:
            return atlas
    raise AtlasError(f"{folder}: got it published {_ATTEMPTS} times while it was opened. Open it when that has ended")
