"""Comparisons of arrays in memory: two arrays give a `Comparison`, several an `Atlas`.

The stages of a run do the work, in this process, in a temporary folder: every number is that of the command line.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from pydantic import ValidationError

from lfm_atlas.arrays import ids_of, row_labels, rows_of
from lfm_atlas.console import format_cell, no_progress
from lfm_atlas.pipeline import build_atlas
from lfm_tasks.catalog import Catalog
from lfm_tasks.catalog.datasets import Dataset, DatasetFile, DatasetIds, ModelIds
from lfm_tasks.catalog.models import ActivationsSource, Model
from lfm_tasks.catalog.names import check_layer_name, check_name, colliding, did_you_mean, shorten
from lfm_tasks.config import AtlasConfig
from lfm_tasks.errors import REASONS, DataError
from lfm_tasks.published.atlas import Atlas, open_atlas
from lfm_tasks.published.temporary import TemporaryFolder
from lfm_tasks.runtime.run import Run
from lfm_tasks.runtime.session import open_run
from lfm_tasks.stages.activations.stage import record_activations
from lfm_tasks.stages.bases.stage import build_bases
from lfm_tasks.stages.inventory.requests import unknown_measures
from lfm_tasks.stages.inventory.stage import validate
from lfm_tasks.stages.publish.assemble import assemble
from lfm_tasks.stages.scores.stage import score_pairs, unscored_pairs
from lfm_tasks.threads import one_thread

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

DEFAULT_MEASURES = ("overlap", "lfm")
# What the layer of a model is called that is given as one array, and the dataset of all.
_LAYER, _DATASET = "rows", "points"
# What a person may set: not where things lie, nor what has a parameter of its own.
_NOT_OF_NUMBERS = {"title", "path", "store", "remote", "keep_if_below", "previews", "measures"}
_SETTINGS = frozenset(AtlasConfig.model_fields) - _NOT_OF_NUMBERS


@dataclass(frozen=True)
class Score:
    """The value of one measure of two arrays, from the first to the second, with its context.

    Attributes
    ----------
    measure
        Its name.
    score
        The value, by the measure's own convention; NaN where there is none.
    null
        The score expected by chance, of rows in random order; NaN where chance is not known.
    p_value
        The share of orders of the rows that reach the score.
    interval
        The ends of the 95 % interval; NaN where there is none.
    calibrated
        The score where chance is 0 and the best value 1.
    status, reason
        ``ok``, or why the score is none, or is to be read with care: a code of docs/scores.md, and a sentence.

    Examples
    --------
    >>> import numpy as np
    >>> from lfm_atlas import compare
    >>> x = np.random.default_rng(0).normal(size=(200, 8))
    >>> score = compare(x, 2 * x, measures="overlap")["overlap"]
    >>> round(score.score, 3), score.status, score.p_value < 1e-6
    (1.0, 'ok', True)
    """

    measure: str
    score: float
    null: float
    p_value: float
    interval: tuple[float, float]
    calibrated: float
    status: str
    reason: str


@dataclass(frozen=True, repr=False)
class Comparison(Mapping[str, Score]):
    """Two arrays by one or several measures: a mapping of names of measures to `Score`, which prints as a table.

    Attributes
    ----------
    scores
        What each measure says, in the order in which the measures were given.
    n_points
        How many points both arrays have.
    n_features
        How many features the first and the second array have.

    Examples
    --------
    >>> import numpy as np
    >>> from lfm_atlas import compare
    >>> x = np.random.default_rng(0).normal(size=(200, 8))
    >>> found = compare(x, x[:, ::-1], measures=["overlap", "cka_linear_debiased_song"])
    >>> list(found), found.n_points, found.n_features
    (['overlap', 'cka_linear_debiased_song'], 200, (8, 8))
    """

    scores: tuple[Score, ...]
    n_points: int
    n_features: tuple[int, int]

    def __getitem__(self, measure: str) -> Score:
        for score in self.scores:
            if score.measure == measure:
                return score
        raise KeyError(f"got {measure!r}, expected a measure of this comparison{did_you_mean(str(measure), self)}")

    def __iter__(self) -> Iterator[str]:
        return (score.measure for score in self.scores)

    def __len__(self) -> int:
        return len(self.scores)

    def to_frame(self) -> "pd.DataFrame":
        """Return a pandas data frame, a row for each measure.

        Examples
        --------
        >>> import numpy as np
        >>> from lfm_atlas import compare
        >>> x = np.random.default_rng(0).normal(size=(200, 8))
        >>> list(compare(x, x, measures="overlap").to_frame().index)
        ['overlap']
        """
        import pandas as pd

        rows = [vars(score) | {"low": score.interval[0], "high": score.interval[1]} for score in self.scores]
        return pd.DataFrame(rows).drop(columns="interval").set_index("measure")

    def __repr__(self) -> str:
        cells = [_COLUMNS, *map(_cells, self.scores)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(_aligned(row, widths)).rstrip() for row in cells]
        reasons = {score.status: score.reason for score in self.scores if score.reason}
        return "\n".join([self._title, *lines, *(f"{code}: {reason}" for code, reason in reasons.items())])

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{name}</th>' for name in _COLUMNS)
        rows = [
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in _cells(score)) + "</tr>" for score in self.scores
        ]
        return (
            f"<table><caption>{escape(self._title)}</caption><thead><tr>{head}</tr></thead>"
            f"<tbody>{''.join(rows)}</tbody></table>"
        )

    @property
    def _title(self) -> str:
        return f"{self.n_points:,} points, {self.n_features[0]:,} and {self.n_features[1]:,} features"


_COLUMNS = ("measure", "score", "null", "p", "interval", "status")


def _cells(score: Score) -> tuple[str, ...]:
    low, high = map(_text, score.interval)
    interval = f"{low} to {high}" if low else ""
    return score.measure, _text(score.score), _text(score.null), _text(score.p_value), interval, score.status


def _text(value: float) -> str:
    return format_cell(value) if np.isfinite(value) else ""


def _aligned(row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    for name, text, width in zip(_COLUMNS, row, widths, strict=True):
        yield text.ljust(width) if name in ("measure", "interval", "status") else text.rjust(width)


@overload
def compare(
    x: Mapping[str, Any],
    y: None = None,
    *,
    measures: str | Iterable[str] = ...,
    ids: Any = ...,
    labels: Any = ...,
    **settings: Any,
) -> Atlas: ...
@overload
def compare(
    x: Any, y: Any, *, measures: str | Iterable[str] = ..., ids: Any = ..., labels: Any = ..., **settings: Any
) -> Comparison: ...


def compare(
    x: Any,
    y: Any = None,
    *,
    measures: str | Iterable[str] = DEFAULT_MEASURES,
    ids: Any = None,
    labels: Any = None,
    **settings: Any,
) -> Comparison | Atlas:
    """Compare two arrays, or all of a mapping of arrays, whose rows are the same points.

    Parameters
    ----------
    x
        An array (points, features), as NumPy, PyTorch, pandas or xarray have it; or a mapping of names of models to
        arrays, or to mappings of names of layers to arrays, first layer first.
    y
        The second array; left out where ``x`` is a mapping.
    measures
        Names of measures, see ``lfm_atlas.measures``; one name, or several.
    ids
        Of each row the point that it is: whole numbers or texts. One list if rows correspond; else a mapping of names
        of models (``x`` and ``y`` for two arrays) to lists: then the rows may be in any order, and arrays may lack
        points. Left out, rows correspond; but where every array has labels of its rows (the index of a data frame, the
        coordinate of a data array), these are the ids.
    labels
        Of each point its class, in the order of ``ids``, which has to be one list; the atlas shows it.
    **settings
        Keys of the section ``atlas`` of a catalog, such as ``n_eigenpairs=30``, ``graph={"n_neighbors": 10}``,
        ``null={"n_permutations": 1000}``, ``intervals={"n_splits": 0}`` for no intervals, ``seed=1``.

    Returns
    -------
    Comparison or Atlas
        Of two arrays score, chance level, p-value, interval and status by each measure. Of a mapping the atlas that a
        run over these arrays publishes. It lies in a temporary folder, which is removed when the atlas is closed or
        nobody holds it any more.

    Raises
    ------
    TypeError
        If something is no array, or the arguments do not fit together.
    DataError
        If an array, its ids or its labels cannot be used; it is a ValueError, ``reason`` is a code of docs/scores.md.
        Of several arrays those that only the computation finds unusable are failures of the atlas instead.
    ValueError
        For an unknown measure or setting, or a value that a setting cannot have.

    Notes
    -----
    Arrays are written to the temporary folder once, and jobs run one after the other in this process, in one BLAS
    thread: for hundreds of spaces, or arrays that fill the memory, a catalog and ``lfm-atlas run`` are made.

    Examples
    --------
    >>> import numpy as np
    >>> from lfm_atlas import compare
    >>> x = np.random.default_rng(0).normal(size=(200, 8))
    >>> found = compare(x, x[:, ::-1], measures="overlap")
    >>> round(found["overlap"].score, 3), found["overlap"].status
    (1.0, 'ok')
    >>> atlas = compare({"small": x[:, :6], "large": x}, measures="overlap")
    >>> atlas.spaces
    ['large/rows', 'small/rows']
    >>> atlas.close()
    """
    if isinstance(x, Mapping):
        if y is not None:
            raise TypeError(f"got a mapping and {type(y).__name__}, expected one mapping of all arrays, or two arrays.")
        return _atlas_of(_checked_models(x), _settings(measures, settings), ids, labels)
    if y is None:
        raise TypeError("got one array, expected two arrays, or a mapping of names to arrays.")
    if isinstance(y, Mapping):
        raise TypeError("got an array and a mapping, expected two arrays, or one mapping of all arrays.")
    models = {"x": {_LAYER: x}, "y": {_LAYER: y}}
    return _comparison_of(models, _settings(measures, settings), ids, labels)


def _settings(measures: str | Iterable[str], settings: Mapping[str, Any]) -> AtlasConfig:
    """Return the settings of the atlas; ValueError with what is wrong and, of a name, the nearest ones."""
    names = (measures,) if isinstance(measures, str) else tuple(measures)
    if not names:
        raise ValueError("got no measures, expected at least one, such as measures='overlap'.")
    for name in settings:
        if name not in _SETTINGS:
            raise ValueError(f"got the setting {name!r}, expected one of the atlas{did_you_mean(name, _SETTINGS)}")
    if unknown := unknown_measures({"atlas": {"measures": list(names)}}):
        raise ValueError("; ".join(message for _, message in unknown))
    try:
        return AtlasConfig.model_validate({**settings, "measures": names})
    except ValidationError as error:
        raise ValueError("; ".join(map(_mistake, error.errors(include_url=False)))) from error


def _mistake(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        section = AtlasConfig.model_fields[error["loc"][0]].annotation
        return f"{where}: unknown setting{did_you_mean(str(error['loc'][-1]), getattr(section, 'model_fields', ()))}"
    return f"{where}: {error['msg'].removeprefix('Value error, ')}"


def _checked_models(models: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the layers of each model; ValueError for a name that none may have, or fewer than two models."""
    if len(models) < 2:
        counted = "1 model" if models else "no model"
        raise ValueError(f"got {counted}, expected at least 2. To compare layers, give each as a model.")
    for name in models:
        if not isinstance(name, str):
            raise TypeError(f"got the name {shorten(str(name))} of type {type(name).__name__}, expected a text.")
        check_name(name)
    for name, earlier in colliding(models).items():
        raise ValueError(f"got the names {earlier!r} and {name!r}, expected names that differ by more than case.")
    return {name: value if isinstance(value, Mapping) else {_LAYER: value} for name, value in models.items()}


