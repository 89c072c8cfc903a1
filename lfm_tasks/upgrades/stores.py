"""Stores of vectors as people have them: a file with vectors, ids and what else stands beside them, or a space."""

from collections.abc import Sequence
from dataclasses import dataclass, field
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
_ADVICE_ON_ROWS = "Mend these rows, or leave them out"


@dataclass(frozen=True)
class VectorStore:
    """Vectors with the ids of their inputs, and labels where the store has some.

    ``vectors`` is an array in a file or in memory; ``key`` its name there; ``keys`` all names of the file, in order.
    ``scale``: the factor of each row of whole numbers that stand for others, as int8 stores have it.
    """

    name: str
    vectors: StoredArray | np.ndarray
    ids: Shaped[np.ndarray, " points"] | None
    labels: Shaped[np.ndarray, " points"] | None = None
    path: Path | None = None
    key: str | None = None
    keys: Sequence[str] = field(default=())
    scale: Float[np.ndarray, " points"] | None = None

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
            found = found * self.scale[chosen][:, None]
        check_finite_rows(found, self.name, chosen, self.ids)
        return found if found.dtype == np.float64 else found.astype(np.float32)


def check_finite_rows(
    rows: Shaped[np.ndarray, "rows features"],
    name: str,
    numbers: Int[np.ndarray, " rows"],
    ids: Shaped[np.ndarray, " points"] | None,
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
    named = "" if ids is None else f" (id {ascii(str(ids[row]))[:60]})"
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
    path, key = _split(text)
    reader = find_format(path, text)
    with readable(text):
        keys = reader.keys(path, text) or ()
    chosen = key if key is not None or not keys else _only_vectors(path, text, keys)
    vectors = open_array(path, str(path), chosen)
    if len(vectors.shape) != 2 or vectors.dtype.kind not in "fiu":
        problem = f"got {vectors.dtype} of shape {vectors.shape}, expected numbers, (points, features)"
        raise DataError("wrong_shape", f"{vectors.name}: {problem}. Name the array of the vectors: {path.name}#key.")
    found = [
        _column(path, text, keys, given, names, vectors.shape[0], what)
        for given, names, what in ((ids, _IDS, "ids"), (labels, _LABELS, "labels"))
    ]
    checked = None if found[0] is None else unique_ids(found[0], f"{path}: ids")
    scale = None
    if SCALE in keys and vectors.dtype.kind in "iu":
        factors = _column(path, text, keys, None, (SCALE,), vectors.shape[0], SCALE)
        scale = None if factors is None else factors.astype(np.float32)
    in_text = None if found[1] is None else found[1].astype(str)
    return VectorStore(text, vectors, checked, in_text, path, chosen, keys, scale)


def _split(text: str) -> tuple[Path, str | None]:
    path, mark, key = text.rpartition("#")
    return (Path(path), key) if mark and not Path(text).exists() else (Path(text), None)


def _only_vectors(path: Path, name: str, keys: Sequence[str]) -> str:
    """Return the only key of numbers in two dims; DataError if there are none or several."""
    found = []
    for key in keys:
        try:
            array = open_array(path, name, key)
        except DataError:
            continue  # text of variable length, say: no vectors
        if len(array.shape) == 2 and array.dtype.kind in "fiu":
            found.append(key)
    if len(found) == 1:
        return found[0]
    which = f"the arrays {', '.join(found[:5])}" if found else f"no array of vectors among {', '.join(keys[:5])}"
    first = found[0] if found else "KEY"
    raise DataError("missing_source", f"{name}: got {which}, expected one. Say which: {path.name}#{first}.")


def _column(
    path: Path, name: str, keys: Sequence[str], given: str | None, names: Sequence[str], n_rows: int, what: str
) -> Shaped[np.ndarray, " points"] | None:
    if given is not None:
        place, key = _split(given)
        values = open_array(place, given, key).load()
    else:
        key = next((one for one in names if one in keys), None)
        if key is None:
            return None
        values = open_array(path, name, key).load()
    if values.ndim != 1 or len(values) != n_rows:
        problem = f"got {what} of shape {values.shape} for {n_rows:,} vectors, expected one for each"
        raise DataError("bad_ids", f"{given or name}: {problem}. Give those of these vectors.")
    return values


def is_file_name(text: str) -> bool:
    """Return whether a text names a file, there or not, and no space of a catalog."""
    path, _ = _split(text)
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
    labels = next((store.labels[at[order]] for store, at in ((new, second), (old, first)) if store.labels is not None),
                  None)  # fmt: skip
    return CommonRows(rows[0], rows[1], old_ids[first[order]], labels, notes)


def _ids_of(store: VectorStore) -> Shaped[np.ndarray, " points"]:
    if store.ids is None:
        advice = "Give the file of its ids: --old-ids or --new-ids"
        raise DataError("bad_ids", f"{store.name}: got vectors without ids, expected one for each. {advice}.")
    return store.ids
