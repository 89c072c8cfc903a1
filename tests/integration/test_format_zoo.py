"""Fifty files of twenty kinds that hold the same rows: all are read, and all give these rows."""

from pathlib import Path

import numpy as np
import pytest

from lfm_atlas.cli.run import validate
from lfm_atlas.console import OK
from lfm_tasks.catalog import read_catalog
from lfm_tasks.sources.opening import open_source, read_dataset
from lfm_tasks.sources.source import choose_layers
from tests.format_zoo import IDS, ROWS, kinds, write_format_zoo


def test_files_as_people_have_them__are_read_and_give_the_same_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    names = write_format_zoo(tmp_path)
    assert len(names) >= 50
    assert len(list(kinds())) >= 15

    assert validate(tmp_path / "data_catalog.yaml", deep=True) == OK

    told = capsys.readouterr()
    assert f"{len(names)} models" in told.out
    assert "0 problems" in told.out
    catalog = read_catalog(tmp_path / "data_catalog.yaml")
    rows = read_dataset("probe", catalog)
    for name, model in catalog.models_on_datasets():
        source = open_source(name, model, catalog, rows)
        order = np.argsort(source.ids)
        for layer in choose_layers(model.layers, source)[0]:
            read = np.concatenate([batch[layer] for batch in source.batches([layer], order)])
            assert source.ids[order].tolist() == IDS, name
            np.testing.assert_array_equal(read.astype(np.float32), ROWS, name)
