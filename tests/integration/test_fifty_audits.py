"""50 audits in a row, each of a zoo in which one model changed: nothing grows."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm_atlas.cli.main import app

N_AUDITS, SETTLED = 50, 20


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def stored(folder: Path) -> tuple[int, int]:
    files = [path for path in (folder / ".lfm-atlas").rglob("*") if path.is_file()]
    return len(files), sum(path.stat().st_size for path in files)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_fifty_audits_of_a_changing_zoo__stay_flat(
    tmp_path: Path, related_spaces: Any, write_zoo: Callable[..., Path]
) -> None:
    models = related_spaces(6)
    generator = np.random.default_rng(0)
    seen = []
    for number in range(N_AUDITS):
        name = f"model{number % len(models)}"
        layers, ids = models[name]
        models[name] = ({k: rows + 0.01 * generator.standard_normal(rows.shape) for k, rows in layers.items()}, ids)
        catalog = str(write_zoo(tmp_path, models) / "data_catalog.yaml")
        start = time.perf_counter()
        app(["audit", catalog, "--no-prefect", "--no-dask", "--promote"], result_action="return_value")
        seconds = time.perf_counter() - start
        app(["prune", catalog, "--remove"], result_action="return_value")
        n_open = len(list(Path("/proc/self/fd").iterdir()))
        seen.append((seconds, resident_bytes(), n_open, *stored(tmp_path)))
        print(number, *seen[-1])  # noqa: T201 - shown when it fails, or by -s

    before, after = np.array(seen[SETTLED : SETTLED + 10]), np.array(seen[-10:])
    ratios = dict(
        zip(
            ("seconds", "memory", "open files", "files in the store", "bytes in the store"),
            np.median(after, axis=0) / np.median(before, axis=0),
            strict=True,
        )
    )
    assert max(ratios[name] for name in ratios if name != "seconds") < 1.1, ratios
    # Time is what other programs leave of the machine: it must not double.
    assert ratios["seconds"] < 2, ratios
