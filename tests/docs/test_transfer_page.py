"""What stands in docs/transfer.md is what its blocks print."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from lfm_atlas.cli.main import app
from lfm_tasks.zoo import write_start

PAGE = (Path(__file__).parents[2] / "docs/transfer.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(python|sh|text)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"-?\d*\.\d+")
# BLAS kernels differ by last bits between types of processors (AVX2, AVX-512), and rounds of matching by one of the ten
# anchors: seen on two types, shares by up to .09 (procrustes, icp), ranks by a fifth.
SHARES, RANKS = 0.1, 0.25
# Two candidates of the page are alike to the last rank: whether they are too close to tell differs between processors.
VERDICT = re.compile(r"best of \d+|too close to [^;]* to tell, which comes back less often")


def test_page__prints_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_start(tmp_path)
    names: dict[str, object] = {}
    printed, n_compared = "", 0
    for kind, said in BLOCKS:
        body = said
        if kind == "text":
            printed, body = VERDICT.sub("(verdict)", printed), VERDICT.sub("(verdict)", body)
            assert NUMBER.sub("0.0", printed) == NUMBER.sub("0.0", body)
            np.testing.assert_allclose(numbers(printed), numbers(body), atol=SHARES, rtol=RANKS)
            n_compared += 1
            continue
        if kind == "python":
            exec(body, names)  # noqa: S102 - our own page
        else:
            for line in body.splitlines():
                assert app(shlex.split(line)[1:], result_action="return_value") == 0
        printed = capsys.readouterr().out

    assert n_compared == 7
    assert np.load("carried.npy").shape == (197, 48)


def numbers(text: str) -> list[float]:
    return [float(number) for number in NUMBER.findall(text)]
