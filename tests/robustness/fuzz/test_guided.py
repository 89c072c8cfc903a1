"""Every reader, and the catalog, on inputs that atheris (libFuzzer) guides by the lines that they reach.

``pip install atheris`` first (it is no dependency of the project: Linux, a few Pythons).
"""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

SECONDS_A_KIND = int(os.environ.get("LFM_ATLAS_FUZZ_SECONDS", "20"))
# Folders of many files (Zarr, saved datasets) are damaged in test_readers.
KINDS = ["catalog", "npy", "npz", "safetensors", "hdf5", "parquet", "arrow", "pt", "text", "onnx"]
KINDS += ["packed hdf5", "netcdf", "csv", "jsonl", "columns"]
ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.fuzz


@pytest.mark.skipif(find_spec("atheris") is None, reason="not run: atheris is not installed")
@pytest.mark.parametrize("kind", KINDS)
def test_inputs_that_reach_new_lines__are_read_or_refused(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if kind == "pt":
        pytest.importorskip("torch")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], *sys.path]),
        "OPENBLAS_NUM_THREADS": "1",
    }
    command: list[Any] = [sys.executable, Path(__file__).with_name("guided.py"), kind, str(SECONDS_A_KIND), tmp_path]

    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=False, env=environment, cwd=ROOT
    )

    tried = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert tried is not None
    assert list((tmp_path / "kept").iterdir()) == []
    assert int(tried[1]) > 50
    with capsys.disabled():
        sys.stdout.write(f"\n{kind}, guided: {int(tried[1]):,} inputs\n")
