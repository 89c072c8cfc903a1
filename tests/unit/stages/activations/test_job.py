"""A recording that was stopped goes on, and ends in the unit of one that nobody stopped."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm_tasks.sources.networks.recording import RecordedSource
from lfm_tasks.stages.activations.job import RecordJob, _record_layers, as_floats, gather_rows
from lfm_tasks.stores.units.store import UnitStore

N_POINTS, BATCH_ROWS = 9000, 100
ROWS = np.random.default_rng(0).standard_normal((N_POINTS, 3)).astype(np.float32)


class Stopped(RecordedSource):
    """Gives `ROWS`, and is interrupted before a batch; counts how many it gave."""

    batch_rows = BATCH_ROWS

    def __init__(self, last: int | None) -> None:
        self.last, self.asked = last, 0

    @property
    def ids(self) -> np.ndarray:
        return np.array([f"{number:05}" for number in range(N_POINTS)])

    def layer_names(self) -> tuple[str, ...]:
        return ("a", "b")

    def layer_shapes(self) -> dict[str, tuple[int | None, ...]]:
        return {"a": (3,), "b": (3,)}

    def identity(self, layer: str) -> Mapping[str, str]:
        return {"layer": layer}

    def batches(self, layers: Sequence[str], rows: np.ndarray) -> Iterator[Mapping[str, np.ndarray]]:
        assert len(rows) == 0 or rows[0] % BATCH_ROWS == 0
        for start in range(0, len(rows), BATCH_ROWS):
            if self.asked == self.last:
                raise KeyboardInterrupt
            self.asked += 1
            values = ROWS[rows[start : start + BATCH_ROWS]]
            yield {layer: values * (1 + number) for number, layer in enumerate(layers)}


def record(store: UnitStore, last: int | None = None) -> int:
    class Atlas:
        max_points = None

    class Zoo:
        atlas = Atlas

    source = Stopped(last)
    job = RecordJob(store, Zoo, "net", {"a": "aa" * 32, "b": "bb" * 32})  # type: ignore[arg-type]
    _record_layers(job, source, ["a", "b"])
    return source.asked


def manifests(store: UnitStore) -> list[Any]:
    return [(r.manifest, r.facts) for r in store.receipts("activations")]


@pytest.mark.parametrize("damage", ["none", "chunk", "torn line", "layout"])
def test_recording__goes_on_where_it_stopped(tmp_path: Path, damage: str) -> None:
    whole, stopped = UnitStore(tmp_path / "whole"), UnitStore(tmp_path / "stopped")
    assert record(whole) == 90
    with pytest.raises(KeyboardInterrupt):
        record(stopped, last=50)
    partial = stopped.root / "partial" / f"activations-{'aa' * 32}"
    if damage == "chunk":
        chunk = partial / "unit" / "activations" / "c" / "1" / "0"
        chunk.write_bytes(b"\x01" + chunk.read_bytes()[1:])
    elif damage == "torn line":
        with (partial / "journal").open("a") as journal:
            journal.write("abc")
    elif damage == "layout":
        described = partial / "unit" / "activations" / "zarr.json"
        described.write_text(described.read_text().replace("as the source", "as a source"))

    # 50 batches were given, 2 chunks of 2,048 rows noted: on from row 4,000, or from the start.
    assert record(stopped) == (50 if damage in ("none", "torn line") else 90)

    assert manifests(stopped) == manifests(whole)
    assert not partial.exists()
    stopped.remove_partial("activations")
    assert not (stopped.root / "partial").exists()


KILLED = """
import os, runpy, signal, sys
from pathlib import Path
from lfm_tasks.stores.units.store import UnitStore
here = runpy.run_path(sys.argv[1])
batches = here["Stopped"].batches

def slow(self, layers, rows):
    for number, batch in enumerate(batches(self, layers, rows)):
        if number == 60:
            os.kill(os.getpid(), signal.SIGKILL)
        yield batch

here["Stopped"].batches = slow
here["record"](UnitStore(Path(sys.argv[2])))
"""


def test_recording__killed_hard_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    whole, killed = UnitStore(tmp_path / "whole"), UnitStore(tmp_path / "killed")
    record(whole)
    command = [sys.executable, "-c", KILLED, __file__, str(killed.root)]
    assert subprocess.run(command, capture_output=True, timeout=120, check=False).returncode == -signal.SIGKILL
    assert not manifests(killed)
    assert (killed.root / "partial").is_dir()

    # 6,000 rows were given, 2 chunks of 2,048 of them noted: on from row 4,000.
    assert record(killed) == 50

    assert manifests(killed) == manifests(whole)
    killed.remove_partial("activations")
    assert not (killed.root / "partial").exists()


@pytest.mark.parametrize("chosen", [[], [0], [2, 3, 4, 9], list(range(10))])
@pytest.mark.parametrize("n_rows", [1, 3, 10])
def test_rows__gathered_from_chunks_are_those_of_the_whole(chosen: list[int], n_rows: int) -> None:
    rows = np.array(chosen, dtype=np.int64)
    chunks = (ROWS[start : min(start + n_rows, 10)] for start in range(0, 10, n_rows))
    np.testing.assert_array_equal(gather_rows(chunks, rows), ROWS[rows])


def test_half_precision__is_computed_with_in_single() -> None:
    assert as_floats(ROWS.astype(np.float16)).dtype == np.float32
    assert as_floats(ROWS) is ROWS
