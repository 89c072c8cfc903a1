"""Carries the vectors of a store of any size, chunk by chunk: planned first, resumed after an interruption.

Carried rows are written, with a journal, into a hidden folder beside the output, which `writers` turns into the file
that was requested. That appears whole or not at all. What a killed process leaves is taken up by the next one, if map,
store and options are the same; after an error of the data or of the disk nothing is left.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float, Shaped

from lfm_tasks.errors import DataError, FolderError
from lfm_tasks.sources.files.paths import readable
from lfm_tasks.sources.files.stored_array import ReadRows, StoredArray
from lfm_tasks.stores.outputs import check_output_file
from lfm_tasks.stores.units.durable import atomic_write, sync_folder
from lfm_tasks.upgrades.adapters import Adapter, unit_rows
from lfm_tasks.upgrades.confidence import confidence_of
from lfm_tasks.upgrades.stores import SCALE, VectorStore, check_finite_rows, split_store
from lfm_tasks.upgrades.writers import WRITERS, Carried, columns_beside, write_npy_header

# Rows that are multiplied together: always so many, so that the bits do not depend on how many are read at once.
TILE_ROWS = 2048
_CHUNK_BYTES = 64 * 2**20
# Rows between two entries of the journal, each of which waits for the disk (bytes).
_JOURNAL_BYTES = 2**30
OUTPUT_TYPES = ("float32", "float64", "float16", "int8")
_CONFIDENCE = ("confidence", "round_trip", "local", "known")


@dataclass(frozen=True)
class KnownRows:
    """The inputs of confidence: the map back, and rows of length 1 of both models for some inputs.

    ``is_of_units``: whether the maps were fitted on rows of length 1, and not on rows as they are recorded.
    """

    back: Adapter
    source: Float[np.ndarray, "known source_features"]
    target: Float[np.ndarray, "known target_features"]
    is_of_units: bool = True


@dataclass(frozen=True)
class CarryOptions:
    """How vectors are carried.

    Parameters
    ----------
    dtype
        Of the output, one of `OUTPUT_TYPES`; None: float64 from float64 and whole numbers, else float32. int8 comes
        with the column ``scale``, a factor for each row.
    known
        Adds four columns of confidence; None: none.
    force
        Whether to replace an output that is there.
    """

    dtype: str | None = None
    known: KnownRows | None = None
    force: bool = False


@dataclass(frozen=True)
class CarryPlan:
    """The plan of carrying: bytes to read, to write and to hold in memory."""

    store: VectorStore
    output: Path
    options: CarryOptions
    dtype: str
    n_rows: int
    n_features: int
    n_results: int
    chunk_rows: int
    columns: tuple[str, ...]
    added: tuple[str, ...]
    notes: tuple[str, ...]
    output_bytes: int
    needed_bytes: int
    memory_bytes: int
    key: str
    done: tuple[tuple[int, int], ...] = ()

    @property
    def n_done(self) -> int:
        """How many rows an interrupted run has carried, from the first on without a gap."""
        return self.done[0][1] if self.done and self.done[0][0] == 0 else 0

    @property
    def n_carried(self) -> int:
        """How many rows an interrupted run has carried, wherever they are."""
        return sum(stop - start for start, stop in self.done)

    @property
    def partial(self) -> Path:
        """The hidden folder that holds what is carried so far."""
        return self.output.with_name(f".{self.output.name}.partial")

    def lines(self, n_workers: int = 1) -> Iterator[str]:
        """Yield the lines that describe the plan before it starts; each worker takes the memory."""
        shape = f"{self.n_rows:,} vectors, {self.n_features:,} -> {self.n_results:,} features"
        yield f"{self.store.name} -> {self.output}: {shape}, {self.dtype}"
        yield f"columns beside the vectors: {', '.join(self.columns) or 'none'}"
        yield from (f"note: {note}" for note in self.notes)
        yield (
            f"{self.output_bytes / 1e9:,.2f} GB to write, {self.needed_bytes / 1e9:,.2f} GB of disk while it works, "
            f"{n_workers} × {self.memory_bytes / 1e6:,.0f} MB of memory, chunks of {self.chunk_rows:,} rows"
        )
        if self.done:
            yield f"{self.n_carried:,} rows are carried already: it goes on from there"


def plan_carry(adapter: Adapter, store: VectorStore, output: Path, options: CarryOptions | None = None) -> CarryPlan:
    """Return the plan of carrying a store into ``output``.

    Raises
    ------
    DataError
        ``wrong_shape`` for vectors of another width than the map's; ``bad_name`` for an output that may not be written,
        or cannot hold what it should; ``too_large`` if the disk has too little room.
    """
    options = options or CarryOptions()
    _check_output(output, options)
    _check_not_read(store, output)
    vectors = store.vectors
    n_features, n_results = adapter.matrix.shape
    if vectors.shape[1] != n_features:
        problem = f"got the shape {vectors.shape}, expected (points, {n_features}), as the map's source was recorded"
        raise DataError("wrong_shape", f"{_name(store)}: {problem}. Give vectors of that model.")
    is_narrow = (vectors.dtype.kind == "f" and vectors.dtype.itemsize <= 4) or store.scale is not None
    dtype = options.dtype or ("float32" if is_narrow else "float64")
    added = (*((SCALE,) if dtype == "int8" else ()), *(_CONFIDENCE if options.known is not None else ()))
    columns, notes = columns_beside(store, output, added)
    if vectors.dtype.kind in "iu" and store.scale is None:
        notes = (f"{vectors.dtype} without a column {SCALE}: the whole numbers themselves are carried", *notes)
    row_bytes = n_results * np.dtype(dtype).itemsize + 4 * len(added)
    n_rows = vectors.shape[0]
    read_bytes = n_features * (vectors.dtype.itemsize + 8) + n_results * 12
    chunk_rows = max(1, _CHUNK_BYTES // read_bytes // TILE_ROWS) * TILE_ROWS
    # A .npy is written in place; other kinds are made of what was carried, which is removed afterwards.
    needed = n_rows * row_bytes * (1 if output.suffix == ".npy" else 2)
    key = _key(adapter, store, dtype, added)
    plan = CarryPlan(
        store, output, options, dtype, n_rows, n_features, n_results, chunk_rows, columns, added, notes,
        n_rows * row_bytes, needed, 3 * chunk_rows * read_bytes, key,
    )  # fmt: skip
    plan = replace(plan, done=_rows_done(plan))
    free = shutil.disk_usage(output.absolute().parent).free
    missing = needed - plan.n_carried * row_bytes - free
    if missing > 0:
        problem = f"got {free / 1e9:,.2f} GB of free disk, expected {missing / 1e9:,.2f} GB more"
        raise DataError("too_large", f"{output}: {problem}. Free some, or choose another disk or --dtype float16.")
    return plan


def _name(store: VectorStore) -> str:
    return store.vectors.name if isinstance(store.vectors, StoredArray) else store.name


def _check_output(output: Path, options: CarryOptions) -> None:
    if output.suffix.lower() not in WRITERS:
        kinds = f"{', '.join(list(WRITERS)[:-1])} or {list(WRITERS)[-1]}"
        raise DataError("bad_name", f"{output}: got the output {output.name!r}, expected a name that ends in {kinds}.")
    if not output.absolute().parent.is_dir():
        raise DataError("bad_name", f"{output}: got no folder {str(output.parent)!r}, expected one. Make it first.")
    if output.suffix.lower() == ".npy" and (options.dtype == "int8" or options.known is not None):
        what = "a scale for each row" if options.dtype == "int8" else "confidence"
        raise DataError("bad_name", f"{output}: got a .npy, which has no room for {what}. Choose .parquet, say.")
    try:
        check_output_file(output, force=options.force)
    except FolderError as error:
        raise DataError("bad_name", str(error)) from error


def _check_not_read(store: VectorStore, output: Path) -> None:
    """Raise DataError ``bad_name`` for an output that would replace, or change, what is read."""
    target = Path(os.path.realpath(output))
    ids = None if store.ids_file is None else split_store(store.ids_file)[0]
    for source in (store.path, ids):
        if source is None:
            continue
        place = Path(os.path.realpath(source))
        if target == place or place in target.parents:
            where = "the file that is read" if target == place else f"a place inside of {source}, which is read"
            raise DataError("bad_name", f"{output}: got {where}, expected another one. Name one beside it.")


def _key(adapter: Adapter, store: VectorStore, dtype: str, added: tuple[str, ...]) -> str:
    """Return the key of the carried bytes: of the map, the file as it is now, and the options."""
    hasher = hashlib.sha256(f"{dtype} {added} {TILE_ROWS} {store.shape} {adapter.takes_directions}".encode())
    arrays = [adapter.matrix, adapter.shift]
    if adapter.residual is not None:
        arrays += list(vars(adapter.residual).values())
    for array in arrays:
        hasher.update(np.ascontiguousarray(array).tobytes())
    if isinstance(store.vectors, StoredArray):
        hasher.update(repr((str(store.vectors.path.absolute()), store.vectors.fingerprint)).encode())
    else:
        hasher.update(np.ascontiguousarray(store.vectors).tobytes())
    return hasher.hexdigest()


_MARKER, _JOURNAL, VECTORS_FILE, ADDED_FILE = "lfm-atlas.lock", "journal.json", "vectors.npy", "added.bin"


def _rows_done(plan: CarryPlan) -> tuple[tuple[int, int], ...]:
    """Return which rows an interrupted run has carried, from, to; () if what lies there is of something else."""
    try:
        journal = json.loads((plan.partial / _JOURNAL).read_bytes())
        return tuple((int(start), int(stop)) for start, stop in journal["done"]) if journal["key"] == plan.key else ()
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def note_done(plan: CarryPlan, done: Sequence[tuple[int, int]]) -> None:
    """Note in the journal which rows, from, to, are carried and on the disk."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(done):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        elif stop > start:
            merged.append((start, stop))
    atomic_write(plan.partial / _JOURNAL, json.dumps({"key": plan.key, "done": merged}).encode())


