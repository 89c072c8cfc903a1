"""Charts of the evidence are SVG that parses, with text that stays text."""

from xml.etree import ElementTree

import numpy as np

from lfm_tasks.figures.charts import Axes, Dot, Line, dot_rows, line_chart, points_in_plane, share_color
from lfm_tasks.figures.svg import side_by_side, standalone

HOSTILE = '<b onload="x">&amp;'


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(standalone(svg)).iter() if element.text]  # noqa: S314


def test_dot_rows__shows_values_and_keeps_names_text() -> None:
    drawn = dot_rows([(HOSTILE, (Dot(0.5, 0.4, 0.6), Dot(0.25))), ("plain", (Dot(float("nan")),))], marked={"plain"})
    shown = texts(drawn)

    assert HOSTILE in shown
    assert f"{HOSTILE}: 0.500 (0.400 to 0.600)" in shown
    assert drawn.count("<circle") == 2


def test_line_chart__takes_lines_that_end_at_one_height_and_missing_values() -> None:
    dots = [Dot(0.5), Dot(float("nan")), Dot(0.7, 0.6, 0.8)]
    lines = [
        Line(name, [1.0, 2.0, 4.0], dots, color) for name, color in (("a", "#000000"), ("b", "#111111"), ("c", ""))
    ]
    shown = texts(line_chart(lines, Axes("x", "y", scale="log", title=HOSTILE)))

    assert {"a", "b", "c", HOSTILE} <= set(shown)


def test_points_in_plane__names_every_point() -> None:
    shown = texts(points_in_plane([(0.0, 0.0), (1.0, 2.0)], ["#000000", "#ffffff"], ["one", HOSTILE], title="t"))
    assert {"one", HOSTILE, "t"} <= set(shown)


def test_side_by_side__is_as_wide_as_its_row_and_as_high_as_its_rows() -> None:
    part = points_in_plane([(0.0, 0.0), (1.0, 1.0)], ["#000000"] * 2, ["a", "b"], title="t", size=100)
    assert 'viewBox="0 0 228 284"' in side_by_side([part, part, part], n_columns=2, gap=28)


def test_share_color__darkens_from_0_to_1() -> None:
    def light(color: str) -> float:
        return sum(weight * int(color[at : at + 2], 16) for weight, at in ((0.3, 1), (0.59, 3), (0.11, 5)))

    shades = [light(share_color(share)) for share in np.linspace(0, 1, 9)]
    assert shades == sorted(shades, reverse=True)
