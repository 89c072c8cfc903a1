"""The notebooks run as they stand, and print what they hold."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "docs/notebooks"
NUMBER = re.compile(r"-?\d*\.\d+(?:e-?\d+)?")


def code_cells(path: Path) -> Iterator[tuple[str, str, bool]]:
    """Yield the code of each cell, what it printed, and whether it drew."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            printed = "".join(line for one in cell["outputs"] for line in one.get("text", ()))
            yield "".join(cell["source"]), printed, any("data" in one for one in cell["outputs"])


@pytest.mark.slow
@pytest.mark.parametrize("name", [path.name for path in sorted(FOLDER.glob("*.ipynb"))])
def test_notebook__prints_and_draws_what_it_holds(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    names: dict[str, Any] = {}
    for code, held, has_picture in code_cells(FOLDER / name):
        exec(code, names)  # noqa: S102

        printed = capsys.readouterr().out
        assert NUMBER.sub("0.0", printed).split() == NUMBER.sub("0.0", held).split()
        # Other BLAS kernels, other last bits.
        found, told = ([float(number) for number in NUMBER.findall(text)] for text in (printed, held))
        np.testing.assert_allclose(found, told, atol=0.005)
        assert bool(pyplot.get_fignums()) == has_picture
        pyplot.close("all")


def test_notebooks__are_executed_and_small() -> None:
    for path in FOLDER.glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert [cell["execution_count"] for cell in cells if cell["cell_type"] == "code"] == list(
            range(1, 1 + sum(cell["cell_type"] == "code" for cell in cells))
        )
        assert path.stat().st_size < 200_000