Progress = Callable[[str, int, int], None]
CarryRows = Callable[[CarryPlan, Adapter, Progress], None]


def carry(
    plan: CarryPlan,
    adapter: Adapter,
    report_progress: Progress = lambda stage, done, total: None,
    carry_rows: CarryRows | None = None,
) -> None:
    """Carry the vectors of a plan and write the output.

    Parameters
    ----------
    plan, adapter
        What is carried, and by which map.
    report_progress
        Called with how many rows are carried.
    carry_rows
        Carries the rows into the hidden folder; None: in this process. `parts` does it on workers.

    Raises
    ------
    DataError
        ``not_finite``, with row and id, for NaN and infinite values; ``wrong_dtype`` for numbers that the output's type
        does not hold; ``missing_source`` if the store changed while it was read.
    """
    with _own_folder(plan) as folder:
        if not plan.done:
            _empty(folder)
        (carry_rows or _carry_rows)(plan, adapter, report_progress)
        if isinstance(plan.store.vectors, StoredArray):
            plan.store.vectors.check_unchanged()
        n_added = len(plan.added)
        added = np.empty((0, n_added), "<f4") if n_added else None  # no file of no bytes can be mapped
        if n_added and plan.n_rows:
            added = np.memmap(folder / ADDED_FILE, "<f4", "r", shape=(plan.n_rows, n_added))
        carried = Carried(folder / VECTORS_FILE, plan.store, plan.added, added, plan.columns)
        finished = WRITERS[plan.output.suffix.lower()](carried, folder)
        _check_output(plan.output, plan.options)
        finished.replace(plan.output)
    sync_folder(plan.output.absolute().parent)


