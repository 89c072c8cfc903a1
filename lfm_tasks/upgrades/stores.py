"""Stores of vectors: a file with vectors, ids and further columns, or a space."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Shaped

from lfm_tasks.catalog import Catalog
from lfm_tasks.catalog.names import did_you_mean
from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.formats import FORMATS, find_format, open_array
from lfm_tasks.sources.files.ids import near_join, unique_ids
from lfm_tasks.sources.files.paths import readable
from lfm_tasks.sources.files.stored_array import StoredArray, check_memory_size
from lfm_tasks.sources.opening import open_source, read_dataset

# The column of an int8 store that holds the factor of each row.
SCALE = "scale"
_IDS, _LABELS = ("ids", "id"), ("labels", "label", "language", "class")
_ADVICE_ON_ROWS = "Fix these rows, or leave them out"


@dataclass(frozen=True)
class VectorStore:
    """Vectors with the ids of their inputs, and labels where the store has some.

    ``vectors`` is an array in a file or in memory; ``key`` its name there; ``keys`` all names of the file, in order.
    ``scale``: the factor of each row of whole numbers that stand for others, as int8 stores have it. ``id_column``: ids
    that are on the disk only, read where a row has to be named; ``ids_file``: the file that they are in, if it is
    another one.
    """

    name: str
    vectors: StoredArray | np.ndarray
    ids: Shaped[np.ndarray, " points"] | None
    labels: Shaped[np.ndarray, " points"] | None = None
    path: Path | None = None
    key: str | None = None
    keys: Sequence[str] = field(default=())
    scale: StoredArray | None = None
    id_column: StoredArray | None = None
    ids_file: str | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and features."""
        return self.vectors.shape

    def rows(self, chosen: Int[np.ndarray, " chosen"]) -> Float[np.ndarray, "chosen features"]:
        """Return rows as float32 (float64 stays).

        Raises
        ------
        DataError
            ``not_finite``, with row and id, for NaN and infinite values; ``missing_source`` if the file changed.
        """
        if isinstance(self.vectors, np.ndarray):
            found = self.vectors[chosen]
        else:
            with self.vectors.rows() as read:
                found = read(chosen)
            self.vectors.check_unchanged()
        if self.scale is not None:
            with self.scale.rows() as read:
                found = found * read(chosen).astype(np.float32)[:, None]
        check_finite_rows(found, self.name, chosen, self)
        return found if found.dtype == np.float64 else found.astype(np.float32)

    def id_of(self, row: int) -> str | None:
        """Return the id of a row; None if the store has none."""
        if self.ids is not None:
            return str(self.ids[row])
        if self.id_column is None:
            return None
        with self.id_column.rows() as read:
            return str(read(np.array([row]))[0])


def check_finite_rows(
    rows: Shaped[np.ndarray, "rows features"],
    name: str,
    numbers: Int[np.ndarray, " rows"],
    store: VectorStore,
) -> None:
    """Raise DataError ``not_finite`` for NaN and infinite values; the message names the first row and its id."""
    if rows.dtype.kind != "f":
        return
    # A sum is finite where all terms are, but for overflow, which the exact test then clears.
    sums = rows.sum(axis=1, dtype=np.float64)
    if np.isfinite(sums).all():
        return
    wrong = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if not len(wrong):
        return
    row = int(numbers[wrong[0]])
    name_of_row = store.id_of(row)
    named = "" if name_of_row is None else f" (id {ascii(name_of_row)[:60]})"
    problem = f"got NaN or infinite values in {len(wrong):,} of {len(rows):,} rows, the first is row {row:,}{named}"
    raise DataError("not_finite", f"{name}: {problem}, expected finite numbers. {_ADVICE_ON_ROWS}.")


