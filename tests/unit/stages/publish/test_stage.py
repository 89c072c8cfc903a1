"""The published files: what other programs find in them, and that they open as they are in what people use."""

import json
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet
import pytest
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


@pytest.fixture(scope="module")
def atlas(zoo_folder_built: Path) -> Path:
    return zoo_folder_built / "atlas"


def test_xarray__chooses_by_what_the_catalog_says_of_models(atlas: Path) -> None:
    with xr.open_zarr(atlas / "atlas.zarr") as files:
        opened = files.load()
        calibrated = opened["calibrated"].sel(dataset="digits", measure="overlap")
        chosen = calibrated.sel(source=opened["source_meta_family"] == "cnn")

        assert set(chosen["source_model"].values) == {"cnn_s0"}
        assert set(opened["target_meta_base_model"].values) == {"", "mlp_s0"}
        assert opened["source_meta_base_model_relation"].attrs["long_name"] == "base_model_relation"
        keys = opened["content"].sel(dataset="digits")
        same = keys.sel(source=["mlp_s0/relu1", "mlp_s1/relu1"]).values
        assert len(set(same)) == 2
        assert {len(key) for key in keys.values} == {64}
        assert {len(key) for key in opened["basis"].sel(dataset="digits").values} == {64}


def test_pandas__reads_the_tables(atlas: Path) -> None:
    edges = pd.read_parquet(atlas / "edges.parquet")
    models = pd.read_parquet(atlas / "models.parquet")

    assert edges["score"].dtype == np.float64
    assert edges["n_common"].dtype == np.int32
    assert all(pd.api.types.is_string_dtype(edges[name]) for name in ("source", "target", "dataset", "status"))
    best = models.query("measure == 'overlap' and source == 'mlp_s0'").nlargest(1, "best_match")
    assert best["target"].tolist() == ["mlp_s0_permuted"]


def test_polars__reads_the_tables(atlas: Path) -> None:
    edges = pl.read_parquet(atlas / "edges.parquet")

    assert edges.schema["comparisons"] == pl.List(pl.String)
    assert edges.schema["q_value"] == pl.Float64
    assert edges.schema["n_common"] == pl.Int32
    found = edges.filter(pl.col("source") == "mlp_s0/relu1", pl.col("measure") == "overlap").sort("score").tail(1)
    assert found["target"].to_list() == ["mlp_s0_permuted/relu1"]
    assert pl.read_parquet(atlas / "layers.parquet").schema["margin"] == pl.Float64


def test_duckdb__asks_the_tables(atlas: Path) -> None:
    edges = str(atlas / "edges.parquet")
    best = "where source = 'mlp_s0/relu1' and measure = 'overlap' order by score desc limit 1"
    with duckdb.connect() as database:
        types = dict(row[:2] for row in database.execute("describe from read_parquet(?)", [edges]).fetchall())
        found = database.execute(f"from read_parquet(?) select target {best}", [edges]).fetchall()
        named = database.execute("select count(*) from read_parquet(?), unnest(comparisons)", [edges]).fetchone()

    assert found == [("mlp_s0_permuted/relu1",)]
    assert (types["source"], types["score"], types["n_common"]) == ("VARCHAR", "DOUBLE", "INTEGER")
    assert types["comparisons"] == "VARCHAR[]"
    assert named == (0,)