@contextmanager
def _own_folder(plan: CarryPlan) -> Iterator[Path]:
    """Yield the hidden folder of an output, for this process alone; it goes when the block ends, but for a kill.

    Raises
    ------
    DataError
        ``bad_name`` if somebody else's folder has its name, or another process is at work in it.
    """
    folder = plan.partial
    if os.path.lexists(folder) and not (folder.is_dir() and not folder.is_symlink() and (folder / _MARKER).is_file()):
        problem = f"got {folder.name} beside it, which lfm-atlas did not make"
        raise DataError("bad_name", f"{plan.output}: {problem}, expected a free name. Move it away.")
    folder.mkdir(exist_ok=True)
    with (folder / _MARKER).open("a") as marker:
        try:
            fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            problem = "got another process that writes it, expected none"
            raise DataError("bad_name", f"{plan.output}: {problem}. Wait for it, or name another output.") from error
        try:
            yield folder
        except Exception as error:
            # What goes on after the cause is gone is kept: a cluster that is lost. A full disk and bad data are not.
            if isinstance(error, DataError | OSError) or not (folder / _JOURNAL).exists():
                shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)


def _empty(folder: Path) -> None:
    """Remove what an interrupted run of something else has left."""
    for path in folder.iterdir():
        if path.name != _MARKER:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _carry_rows(plan: CarryPlan, adapter: Adapter, report_progress: Progress) -> None:
    """Carry the rows that are missing: one thread reads ahead, one writes behind."""
    header_bytes = make_files(plan)
    if plan.done:
        note_done(plan, [(0, plan.n_done)])  # rows beyond a gap are carried again
    with ExitStack() as stack:
        read = open_rows(plan.store, stack)
        vectors, added = (stack.enter_context((plan.partial / name).open("r+b")) for name in (VECTORS_FILE, ADDED_FILE))
        for file, place in zip((vectors, added), places_of(plan, plan.n_done, header_bytes), strict=True):
            file.truncate(place)
            file.seek(place)
        reading = stack.enter_context(ThreadPoolExecutor(1, "read"))
        writing = stack.enter_context(ThreadPoolExecutor(1, "write"))
        starts = list(range(plan.n_done, plan.n_rows, plan.chunk_rows))
        ahead: Future[np.ndarray] | None = None
        behind: Future[None] | None = None
        since = 0
        for start, following in zip(starts, [*starts[1:], None], strict=False):
            stop = min(start + plan.chunk_rows, plan.n_rows)
            rows = read(start, stop) if ahead is None else ahead.result()
            if following is not None:
                ahead = reading.submit(read, following, min(following + plan.chunk_rows, plan.n_rows))
            stored, more = carry_chunk(plan, adapter, rows, start)
            if behind is not None:
                behind.result()
            since += stored.nbytes
            is_noted = since >= _JOURNAL_BYTES or following is None
            since = 0 if is_noted else since
            behind = writing.submit(_write, plan, vectors, added, (stored, more), stop if is_noted else None)
            report_progress("rows", stop, plan.n_rows)
        if behind is not None:
            behind.result()


