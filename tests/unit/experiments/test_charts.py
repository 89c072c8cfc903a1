"""Charts of the evidence are SVG that parses and needs no style; text stays text; bytes are the same each time."""

import re
import sys
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import pytest

from lfm_tasks.experiments.charts import (
    Line,
    LinePanel,
    PointPanel,
    dot_rows,
    line_chart,
    point_chart,
    require_matplotlib,
    share_color,
)
from lfm_tasks.experiments.results import Estimate, ResultFigure, standalone

HOSTILE = '<b onload="x">&amp; $\\frac$ ☃ 漢'


def texts(svg: str) -> list[str]:
    file = standalone(ResultFigure("chart", f"of {HOSTILE}", svg))
    return [element.text or "" for element in ElementTree.fromstring(file).iter() if element.text]  # noqa: S314


def rows() -> str:
    return dot_rows(
        [(HOSTILE, (Estimate(0.5, 0.4, 0.6), Estimate(0.25))), ("plain", (Estimate(float("nan")),))], marked={"plain"}
    )


def lines() -> str:
    values = [Estimate(0.5), Estimate(float("nan")), Estimate(0.7, 0.6, 0.8)]
    drawn = [
        Line(name, [1.0, 2.0, 4.0], values, color) for name, color in (("a", "#000000"), ("$b$", "#111111"), ("c", ""))
    ]
    empty = Line("nothing", [1.0], [Estimate(float("nan"))], "#222222")
    panel = LinePanel([*drawn, empty], "x", "y", is_log=True, title=HOSTILE)
    return line_chart([panel, panel, panel], n_columns=2)


def points() -> str:
    panel = PointPanel(HOSTILE, [(0.0, 0.0), (1.0, 2.0)], ["#000000", "#ffffff"], ["one", HOSTILE])
    return point_chart([panel, panel])


CHARTS = pytest.mark.parametrize("chart", [rows, lines, points])


def test_dot_rows__shows_values_and_keeps_names_text() -> None:
    shown = texts(rows())

    assert HOSTILE in shown
    assert "0.500" in " ".join(shown)
    assert f"{HOSTILE}: 0.500 (0.400 to 0.600)" in shown


def test_dot_rows__shows_other_texts_and_ticks_where_values_stand_for_something() -> None:
    shown = texts(dot_rows([("a", (Estimate(0.5),))], ticks={0.5: "1e-2"}, texts={"a": "3 h"}))
    assert {"1e-2", "a: 3 h"} <= set(shown)


def test_line_chart__takes_missing_values_and_names_its_lines() -> None:
    shown = texts(lines())

    assert {"a", "$b$", "c", "x", "y", HOSTILE, "a: 0.500", "a: 0.700"} <= set(shown)
    assert "a: nan" not in shown


def test_point_chart__names_every_point() -> None:
    shown = texts(points())
    assert {"one", HOSTILE} <= set(shown)
    assert shown.count("one") == 2


@CHARTS
def test_charts__give_the_same_bytes_again_whatever_a_users_settings_are(
    chart: Callable[[], str],
) -> None:
    import matplotlib

    before = chart()
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "svg.hashsalt": None}):
        assert chart() == before
        assert matplotlib.rcParams["font.size"] == 30


@CHARTS
def test_charts__hold_no_style_no_script_no_date_and_no_black(chart: Callable[[], str]) -> None:
    svg = chart()

    assert svg.startswith("<svg viewBox=")
    assert not re.search(r"style|<script|<!DOCTYPE|metadata|#000000", svg)
    referenced = set(re.findall(r'(?:href="|url\()#([\w.-]+)', svg))
    assert set(re.findall(r' id="([^"]+)"', svg)) == referenced


def test_charts__replace_what_xml_cannot_hold() -> None:
    assert "a\ufffdb" in texts(dot_rows([("a\x00b", (Estimate(0.5),))]))


def test_require_matplotlib__says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    needs = r'python -m pip install "lfm-atlas\[reproduce\]"'
    with pytest.raises(ModuleNotFoundError, match=f"got no matplotlib, expected it to draw the figures: {needs}"):
        require_matplotlib()


def test_share_color__darkens_from_0_to_1() -> None:
    def light(color: str) -> float:
        return sum(weight * int(color[at : at + 2], 16) for weight, at in ((0.3, 1), (0.59, 3), (0.11, 5)))

    shades = [light(share_color(share)) for share in np.linspace(0, 1, 9)]
    assert shades == sorted(shades, reverse=True)
