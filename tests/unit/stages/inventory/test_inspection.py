"""Deep validation against zoos whose values and ids are known."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm_atlas.cli.main import app
from lfm_atlas.console import no_progress
from lfm_tasks.catalog import Catalog, read_catalog
from lfm_tasks.errors import DataError
from lfm_tasks.spaces import Space
from lfm_tasks.stages.inventory.inspection import DeepReport, _read_spaces, read_zoo
from lfm_tasks.stages.inventory.stage import validate_catalog

WriteZoo = Callable[..., Path]


def deep(folder: Path) -> DeepReport:
    catalog = read_catalog(folder / "data_catalog.yaml")
    return read_zoo(catalog, validate_catalog(catalog, no_progress), no_progress)


def validate_deeply(folder: Path, *options: str) -> int:
    return app(["validate", str(folder / "data_catalog.yaml"), "--deep", *options], result_action="return_value")


def test_clean_zoo__is_read_whole(
    tmp_path: Path, related_spaces: Any, write_zoo: WriteZoo, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_zoo(tmp_path, related_spaces(2))

    report = deep(folder)

    assert [(s.model, s.layer, s.points, s.read, s.features, s.dtype, s.dead) for s in report.spaces] == [
        (f"model{number}", layer, 120, 120, 12 + number, "float32", 0)
        for number in (0, 1)
        for layer in ("layer0", "layer1")
    ]
    assert report.problems == ()
    [overlap] = report.overlaps
    assert (overlap.pairs, overlap.min, overlap.worst, overlap.median) == (1, 100, ("model0", "model1"), 100)
    assert validate_deeply(folder) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "probe  model0/layer0  120 points  12 features  float32  0 dead  finite"
    assert len({len(line) for line in lines[:4]}) == 1
    assert lines[-1] == "2 models, 4 spaces read, 0 problems"


def test_nan_in_one_layer__is_told_and_the_others_are_read(
    tmp_path: Path, related_spaces: Any, write_zoo: WriteZoo, capsys: pytest.CaptureFixture[str]
) -> None:
    models = related_spaces(2)
    models["model1"][0]["layer1"][7, 3] = np.nan

    code = validate_deeply(write_zoo(tmp_path, models))

    printed = capsys.readouterr()
    assert code == 2
    assert "model1/layer1: " in printed.err
    assert "row 7" in printed.err
    assert printed.err.rstrip().endswith("[not_finite]")
    assert [line.split()[-1] for line in printed.out.splitlines()[:3]] == ["finite"] * 3
    assert "not_finite, see below" in printed.out


def test_dead_columns__are_counted_over_all_batches(
    tmp_path: Path, related_spaces: Any, write_zoo: WriteZoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lfm_tasks.sources.source._BATCH_BYTES", 1000)  # some twenty rows
    models = related_spaces(2)
    values = models["model0"][0]["layer0"]
    values[:, [2, 5]] = 3.0
    values[:100, 7] = 1.0  # dead in the first batches only
    models["model1"][0]["layer1"][:] = 1.0

    report = deep(write_zoo(tmp_path, models))

    assert [space.dead for space in report.spaces] == [2, 0, 0, 13]
    assert report.problems == (
        "model1/layer1: got the same activations for every point. Drop the layer, it says nothing [constant]",
    )


def test_models_whose_ids_overlap_by_half__say_so(tmp_path: Path, related_spaces: Any, write_zoo: WriteZoo) -> None:
    models = related_spaces(3)
    layers, ids = models["model1"]
    moved = np.array([name if int(name[1:]) < 60 else f"q{name[1:]}" for name in ids])
    models["model1"] = (layers, moved)

    report = deep(write_zoo(tmp_path, models))
    [overlap] = report.overlaps
    strict = deep(write_zoo(tmp_path, models, min_overlap=0.6))

    assert (overlap.pairs, overlap.min, overlap.median) == (3, 50, 50)
    assert overlap.worst == ("model0", "model1")
    assert report.problems == ()
    [problem] = strict.problems
    assert "got 2 pairs of models with fewer common ids than atlas.min_overlap (0.6), worst model0" in problem
    assert problem.endswith("Record both on the same samples, or lower it [little_overlap]")


def test_permuted_rows__change_nothing(tmp_path: Path, related_spaces: Any, write_zoo: WriteZoo) -> None:
    models = related_spaces(2)
    models["model0"][0]["layer0"][:, 1] = 0.5
    order = np.random.default_rng(3).permutation(120)
    permuted = {
        name: ({layer: values[order] for layer, values in layers.items()}, ids[order])
        for name, (layers, ids) in models.items()
    }

    assert deep(write_zoo(tmp_path / "a", models)) == deep(write_zoo(tmp_path / "b", permuted))


def test_cap__reads_the_rows_that_a_run_would(tmp_path: Path, related_spaces: Any, write_zoo: WriteZoo) -> None:
    report = deep(write_zoo(tmp_path, related_spaces(2), max_points=50))

    assert {(space.points, space.read) for space in report.spaces} == {(50, 50)}
    assert report.overlaps[0].min == 100


def test_json__is_one_object(
    tmp_path: Path, related_spaces: Any, write_zoo: WriteZoo, capsys: pytest.CaptureFixture[str]
) -> None:
    models = related_spaces(2)
    models["model1"][0]["layer1"][0, 0] = np.inf

    code = validate_deeply(write_zoo(tmp_path, models), "--format", "json")

    told = json.loads(capsys.readouterr().out)
    assert code == 2
    assert list(told) == ["spaces", "overlaps", "problems"]
    assert [space["reason"] for space in told["spaces"]] == ["", "", "", "not_finite"]
    assert told["spaces"][3]["features"] is None
    assert told["overlaps"][0]["worst"] == ["model0", "model1"]
    assert len(told["problems"]) == 1


def test_json_without_deep__says_what_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app(["validate", "--format", "json"], result_action="return_value") == 2
    assert "lfm-atlas validate --deep --format json" in capsys.readouterr().err


def test_model_that_cannot_be_opened__is_told_once(tmp_path: Path, related_spaces: Any, write_zoo: WriteZoo) -> None:
    folder = write_zoo(tmp_path, related_spaces(2))
    (folder / "model1.npz").unlink()

    report = deep(folder)

    assert {space.model for space in report.spaces} == {"model0"}
    assert report.overlaps == ()
    [problem] = report.problems
    assert problem.startswith("model1: ")
    assert problem.endswith("[missing_source]")


def test_networks__are_run_for_one_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app(["init", str(tmp_path)], result_action="return_value")
    capsys.readouterr()

    assert validate_deeply(tmp_path) == 0

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 42
    assert all("797 points" in line and "finite (the first 256 points were read)" in line for line in lines[:40])


class Network:
    """A network of two layers; every point of ``flat`` is alike, and ``bad`` cannot be recorded."""

    ids = np.arange(10).astype(str)
    batch_rows = 4

    def layer_names(self) -> tuple[str, ...]:
        return ("flat", "bad")

    def layer_shapes(self) -> dict[str, tuple[int | None, ...]]:
        return {}

    def identity(self, layer: str) -> dict[str, str]:
        return {}

    def batches(self, layers: Sequence[str], rows: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
        if "bad" in layers:
            raise DataError("not_finite", "got NaN")
        yield {layer: np.ones((len(rows), 3), dtype=np.float32) for layer in layers}


def test_bad_layer_of_a_network__does_not_take_the_others_with_it() -> None:
    spaces = [Space("probe", "net", layer) for layer in ("flat", "bad")]

    catalog = Catalog(version=1, datasets={"probe": {"ids": "positional"}}, root=Path())  # type: ignore[arg-type]

    flat, bad = _read_spaces(Network(), spaces, np.arange(10), catalog, None)

    assert (flat.points, flat.read, flat.features, flat.dead, flat.reason) == (10, 4, 3, 3, "")
    assert (bad.read, bad.features, bad.reason, bad.error) == (0, None, "not_finite", "got NaN")


def test_zoo_without_a_space__has_lines_too(
    tmp_path: Path, related_spaces: Any, write_zoo: WriteZoo, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_zoo(tmp_path, related_spaces(1))
    (folder / "model0.npz").unlink()

    assert validate_deeply(folder) == 2
    assert capsys.readouterr().out == "1 model, 0 spaces read, 1 problem\n"
