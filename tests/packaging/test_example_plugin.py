"""A measure of another package is validated, planned, scored and published, without a change to this one."""

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm_tasks.stores.atlas.files import read_atlas

PLUGIN = Path(__file__).parent / "example_plugin"
NAME = "cosine_agreement"


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which the example package is there as after ``pip install``."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return with_entry_points(tmp_path, project["name"], project["entry-points"])


def with_entry_points(folder: Path, name: str, groups: dict[str, dict[str, str]]) -> dict[str, str]:
    """Return an environment in which a distribution of that name has these entry points."""
    site = folder / "site"
    metadata = site / f"{name.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [[f"[{group}]", *(f"{key} = {value}" for key, value in points.items())] for group, points in groups.items()]
    (metadata / "entry_points.txt").write_text("\n".join(line for group in lines for line in group) + "\n")
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(PLUGIN), os.environ["PYTHONPATH"]])}


def command(folder: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lfm_atlas", *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.fixture
def zoo(tmp_path: Path, write_zoo: Callable[..., Path], related_spaces: Callable[..., Any]) -> Path:
    return write_zoo(tmp_path / "zoo", related_spaces(2), measures=["overlap", NAME])


def test_measure_of_another_package__is_validated_planned_and_published(
    zoo: Path, installed: dict[str, str], related_spaces: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(PLUGIN))
    from lfm_atlas_example.measure import COSINE_AGREEMENT

    validated, planned, run = (
        command(zoo, installed, *arguments)
        for arguments in (["validate"], ["plan"], ["run", "--no-prefect", "--no-dask"])
    )

    assert (validated.returncode, planned.returncode, run.returncode) == (0, 0, 0), validated.stderr + run.stderr
    assert f"measured     {NAME}: timed here on random rows" in planned.stdout
    scores = read_atlas(zoo / "atlas").sel(dataset="probe", measure=NAME)
    assert read_atlas(zoo / "atlas").attrs["measures"][NAME] == COSINE_AGREEMENT.convention
    models = related_spaces(2)
    (first, ids), (second, other_ids) = models["model0"], models["model1"]
    expected = COSINE_AGREEMENT(first["layer0"][np.argsort(ids)], second["layer0"][np.argsort(other_ids)])
    pair = scores.sel(source="model0/layer0", target="model1/layer0")
    assert float(pair["score"]) == pytest.approx(expected, rel=1e-6)
    assert float(pair["score"]) > float(pair["null_mean"])
    assert float(pair["p_value"]) == pytest.approx(1 / 20)


def test_the_same_catalog_without_the_package__is_told_with_its_line(zoo: Path) -> None:
    refused = command(zoo, dict(os.environ), "validate")

    assert refused.returncode == 2
    line = 1 + next(i for i, text in enumerate((zoo / "data_catalog.yaml").read_text().splitlines()) if NAME in text)
    assert f"data_catalog.yaml:{line}: atlas.measures[1]: unknown measure '{NAME}'" in refused.stderr


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (NAME, "lfm_atlas_example.no_such_module:X", "cannot be loaded (ModuleNotFoundError: "),
        ("overlap", "lfm_atlas_example.measure:COSINE_AGREEMENT", "got the measure overlap, a name that is taken"),
        (
            "cka_linear",
            "lfm_atlas_example.measure:COSINE_AGREEMENT",
            "got the measure cka_linear, a name that is taken",
        ),
    ],
)
def test_package_whose_measures_cannot_be_used__is_named(
    zoo: Path, tmp_path: Path, name: str, value: str, message: str
) -> None:
    environment = with_entry_points(tmp_path / "broken", "somebodys-measures", {"lfm_atlas.measures": {name: value}})

    refused = command(zoo, environment, "validate")

    assert refused.returncode == 2
    assert "somebodys-measures" in refused.stderr
    assert message in refused.stderr