def make_files(plan: CarryPlan) -> int:
    """Make the files of carried rows where there are none; return how many bytes the first row begins at."""
    is_new = not plan.done
    if is_new:
        (plan.partial / ADDED_FILE).write_bytes(b"")
    dtype = np.dtype(plan.dtype).newbyteorder("<")
    return write_npy_header(plan.partial / VECTORS_FILE, (plan.n_rows, plan.n_results), dtype, keep=not is_new)


def places_of(plan: CarryPlan, row: int, header_bytes: int) -> tuple[int, int]:
    """Return where a row begins in the file of vectors and in that of added columns, in bytes."""
    row_bytes = plan.n_results * np.dtype(plan.dtype).itemsize
    return header_bytes + row * row_bytes, row * 4 * len(plan.added)


def open_rows(store: VectorStore, stack: ExitStack) -> ReadRows:
    """Return a function that reads rows of a store, scaled; its files stay open as long as ``stack`` does."""
    vectors = store.vectors
    if isinstance(vectors, np.ndarray):
        return lambda start, stop: vectors[start:stop]
    opened = stack.enter_context(vectors.open())
    scale = None if store.scale is None else stack.enter_context(store.scale.open())

    def read(start: int, stop: int) -> Shaped[np.ndarray, "rows features"]:
        with readable(vectors.name):
            rows = opened(start, stop)
            return rows if scale is None else rows * scale(start, stop).astype(np.float32)[:, None]

    return read


def carry_chunk(
    plan: CarryPlan, adapter: Adapter, rows: Shaped[np.ndarray, "rows features"], start: int
) -> tuple[Shaped[np.ndarray, "rows results"], Float[np.ndarray, "rows added"] | None]:
    """Return rows carried, in the output's type, and the columns that are added; ``start``: the first one's number."""
    carried = _carried(plan, adapter, rows, start)
    stored, scale = _in_type(carried, plan, start)
    return stored, _added(plan, rows, carried, scale)


