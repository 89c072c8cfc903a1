"""Records activations into the store: batches are gathered into whole chunks, and each chunk is written at once.

Where the unit outlives a kill, its journal holds a line for each chunk on disk: the content digest of all rows so far.
A recording continues only if the digests of the rows on disk equal these lines; else it starts from the first row.

Some networks give their rows in another order than that of the ids. `ScatteredRecording` keeps them in a file, batch
after batch, until all are there, and then gathers them into chunks; its journal holds a line for each batch.
"""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from lfm_tasks.errors import DataError
from lfm_tasks.stores.units.arrays import LAYOUTS, ArrayReader
from lfm_tasks.stores.units.store import RowsDigest, UnitWriter

_NAME = "activations"
_LAYOUT = LAYOUTS["activations"][_NAME]


class Recording:
    """One layer that is being recorded; ``n_rows`` of it are stored already.

    Parameters
    ----------
    unit
        The unfinished unit.
    ids
        Of all rows, in their order.
    keeps_journal
        Whether the unit's journal is this recording's.
    """

    def __init__(self, unit: UnitWriter, ids: np.ndarray, *, keeps_journal: bool = True) -> None:
        self._unit = unit
        self._journal = unit.journal if keeps_journal else None
        self._ids = ids
        self._digest = RowsDigest(ids)
        self._array: Any = None
        self._waiting: list[np.ndarray] = []
        self._n_waiting = 0
        self._n_skipped = 0
        self._chunk_rows = 1
        self.n_rows = 0
        if self._journal is not None and not self._continue(self._journal):
            unit.clear()
            self._digest, self._array, self.n_rows = RowsDigest(ids), None, 0

    def skip(self, n_rows: int) -> None:
        """Ignore the next ``n_rows`` that are added: they are stored already."""
        self._n_skipped = n_rows

    def add(self, values: np.ndarray) -> None:
        """Take the next rows; write those that fill chunks."""
        skipped = min(self._n_skipped, len(values))
        self._n_skipped -= skipped
        if skipped == len(values):
            return
        if self._array is None:
            self._lay_out(values.shape[1], values.dtype)
        self._waiting.append(values[skipped:])
        self._n_waiting += len(values) - skipped
        if self._n_waiting >= self._chunk_rows:
            self._flush(self._n_waiting - self._n_waiting % self._chunk_rows)

    def finish(self) -> None:
        """Write the last rows, the ids and the facts; DataError if the rows are not as many as the ids."""
        self._flush(self._n_waiting)
        if self._array is None:
            raise DataError("too_few_points", "the source gave no rows: at least 3 points are needed")
        if self.n_rows != len(self._ids):
            raise DataError("wrong_shape", f"the source gave {self.n_rows} rows for {len(self._ids)} ids")
        self._unit.arrays.write("ids", self._ids)
        self._unit.facts |= {
            "content": self._digest.hexdigest(),
            "ids": self._digest.ids,
            "n_points": len(self._ids),
            "n_features": int(self._array.shape[1]),
        }

    def _lay_out(self, n_features: int, dtype: np.dtype[Any]) -> None:
        self._array = self._unit.arrays.lay_out(_NAME, (len(self._ids), n_features), dtype)
        self._chunk_rows = _LAYOUT.rows_a_chunk(n_features * dtype.itemsize)

    def _flush(self, n_rows: int) -> None:
        if not n_rows:
            return
        rows = np.concatenate(self._waiting) if len(self._waiting) > 1 else self._waiting[0]
        self._waiting = [rows[n_rows:]] if n_rows < len(rows) else []
        self._n_waiting = len(rows) - n_rows
        for start in range(0, n_rows, self._chunk_rows):
            self._write(rows[start : min(start + self._chunk_rows, n_rows)])

    def _write(self, chunk: np.ndarray) -> None:
        self._digest.update(chunk)
        if self.n_rows + len(chunk) > len(self._ids):
            problem = f"the source gave at least {self.n_rows + len(chunk)} rows for {len(self._ids)} ids"
            raise DataError("wrong_shape", problem)
        self._array[self.n_rows : self.n_rows + len(chunk)] = chunk
        self.n_rows += len(chunk)
        if self._journal is not None:
            with self._journal.open("a", encoding="ascii") as journal:
                journal.write(f"{self._digest.hexdigest()}\n")

    def _continue(self, journal: Path) -> bool:
        """Take over the chunks of an earlier recording; return False unless all of its journal fits what is on disk."""
        stored = self._unit.folder / _NAME
        try:
            digests = _whole_lines(journal)
            described = (stored / "zarr.json").read_bytes()
            chunks = ArrayReader(self._unit.folder, "activations").batches(_NAME)
            for line, chunk in zip(digests, chunks, strict=False):
                self._digest.update(chunk)
                if self._digest.hexdigest() != line:
                    return False
                self.n_rows += len(chunk)
        except Exception:
            # Whatever is wrong with the rest that a kill left, a new start repairs it.
            return False
        if not digests:
            return False
        n_whole = len(digests) * _LAYOUT.rows_a_chunk(chunk.shape[1] * chunk.dtype.itemsize)
        if self.n_rows < min(n_whole, len(self._ids)):
            return False
        self._clear({stored / "c" / str(index) / "0" for index in range(len(digests))})
        self._lay_out(chunk.shape[1], chunk.dtype)
        journal.write_text("".join(f"{line}\n" for line in digests), encoding="ascii")
        return (stored / "zarr.json").read_bytes() == described

    def _clear(self, kept: set[Path]) -> None:
        """Remove all files but ``kept``: chunks without a line in the journal, half-written ones, metadata."""
        for path in self._unit.folder.rglob("*"):
            if path.is_file() and path not in kept:
                path.unlink()


