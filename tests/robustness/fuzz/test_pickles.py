"""40 pickles that run something, in 7 containers: none of them is run, each is refused."""

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.formats import open_array

CANARY = "canary"
TOUCH = f"open({CANARY!r}, 'w').close()"
SHELL = f"echo > {CANARY}"
# What a pickle names, and its arguments; each would make the canary.
GADGETS: list[tuple[str, str, tuple[object, ...]]] = [
    ("os", "system", (SHELL,)),
    ("posix", "system", (SHELL,)),
    ("os", "popen", (SHELL,)),
    ("os", "mkdir", (CANARY,)),
    ("posix", "mkdir", (CANARY,)),
    ("os", "makedirs", (CANARY,)),
    ("os", "mkfifo", (CANARY,)),
    ("os", "mknod", (CANARY,)),
    ("os", "symlink", ("/", CANARY)),
    ("os", "open", (CANARY, os.O_CREAT)),
    ("subprocess", "call", (["touch", CANARY],)),
    ("subprocess", "run", (["touch", CANARY],)),
    ("subprocess", "check_call", (["touch", CANARY],)),
    ("subprocess", "check_output", (["touch", CANARY],)),
    ("subprocess", "getoutput", (SHELL,)),
    ("subprocess", "getstatusoutput", (SHELL,)),
    ("subprocess", "Popen", (["touch", CANARY],)),
    ("builtins", "eval", (TOUCH,)),
    ("builtins", "exec", (TOUCH,)),
    ("builtins", "open", (CANARY, "w")),
    ("__builtin__", "eval", (TOUCH,)),
    ("io", "open", (CANARY, "w")),
    ("_io", "FileIO", (CANARY, "w")),
    ("codecs", "open", (CANARY, "w")),
    ("gzip", "open", (CANARY, "w")),
    ("bz2", "open", (CANARY, "w")),
    ("lzma", "open", (CANARY, "w")),
    ("sqlite3", "connect", (CANARY,)),
    ("dbm.dumb", "open", (CANARY,)),
    ("shelve", "open", (CANARY,)),
    ("logging", "FileHandler", (CANARY,)),
    ("zipfile", "ZipFile", (CANARY, "w")),
    ("tarfile", "open", (CANARY, "w")),
    ("timeit", "main", (["-n1", "-r1", TOUCH],)),
    ("cProfile", "run", (TOUCH,)),
    ("profile", "run", (TOUCH,)),
    ("shutil", "copytree", ("/proc/self/net/dev_snmp6", CANARY)),
    ("shutil", "copyfile", ("/etc/passwd", CANARY)),
    ("numpy", "save", (CANARY, 1)),
    ("distutils.file_util", "write_file", (CANARY, ["x"])),
]


def pickled(module: str, name: str, arguments: tuple[object, ...]) -> bytes:
    """Return the pickle that calls ``name`` of ``module``."""
    return b"\x80\x02" + f"c{module}\n{name}\n".encode() + pickle.dumps(arguments, protocol=2)[2:-1] + b"R."


def pt(path: Path, payload: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {"data.pkl": payload, "byteorder": b"little", "version": b"3\n"}.items():
            archive.writestr(f"archive/{name}", content)


def npy_bytes(payload: bytes) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": (3,)})
    return file.getvalue() + payload


def npz(path: Path, payload: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", npy_bytes(payload))


def zarr_codec(path: Path, payload: bytes) -> None:
    zarr.create_array(path, data=np.zeros(3), zarr_format=2, compressors=None)
    metadata = json.loads((path / ".zarray").read_text())
    (path / ".zarray").write_text(json.dumps(metadata | {"dtype": "|O", "filters": [{"id": "pickle"}]}))
    (path / "0").write_bytes(payload)


def hdf5(path: Path, payload: bytes) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.array([payload], dtype=f"V{len(payload)}"))


def parquet(path: Path, payload: bytes) -> None:
    pq.write_table(pa.table({"x": pa.array([payload], pa.binary())}), path)


CONTAINERS: dict[str, tuple[str, Callable[[Path, bytes], object], str | None]] = {
    "pt": ("a.pt", pt, None),
    "plain pickle as pt": ("a.pth", lambda path, payload: path.write_bytes(payload), None),
    "npy": ("a.npy", lambda path, payload: path.write_bytes(npy_bytes(payload)), None),
    "npz": ("a.npz", npz, "x"),
    "zarr": ("a.zarr", zarr_codec, None),
    "hdf5": ("a.h5", hdf5, "x"),
    "parquet": ("a.parquet", parquet, "x"),
}

pytestmark = pytest.mark.fuzz


@pytest.mark.parametrize("container", CONTAINERS)
def test_pickles__are_refused_and_never_run(container: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if container.endswith("pt"):
        pytest.importorskip("torch")
    name, make, key = CONTAINERS[container]
    for number, gadget in enumerate(GADGETS):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        make(folder / name, pickled(*gadget))

        with pytest.raises(DataError, match="found"):
            open_array(folder / name, name, key).load()

        assert [entry.name for entry in folder.iterdir()] == [name], gadget


def test_pickles__would_make_the_canary(tmp_path: Path) -> None:
    made = 0
    for number, gadget in enumerate(GADGETS):
        folder = tmp_path / str(number)
        folder.mkdir()
        command = [sys.executable, "-c", "import pickle, sys; pickle.load(sys.stdin.buffer)"]
        subprocess.run(command, input=pickled(*gadget), cwd=folder, capture_output=True, timeout=60, check=False)
        made += any(folder.iterdir())
    assert len(GADGETS) >= 40
    assert made >= 36  # some are not on every system
