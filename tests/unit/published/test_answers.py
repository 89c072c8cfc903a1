"""The tables of ``show`` and ``diff``: the same whether NumPy or xarray reads the atlas."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lfm_atlas import open_atlas
from lfm_tasks.published import answers
from lfm_tasks.published.across import datasets_tables
from lfm_tasks.published.answers import Table
from lfm_tasks.published.atlas import Atlas, open_for_tables
from lfm_tasks.stores.atlas.score_arrays import ScoreArrays

SPACE, OTHER = "model0/layer0", "model2/layer1"
TABLES: dict[str, Callable[[Atlas], list[Table]]] = {
    "nearest model": lambda atlas: answers.nearest_tables(atlas, "model0", 5, "overlap", None),
    "nearest space": lambda atlas: answers.nearest_tables(atlas, SPACE, 9, None, "probe"),
    "two models": lambda atlas: answers.pair_tables(atlas, "model0", "model2", None),
    "two spaces": lambda atlas: answers.pair_tables(atlas, SPACE, OTHER, None),
    "space and model": lambda atlas: answers.pair_tables(atlas, SPACE, "model2", None),
    "model and space": lambda atlas: answers.pair_tables(atlas, "model2", SPACE, None),
    "relations": answers.relation_tables,
    "summary": answers.summary_tables,
    "datasets": datasets_tables,
    "difference": lambda atlas: answers.difference_tables(answers.differences(atlas, atlas)),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables__are_the_same_without_xarray(name: str, small: Atlas, small_folder: Path) -> None:
    with open_for_tables(small_folder / "atlas") as quick:
        assert isinstance(quick.scores, ScoreArrays)
        assert TABLES[name](quick) == TABLES[name](small)


def test_rows_of_a_pair__are_the_numbers_of_the_pair(small: Atlas) -> None:
    (table,) = answers.pair_tables(small, SPACE, OTHER, None)

    pair = small.pair(SPACE, OTHER)
    assert [row["measure"] for row in table.rows] == small.measures
    for row in table.rows:
        cell = pair.sel(measure=row["measure"])
        assert (row["score"], row["n_common"]) == (float(cell["score"]), int(cell["n_common"]))
        assert (row["status"], row["reason"]) == (str(cell["status"].values), str(cell["reason"].values))


def test_large_atlas__is_opened_by_xarray(small_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lfm_tasks.stores.atlas.score_arrays._MOST_BYTES", 0)

    with open_for_tables(small_folder / "atlas") as quick, open_atlas(small_folder / "atlas") as atlas:
        assert type(quick.scores) is type(atlas.scores)
