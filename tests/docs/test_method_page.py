"""docs/method.md: its Python runs, and its pictures are those that its script draws."""

import re
from pathlib import Path

import numpy as np
import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "method.md").read_text(encoding="utf-8")


def test_page__has_python_that_runs(capsys: pytest.CaptureFixture[str]) -> None:
    [code] = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    x = np.random.default_rng(0).normal(size=(120, 6))

    exec(compile(code, "docs/method.md", "exec"), {"x": x, "y": 3 * x + 1})  # noqa: S102 - our own page

    # The same space, moved and scaled.
    np.testing.assert_allclose([float(value) for value in capsys.readouterr().out.split()], [1, 1], atol=1e-6)


def test_pictures__have_what_the_page_says() -> None:
    maps = (DOCS / "images/method-maps.svg").read_text(encoding="utf-8")
    # Chance of `lfm`, with digits as the page writes them.
    [shown] = re.findall(r"reach an `lfm` of (\.\d\d)", PAGE)
    values = re.findall(r"lfm (\d\.\d\d), chance", maps)

    assert values[0] == "1.00"
    assert values[-1] == f"0{shown}"
