"""An atlas of very many spaces, whose arrays lie in files while it is put together, is the same as a small one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from lfm_tasks.stores.atlas.files import read_atlas
from lfm_tasks.stores.atlas.schema import read_manifest


def files_of(folder: Path) -> dict[str, str]:
    return {name: entry["sha256"] for name, entry in read_manifest(folder / "atlas", "").files.items()}


def test_arrays_in_files__give_the_same_atlas(
    tmp_path: Path, write_zoo: Any, build: Any, related_spaces: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = related_spaces(6)
    build(write_zoo(tmp_path / "small", models))
    monkeypatch.setattr("lfm_tasks.stores.scratch.LARGE_BYTES", 0)
    # Ranks of two sources at a time, edges of one.
    monkeypatch.setattr("lfm_tasks.stages.publish.assemble._CELLS_AT_ONCE", 24)
    monkeypatch.setattr("lfm_tasks.stages.publish.tables._PART_ROWS", 12)
    build(write_zoo(tmp_path / "large", models))

    small, large = files_of(tmp_path / "small"), files_of(tmp_path / "large")
    assert np.isfinite(read_atlas(tmp_path / "small" / "atlas")["unrelated_rank"]).all()
    # Groups of rows are part of Parquet's bytes.
    assert {name for name in small if small[name] != large[name]} == {"edges.parquet"}
    edges = [xr.Dataset.from_dataframe(_edges(tmp_path / name)) for name in ("small", "large")]
    xr.testing.assert_identical(*edges)
    assert list((tmp_path / "large" / ".lfm-atlas" / "staging").iterdir()) == []


def test_chunks_of_very_many_spaces__hold_the_same_numbers_in_few_files(
    tmp_path: Path, write_zoo: Any, build: Any, related_spaces: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = related_spaces(5)
    build(write_zoo(tmp_path / "small", models))
    monkeypatch.setattr("lfm_tasks.stores.atlas.files._FEWEST_SPACES", 10)
    monkeypatch.setattr("lfm_tasks.stores.atlas.files._CHUNK_SIDE", 6)
    build(write_zoo(tmp_path / "large", models))

    xr.testing.assert_identical(*(read_atlas(tmp_path / name / "atlas") for name in ("small", "large")))
    chunks = list((tmp_path / "large" / "atlas" / "atlas.zarr" / "half_scores" / "c").rglob("*"))
    assert sum(path.is_file() for path in chunks) == 2 * 2 * 2  # measures, sources, targets


def _edges(folder: Path) -> Any:
    import pandas as pd

    table = pd.read_parquet(folder / "atlas" / "edges.parquet")
    return table.assign(comparisons=table["comparisons"].map(list).map(str))