@contextmanager
def _opened(
    folder: Path, models: Mapping[str, Mapping[str, Any]], atlas: AtlasConfig, inputs: "_Inputs"
) -> Iterator[Run]:
    """Give a run in this process over arrays, which are written into ``folder`` first."""
    dataset: dict[str, Any] = {"ids": "positional"}
    sources: dict[str, Model] = {}
    if inputs.ids is not None:
        dataset["ids"] = DatasetIds(path="ids.npy")
        np.save(folder / "ids.npy", inputs.all_ids)
    if inputs.labels is not None:
        dataset["labels"] = DatasetFile(path="labels.npy")
        np.save(folder / "labels.npy", inputs.labels)
    for number, (model, layers) in enumerate(models.items()):
        np.savez(folder / f"{number}.npz", **dict(layers))
        ids = None
        if inputs.ids is not None:
            ids = ModelIds(path=f"{number}_ids.npy")
            np.save(folder / f"{number}_ids.npy", inputs.ids[model])
        source = ActivationsSource(path=f"{number}.npz", key="{layer}", dataset=_DATASET, ids=ids)
        sources[model] = Model(activations=source)
    catalog = Catalog(version=1, root=folder, datasets={_DATASET: Dataset(**dataset)}, models=sources, atlas=atlas)
    with open_run(catalog, no_progress, in_process=True) as run:
        yield run


