"""Charts of the evidence: rows of dots, lines with bands, points in the plane."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from math import isfinite, log10
from types import MappingProxyType
from typing import Literal

from lfm_tasks.figures.svg import drawn, label, shortened, stroke, width_of

Scale = Literal["linear", "log", "even"]

# Of the report's marks (web/marks.js), dark enough for text on white, light enough on black.
COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f6fd6", "#8a8a8a", "#8c564b", "#b5bd00"
)  # fmt: skip
_FAINT = "#8a939c"


@dataclass(frozen=True)
class Dot:
    """A value with its interval; NaN ends draw no bar."""

    value: float
    low: float = float("nan")
    high: float = float("nan")


@dataclass(frozen=True)
class Line:
    """A series; lines without a color are context: thin, gray, named where pointed at."""

    name: str
    x: Sequence[float]
    dots: Sequence[Dot]
    color: str = ""
    is_dashed: bool = False


@dataclass(frozen=True)
class Axes:
    """What a chart of lines shows: names of both axes, ends of y, how x is spaced, and its ticks (all x if empty)."""

    x: str
    y: str
    low: float = 0.0
    high: float = 1.0
    scale: Scale = "linear"
    ticks: Mapping[float, str] = field(default_factory=dict)
    title: str = ""


def dot_rows(
    rows: Sequence[tuple[str, Sequence[Dot]]],
    *,
    marked: Collection[str] = (),
    axis: str = "",
    ticks: Mapping[float, str] = MappingProxyType({}),
    told: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Return a row for each name, its first value filled, the second open, both in [0, 1]; ``marked`` names bold.

    ``ticks`` and what is ``told`` at the right, if the values stand for others; else the values themselves.
    """
    step, width, top = 19, 460, 26
    left = max(width_of(name, bold=name in marked) for name, _ in rows) + 14
    bottom = top + step * len(rows)
    parts = []
    for tick, word in (ticks or {share / 4: shortened(share / 4) for share in range(5)}).items():
        x = left + tick * width
        parts += [stroke(x, top - 4, x, bottom, opacity=0.25), label(x, top - 10, word, anchor="middle", size=11)]
    for number, (name, dots) in enumerate(rows):
        y = top + step * (number + 0.5)
        color = COLOURS[1] if name in marked else COLOURS[0]
        said = told.get(name, f"{dots[0].value:.3f}")
        if number % 2:
            size = f'width="{left + width + 62:.0f}" height="{step}"'
            parts.append(f'<rect x="0" y="{y - step / 2:.1f}" {size} fill="currentColor" fill-opacity="0.04"/>')
        parts.append(label(left - 10, y + 4, name, anchor="end", bold=name in marked))
        for place, dot in reversed(list(enumerate(dots))):
            if isfinite(dot.value):
                what = f"{name}: {said}" if told else name
                parts.append(_row_mark((left, width, y), dot, color, place > 0, what))
        parts.append(label(left + width + 12, y + 4, said, size=11, bold=name in marked))
    parts.append(label(left + width / 2, bottom + 18, axis, anchor="middle", size=11))
    return drawn(left + width + 66, bottom + 26, parts)


def line_chart(lines: Sequence[Line], axes: Axes, *, width: int = 560, height: int = 330) -> str:
    """Return lines with bands for their intervals; colored ones carry their name at the right end."""
    named = [line for line in lines if line.color and line.x]
    right = max((width_of(line.name) for line in named), default=0) + 26
    left, top, bottom = 52, 34 if axes.title else 14, height - 44
    xs = sorted({x for line in lines for x in line.x})
    ticks = axes.ticks or {x: shortened(x) for x in xs}
    place = _placing(xs, axes.scale, left, width)

    def down(value: float) -> float:
        inside = min(max(value, axes.low), axes.high)
        return bottom - (inside - axes.low) / (axes.high - axes.low) * (bottom - top)

    parts = [label(left, 18, axes.title, bold=True, size=13)] if axes.title else []
    for share in (0, 0.25, 0.5, 0.75, 1):
        value = axes.low + share * (axes.high - axes.low)
        parts.append(stroke(left, down(value), left + width, down(value), opacity=0.18))
        parts.append(label(left - 8, down(value) + 4, shortened(value), anchor="end", size=11))
    parts += [label(place(x), bottom + 17, text, anchor="middle", size=11) for x, text in ticks.items()]
    parts.append(label(left + width / 2, bottom + 36, axes.x, anchor="middle", size=12))
    parts.append(label(0, 0, axes.y, anchor="middle", size=12, turned=(13, (top + bottom) / 2)))
    for line in sorted(lines, key=lambda line: bool(line.color)):
        at = [(place(x), dot) for x, dot in zip(line.x, line.dots, strict=True) if isfinite(dot.value)]
        if at:
            parts.append(_drawn_line(line, at, down))
    ends = [(down(_last(line)), line) for line in named if isfinite(_last(line))]
    ends.sort(key=lambda end: end[0])
    for y, (_, line) in zip(_spread([y for y, _ in ends], top, bottom), ends, strict=True):
        parts.append(label(left + width + 12, y + 4, line.name, color=line.color, bold=True))
    return drawn(left + width + right, height, parts)


