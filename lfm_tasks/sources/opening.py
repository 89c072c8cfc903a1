"""Opens the source of a model's activations, of any kind that a catalog can name."""

import hashlib
import os
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path, PurePath
from typing import Literal

import numpy as np
from jaxtyping import Float32, Int64, Shaped

from lfm_tasks.catalog.datasets import Dataset, DatasetFile, DatasetIds, ModelFile
from lfm_tasks.catalog.models import ActivationsSource, ModelOnDataset
from lfm_tasks.catalog.names import has_wildcard
from lfm_tasks.catalog.sections import Catalog
from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.digests import DigestMemory
from lfm_tasks.sources.files.ids import as_text, checked_ids, near_join
from lfm_tasks.sources.raw_inputs import RawInputs, RawRows, TokenPoints, read_texts
from lfm_tasks.sources.read_options import ReadOptions, array_pattern, file_pattern, read_options
from lfm_tasks.sources.source import FileSource, Source
from lfm_tasks.sources.trials import trials_of

# In the store: digests of files, by their sizes and times.
DIGESTS = "digests.json"


def known_digests(catalog: Catalog) -> DigestMemory:
    """Return the last run's facts about the files of the catalog; each process reads them once."""
    path = catalog.root / catalog.atlas.store / DIGESTS
    try:
        status = os.stat(path)
    except OSError:
        return DigestMemory()
    return _read_digests(path, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=1)
def _read_digests(path: Path, _modified: int, _inode: int) -> DigestMemory:
    return DigestMemory.read(path)


@dataclass(frozen=True)
class DatasetRows:
    """The rows of a dataset, in one order: ``ids`` are unique strings, the rest may be absent.

    ``groups``: rows of one group go together; ``strata``: rows change places within theirs only; never both.
    ``points``: the ids that are compared, where the catalog leaves some out. ``previews``: pictures or texts of the
    rows, only to be shown. ``row_ids``: the id of each row of the files, where one has several rows.
    """

    ids: Shaped[np.ndarray, " points"]
    labels: Shaped[np.ndarray, " points"] | None = None
    groups: Shaped[np.ndarray, " points"] | None = None
    strata: Shaped[np.ndarray, " points"] | None = None
    inputs: Shaped[np.ndarray, "points ..."] | RawInputs | TokenPoints | None = None
    points: Shaped[np.ndarray, " kept"] | None = None
    previews: Shaped[np.ndarray, "points ..."] | RawInputs | None = None
    row_ids: Shaped[np.ndarray, " rows"] | None = None


def read_dataset(name: str, catalog: Catalog, memory: DigestMemory | None = None) -> DatasetRows:
    """Return the rows of the dataset called ``name``.

    With ``ids: positional`` the ids are row numbers; their number comes from the inputs, the labels, or the
    first model on this dataset whose activations can be read. ``memory`` knows digests of files of earlier runs.

    Parameters
    ----------
    name
        Name of the dataset in the catalog.
    catalog
        The catalog.
    memory
        Digests of files from earlier runs: unchanged files are not hashed again.

    Raises
    ------
    DataError
        ``bad_inputs`` for raw inputs that cannot be used; ``bad_ids`` for ids that are repeated, empty, of another
        type, or of another number than labels or inputs; ``missing_source``, ``wrong_shape`` and ``wrong_dtype`` for
        the files.
    """
    rows = _with_previews(_read_rows(name, catalog, memory), catalog.datasets[name], catalog, name, memory)
    return _with_points(rows, catalog.datasets[name], catalog, name)


