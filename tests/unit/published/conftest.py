"""A small atlas with two datasets' worth of trouble: a failed space, a pair without ids in common, odd names."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm_atlas import open_atlas
from lfm_tasks.published.atlas import Atlas


@pytest.fixture(scope="session")
def small_folder(
    tmp_path_factory: pytest.TempPathFactory, related_spaces: Any, write_zoo: Callable[..., Path], build: Any
) -> Path:
    """Give the folder of a small zoo: model2 has other rows than the others in part, model3 none in common."""
    models = related_spaces(4)
    models["model0"][0]["</td>|[red]x"] = models["model0"][0]["layer0"] * 2
    models["model1"][0]["layer1"][0, 0] = np.nan
    layers, ids = models["model2"]
    models["model2"] = ({name: rows[:100] for name, rows in layers.items()}, ids[:100])
    layers, ids = models["model3"]
    models["model3"] = (layers, np.array([f"other-{name}" for name in ids]))
    folder = write_zoo(tmp_path_factory.mktemp("small"), models, measures=["overlap", "procrustes_centered_unit_norm"])
    build(folder)
    return folder


@pytest.fixture
def small(small_folder: Path) -> Iterator[Atlas]:
    with open_atlas(small_folder / "atlas") as atlas:
        yield atlas
