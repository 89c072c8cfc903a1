"""Every reader on damaged files: each is read or refused; none crashes, hangs, or takes memory."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

SECONDS_A_KIND = float(os.environ.get("LFM_ATLAS_FUZZ_SECONDS", "45"))
SEED = int(os.environ.get("LFM_ATLAS_FUZZ_SEED", "0"))
BATCH = 250
ENVIRONMENT = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
KINDS = ["npy", "npz", "safetensors", "hdf5", "parquet", "arrow", "saved dataset", "zarr", "pt", "text", "onnx"]
KINDS += ["packed", "packed hdf5", "netcdf", "csv", "jsonl", "columns"]

pytestmark = pytest.mark.fuzz


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files__are_read_or_refused(
    kind: str, tmp_path: Path, record_property: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    if kind == "pt":
        pytest.importorskip("torch")
    tried = read = first = 0
    wrong: list[str] = []
    until = time.monotonic() + SECONDS_A_KIND
    while time.monotonic() < until and len(wrong) < 10:
        last = first + BATCH
        command = [sys.executable, Path(__file__).with_name("feed.py"), kind, str(SEED), str(first), str(last)]
        done = subprocess.run([*command, tmp_path], capture_output=True, text=True, check=False, env=ENVIRONMENT)
        if done.returncode == 0:
            counts = json.loads(done.stdout.splitlines()[-1])
            tried, read, first = tried + counts["tried"], read + counts["read"], last
            wrong += counts["escaped"]
            continue
        at = int((tmp_path / "at").read_text()) if (tmp_path / "at").exists() else -1
        what = "hang" if done.returncode == -signal.SIGALRM else f"crash ({done.returncode})"
        wrong.append(f"{kind} {SEED} {at}: {what}\n{done.stderr[-2000:]}")
        tried, first = tried + at - first + 1, at + 1
    record_property("tried", tried)
    with capsys.disabled():
        sys.stdout.write(f"\n{kind}: {tried:,} inputs, {read:,} read, {len(wrong)} wrong\n")
    assert tried > 50
    assert not wrong, "\n".join(wrong)