def _read_rows(name: str, catalog: Catalog, memory: DigestMemory | None) -> DatasetRows:
    dataset = catalog.datasets[name]
    if dataset.builtin is not None:
        built_in = digits(dataset.split or "probe")
        pictures = built_in.inputs.reshape(-1, 8, 8)
        shipped = DatasetRows(built_in.ids, built_in.labels, inputs=built_in.inputs, previews=pictures)
        return _with_sets(shipped, dataset, catalog, name)
    labels = None if dataset.labels is None else _read_column(dataset.labels, catalog, name, "labels")
    if dataset.texts is not None or dataset.images is not None:
        raw = _read_raw(name, dataset, catalog, memory or known_digests(catalog))
        labels = raw.labels if labels is None else labels
        if labels is not None and len(labels) != len(raw.ids):
            problem = f"got {len(labels)} labels and {len(raw.ids)} {raw.inputs.kind}"
            raise DataError("bad_ids", f"dataset {name}: {problem}, expected as many. Give the labels of these rows")
        by_text = _with_sets(DatasetRows(raw.ids, labels, inputs=raw.inputs), dataset, catalog, name)
        return _by_token(name, by_text, raw.inputs, catalog, memory or known_digests(catalog))
    inputs = None if dataset.inputs is None else _read_inputs(dataset.inputs, catalog, name)
    if isinstance(dataset.ids, DatasetIds):
        ids = read_ids(dataset.ids, catalog, may_repeat=dataset.repeats is not None, dataset=name)
    elif (rows := labels if inputs is None else inputs) is not None:
        ids = np.arange(len(rows)).astype(str)
    else:
        ids = _positions_of_activations(name, catalog)
    for what, values in (("labels", labels), ("inputs", inputs)):
        if values is not None and len(values) != len(ids):
            problem = f"got {len(values)} {what} and {len(ids)} ids"
            raise DataError("bad_ids", f"dataset {name}: {problem}, expected as many. Give the {what} of these ids")
    read = _with_sets(DatasetRows(ids, labels, inputs=inputs), dataset, catalog, name)
    return read if dataset.repeats is None else _one_row_an_id(read, name)


def _one_row_an_id(rows: DatasetRows, name: str) -> DatasetRows:
    """Return the rows with each id once; DataError if rows of one id differ in labels, groups or strata."""
    trials = trials_of(rows.ids)
    first = np.array([np.flatnonzero(trials.owners == point)[0] for point in range(len(trials.ids))], dtype=int)
    once = {}
    for what in ("labels", "groups", "strata"):
        values = getattr(rows, what)
        if values is None:
            continue
        once[what] = values[first]
        differ = np.flatnonzero(once[what][trials.owners] != values)
        if len(differ):
            problem = f"got two {what} for the id {ascii(str(rows.ids[differ[0]]))[:60]}"
            raise DataError("bad_ids", f"dataset {name}: {problem}, expected one for each id. Correct the {what}")
    return DatasetRows(trials.ids, **once, row_ids=rows.ids)


