"""Records activations into the store: batches are gathered into whole chunks, and each chunk is written at once.

Where the unit outlives a kill, its journal holds a line for each chunk on disk: the content digest of all rows so far.
A recording continues only if the digests of the rows on disk equal these lines; else it starts from the first row.
"""

from pathlib import Path
from typing import Any

import numpy as np

from lfm_tasks.errors import DataError
from lfm_tasks.stores.units.arrays import LAYOUTS, ArrayReader
from lfm_tasks.stores.units.store import RowsDigest, UnitWriter

_NAME = "activations"
_LAYOUT = LAYOUTS["activations"][_NAME]


class Recording:
    """One layer that is being recorded; ``n_rows`` of it are stored already."""

    def __init__(self, unit: UnitWriter, ids: np.ndarray) -> None:
        self._unit = unit
        self._ids = ids
        self._digest = RowsDigest(ids)
        self._array: Any = None
        self._waiting: list[np.ndarray] = []
        self._n_waiting = 0
        self._n_skipped = 0
        self._chunk_rows = 1
        self.n_rows = 0
        if unit.journal is not None and not self._continue(unit.journal):
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
        if self._unit.journal is not None:
            with self._unit.journal.open("a") as journal:
                journal.write(f"{self._digest.hexdigest()}\n")

    def _continue(self, journal: Path) -> bool:
        """Take over the chunks of an earlier recording; return False unless all of its journal fits what is on disk."""
        stored = self._unit.folder / _NAME
        try:
            digests = [line[:-1] for line in journal.read_text().splitlines(keepends=True) if line.endswith("\n")]
            described = (stored / "zarr.json").read_bytes()
            chunks = ArrayReader(self._unit.folder, "activations").batches(_NAME)
            for line, chunk in zip(digests, chunks, strict=False):
                self._digest.update(chunk)
                if self._digest.hexdigest() != line:
                    return False
                self.n_rows += len(chunk)
        except Exception:
            # Whatever is wrong with what a kill left, a new start mends it.
            return False
        if not digests:
            return False
        n_whole = len(digests) * _LAYOUT.rows_a_chunk(chunk.shape[1] * chunk.dtype.itemsize)
        if self.n_rows < min(n_whole, len(self._ids)):
            return False
        self._clear({stored / "c" / str(index) / "0" for index in range(len(digests))})
        self._lay_out(chunk.shape[1], chunk.dtype)
        journal.write_text("".join(f"{line}\n" for line in digests))  # without a last line torn by the kill
        return (stored / "zarr.json").read_bytes() == described

    def _clear(self, kept: set[Path]) -> None:
        """Remove all files but ``kept``: chunks without a line in the journal, half-written ones, metadata."""
        for path in self._unit.folder.rglob("*"):
            if path.is_file() and path not in kept:
                path.unlink()
