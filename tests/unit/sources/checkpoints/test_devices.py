"""Which device a checkpoint runs on, by files and drivers first, and by torch when it is loaded."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lfm_tasks.errors import DataError
from lfm_tasks.sources.checkpoints import devices
from lfm_tasks.sources.checkpoints.devices import OWN_GPU, automatic_device, check_device, chosen_device, n_gpus


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make this a Linux machine with GPUs, and with a torch that was built for a kind of them."""

    def make(built_for: str | None, n_there: int, **variables: str) -> None:
        monkeypatch.setattr(devices, "_torch_was_built_for", lambda: built_for)
        monkeypatch.setattr(devices, "_n_nvidia_gpus", lambda: n_there)
        monkeypatch.setattr(devices, "_n_amd_gpus", lambda: n_there)
        monkeypatch.setattr(devices, "automatic_device", automatic_device.__wrapped__)
        monkeypatch.setattr(devices.sys, "platform", "linux")
        for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return make


@pytest.mark.parametrize(
    ("built_for", "n_there", "visible", "expected"),
    [
        ("cuda", 2, None, 2),
        ("cuda", 4, "3,1", 2),
        ("cuda", 1, "0,1", 1),
        ("cuda", 4, "0,7,1", 1),
        ("cuda", 4, "0,-1,1", 1),
        ("cuda", 2, "GPU-5d21", 1),
        ("cuda", 1, "MIG-1,MIG-2", 1),
        ("cuda", 1, "", 0),
        ("cuda", 1, "-1", 0),
        ("cuda", 1, "NoDevFiles", 0),
        ("cuda", 0, None, 0),
        ("hip", 2, None, 2),
        ("cpu", 2, None, 0),
        (None, 2, None, 0),
    ],
)
def test_gpus__are_those_that_torch_is_built_for_and_may_see(
    machine: Any, built_for: str | None, n_there: int, visible: str | None, expected: int
) -> None:
    machine(built_for, n_there, **({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}))

    assert n_gpus() == expected
    assert automatic_device.__wrapped__() == ("cuda" if expected else "cpu")


def test_gpus_of_amd__are_hidden_by_their_own_variable(machine: Any) -> None:
    machine("hip", 2, HIP_VISIBLE_DEVICES="1", CUDA_VISIBLE_DEVICES="")

    assert n_gpus() == 1


def test_automatic_device__is_apples_where_there_is_no_other(monkeypatch: pytest.MonkeyPatch, machine: Any) -> None:
    machine("cpu", 0)
    monkeypatch.setattr(devices.sys, "platform", "darwin")
    monkeypatch.setattr(devices.platform, "machine", lambda: "arm64")

    assert (automatic_device.__wrapped__(), n_gpus()) == ("mps", 1)
    check_device("mps", "m")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("cuda: Optional[str] = '12.8'", "cuda"),
        ("hip: Optional[str] = '6.4'", "hip"),
        ("cuda: Optional[str] = None", "cpu"),
    ],
)
def test_torch_was_built_for__what_its_version_says(
    line: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").touch()
    (tmp_path / "torch" / "version.py").write_text(f"__version__ = '2.13.0'\n{line}\n")
    found = SimpleNamespace(submodule_search_locations=[str(tmp_path / "torch")])
    monkeypatch.setattr(devices, "find_spec", lambda _: found)

    assert devices._torch_was_built_for() == expected


def test_gpus__are_nodes_where_the_drivers_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(name: str) -> Any:
        raise OSError(name)

    nodes = ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm")
    monkeypatch.setattr(devices.ctypes, "CDLL", no_library)
    monkeypatch.setattr(devices.Path, "glob", lambda _, pattern: [Path(f"/dev/{name}") for name in nodes])

    assert devices._n_nvidia_gpus.__wrapped__() == 2


def test_automatic_device__agrees_with_torch() -> None:
    torch = pytest.importorskip("torch")
    expected = "mps" if torch.backends.mps.is_available() else "cuda" if torch.cuda.is_available() else "cpu"

    assert automatic_device() == expected
    assert n_gpus() == (torch.cuda.device_count() if expected == "cuda" else expected == "mps")


class FakeGpus:
    """A machine with GPUs, as torch tells it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, n_gpus: int, has_mps: bool = False) -> None:
        torch = pytest.importorskip("torch")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: n_gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: has_mps)


@pytest.mark.parametrize(
    ("n_there", "has_mps", "own", "wanted", "expected"),
    [
        (2, False, None, "cuda", "cuda:0"),
        (2, False, "1", "cuda", "cuda:1"),
        (2, False, "0", "cuda:1", "cuda:1"),
        (2, False, "1", "cpu", "cpu"),
        (0, True, "0", "mps", "mps"),
        (0, False, None, "cpu", "cpu"),
    ],
)
def test_chosen_device__is_one_of_this_machine_and_the_workers_own(
    monkeypatch: pytest.MonkeyPatch, n_there: int, has_mps: bool, own: str | None, wanted: str, expected: str
) -> None:
    FakeGpus(monkeypatch, n_there, has_mps)
    monkeypatch.delenv(OWN_GPU, raising=False)
    if own is not None:
        monkeypatch.setenv(OWN_GPU, own)
    monkeypatch.setitem(os.environ, "CUBLAS_WORKSPACE_CONFIG", "")  # put back afterwards
    del os.environ["CUBLAS_WORKSPACE_CONFIG"]

    assert str(chosen_device(wanted, "m")) == expected
    assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) is expected.startswith("cuda")


@pytest.mark.parametrize(("n_there", "wanted"), [(2, "cuda:2"), (0, "cuda"), (0, "mps")])
def test_device_that_is_not_there__is_refused_without_torch_and_with_it(
    machine: Any, monkeypatch: pytest.MonkeyPatch, n_there: int, wanted: str
) -> None:
    told = rf"m: got device: {wanted}, expected one that torch finds on this machine: .*cpu\. Set"
    machine("cuda", n_there)
    with pytest.raises(DataError, match=told) as caught:
        check_device(wanted, "m")
    assert caught.value.reason == "unsupported_model"
    for device in ("auto", "cpu", *(("cuda", "cuda:1") if n_there else ())):
        check_device(device, "m")

    FakeGpus(monkeypatch, n_there)
    with pytest.raises(DataError, match=told):
        chosen_device(wanted, "m")


def test_device__is_not_judged_without_torch(machine: Any) -> None:
    machine(None, 0)

    check_device("cuda", "m")