@dataclass(frozen=True)
class _Inputs:
    """Ids of the rows of each model, or None where rows correspond; of all points the labels, or None."""

    ids: Mapping[str, np.ndarray] | None
    labels: np.ndarray | None

    @property
    def all_ids(self) -> np.ndarray:
        """The ids of all points, in the order of the labels."""
        lists = list((self.ids or {}).values())
        if all(np.array_equal(one, lists[0]) for one in lists):
            return lists[0]
        return np.unique(np.concatenate(lists))


def _read(
    models: Mapping[str, Mapping[str, Any]], ids: Any, labels: Any
) -> tuple[dict[str, dict[str, np.ndarray]], _Inputs]:
    """Return all arrays as rows, with their ids and labels, checked against each other."""
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for model, layers in models.items():
        if not layers:
            raise ValueError(f"{model}: got no layers, expected at least one array.")
        for layer in layers:
            check_layer_name(layer)
        arrays[model] = {layer: rows_of(value, _name(model, layer)) for layer, value in layers.items()}
        sizes = {layer: len(rows) for layer, rows in arrays[model].items()}
        if len(set(sizes.values())) > 1:
            found = ", ".join(f"{n:,} of {layer}" for layer, n in sizes.items())
            raise DataError("wrong_shape", f"{model}: got {found} rows, expected the same points in all layers.")
    n_rows = {model: len(next(iter(layers.values()))) for model, layers in arrays.items()}
    known = _ids(models, n_rows, ids)
    if known is None and len(set(n_rows.values())) > 1:
        found = ", ".join(f"{n:,} of {model}" for model, n in n_rows.items())
        raise DataError(
            "wrong_shape", f"got {found} rows, expected the same points in the same order. Say which they are: ids=."
        )
    return arrays, _Inputs(known, _labels(labels, known, n_rows))


