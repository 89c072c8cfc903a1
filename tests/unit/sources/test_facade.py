"""What programs and readers of other packages import from `lfm_tasks.sources`."""

import subprocess
import sys

import pytest

import lfm_tasks.sources
from lfm_tasks.sources.files.formats import Format
from lfm_tasks.sources.opening import open_source

HEAVY = ("h5py", "pyarrow", "zarr", "onnx", "onnxruntime", "torch", "numpy")


def test_every_name__is_there() -> None:
    assert all(getattr(lfm_tasks.sources, name) is not None for name in lfm_tasks.sources.__all__)
    assert lfm_tasks.sources.Format is Format
    assert lfm_tasks.sources.open_source is open_source
    with pytest.raises(AttributeError, match=r"lfm_tasks\.sources. has no attribute .open_sources"):
        _ = lfm_tasks.sources.open_sources


def test_importing_it__imports_no_library() -> None:
    program = f"import sys, lfm_tasks.sources; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
