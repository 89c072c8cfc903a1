"""A zoo that is not mounted does not take the published atlas with it; an atlas without spaces breaks no command."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import pandas as pd
import pytest

from lfm_atlas.cli.main import app
from lfm_tasks.errors import FolderError
from lfm_tasks.stores.atlas.files import published_key

SETTINGS = {"graph": {"n_neighbors": 5}, "n_eigenpairs": 4, "null": {"n_permutations": 9}, "measures": ["overlap"]}


def command(*words: object) -> int:
    try:
        code: int = app([str(word) for word in words], result_action="return_value")
    except SystemExit as left:
        code = int(left.code or 0)
    return code


def run(folder: Path, name: str = "run") -> int:
    return command(name, folder / "data_catalog.yaml", "--no-prefect", "--no-dask")


@pytest.fixture
def write(write_zoo: Callable[..., Path], related_spaces: Any) -> Callable[..., Path]:
    models = related_spaces(4, n_points=40, n_layers=1)

    def write_some(folder: Path, n_models: int, **settings: Any) -> Path:
        return write_zoo(folder, dict(list(models.items())[:n_models]), **{**SETTINGS, **settings})

    return write_some


def unmount(folder: Path) -> None:
    for path in folder.glob("*.npz"):
        path.rename(path.with_suffix(".away"))


def mount(folder: Path) -> None:
    for path in folder.glob("*.away"):
        path.rename(path.with_suffix(".npz"))


def test_empty_atlas__never_replaces_one_with_spaces(
    tmp_path: Path, write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path, 2)
    assert run(folder) == 0
    before = published_key(folder / "atlas")
    unmount(folder)

    assert run(folder) == 3
    told = capsys.readouterr().out
    assert "got 0 spaces, 0% of those of the published atlas, expected at least one space" in told
    assert published_key(folder / "atlas") == before

    # A damaged one is not replaced by nothing either.
    (folder / "atlas" / "edges.parquet").write_bytes(b"")
    (folder / "atlas" / "atlas.zarr" / "zarr.json").write_bytes(b"")
    assert run(folder) == 3

    mount(folder)
    assert run(folder) == 0
    assert published_key(folder / "atlas") == before


@pytest.mark.parametrize(("least", "is_kept"), [(0.0, False), (0.5, False), (0.51, True), (1.0, True)])
def test_keep_if_below__is_the_share_of_spaces_that_must_be_there_again(
    least: float, is_kept: bool, tmp_path: Path, write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path, 4)
    assert run(folder) == 0
    before = published_key(folder / "atlas")
    write(tmp_path, 2, keep_if_below=least)

    assert run(folder) == (3 if is_kept else 0)

    assert (published_key(folder / "atlas") == before) == is_kept
    message = f"got 2 spaces, 50% of those of the published atlas, expected at least {least:g} of them"
    assert (message in capsys.readouterr().out) == is_kept


def test_keep_if_below__decides_no_number(tmp_path: Path, write: Callable[..., Path]) -> None:
    folder = write(tmp_path, 2)
    assert run(folder) == 0
    before = published_key(folder / "atlas")
    write(tmp_path, 2, keep_if_below=0.9)

    assert run(folder) == 0

    assert published_key(folder / "atlas") == before
    assert "keep_if_below" not in (folder / "atlas" / "summary.json").read_text()


def test_audit__fails_by_a_check_where_the_published_atlas_is_kept(
    tmp_path: Path, write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path, 2)
    assert run(folder, "audit") in (0, 3)
    assert "keep_if_below" not in (folder / "audits" / "audit.json").read_text()
    baseline = published_key(folder / "baseline")
    unmount(folder)

    assert run(folder, "audit") == 3

    assert "fail     keep_if_below: got 0 spaces" in capsys.readouterr().err
    facts = json.loads((folder / "audits" / "audit.json").read_text())
    assert (facts["verdict"], facts["promoted"]) == ("fail", False)
    assert published_key(folder / "baseline") == baseline


def test_atlas_without_spaces__is_not_promoted_over_a_baseline_that_has_some(
    tmp_path: Path, write: Callable[..., Path]
) -> None:
    folder = write(tmp_path, 2)
    promoting = ("audit", folder / "data_catalog.yaml", "--no-prefect", "--no-dask", "--promote")
    assert command(*promoting) in (0, 3)
    baseline = published_key(folder / "baseline")
    assert baseline is not None
    unmount(folder)
    shutil.rmtree(folder / "atlas")

    with pytest.raises(FolderError, match="got an atlas without spaces, expected some to promote over the baseline"):
        command(*promoting)

    assert published_key(folder / "baseline") == baseline


COMMANDS: list[tuple[int, tuple[str, ...]]] = [
    (0, ("show", "{atlas}", "summary")),
    (0, ("show", "{atlas}", "summary", "--format", "json")),
    (2, ("show", "{atlas}", "nearest", "model0")),
    (2, ("show", "{atlas}", "pair", "model0", "model1")),
    (0, ("diff", "{atlas}", "{atlas}")),
    (0, ("report", "{atlas}", "--output", "{out}/report.html")),
    (0, ("export", "{atlas}", "{out}/edges.csv", "--format", "csv")),
    (0, ("export", "{atlas}", "{out}/spaces.graphml", "--format", "graphml")),
    (0, ("export", "{atlas}", "{out}/projector", "--format", "projector")),
    (0, ("export", "{atlas}", "{out}/points.parquet", "--format", "embedding-atlas")),
]


def test_atlas_without_spaces__breaks_no_command(
    tmp_path: Path, write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "zoo", 2)
    unmount(folder)
    assert run(folder) == 4
    atlas = folder / "atlas"
    assert (atlas / "report.html").stat().st_size > 0

    assert run(folder, "audit") in (0, 3, 4)
    assert "skipped  control: the atlas has no spaces" in capsys.readouterr().out
    for expected, words in COMMANDS:
        code = command(*(word.format(atlas=atlas, out=tmp_path) for word in words))
        told = capsys.readouterr()
        assert code == expected, (words, told)
        assert ("got an atlas without spaces" in told.err) == (expected == 2), (words, told)
    assert (tmp_path / "edges.csv").read_text().startswith('"source","target","dataset","measure",')
    # What other programs open without an error.
    assert len(nx.read_graphml(tmp_path / "spaces.graphml")) == 0
    assert (tmp_path / "projector" / "metadata.tsv").read_text() == "space\tdepth\tlayer\tmodel\n"
    assert pd.read_parquet(tmp_path / "points.parquet")[["space", "x", "y", "neighbors"]].shape == (0, 4)
    mount(folder)
    assert run(folder) == 0