def _name(model: str, layer: str) -> str:
    return model if layer == _LAYER else f"{model}/{layer}"


def _ids(models: Mapping[str, Mapping[str, Any]], n_rows: Mapping[str, int], ids: Any) -> dict[str, np.ndarray] | None:
    """Return the ids of each model's rows: given, or the labels of the arrays themselves; None: rows correspond."""
    if isinstance(ids, Mapping):
        if unlike := set(ids) ^ set(models):
            raise DataError(
                "bad_ids", f"got ids of {', '.join(map(str, ids))}, expected those of {', '.join(models)}. "
                f"Fix {', '.join(sorted(map(str, unlike)))}."
            )  # fmt: skip
        return {model: ids_of(ids[model], n, model) for model, n in n_rows.items()}
    if ids is not None:
        return {model: ids_of(ids, n, model) for model, n in n_rows.items()}
    found = {model: row_labels(next(iter(layers.values()))) for model, layers in models.items()}
    without = [model for model, labels in found.items() if labels is None]
    if len(without) == len(models):
        return None
    if without:
        having = next(model for model in models if model not in without)
        raise DataError(
            "bad_ids", f"got labels of the rows of {having} and none of {without[0]}, expected labels of all or none. "
            f"Give ids=, or drop those of {having} where rows correspond (reset_index, drop_vars)."
        )  # fmt: skip
    return {model: ids_of(labels, n_rows[model], model) for model, labels in found.items()}