_IMAGE_SUFFIXES = {"", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def _are_image_files(path: str) -> bool:
    """Return whether a path is a glob of image files; one with brackets in its name may be an array's, too."""
    suffix = PurePath(path).suffix.lower()
    return has_wildcard(path) and (suffix in _IMAGE_SUFFIXES or has_wildcard(suffix))


def _with_previews(
    rows: DatasetRows, dataset: Dataset, catalog: Catalog, name: str, memory: DigestMemory | None
) -> DatasetRows:
    """Return the rows with what they look like; DataError if that is no picture and no text for each."""
    if dataset.previews is None:
        return rows
    if _are_image_files(dataset.previews.path):
        from lfm_tasks.sources.raw_images import image_files_of  # Pillow takes its time to import

        path, known = dataset.previews.path, memory or known_digests(catalog)
        files = image_files_of(name, path, rows.ids, catalog.root, known, homes=catalog.link_homes)
        files.digest()  # a file that is no picture is reported before any work
        return replace(rows, previews=files)
    label, values = _load(dataset.previews, catalog, {"dataset": name})
    if values.dtype.kind == "S":
        values = as_text(values, label)
    if len(values) != len(rows.ids):
        problem = f"got {len(values)} previews and {len(rows.ids)} ids, expected as many"
        raise DataError("bad_inputs", f"dataset {name}: {problem}. Give the previews of these ids")
    is_text = values.dtype.kind in "UO" and values.ndim == 1
    is_picture = values.dtype.kind in "iubf" and values.ndim in (3, 4)
    if not is_text and not is_picture:
        found = f"got previews of shape {values.shape} and type {values.dtype}"
        needed = "expected pictures, (points, height, width) with or without channels, or a text a point"
        raise DataError("wrong_shape", f"{label}: {found}, {needed}. Give such an array, or none")
    return replace(rows, previews=values)


def _with_points(rows: DatasetRows, dataset: Dataset, catalog: Catalog, name: str) -> DatasetRows:
    """Return the rows with the ids that are compared: those of ``points``, without those of ``exclude``."""
    if dataset.points is None and dataset.exclude is None:
        return rows
    named = rows.ids if rows.groups is None or not isinstance(rows.inputs, TokenPoints) else rows.inputs.text_ids
    kept = np.ones(len(named), dtype=bool)
    for what, file in (("points", dataset.points), ("exclude", dataset.exclude)):
        if file is None:
            continue
        ids = read_ids(file, catalog, dataset=name)
        unknown = np.setdiff1d(ids, named)
        if len(unknown):
            problem = f"got {len(unknown)} ids that the dataset lacks, {near_join(unknown, named, what, 'its ids')}"
            raise DataError("bad_ids", f"dataset {name}: {what}: {problem}. Name ids of the dataset")
        kept &= np.isin(named, ids) == (what == "points")
    if not kept.any():
        raise DataError("bad_ids", f"dataset {name}: points and exclude leave no id. Name other ones")
    chosen = named[kept]
    if named is not rows.ids:
        chosen = rows.ids[np.isin(rows.inputs.text_of, np.flatnonzero(kept))]  # type: ignore[union-attr]
    return replace(rows, points=chosen)


def _read_raw(name: str, dataset: Dataset, catalog: Catalog, memory: DigestMemory) -> RawRows:
    root = catalog.root
    if dataset.texts is not None:
        return read_texts(name, dataset.texts, root, homes=catalog.link_homes)
    if dataset.images is None:
        raise TypeError(f"{name}: a dataset of raw inputs has texts or images")
    from lfm_tasks.sources.raw_images import read_images  # Pillow is an extra, and takes its time to import

    rows = read_images(name, dataset.images, root, memory, homes=catalog.link_homes)
    rows.inputs.digest()  # a damaged image is the dataset's, and is reported before any model is opened
    return rows


def _by_token(name: str, rows: DatasetRows, texts: RawInputs, catalog: Catalog, memory: DigestMemory) -> DatasetRows:
    """Return the rows with a row a token, texts as groups, if the models of the dataset want that."""
    on_dataset = {one: model for one, model in catalog.models_on_datasets() if model.dataset == name}
    if not any(model.checkpoint and model.checkpoint[1].points == "tokens" for model in on_dataset.values()):
        return rows
    from lfm_tasks.sources.checkpoints.opening import dataset_tokens

    points = dataset_tokens(name, on_dataset, catalog, texts, rows.ids, memory)
    if points is None:
        return rows
    if rows.strata is not None:
        problem = "got strata and points: tokens, which keeps the tokens of a text together"
        raise DataError("bad_groups", f"dataset {name}: {problem}, expected groups or none. Remove strata.")
    groups = rows.ids if rows.groups is None else rows.groups
    labels = None if rows.labels is None else rows.labels[points.text_of]
    return DatasetRows(points.ids, labels, groups[points.text_of], inputs=points)


def _with_sets(rows: DatasetRows, dataset: Dataset, catalog: Catalog, name: str) -> DatasetRows:
    """Return the rows with their groups or strata."""
    groups = None if dataset.groups is None else _read_column(dataset.groups, catalog, name, "groups")
    strata = rows.labels if dataset.strata == "labels" else None
    if isinstance(dataset.strata, DatasetFile):
        strata = _read_column(dataset.strata, catalog, name, "strata")
    for what, sets in (("groups", groups), ("strata", strata)):
        if sets is not None and len(sets) != len(rows.ids):
            problem = f"got {len(sets)} {what} and {len(rows.ids)} ids"
            raise DataError("bad_groups", f"dataset {name}: {problem}, expected as many. Give the {what} of these ids")
    return replace(rows, groups=groups, strata=strata)


def read_ids(
    file: DatasetFile | ModelFile, catalog: Catalog, *, may_repeat: bool = False, **fields: str
) -> Shaped[np.ndarray, " points"]:
    """Return the ids in ``file`` as strings; integers become decimal numbers.

    Parameters
    ----------
    file
        Where they lie, and what of each is compared (``as``).
    catalog
        Whose file it is.
    may_repeat
        Whether an id may name several rows.
    fields
        The names of dataset and model, for patterns.

    Raises
    ------
    DataError
        ``bad_ids`` for what cannot name rows, and as files do that cannot be read.
    """
    label, values = _load(file, catalog, fields)
    return checked_ids(values, label, getattr(file, "as", None), may_repeat=may_repeat)


def _read_column(file: DatasetFile, catalog: Catalog, dataset: str, what: str) -> Shaped[np.ndarray, " points"]:
    label, values = _load(file, catalog, {"dataset": dataset})
    if values.ndim != 1:
        raise DataError("wrong_shape", f"{label}: got {what} of shape {values.shape}, expected one a row")
    if values.dtype.kind not in "USiubf":
        raise DataError("wrong_dtype", f"{label}: got {what} of type {values.dtype}, expected text or numbers")
    return as_text(values, label) if values.dtype.kind == "S" else values


def _read_inputs(file: DatasetFile, catalog: Catalog, dataset: str) -> Shaped[np.ndarray, "points ..."]:
    label, values = _load(file, catalog, {"dataset": dataset})
    if values.ndim < 2:
        raise DataError("wrong_shape", f"{label}: got inputs of shape {values.shape}, expected (points, ...)")
    if values.dtype.kind not in "iubf":
        raise DataError("wrong_dtype", f"{label}: got inputs of type {values.dtype}, expected numbers")
    return values


def _load(
    file: DatasetFile | ModelFile, catalog: Catalog, fields: dict[str, str]
) -> tuple[str, Shaped[np.ndarray, "..."]]:
    """Return how messages call the array, and its values."""
    array = array_pattern(file, catalog, **fields).open()
    return array.name, array.load()


def _positions_of_activations(name: str, catalog: Catalog) -> Shaped[np.ndarray, " points"]:
    errors = []
    for model_name, model in catalog.models_on_datasets():
        source = model.activations
        if source is None or source.dataset != name or source.ids is not None:
            continue
        try:
            options = ReadOptions(named=read_options(model_name, source, catalog).named)
            return FileSource(file_pattern(model_name, source, catalog), None, options).ids
        except DataError as error:
            errors.append(str(error))
    detail = f": {errors[0]}" if errors else ", expected activations without ids of their own, inputs or labels"
    raise DataError("bad_ids", f"dataset {name}: nothing tells how many rows there are{detail}")


def open_source(
    model_name: str, model: ModelOnDataset, catalog: Catalog, rows: DatasetRows, memory: DigestMemory | None = None
) -> Source:
    """Return the source of ``model``, whose dataset has ``rows``; DataError if it cannot be opened.

    ``memory`` knows digests of files of earlier runs: what is unchanged is not hashed again.

    Parameters
    ----------
    model_name
        Name of the model in the catalog.
    model
        The model on one dataset.
    catalog
        The catalog of the model.
    rows
        Rows of the dataset, as `read_dataset` returns them.
    memory
        Digests of files from earlier runs: unchanged files are not hashed again.
    """
    if model.activations is not None:
        return _open_files(model_name, model.activations, catalog, rows)
    if rows.row_ids is not None:
        problem = f"model {model_name}: got a dataset with several rows of an id, expected recorded activations"
        raise DataError("bad_inputs", f"{problem}. Give networks a dataset with each input once")
    memory = memory or known_digests(catalog)
    if model.checkpoint is not None:
        from lfm_tasks.sources.checkpoints.opening import open_checkpoint

        return open_checkpoint(model_name, model, catalog, rows.inputs, rows.ids, memory)
    if model.torch is not None:
        from lfm_tasks.sources.networks.torch_models import open_torch

        return open_torch(model_name, model.torch, catalog, rows.inputs, rows.ids, memory)
    if model.onnx is None:
        raise TypeError(f"{model_name}: a model has one source")
    from lfm_tasks.sources.networks.onnx_models import open_onnx

    return open_onnx(model_name, model.onnx, catalog, rows.inputs, rows.ids, memory)


def _open_files(model_name: str, source: ActivationsSource, catalog: Catalog, rows: DatasetRows) -> FileSource:
    options = read_options(model_name, source, catalog)
    ids = rows.ids if rows.row_ids is None else rows.row_ids
    if source.ids is not None:
        may_repeat = source.repeats is not None
        ids = read_ids(source.ids, catalog, may_repeat=may_repeat, model=model_name, dataset=source.dataset)
    elif rows.row_ids is not None:
        options = replace(options, repeats="mean")
    opened = FileSource(file_pattern(model_name, source, catalog), ids, options)
    if catalog.datasets[source.dataset].has_names:
        _check_join(model_name, opened, source, rows, catalog.atlas.min_overlap)
    return opened


def _check_join(
    model_name: str, opened: FileSource, source: ActivationsSource, rows: DatasetRows, min_overlap: float
) -> None:
    """Raise DataError if a model shares no id with its dataset, or few where another form of its ids would join."""
    if opened.ids is rows.ids:
        return
    n_common = int(np.isin(opened.ids, rows.ids).sum())
    n_fewer = min(len(opened.ids), len(rows.ids))
    if n_common and n_common >= min_overlap * n_fewer:
        return
    where = "ids" if source.ids is not None else "the dataset's ids"
    hint = near_join(opened.ids, rows.ids, where, "the dataset's ids")
    if n_common and "; all " not in hint:
        return  # which pairs share enough of their ids is reported for each pair
    problem = f"model {model_name}: got {n_common} of {n_fewer} ids in common with the dataset {source.dataset}"
    raise DataError("bad_ids", f"{problem}, {hint}. Nothing is joined that the catalog does not ask for")


_N_TRAIN = 1000
_SEED = 0


@dataclass(frozen=True)
class Digits:
    """Images of 8 × 8 pixels in [0, 1], row by row; their ids; which digit (0 to 9) each shows."""

    inputs: Float32[np.ndarray, "points 64"]
    ids: Shaped[np.ndarray, " points"]
    labels: Int64[np.ndarray, " points"]


def digits(split: Literal["train", "probe"]) -> Digits:
    """Return the 1,000 digits that the shipped networks learned from, or the 797 others, in scikit-learn's order.

    An id holds the image's index in ``sklearn.datasets.load_digits()``: ``digits-0042``. The 1,000 ids whose seeded
    SHA-256 is smallest are ``train``: a uniform draw that depends on no random generator's version.

    Examples
    --------
    >>> probe = digits("probe")
    >>> probe.inputs.shape, str(probe.ids[0])
    ((797, 64), 'digits-0000')
    """
    pixels, labels = _pixels_and_labels()
    ids = np.array([f"digits-{index:04d}" for index in range(len(pixels))])
    rows = _rows(ids, split)
    return Digits((pixels[rows] / 16).astype(np.float32), ids[rows], labels[rows].astype(np.int64))


def _pixels_and_labels() -> tuple[np.ndarray, np.ndarray]:
    """Return pixels and labels of ``load_digits(return_X_y=True)``; from its file if that is there: a second less."""
    package = find_spec("sklearn")
    folders = package.submodule_search_locations if package else None
    file = Path(folders[0]) / "datasets" / "data" / "digits.csv.gz" if folders else None
    if file is None or not file.exists():
        from sklearn.datasets import load_digits

        return load_digits(return_X_y=True)
    table = np.loadtxt(file, delimiter=",")
    return table[:, :-1], table[:, -1].astype(int)


def _rows(ids: Shaped[np.ndarray, " all"], split: str) -> Int64[np.ndarray, " points"]:
    ranks = [hashlib.sha256(f"digits split {_SEED}: {name}".encode()).digest() for name in ids]
    order = np.array(sorted(range(len(ids)), key=ranks.__getitem__), dtype=np.int64)
    return np.sort(order[:_N_TRAIN] if split == "train" else order[_N_TRAIN:])
