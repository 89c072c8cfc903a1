"""Charts of the evidence as SVG text: rows of dots, lines with bands, points in the plane.

matplotlib draws them; it comes with the extra ``reproduce`` and is imported where a chart is drawn. The charts stand in
a page whose security policy allows no inline styles, so matplotlib's ``style`` becomes presentation attributes, and its
black becomes the color of the page's text. The same chart has the same bytes: no date, ids by content.
"""

import re
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import StringIO
from math import ceil, isfinite
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from lfm_tasks.experiments.results import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Dark enough for text on white, light enough on black; INK is the color of the text around the chart.
COLORS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f6fd6", "#8a8a8a", "#8c564b", "#b5bd00"
)  # fmt: skip
INK = "#000000"
_FAINT = "#8a939c"
_FONTS = "system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif"
_STYLE: Mapping[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lfm-atlas",
    "text.parse_math": False,  # names are data: a $ in one is a dollar
    "font.size": 11,
    "axes.titlesize": 13,
    "axes.titleweight": "semibold",
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.bottom": False,
    "grid.alpha": 0.2,
    "grid.color": INK,
    "xtick.bottom": False,
    "ytick.left": False,
    "legend.frameon": False,
}
# About the width of a letter, in pixels: charts are as much wider as their names are long.
_LETTER = 7


def require_matplotlib() -> None:
    """Raise ``ModuleNotFoundError``, with what to install, where matplotlib is not there."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        needs = 'python -m pip install "lfm-atlas[reproduce]"'
        raise ModuleNotFoundError(f"got no matplotlib, expected it to draw the figures: {needs}") from error


@dataclass(frozen=True)
class Line:
    """A series of values at ``x``; a line without a color is context: thin, gray, named where it is pointed at."""

    name: str
    x: Sequence[float]
    values: Sequence[Estimate]
    color: str = ""
    is_dashed: bool = False


@dataclass(frozen=True)
class LinePanel:
    """Lines in one coordinate system: the labels of its axes, the ends of y, the ticks of x (every x if empty)."""

    lines: Sequence[Line]
    x: str
    y: str
    low: float = 0.0
    high: float = 1.0
    is_log: bool = False
    ticks: Mapping[float, str] = field(default_factory=dict)
    title: str = ""


@dataclass(frozen=True)
class PointPanel:
    """Points in the plane, a color and a name each; the name shows where a point is pointed at."""

    title: str
    points: Sequence[tuple[float, float]]
    colors: Sequence[str]
    names: Sequence[str]


def dot_rows(
    rows: Sequence[tuple[str, Sequence[Estimate]]],
    *,
    marked: Collection[str] = (),
    axis: str = "",
    ticks: Mapping[float, str] = MappingProxyType({}),
    texts: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Return a row for each name with its values in [0, 1], the first one filled, the others open.

    Parameters
    ----------
    rows
        Names and their values; a value that is not finite draws nothing.
    marked
        Names in bold, in a color of their own.
    axis, ticks
        Label of the axis, and labels at places in [0, 1]; quarters where there are none.
    texts
        What stands at the right of a row, by its name; its first value where there is none.
    """
    longest = max(len(name) for name, _ in rows)
    with _figure(540 + _LETTER * longest, 60 + 19 * len(rows)) as (figure, names):
        axes = figure.subplots()
        axes.set(xlim=(-0.02, 1.02), ylim=(len(rows) - 0.5, -0.5), xlabel=axis)
        axes.set_yticks(range(len(rows)), [_plain(name) for name, _ in rows])
        shown_ticks = ticks or {quarter / 4: f"{quarter / 4:g}" for quarter in range(5)}
        axes.set_xticks(list(shown_ticks), list(shown_ticks.values()))
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("bottom")
        axes.tick_params(length=0)
        axes.grid(axis="x")
        for index, (name, values) in enumerate(rows):
            is_marked = name in marked
            text = texts.get(name, f"{values[0].value:.3f}")
            place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center_baseline"}
            label = axes.text(1.02, index, f" {_plain(text)}", **place)
            for words in (label, axes.get_yticklabels()[index]):
                words.set_fontweight("semibold" if is_marked else "normal")
            if index % 2:
                axes.axhspan(index - 0.5, index + 0.5, color=INK, alpha=0.04, linewidth=0)
            title = f"{name}: {text}" if texts else name
            _draw_row(axes, index, values, COLORS[is_marked], title, names)
        return _svg(figure, names)


