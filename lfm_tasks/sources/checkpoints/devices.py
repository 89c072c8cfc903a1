"""The device that runs a checkpoint, and the number of GPUs; torch is imported only when a network is loaded."""

import ctypes
import os
import platform
import re
import sys
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from lfm_tasks.errors import DataError

# Of several GPUs, the number of the one that a worker of a local cluster has to itself.
OWN_GPU = "LFM_ATLAS_GPU"


@lru_cache
def automatic_device() -> Literal["cpu", "cuda", "mps"]:
    """Return the device of ``device: auto`` on this machine, as torch would choose.

    A GPU counts if torch was built for its kind, its driver is there, and the environment does not hide it.
    """
    if sys.platform == "darwin" and platform.machine() == "arm64" and _torch_was_built_for() is not None:
        return "mps"
    return "cuda" if _n_cuda_devices() else "cpu"  # torch calls AMD's GPUs so, too


def n_gpus() -> int:
    """Return how many GPUs of this machine torch can use."""
    return {"cpu": 0, "mps": 1, "cuda": _n_cuda_devices()}[automatic_device()]


def check_device(device: str, model: str) -> None:
    """Raise DataError ``unsupported_model`` for a device (``auto``, ``cpu``, ``cuda:1``...) that this machine lacks.

    Without torch, whose absence has a message of its own, nothing is known.
    """
    kind = automatic_device()
    gpus = {"cpu": [], "mps": ["mps"], "cuda": [f"cuda:{number}" for number in range(n_gpus())]}
    if device != "auto" and _torch_was_built_for() is not None:
        _check_listed(device, [*gpus[kind], "cpu"], model)


def chosen_device(device: str, model: str) -> Any:
    """Return the torch device called ``cpu``, ``cuda``, ``cuda:N`` or ``mps``; DataError if this machine has none.

    Of several GPUs, ``cuda`` is the worker's own, or the first.
    """
    import torch

    available = ["cpu"]
    if torch.cuda.is_available():
        available[:0] = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    _check_listed(device, available, model)
    if not device.startswith("cuda"):
        return torch.device(device)
    # cuBLAS reads it when it starts: without it sums may come in another order each time, and torch refuses.
    # https://docs.nvidia.com/cuda/cublas/#results-reproducibility
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return torch.device(f"cuda:{os.environ.get(OWN_GPU, '0')}" if device == "cuda" else device)


def _check_listed(device: str, available: list[str], model: str) -> None:
    if ("cuda:0" if device == "cuda" else device) not in available:
        problem = f"got device: {device}, expected one that torch finds on this machine: {', '.join(available)}"
        advice = f"Set device: {available[0]}, or run where there is one, with the torch that its driver needs"
        raise DataError("unsupported_model", f"{model}: {problem}. {advice}.")


def _n_cuda_devices() -> int:
    """Return how many GPUs a torch that was built for them finds."""
    built_for = _torch_was_built_for()
    if built_for == "cuda":
        return _n_visible(_n_nvidia_gpus(), "CUDA_VISIBLE_DEVICES")
    return _n_visible(_n_amd_gpus(), "HIP_VISIBLE_DEVICES") if built_for == "hip" else 0


def _n_visible(n_there: int, variable: str) -> int:
    """Return how many of the GPUs an environment variable leaves to this process: those before its first wrong entry.

    https://docs.nvidia.com/cuda/cuda-c-programming-guide/#cuda-environment-variables
    """
    if variable not in os.environ:
        return n_there
    entries = [entry.strip() for entry in os.environ[variable].split(",")]
    is_there = [entry.startswith(("GPU-", "MIG-")) or (entry.isdecimal() and int(entry) < n_there) for entry in entries]
    return min(n_there, (*is_there, False).index(False))


def _torch_was_built_for() -> str | None:
    """Return ``cuda``, ``hip``, or ``cpu``, as torch's own version.py says; None without torch."""
    package = find_spec("torch")
    for folder in (package.submodule_search_locations or ()) if package else ():
        file = Path(folder) / "version.py"
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        built = re.search(r"^(cuda|hip)\b.*= *['\"]", text, re.MULTILINE)
        return built[1] if built else "cpu"
    return None


@lru_cache
def _n_nvidia_gpus() -> int:
    """Return how many GPUs NVIDIA's driver knows; unlike CUDA, asking its library leaves no trace in the process.

    https://docs.nvidia.com/deploy/nvml-api/
    """
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
        count = ctypes.c_uint()
        if library.nvmlInit_v2() != 0 or library.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
            return 0
        library.nvmlShutdown()
    except (OSError, AttributeError):  # no driver, one of long ago, or a container without this library
        return len([node for node in Path("/dev").glob("nvidia*") if node.name[6:].isdecimal()])
    return count.value


@lru_cache
def _n_amd_gpus() -> int:
    """Return how many GPUs AMD's driver knows: its nodes that compute, the processors left out."""
    nodes = Path("/sys/class/kfd/kfd/topology/nodes").glob("*/properties")
    return sum(bool(re.search(r"^simd_count [1-9]", node.read_text("utf-8"), re.MULTILINE)) for node in nodes)