def _labels(labels: Any, ids: Mapping[str, np.ndarray] | None, n_rows: Mapping[str, int]) -> np.ndarray | None:
    """Return the labels of all points as whole numbers or text; DataError if they do not fit the points."""
    if labels is None:
        return None
    if ids is not None and not all(np.array_equal(one, next(iter(ids.values()))) for one in ids.values()):
        raise DataError("bad_ids", "got labels beside lists of ids that differ, expected one list of ids for all.")
    values, n_points = np.asarray(labels), next(iter(n_rows.values()))
    if values.dtype.kind in "OT":
        values = values.astype(str)
    if values.shape != (n_points,) or values.dtype.kind not in "biuU":
        found = f"got labels of type {values.dtype} and shape {values.shape}"
        raise DataError("wrong_shape", f"{found}, expected {n_points:,} whole numbers or texts, one for each point.")
    return values


@one_thread()
def _comparison_of(models: Mapping[str, Mapping[str, Any]], atlas: AtlasConfig, ids: Any, labels: Any) -> Comparison:
    arrays, inputs = _read(models, ids, labels)
    temporary = TemporaryFolder()
    try:
        with _opened(temporary.path, arrays, atlas.model_copy(update={"collection": None}), inputs) as run:
            zoo = validate(run)
            spaces = build_bases(run, zoo, record_activations(run, zoo))
            _raise_failures(run)
            scored = score_pairs(run, zoo, spaces)
            scores = assemble(run, spaces, scored, zoo.parts, {_DATASET: "rows"})
            missing = unscored_pairs(spaces, scored)
        refused = {
            (name, failure.reason): failure.message
            for failure in missing
            for name in failure.measures or atlas.measures
        }
        pair = scores.sel(dataset=_DATASET, source=f"x/{_LAYER}", target=f"y/{_LAYER}")
        found = tuple(_score(pair.sel(measure=name), refused) for name in atlas.measures)
        sizes = arrays["x"][_LAYER].shape[1], arrays["y"][_LAYER].shape[1]
        return Comparison(found, int(pair["n_common"]), sizes)
    finally:
        temporary.remove()


def _score(cell: "xr.Dataset", refused: Mapping[tuple[str, str], str]) -> Score:
    status = cell["status"].attrs["flag_meanings"].split()[int(cell["status"])]
    reason = "" if status == "ok" else refused.get((str(cell["measure"].values), status)) or REASONS.get(status, "")
    value = {name: float(cell[name]) for name in ("score", "null_mean", "p_value", "ci_low", "ci_high", "calibrated")}
    interval = (value["ci_low"], value["ci_high"])
    chance = value["null_mean"], value["p_value"]
    return Score(str(cell["measure"].values), value["score"], *chance, interval, value["calibrated"], status, reason)


def _raise_failures(run: Run) -> None:
    """Raise DataError with the first failure of the spaces."""
    for failure in run.failures:
        name = _name(failure.model, failure.layer or _LAYER)
        raise DataError(failure.reason, f"{name}: {failure.message}")


@one_thread()
def _atlas_of(models: Mapping[str, Mapping[str, Any]], atlas: AtlasConfig, ids: Any, labels: Any) -> Atlas:
    arrays, inputs = _read(models, ids, labels)
    temporary = TemporaryFolder()
    try:
        with _opened(temporary.path, arrays, atlas, inputs) as run:
            outcome = build_atlas(run)
            if not outcome.n_spaces:
                _raise_failures(run)
        with open_atlas(temporary.path / "atlas") as published:
            return replace(published, scores=published.scores.load(), temporary=temporary)
    except BaseException:
        temporary.remove()
        raise