def line_chart(panels: Sequence[LinePanel], *, n_columns: int = 1, width: int = 560, height: int = 330) -> str:
    """Return panels of lines, each ``width`` × ``height`` pixels; bands are intervals, colored lines have a legend.

    The legend has the order of the first panel's last values.
    """
    colored = sorted((line for line in panels[0].lines if line.color), key=_last, reverse=True)
    longest = max((len(line.name) for line in colored), default=0)
    n_rows = ceil(len(panels) / n_columns)
    with _figure(width * n_columns + _LETTER * longest + 60, height * n_rows) as (figure, names):
        handles: dict[str, Any] = {}
        for index, panel in enumerate(panels):
            axes = figure.add_subplot(n_rows, n_columns, index + 1)
            _draw_axes(axes, panel)
            for line in sorted(panel.lines, key=lambda line: bool(line.color)):
                handle = _draw_line(axes, line, panel, names)
                handles.setdefault(line.name, handle)
        if colored:
            figure.legend(
                [handles[line.name] for line in colored], [line.name for line in colored], loc="outside right center"
            )
        return _svg(figure, names)


def point_chart(panels: Sequence[PointPanel], *, size: int = 340) -> str:
    """Return panels of points beside each other, each a square of ``size`` pixels with one scale for both axes."""
    with _figure(size * len(panels), size + 28) as (figure, names):
        for index, panel in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), index + 1)
            axes.set(aspect="equal", adjustable="datalim", xticks=(), yticks=())
            axes.set_title(_plain(panel.title))
            axes.spines[:].set(visible=True, alpha=0.25)
            x, y = zip(*panel.points, strict=True)
            dots = axes.scatter(x, y, s=24, c=list(panel.colors), linewidths=0, clip_on=False)
            _name(dots, panel.names, names)
        return _svg(figure, names)


def share_color(share: float) -> str:
    """Return a color from light blue (0) to dark red (1), in that order also for those who see no colors."""
    stops = ((222, 235, 247), (253, 174, 97), (165, 0, 38))
    place = min(max(share, 0.0), 1.0) * 2
    below = min(int(place), 1)
    mixed = (round(a + (b - a) * (place - below)) for a, b in zip(stops[below], stops[below + 1], strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)


# What each named group of the drawing consists of: id -> a title for each of its marks.
_Names = dict[str, Sequence[str]]


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple["Figure", _Names]]:
    """Give an empty figure of this size in pixels; inside, a user's matplotlibrc counts for nothing."""
    require_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        # Text is measured in the font that matplotlib ships, and shown in one of the reader's.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield Figure(figsize=(width / 72, height / 72), layout="constrained"), {}


def _draw_row(axes: "Axes", index: int, values: Sequence[Estimate], color: str, title: str, names: _Names) -> None:
    """Draw the values of a row, the first one on top."""
    for place, one in reversed(list(enumerate(values))):
        if not isfinite(one.value):
            continue
        text, is_open = title, place > 0
        if isfinite(one.low) and isfinite(one.high):
            text += f": {one}"
            bar: dict[str, Any] = {"linewidth": 1.2, "alpha": 0.5} if is_open else {"linewidth": 2.2, "alpha": 0.9}
            axes.hlines(index, _inside(one.low), _inside(one.high), color=color, **bar)
        face = "none" if is_open else color
        dot = axes.scatter(
            _inside(one.value), index, s=46 if is_open else 68, facecolor=face, edgecolor=color, zorder=3
        )
        _name(dot, [text], names)


