"""The published files open as they are in what people use."""

from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest
import xarray as xr


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
