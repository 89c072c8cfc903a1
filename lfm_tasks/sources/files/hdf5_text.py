"""Reads text of variable length from HDF5 in a process of its own, with a time limit.

Such text lies in heaps of the file, and the HDF5 library goes round and round in damaged ones, for ever and without
giving way to Python: https://github.com/HDFGroup/hdf5/issues/1707. Numbers lie elsewhere.
"""

import json
import subprocess
import sys
from math import ceil
from pathlib import Path

_SECONDS = 60.0
# An alarm ends it, wherever it is, also when nobody waits for it any more.
_READ = """
import json, signal, sys, h5py
path, key, limit, seconds = sys.argv[1:]
signal.alarm(int(seconds))
with h5py.File(path, "r", locking=False) as file:
    text, texts, found = file[key].asstr(), [], 0
    for start in range(0, file[key].shape[0], 256):
        part = text[start : start + 256].tolist()
        texts += part
        found += len(json.dumps(part))
        if found > int(limit):
            sys.exit("found more text than fits into memory")
sys.stdout.write(json.dumps(texts))
"""


def read_texts(path: Path, key: str, most_bytes: int) -> list[str]:
    """Return the texts of a dataset that lies in a local file; ValueError if it is damaged."""
    command = [sys.executable, "-P", "-c", _READ, str(path), key, str(most_bytes), str(ceil(_SECONDS) + 1)]
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and program
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, encoding="utf-8", timeout=_SECONDS,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"the HDF5 library reads its text for more than {_SECONDS:.0f} s") from error
    if done.returncode:
        told = done.stderr.strip().splitlines()
        raise ValueError(told[-1] if told else f"the HDF5 library ended with {done.returncode}")
    texts: list[str] = json.loads(done.stdout)
    return texts