def _draw_axes(axes: "Axes", panel: LinePanel) -> None:
    if panel.is_log:
        axes.set_xscale("log")
        axes.minorticks_off()
    ticks = panel.ticks or {x: f"{x:.3g}" for x in sorted({x for line in panel.lines for x in line.x})}
    axes.set_xticks(list(ticks), [_plain(text) for text in ticks.values()])
    quarters = [panel.low + share / 4 * (panel.high - panel.low) for share in range(5)]
    axes.set_yticks(quarters, [f"{value:.3g}" for value in quarters])
    margin = 0.02 * (panel.high - panel.low)
    axes.set(xlabel=_plain(panel.x), ylim=(panel.low - margin, panel.high + margin))
    axes.set_ylabel(_plain(panel.y), rotation_mode="anchor")
    axes.set_title(_plain(panel.title))
    axes.tick_params(which="both", length=0)
    axes.grid(axis="y")


def _draw_line(axes: "Axes", line: Line, panel: LinePanel, names: _Names) -> Any:
    """Draw a line, its band and its marks; return what the legend shows."""
    at = [(x, one) for x, one in zip(line.x, line.values, strict=True) if isfinite(one.value)]
    x, y = [x for x, _ in at], [_inside(one.value, panel.low, panel.high) for _, one in at]
    style: dict[str, Any] = {"linewidth": 2.2} if line.color else {"linewidth": 1.2, "alpha": 0.45}
    color = line.color or _FAINT
    (drawn,) = axes.plot(x, y, color=color, linestyle="--" if line.is_dashed else "-", **style)
    if not at:
        return drawn
    _name(drawn, [line.name], names)
    if line.color:
        within = [(x, one) for x, one in at if isfinite(one.low) and isfinite(one.high)]
        low, high = (
            [_inside(getattr(one, end), panel.low, panel.high) for _, one in within] for end in ("low", "high")
        )
        axes.fill_between([x for x, _ in within], low, high, color=color, alpha=0.14, linewidth=0)
        dots = axes.scatter(x, y, s=32, color=color, zorder=3)
        _name(dots, [f"{line.name}: {one.value:.3f}" for _, one in at], names)
    return drawn


def _inside(value: float, low: float = 0.0, high: float = 1.0) -> float:
    return min(max(value, low), high)


def _last(line: Line) -> float:
    """Return the last finite value of a line; -1 where there is none."""
    return next((one.value for one in reversed(line.values) if isfinite(one.value)), -1.0)


def _name(artist: Any, titles: Sequence[str], names: _Names) -> None:
    """Note the titles of what an artist draws, one for each of its marks."""
    artist.set_gid(f"named-{len(names)}")
    names[artist.get_gid()] = titles


def _plain(text: str) -> str:
    """Return a text without the characters that XML cannot hold; matplotlib would break lines at some of them."""
    return re.sub(r"[^ -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)


def _svg(figure: "Figure", names: _Names) -> str:
    """Return the drawing as SVG for a page, with titles, and with presentation attributes instead of styles."""
    file = StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    root = ElementTree.fromstring(file.getvalue())  # noqa: S314 - written by matplotlib one line above
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        _set_attributes(element)
    for group in root.iter("g"):
        titles = names.get(group.get("id", ""), ())
        marks = list(group.iter("use")) or list(group.iter("path"))
        for mark, title in zip(marks if titles else (), titles, strict=True):
            ElementTree.SubElement(mark, "title").text = _plain(title)
    root[:] = [part for part in root if part.find("style") is None]
    text = ElementTree.tostring(root, encoding="unicode")
    used = set(re.findall(r'(?:href="|url\()#([\w.-]+)', text))
    for element in root.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)
    view = {"viewBox": root.attrib["viewBox"], "fill": "currentColor", "font-family": _FONTS}
    root.attrib.clear()
    root.attrib.update(view | {"stroke-linejoin": "round", "stroke-linecap": "butt"})  # matplotlib's style sheet
    return ElementTree.tostring(root, encoding="unicode").strip()


def _set_attributes(element: ElementTree.Element) -> None:
    """Replace an element's style by attributes, its black by the text color around, its links by plain ones."""
    for part in element.attrib.pop("style", "").split(";"):
        key, _, value = part.partition(":")
        if key.strip() and key.strip() != "font-family":
            element.set(key.strip(), "currentColor" if value.strip() == INK else value.strip())
    for key in [key for key in element.attrib if key.startswith("{")]:
        element.set(key.rpartition("}")[2], element.attrib.pop(key))
