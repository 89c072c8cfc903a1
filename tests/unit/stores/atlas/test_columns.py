"""The table of columns: what writes and documents the published tables follows it, also a row that is new."""

import json
from pathlib import Path
from typing import Any, get_args

import networkx as nx
import numpy as np
import pyarrow.parquet
import pytest
import xarray as xr

from lfm_tasks.published.atlas import open_atlas
from lfm_tasks.published.exports import export_csv, export_graphml
from lfm_tasks.stores.atlas import schema
from lfm_tasks.stores.atlas.schema import Column, column_names, columns_as_markdown, columns_of
from tests.conftest import Build, WriteZoo

PAGE = Path(__file__).parents[4] / "docs" / "atlas.md"
TABLES: tuple[schema.Table, ...] = ("edges", "models", "layers")


@pytest.mark.parametrize("table", get_args(schema.Table))
def test_docs__have_the_columns_of_each_table(table: schema.Table) -> None:
    assert f"\n\n{columns_as_markdown(table)}\n\n" in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("table", TABLES)
def test_published_table__has_the_columns_in_their_order_and_types(table: schema.Table, zoo_folder_built: Path) -> None:
    schema = pyarrow.parquet.read_schema(zoo_folder_built / "atlas" / f"{table}.parquet")

    assert tuple(schema.names) == column_names(table)
    types = {"string": "string", "float64": "double", "int32": "int32", "list<string>": "list<element: string>"}
    for column in columns_of(table):
        assert str(schema.field(column.name).type) == types[column.dtype], column.name


def test_arrays__have_the_dims_and_meanings_of_their_columns(zoo_folder_built: Path) -> None:
    with xr.open_zarr(zoo_folder_built / "atlas" / "atlas.zarr") as atlas:
        for column in columns_of("edges"):
            if column.dims and column.name != "status":  # whose attributes are the reasons that its numbers stand for
                assert atlas[column.name].dims == column.dims
                assert atlas[column.name].attrs["long_name"] == column.meaning
                assert str(atlas[column.name].dtype) == column.dtype


@pytest.mark.parametrize("column", schema.COLUMNS, ids=lambda column: column.name)
def test_meaning__fits_one_cell_of_a_table(column: Column) -> None:
    assert column.meaning
    assert not {"|", "\n"} & set(column.meaning)


def test_new_row__reaches_files_exports_and_docs(
    tmp_path: Path, related_spaces: Any, write_zoo: WriteZoo, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    def above_chance(atlas: xr.Dataset) -> xr.DataArray:
        return atlas["score"] - atlas["null_mean"]

    dims = ("dataset", "measure", "source", "target")
    row = Column("gain", "float64", "score - null_mean", ("edges",), dims, in_graph=True, derive=above_chance)
    monkeypatch.setattr(schema, "COLUMNS", (*schema.COLUMNS, row))

    assert build(write_zoo(tmp_path, related_spaces(2))).failures == ()

    table = pyarrow.parquet.read_table(tmp_path / "atlas" / "edges.parquet")
    assert table.schema.names[-1] == "gain"
    expected = table["score"].to_numpy() - table["null_mean"].to_numpy()
    np.testing.assert_array_equal(table["gain"].to_numpy(), expected)
    array = json.loads((tmp_path / "atlas" / "atlas.zarr" / "gain" / "zarr.json").read_text())
    assert array["attributes"]["long_name"] == "score - null_mean"
    with open_atlas(tmp_path / "atlas") as atlas:
        export_csv(atlas, tmp_path / "edges.csv")
        export_graphml(atlas, tmp_path / "zoo.graphml", min_value=-1.0)
    assert (tmp_path / "edges.csv").read_text().splitlines()[0].endswith('"gain"')
    assert all("gain" in data for _, _, data in nx.read_graphml(tmp_path / "zoo.graphml").edges(data=True))
    assert columns_as_markdown("edges") not in PAGE.read_text(encoding="utf-8"), "the docs check asks for the new row"