def points_in_plane(
    at: Sequence[tuple[float, float]], colors: Sequence[str], names: Sequence[str], *, title: str, size: int = 380
) -> str:
    """Return points, a color and a name (told where pointed at) each; one scale for both axes."""
    xs, ys = [x for x, _ in at], [y for _, y in at]
    scale = (size - 24) / max(max(xs) - min(xs), max(ys) - min(ys), 1e-9)
    free = [(size - scale * (max(side) - min(side))) / 2 for side in (xs, ys)]
    parts = [label(2, 16, title, bold=True, size=13)]
    parts.append(
        f'<rect x="0.5" y="26.5" width="{size - 1}" height="{size - 1}" fill="none" stroke="currentColor" '
        'stroke-opacity="0.25"/>'
    )
    for (x, y), color, name in zip(at, colors, names, strict=True):
        left, top = free[0] + scale * (x - min(xs)), 26 + size - free[1] - scale * (y - min(ys))
        parts.append(
            f'<circle cx="{left:.1f}" cy="{top:.1f}" r="2.6" fill="{color}"><title>{escape(name)}</title></circle>'
        )
    return drawn(size, size + 28, parts)


def share_color(share: float) -> str:
    """Return a color from light blue (0) to dark red (1), in that order also for those who see no colors."""
    stops = ((222, 235, 247), (253, 174, 97), (165, 0, 38))
    place = min(max(share, 0.0), 1.0) * 2
    below = min(int(place), 1)
    mixed = (round(a + (b - a) * (place - below)) for a, b in zip(stops[below], stops[below + 1], strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def _row_mark(place: tuple[float, float, float], dot: Dot, color: str, is_open: bool, name: str) -> str:
    """Return a dot with its interval on a row; ``place``: left end, width, height of the row's axis."""
    left, width, y = place

    def across(value: float) -> float:
        return left + min(max(value, 0.0), 1.0) * width

    said, bar = name, ""
    if isfinite(dot.low) and isfinite(dot.high):
        said += f": {dot.value:.3f} ({dot.low:.3f} to {dot.high:.3f})"
        strokes = 'stroke-width="1.2" stroke-opacity="0.5"' if is_open else 'stroke-width="2.2" stroke-opacity="0.9"'
        bar = f'<path d="M{across(dot.low):.1f} {y:.1f}H{across(dot.high):.1f}" stroke="{color}" {strokes}/>'
    fill = f'r="3.8" fill="none" stroke="{color}" stroke-width="1.6"' if is_open else f'r="4.6" fill="{color}"'
    circle = f'<circle cx="{across(dot.value):.1f}" cy="{y:.1f}" {fill}/>'
    return f"<g><title>{escape(said)}</title>{bar}{circle}</g>"


def _drawn_line(line: Line, at: Sequence[tuple[float, Dot]], down: Callable[[float], float]) -> str:
    color = line.color or _FAINT
    path = "L".join(f"{x:.1f} {down(dot.value):.1f}" for x, dot in at)
    dashes = ' stroke-dasharray="5 4"' if line.is_dashed else ""
    name = escape(line.name)
    if not line.color:
        thin = f'stroke="{color}" stroke-opacity="0.45" stroke-width="1.2"'
        return f'<path d="M{path}" fill="none" {thin}><title>{name}</title></path>'
    within = [(x, dot) for x, dot in at if isfinite(dot.low) and isfinite(dot.high)]
    band = ""
    if len(within) > 1:
        upper = [f"{x:.1f} {down(dot.high):.1f}" for x, dot in within]
        lower = [f"{x:.1f} {down(dot.low):.1f}" for x, dot in reversed(within)]
        band = f'<path d="M{"L".join(upper + lower)}z" fill="{color}" fill-opacity="0.14"/>'
    marks = "".join(
        f'<circle cx="{x:.1f}" cy="{down(dot.value):.1f}" r="3.2" fill="{color}">'
        f"<title>{name}: {dot.value:.3f}</title></circle>"
        for x, dot in at
    )
    return f'<g>{band}<path d="M{path}" fill="none" stroke="{color}" stroke-width="2.2"{dashes}/>{marks}</g>'


def _placing(xs: Sequence[float], scale: Scale, left: float, width: float) -> Callable[[float], float]:
    moved = {x: float(n) if scale == "even" else log10(x) if scale == "log" else x for n, x in enumerate(xs)}
    low, high = min(moved.values(), default=0), max(moved.values(), default=1)
    span = (high - low) or 1.0
    return lambda x: left + 10 + (moved[x] - low) / span * (width - 20)


def _last(line: Line) -> float:
    return next((dot.value for dot in reversed(line.dots) if isfinite(dot.value)), float("nan"))


def _spread(places: Sequence[float], top: float, bottom: float, least: float = 15) -> list[float]:
    """Return ascending places moved apart, so that names at them do not touch."""
    moved = list(places)
    for number in range(1, len(moved)):
        moved[number] = max(moved[number], moved[number - 1] + least)
    limit = bottom
    for number in reversed(range(len(moved))):
        moved[number] = min(moved[number], limit)
        limit = moved[number] - least
    return [
        max(place, top + number * least) if moved and moved[0] < top else place for number, place in enumerate(moved)
    ]
