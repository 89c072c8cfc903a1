"""The notebooks run as they stand, and print what they hold.

``jupyter execute --inplace docs/notebooks/*.ipynb`` runs them anew; then take out the lines that show progress.
"""

import io
import json
import re
import shlex
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from lfm_atlas.cli.main import app

FOLDER = Path(__file__).parents[2] / "docs/notebooks"
NUMBER = re.compile(r"-?\d*\.\d+(?:e-?\d+)?")
# A terminal overwrites these lines.
PROGRESS = re.compile(r"^(?:starting .*|\w+: \d+/\d+)\n", re.MULTILINE)

# Rotations by fewer anchors than features are arbitrary where the anchors say nothing: kernels of BLAS decide there.
ARBITRARY = re.compile(r"^ *procrustes.*$", re.MULTILINE)


def code_cells(path: Path) -> Iterator[tuple[str, str, bool]]:
    """Yield the code of each cell, what it printed, and whether it drew."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            printed = "".join(line for one in cell["outputs"] for line in one.get("text", ()))
            yield "".join(cell["source"]), printed, any("data" in one for one in cell["outputs"])


def run_cell(code: str, names: dict[str, Any]) -> str:
    """Run a cell, the lines ``!lfm-atlas ...`` in this process; return what it printed."""
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        for part in re.split(r"^(!lfm-atlas .*\n?)", code, flags=re.MULTILINE):
            if part.startswith("!lfm-atlas "):
                app(shlex.split(part)[1:], result_action="return_value")
            else:
                exec(part, names)  # noqa: S102 - our own notebook
    return PROGRESS.sub("", printed.getvalue().replace(str(Path.cwd()), "/zoo"))


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook__prints_and_draws_what_it_holds(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    if "import transformers" in (text := path.read_text(encoding="utf-8")) or "from transformers" in text:
        pytest.importorskip("transformers", reason="not run: transformers is not installed (extra hf)")
        from tests.torchvision_operators import define_missing_operators

        define_missing_operators()
    pyplot.switch_backend("agg")
    monkeypatch.chdir(tmp_path)  # and back, from where the notebook goes
    names: dict[str, Any] = {}
    # Tests run side by side: BLAS threads of one would wait for those of another.
    with threadpool_limits(1):
        for code, held, has_picture in code_cells(path):
            printed = run_cell(code, names)

            assert NUMBER.sub("0.0", printed).split() == NUMBER.sub("0.0", held).split()
            # Other BLAS kernels, other last bits.
            found, expected = (
                [float(number) for number in NUMBER.findall(ARBITRARY.sub("", one))] for one in (printed, held)
            )
            np.testing.assert_allclose(found, expected, atol=0.005)
            assert bool(pyplot.get_fignums()) == has_picture
            pyplot.close("all")


def test_notebooks__are_executed_and_small() -> None:
    for path in FOLDER.glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert [cell["execution_count"] for cell in cells if cell["cell_type"] == "code"] == list(
            range(1, 1 + sum(cell["cell_type"] == "code" for cell in cells))
        )
        assert path.stat().st_size < 200_000
