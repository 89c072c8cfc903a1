"""The published files: what other programs find in them."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet
import xarray as xr

EDGES = [
    "source", "target", "dataset", "measure", "score", "null_mean", "null_q95", "calibrated", "p_value", "ci_low",
    "ci_high", "q_value", "unrelated_rank", "status", "n_common", "overlap_share",
    "comparisons",
]  # fmt: skip


def test_atlas_zarr__opens_in_xarray_with_named_dims(zoo_folder_built: Path) -> None:
    with xr.open_zarr(zoo_folder_built / "atlas" / "atlas.zarr") as atlas:
        assert atlas["score"].dims == ("dataset", "measure", "source", "target")
        assert {"source_model", "source_layer", "source_depth", "target_model"} <= set(atlas.coords)
        one = atlas["score"].sel(dataset="digits", measure="overlap", source="mlp_s0/relu1", target="mlp_s1/relu1")
        assert 0 < float(one) < 1


def test_edges__hold_a_row_for_each_directed_pair_and_measure(zoo_folder_built: Path) -> None:
    table = pyarrow.parquet.read_table(zoo_folder_built / "atlas" / "edges.parquet")

    assert sorted(table.column_names) == sorted(EDGES)
    assert table.num_rows == 2 * 40 * 39
    assert set(table["status"].to_pylist()) == {"ok"}
    assert table.schema.field("comparisons").type == pyarrow.list_(pyarrow.string())
    assert table["comparisons"].to_pylist() == [[]] * table.num_rows
    assert table["ci_low"].null_count == table["q_value"].null_count == 0
    assert not any(np.isnan(value) for value in table["score"].to_pylist())


def test_edges__say_the_same_as_the_arrays(zoo_folder_built: Path) -> None:
    table = pyarrow.parquet.read_table(zoo_folder_built / "atlas" / "edges.parquet").to_pylist()
    with xr.open_zarr(zoo_folder_built / "atlas" / "atlas.zarr") as opened:
        atlas = opened.load()
    for row in table[:: len(table) // 50]:
        place = {name: row[name] for name in ("dataset", "measure", "source", "target")}
        assert row["score"] == float(atlas["score"].sel(place))
        assert row["calibrated"] == float(atlas["calibrated"].sel(place))


def test_published_files__name_no_place_no_person_and_no_time(zoo_folder_built: Path) -> None:
    import getpass
    import socket

    for path in sorted((zoo_folder_built / "atlas").rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            assert str(zoo_folder_built).encode() not in content, path
            if path.suffix in {".json", ".html"} and path.name != "report.html":
                assert socket.gethostname().encode() not in content, path
                if len(getpass.getuser()) > 4:
                    assert getpass.getuser().encode() not in content, path


def test_manifest__names_every_published_file(zoo_folder_built: Path) -> None:
    atlas = zoo_folder_built / "atlas"
    manifest = json.loads((atlas / "manifest.json").read_text())
    present = {path.relative_to(atlas).as_posix() for path in atlas.rglob("*") if path.is_file()}

    assert set(manifest["files"]) == present - {"manifest.json"}