def open_store(text: str, ids: str | None = None, labels: str | None = None) -> VectorStore:
    """Return the store in a file: ``path``, or ``path#key`` where the file holds several arrays of vectors.

    Parameters
    ----------
    text
        The file: .npy, .npz, .parquet, .arrow, .safetensors, .h5, .zarr and what else `FORMATS` reads.
    ids, labels
        The file, or file#key, of the ids and labels; None: those that the file itself holds under a usual name.

    Raises
    ------
    DataError
        ``missing_source``, ``wrong_shape``, ``wrong_dtype`` or ``bad_ids`` for what is no store of vectors.
    """
    store = open_large_store(text, ids, most_ids=None)
    of_labels = _column(store.path, text, store.keys, labels, _LABELS, store.shape[0])
    in_text = None if of_labels is None else of_labels.load().astype(str)
    return replace(store, labels=in_text)


# Ids of so many rows are read and checked for repeats; those of more stay on the disk.
MOST_IDS = 10_000_000


def open_large_store(text: str, ids: str | None = None, *, most_ids: int | None = MOST_IDS) -> VectorStore:
    """Return the store in a file, of which no more than the ids is read; those of more rows than ``most_ids`` neither.

    Labels are left out; other parameters and errors as `open_store`.
    """
    path, key = split_store(text)
    reader = find_format(path, text)
    with readable(text):
        keys = reader.keys(path, text) or ()
    chosen = key if key is not None or not keys else _only_vectors(path, text, keys)
    vectors = open_array(path, str(path), chosen)
    if len(vectors.shape) != 2 or vectors.dtype.kind not in "fiu":
        problem = f"got {vectors.dtype} of shape {vectors.shape}, expected numbers, (points, features)"
        raise DataError("wrong_shape", f"{vectors.name}: {problem}. Name the array of the vectors: {path.name}#key.")
    n_rows = vectors.shape[0]
    id_column = _column(path, text, keys, ids, _IDS, n_rows)
    is_read = id_column is not None and (most_ids is None or n_rows <= most_ids)
    checked = unique_ids(id_column.load(), f"{path}: ids") if id_column is not None and is_read else None
    is_whole = vectors.dtype.kind in "iu"
    scale = _column(path, text, keys, None, (SCALE,), n_rows) if is_whole and SCALE in keys else None
    return VectorStore(text, vectors, checked, None, path, chosen, keys, scale, None if is_read else id_column, ids)


def split_store(text: str) -> tuple[Path, str | None]:
    """Return the path and, of ``path#key``, the key; None without one."""
    path, mark, key = text.rpartition("#")
    return (Path(path), key) if mark and not Path(text).exists() else (Path(text), None)


def _only_vectors(path: Path, name: str, keys: Sequence[str]) -> str:
    """Return the only key of numbers in two dims; DataError if there are none or several."""
    found, refused = [], []
    for key in keys:
        try:
            array = open_array(path, name, key)
        except DataError as error:
            refused.append(error)
            continue  # text of variable length, say: no vectors
        if len(array.shape) == 2 and array.dtype.kind in "fiu":
            found.append(key)
    if len(found) == 1:
        return found[0]
    if len(refused) == len(keys):
        raise refused[0]  # none can be read, as where there are no rows: naming one does not help
    why = f" ({refused[0]})" if refused else ""
    which = f"the arrays {', '.join(found[:5])}" if found else f"no array of vectors among {', '.join(keys[:5])}{why}"
    first = found[0] if found else "KEY"
    raise DataError("missing_source", f"{name}: got {which}, expected one. Name it: {path.name}#{first}.")


def _column(
    path: Path | None, name: str, keys: Sequence[str], given: str | None, names: Sequence[str], n_rows: int
) -> StoredArray | None:
    """Return a column with a value for each row: the file that is given, or that of a usual name; None if none is."""
    if given is not None:
        place, key = split_store(given)
        array = open_array(place, given, key)
    else:
        key = next((one for one in names if one in keys), None)
        if key is None or path is None:
            return None
        array = open_array(path, name, key)
    if len(array.shape) != 1 or array.shape[0] != n_rows:
        problem = f"got {names[0]} of shape {array.shape} for {n_rows:,} vectors, expected one for each"
        raise DataError("bad_ids", f"{given or name}: {problem}. Give those of these vectors.")
    return array


def is_file_name(text: str) -> bool:
    """Return whether a text names a file, there or not, and no space of a catalog."""
    path, _ = split_store(text)
    return path.exists() or path.suffix.lower() in FORMATS


