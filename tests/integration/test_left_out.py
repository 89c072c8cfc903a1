"""Rows that a catalog leaves out: the atlas is that of the rows that stay, and says which are not there."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lfm_atlas.cli.run import run, validate
from lfm_atlas.console import OK, USAGE

N = 90
CATALOG = """\
version: 1
datasets: {{p: {{ids: {{path: ids.npy}}{dataset}}}}}
models:
  a: {{activations: {{path: a.npy, dataset: p{model}}}}}
  b: {{activations: {{path: b.npy, dataset: p, ids: {{path: few.npy}}}}}}
atlas:
  {{n_eigenpairs: 8, graph: {{n_neighbors: 8}}, collection: null, null: {{n_permutations: 5}}, measures: [overlap]}}
"""


def scores(folder: Path) -> list[float]:
    edges = pq.read_table(folder / "atlas" / "edges.parquet").to_pylist()
    return sorted(edge["score"] for edge in edges)


def test_rows_that_are_left_out__are_said_and_stored_and_change_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = np.random.default_rng(0)
    ids, rows = np.array([f"i{row:02}" for row in range(N)]), generator.standard_normal((N, 6))
    broken = rows.copy()
    broken[7, 2] = np.nan
    kept = np.delete(np.arange(N), [3, 5, 7])
    left, plain = tmp_path / "left", tmp_path / "plain"
    for folder, chosen, values, text in (
        (left, np.arange(N), broken, CATALOG.format(dataset=", exclude: {path: out.txt}", model=", not_finite: drop")),
        (plain, kept, rows, CATALOG.format(dataset="", model="")),
    ):
        folder.mkdir()
        np.save(folder / "ids.npy", ids[chosen])
        np.save(folder / "a.npy", values[chosen])
        few = chosen[chosen < 80]
        np.save(folder / "few.npy", ids[few])
        np.save(folder / "b.npy", rows[few] + 0.5)
        (folder / "out.txt").write_text("i03\ni05\n")
        (folder / "data_catalog.yaml").write_text(text)
        assert run(folder / "data_catalog.yaml", prefect=False, dask=False) == OK
    capsys.readouterr()

    # i07 is there in b alone, which its graph shows: what the two have in common is as close as it was.
    np.testing.assert_allclose(scores(left), scores(plain), atol=0.15)
    told = [
        "dataset p: 88 of 90 points are compared, as the catalog says",
        "a: a: 1 of 90 rows are not finite and left out: i07",
        f"b: 10 of 88 points of the dataset are not there: {', '.join(f'i{row}' for row in range(80, 90))}",
    ]
    assert json.loads((left / "atlas" / "summary.json").read_text())["left_out"] == told
    page = (left / "atlas" / "report.html").read_text()
    assert all(sentence in page for sentence in told)
    assert validate(left / "data_catalog.yaml") == OK
    assert capsys.readouterr().err.splitlines()[-3:] == told
    # Other rows, another space: nothing is taken over.
    (left / "out.txt").write_text("i03\n")
    assert run(left / "data_catalog.yaml", prefect=False, dask=False) == OK
    assert "activations 2 new, 0 kept" in capsys.readouterr().out


def test_mistakes_of_the_catalog_and_of_its_sizes__come_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "ids.npy", np.arange(30))
    np.save(tmp_path / "a.npy", np.ones((30, 4)))
    text = CATALOG.format(dataset="", model="").replace("overlap]", "cka]").replace("n_neighbors: 8", "n_neighbors: 40")
    (tmp_path / "data_catalog.yaml").write_text(text.replace("atlas:", "measures: [lfm]\natlas:"))

    assert validate(tmp_path / "data_catalog.yaml") == USAGE

    told = capsys.readouterr()
    assert "measures: unknown key; did you mean atlas.measures?" in told.err
    assert "unknown measure 'cka'; did you mean 'cka_linear'?" in told.err
    assert "got 30 points, expected at least 41 for n_neighbors 40" in told.err
    assert "few.npy: no such file" in told.err
    assert told.out == "2 models, 0 spaces, 2 cannot be used; mistakes in the catalog\n"
