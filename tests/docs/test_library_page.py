"""What stands in docs/library.md is what its blocks print."""

import re
from pathlib import Path

import numpy as np
import pytest

PAGE = (Path(__file__).parents[2] / "docs/library.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(python|text)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"-?\d*\.\d+(?:e-?\d+)?")


def test_page__prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    printed, n_compared = "", 0
    for kind, body in BLOCKS:
        if kind == "python":
            exec(body, names)  # noqa: S102
            printed = capsys.readouterr().out
            continue
        assert NUMBER.sub("0.0", printed).split() == NUMBER.sub("0.0", body).split()
        # Other BLAS kernels, other last bits.
        found, told = ([float(number) for number in NUMBER.findall(text)] for text in (printed, body))
        np.testing.assert_allclose(found, told, atol=0.005)
        n_compared += 1
    assert n_compared == 4
