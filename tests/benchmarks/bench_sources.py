"""Activations go from a .npy into the store at a third or more of the rate of numpy.save + fsync + SHA-256, in 1 GiB.

Run: ``python tests/benchmarks/bench_sources.py [folder]``. A round writes 50,000 × 2,048 float32 by numpy.save, fsync
and SHA-256 in a process of its own, then records them as the stage activations does, in another, from opening the
source to the committed unit. Rounds alternate; the ratio is that of the medians. Then what compressing a chunk costs
and saves.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numcodecs
import numpy as np

from lfm_tasks.catalog import Catalog
from lfm_tasks.stages.activations.job import RecordJob, record_model
from lfm_tasks.stores.units.store import UnitStore

N_POINTS, N_FEATURES, N_ROUNDS = 50_000, 2048, 3
CATALOG = {
    "version": 1,
    "datasets": {"probe": {"ids": "positional"}},
    "models": {"m": {"activations": {"path": "{model}.npy", "dataset": "probe"}}},
}


def main() -> None:
    folder = Path(tempfile.mkdtemp(dir=sys.argv[1] if len(sys.argv) > 1 else None))
    rows = np.maximum(np.random.default_rng(0).standard_normal((N_POINTS, N_FEATURES), dtype=np.float32), 0)
    np.save(folder / "m.npy", rows)
    saved, recorded, peaks = [], [], []
    for index in range(N_ROUNDS):
        saved.append(in_child("--save", folder)[0])
        seconds, peak = in_child("--record", folder)
        shutil.rmtree(folder / "store")
        recorded.append(seconds)
        peaks.append(peak)
        print(f"round {index}: save {saved[-1]:.2f} s, record {recorded[-1]:.2f} s, peak {peaks[-1]:.2f} GiB")  # noqa: T201
    ratio = np.median(saved) / np.median(recorded)
    print(f"rate {ratio:.2f} of numpy.save + fsync + SHA-256 (claim: 0.33), peak {max(peaks):.2f} GiB (claim: 1)")  # noqa: T201
    for name, values in {"ReLU of noise": rows[:2048], **real_activations()}.items():
        compress(name, values)
    shutil.rmtree(folder)
    sys.exit(not (ratio >= 1 / 3 and max(peaks) <= 1))


def save(rows: np.ndarray, folder: Path) -> float:
    start = time.perf_counter()
    with (folder / "saved.npy").open("wb") as file:
        np.save(file, rows)
        file.flush()
        os.fsync(file.fileno())
    with (folder / "saved.npy").open("rb") as file:
        hashlib.file_digest(file, "sha256")
    seconds = time.perf_counter() - start
    (folder / "saved.npy").unlink()
    return seconds


def in_child(what: str, folder: Path) -> tuple[float, float]:
    """Return seconds and the peak memory of a fresh process in GiB: memory that was used before is faster."""
    result = subprocess.run([sys.executable, __file__, what, str(folder)], check=True, capture_output=True, text=True)
    seconds, peak = result.stdout.split()
    return float(seconds), float(peak)


def record(folder: Path) -> None:
    job = RecordJob(UnitStore(folder / "store"), Catalog(root=folder, **CATALOG), "m", {"m": "0" * 64})  # type: ignore[arg-type]
    start = time.perf_counter()
    failures = record_model(job).failures
    seconds = time.perf_counter() - start
    # Not getrusage, whose maximum begins with the memory of the parent.
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    peak = next(line for line in status if line.startswith("VmHWM"))
    print(seconds, int(peak.split()[1]) / 2**20)  # noqa: T201
    assert not failures, failures


def real_activations() -> dict[str, np.ndarray]:
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    pixels, labels = load_digits(return_X_y=True)
    network = MLPClassifier((512,), max_iter=30, random_state=0)
    with warnings.catch_warnings(action="ignore"):  # not trained to the end
        network.fit(pixels, labels)
    hidden = np.maximum(pixels @ network.coefs_[0] + network.intercepts_[0], 0).astype(np.float32)
    return {"ReLU of digits": hidden, "ReLU of digits, float16": hidden.astype(np.float16)}


def compress(name: str, values: np.ndarray) -> None:
    size = values.dtype.itemsize
    for kind, codec in {
        "crc32c only": numcodecs.CRC32C(),
        "lz4": numcodecs.Blosc("lz4", 5, numcodecs.Blosc.SHUFFLE),
        "zstd": numcodecs.Blosc("zstd", 3, numcodecs.Blosc.SHUFFLE),
    }.items():
        times = []
        for _ in range(5):
            start = time.perf_counter()
            packed = codec.encode(np.ascontiguousarray(values) if kind != "crc32c only" else values.tobytes())
            times.append(time.perf_counter() - start)
        rate = values.nbytes / np.median(times) / 1e6
        print(f"{name} ({size} bytes a value), {kind}: {len(packed) / values.nbytes:.2f} of the size, {rate:.0f} MB/s")  # noqa: T201


if __name__ == "__main__":
    if sys.argv[1:2] == ["--save"]:
        print(save(np.load(Path(sys.argv[2]) / "m.npy"), Path(sys.argv[2])), 0)  # noqa: T201
    elif sys.argv[1:2] == ["--record"]:
        record(Path(sys.argv[2]))
    else:
        main()