def open_space(name: str, catalog: Catalog, dataset: str | None = None) -> VectorStore:
    """Return the space ``model/layer`` of the catalog, recorded here and now.

    Raises
    ------
    DataError
        ``missing_source`` for a model that is not there, ``unknown_layer`` for a layer that it lacks.
    """
    model_name, _, layer = name.partition("/")
    try:
        model = catalog.model_on(model_name, dataset)
    except LookupError as error:
        raise DataError("missing_source", str(error)) from error
    rows_of_dataset = read_dataset(model.dataset, catalog)
    source = open_source(model_name, model, catalog, rows_of_dataset)
    names = source.layer_names()
    if layer not in names:
        problem = f"got no layer {layer[:100]!r} of {model_name}, expected model/layer{did_you_mean(layer, names)}"
        raise DataError("unknown_layer", f"{name}: {problem}. It has {', '.join(names[:8])}.")
    parts = [batch[layer] for batch in source.batches([layer], np.arange(len(source.ids)))]
    vectors = np.concatenate(parts)
    labels = None
    if rows_of_dataset.labels is not None and np.array_equal(source.ids, rows_of_dataset.ids):
        labels = rows_of_dataset.labels.astype(str)
    return VectorStore(name, vectors, source.ids, labels)


@dataclass(frozen=True)
class CommonRows:
    """The rows of two stores for their common inputs, ids and labels of these, and what was left out."""

    old: Float[np.ndarray, "points old_features"]
    new: Float[np.ndarray, "points new_features"]
    ids: Shaped[np.ndarray, " points"]
    labels: Shaped[np.ndarray, " points"] | None
    notes: tuple[str, ...]


def common_rows(old: VectorStore, new: VectorStore, most: int | None = None, *, seed: int = 0) -> CommonRows:
    """Return the rows of the inputs that both stores have, joined on ids.

    ``most``: so many of them at most, drawn with ``seed``.

    Raises
    ------
    DataError
        ``bad_ids`` for a store without ids, ``no_overlap`` if no id is common, and as `VectorStore.rows`.
    """
    for store in (old, new):
        if not store.shape[0]:
            raise DataError("too_few_points", f"{store.name}: got no vector, expected some. Look at the file.")
    old_ids, new_ids = _ids_of(old), _ids_of(new)
    _, first, second = np.intersect1d(old_ids, new_ids, assume_unique=True, return_indices=True)
    if not len(first):
        hint = near_join(new_ids, old_ids, "ids", old.name)
        raise DataError("no_overlap", f"{new.name}: got no id that {old.name} has, {hint}. Embed the same inputs.")
    notes = tuple(
        f"{store.shape[0] - len(first):,} of {store.shape[0]:,} vectors of {store.name} have no partner"
        for store in (old, new)
        if store.shape[0] > len(first)
    )
    order = np.argsort(first, kind="stable")
    if most is not None and len(order) > most:
        order = np.sort(np.random.default_rng(seed).choice(len(order), most, replace=False))
        notes = (*notes, f"{most:,} of {len(first):,} common inputs were drawn")
    check_memory_size(old.name, len(order) * (old.shape[1] + new.shape[1]) * 8)
    rows = old.rows(first[order]), new.rows(second[order])
    for store, of_store in ((old, rows[0]), (new, rows[1])):
        zeros = np.flatnonzero(~of_store.any(axis=1))
        if len(zeros):
            name = ascii(str(old_ids[first[order]][zeros[0]]))[:60]
            problem = f"got {len(zeros):,} vectors of zeros, the first of id {name}, expected vectors with a direction"
            raise DataError("zero_rows", f"{store.name}: {problem}. Leave these inputs out.")
    labels = next((store.labels[at[order]] for store, at in ((new, second), (old, first)) if store.labels is not None),
                  None)  # fmt: skip
    return CommonRows(rows[0], rows[1], old_ids[first[order]], labels, notes)


def _ids_of(store: VectorStore) -> Shaped[np.ndarray, " points"]:
    if store.ids is None:
        advice = "Give the file of its ids: --old-ids or --new-ids"
        raise DataError("bad_ids", f"{store.name}: got vectors without ids, expected one for each. {advice}.")
    return store.ids