def _carried(plan: CarryPlan, adapter: Adapter, rows: np.ndarray, start: int) -> np.ndarray:
    """Return the rows in the target's coordinates, multiplied in tiles of `TILE_ROWS`; DataError for NaN."""
    wide = np.float32 if rows.dtype.kind == "f" and rows.dtype.itemsize <= 4 else np.float64
    carried = np.empty((len(rows), plan.n_results), wide)
    with np.errstate(invalid="ignore", over="ignore"):
        for first in range(0, len(rows), TILE_ROWS):
            tile = slice(first, first + TILE_ROWS)
            carried[tile] = adapter.carry(rows[tile].astype(wide, copy=False))
        # What is not finite in a row makes all of the carried row so.
        is_finite = np.isfinite(carried @ np.ones(plan.n_results, wide)).all()
    if not is_finite:
        numbers = np.arange(start, start + len(rows))
        name = _name(plan.store)
        check_finite_rows(rows, name, numbers, plan.store)
        check_finite_rows(carried, f"{name}, carried", numbers, plan.store)
    return carried


def _in_type(carried: np.ndarray, plan: CarryPlan, start: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Return carried rows in the output's type, and the scale of each row for int8."""
    if plan.dtype != "int8":
        with np.errstate(over="ignore"):
            stored = carried.astype(np.dtype(plan.dtype).newbyteorder("<"), copy=False)
        end = np.finfo(np.dtype(plan.dtype)).max
        is_narrower = np.dtype(plan.dtype).itemsize < carried.itemsize and carried.size > 0
        # A look at the ends is quick; what lies beyond them may still be rounded to a number of the type.
        if is_narrower and max(carried.max(), -carried.min()) > end and not np.isfinite(stored).all():
            row = int(np.argmin(np.isfinite(stored).all(axis=1)))
            shown = f"{end:,.0f}" if plan.dtype == "float16" else f"{end:.4g}"
            problem = f"got {np.abs(carried[row]).max():.4g} in carried row {start + row:,}, and {plan.dtype} ends at"
            wider = "float32" if plan.dtype == "float16" else "float64"
            raise DataError("wrong_dtype", f"{plan.output}: {problem} {shown}. Say --dtype {wider}.")
        return stored, None
    factors = np.maximum(np.abs(carried).max(axis=1) / 127, np.finfo(np.float32).tiny)
    beyond = factors > np.finfo(np.float32).max
    if beyond.any():
        row = int(beyond.argmax())
        problem = f"got {factors[row]:.4g} as the scale of carried row {start + row:,}, which is a float32"
        raise DataError("wrong_dtype", f"{plan.output}: {problem}. Say --dtype float64.")
    scale = factors.astype(np.float32)
    return np.rint(carried / scale[:, None]).astype(np.int8), scale


def _added(plan: CarryPlan, rows: np.ndarray, carried: np.ndarray, scale: np.ndarray | None) -> np.ndarray | None:
    columns = [] if scale is None else [scale]
    if plan.options.known is not None:
        known = plan.options.known
        # Directions in the type of the rows: numbers of float64 may be none of float32.
        source, target = (unit_rows(side.astype(carried.dtype, copy=False)) for side in (rows, carried))
        returned = unit_rows(known.back.carry(target if known.is_of_units else carried))
        narrow = [side.astype(np.float32, copy=False) for side in (source, target, returned)]
        found = confidence_of(narrow[0], narrow[1], narrow[2], (known.source, known.target))
        columns += [found.value, found.round_trip, found.local, found.known]
    return np.stack(columns, axis=1).astype("<f4") if columns else None


def _write(
    plan: CarryPlan,
    vectors: BinaryIO,
    added: BinaryIO,
    blocks: tuple[np.ndarray, np.ndarray | None],
    n_done: int | None,
) -> None:
    """Append blocks; with ``n_done`` wait for the disk and note in the journal how many rows are carried."""
    for file, block in zip((vectors, added), blocks, strict=True):
        if block is not None:
            file.write(np.ascontiguousarray(block).data)
    if n_done is None:
        return
    for file in (vectors, added):
        file.flush()
        os.fsync(file.fileno())
    note_done(plan, [(0, n_done)])