_SCATTERED = "scattered"


class ScatteredRecording:
    """One layer whose rows come in any order; ``n_batches`` of it are stored already.

    Parameters
    ----------
    unit
        The unfinished unit.
    ids
        Of all rows, in the order in which they are to be stored.
    """

    def __init__(self, unit: UnitWriter, ids: Shaped[np.ndarray, " points"]) -> None:
        self._unit, self._ids = unit, ids
        self._folder = unit.folder / _SCATTERED
        self._batches: list[tuple[Int[np.ndarray, " batch"], str]] = []
        self._dtype: np.dtype[Any] | None = None
        self._n_features = 0
        self._continue()

    @property
    def n_batches(self) -> int:
        """How many batches are stored."""
        return len(self._batches)

    def keep(self, n_batches: int) -> None:
        """Forget all batches but the first ``n_batches``: layers that are recorded together continue together."""
        if n_batches < len(self._batches):
            del self._batches[n_batches:]
            self._cut()

    def add(self, positions: Int[np.ndarray, " batch"], values: Float[np.ndarray, "batch features"]) -> None:
        """Take one batch; ``positions``: the places of its rows among all ids."""
        if self._dtype is None:
            self._dtype, self._n_features = values.dtype, values.shape[1]
        if (values.dtype, values.shape[1:]) != (self._dtype, (self._n_features,)):
            problem = f"the source gave {values.dtype} of {values.shape[1:]} features after {self._dtype} of"
            raise DataError("wrong_shape", f"{problem} {self._n_features}: batches must be alike")
        rows = np.ascontiguousarray(values)
        with (self._folder / "rows").open("ab") as file:
            file.write(rows.data.cast("B"))
        line = self._line(positions, rows)
        self._batches.append((positions, line))
        if self._unit.journal is not None:
            with self._unit.journal.open("a", encoding="ascii") as journal:
                journal.write(f"{line}\n")

    def finish(self) -> None:
        """Write all rows in the order of the ids; DataError if one is missing or came twice."""
        places = np.concatenate([positions for positions, _ in self._batches]) if self._batches else np.empty(0, int)
        if self._dtype is None or not np.array_equal(np.sort(places), np.arange(len(self._ids))):
            raise DataError("wrong_shape", f"the source gave {len(places)} rows for {len(self._ids)} ids")
        where = np.empty_like(places)
        where[places] = np.arange(len(places))
        recording = Recording(self._unit, self._ids, keeps_journal=False)
        n_rows = _LAYOUT.rows_a_chunk(self._n_features * self._dtype.itemsize)
        for start in range(0, len(where), n_rows):
            # Mapped again for each chunk, so that pages that were read do not stay in memory.
            rows = np.memmap(self._folder / "rows", self._dtype, "r", shape=(len(where), self._n_features))
            recording.add(np.array(rows[where[start : start + n_rows]]))
            del rows
        shutil.rmtree(self._folder)
        recording.finish()

    def _line(self, positions: Int[np.ndarray, " batch"], rows: Float[np.ndarray, "batch features"]) -> str:
        before = self._batches[-1][1].split()[-1] if self._batches else ""
        hasher = hashlib.sha256(f"{before}:{rows.dtype.str}:{rows.shape}".encode())
        places = ",".join(map(str, positions.tolist()))
        hasher.update(places.encode())
        hasher.update(rows.data.cast("B"))
        return f"{rows.dtype.str} {self._n_features} {places} {hasher.hexdigest()}"

    def _continue(self) -> None:
        """Take over the batches of an earlier recording, as many as are whole on disk and fit the journal."""
        stored = self._folder / "rows"
        if self._unit.journal is not None:
            try:
                lines = _whole_lines(self._unit.journal)
                with stored.open("rb") as file:
                    for line in lines:
                        if not self._take(line, file):
                            break
            except (OSError, ValueError):
                pass  # whatever a kill left, what was read so far is sound
        for path in self._unit.folder.iterdir():
            if path != self._folder:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        self._folder.mkdir(exist_ok=True)
        self._cut()

    def _take(self, line: str, file: Any) -> bool:
        dtype, n_features, places, _ = line.split()
        positions = np.array([int(place) for place in places.split(",")], dtype=np.int64)
        rows = np.fromfile(file, np.dtype(dtype), len(positions) * int(n_features))
        if not self._batches:
            self._dtype, self._n_features = np.dtype(dtype), int(n_features)
        is_sound = len(rows) == len(positions) * self._n_features and np.dtype(dtype) == self._dtype
        if is_sound := is_sound and self._line(positions, rows.reshape(len(positions), -1)) == line:
            self._batches.append((positions, line))
        return is_sound

    def _cut(self) -> None:
        """Leave in the file and in the journal what `n_batches` says."""
        if not self._batches:
            self._dtype, self._n_features = None, 0
        n_rows = sum(len(positions) for positions, _ in self._batches)
        itemsize = 0 if self._dtype is None else self._dtype.itemsize
        with (self._folder / "rows").open("ab") as file:
            file.truncate(n_rows * self._n_features * itemsize)
        if self._unit.journal is not None:
            self._unit.journal.write_text("".join(f"{line}\n" for _, line in self._batches))


def _whole_lines(journal: Path) -> list[str]:
    """Return the lines of a journal, without a last one that a kill has torn."""
    lines = journal.read_text(encoding="ascii", errors="replace").splitlines(keepends=True)
    return [line[:-1] for line in lines if line.endswith("\n")]
