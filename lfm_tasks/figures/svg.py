"""SVG as text, without a script: strokes, words, drawings beside each other, drawings as files."""

from collections.abc import Sequence
from html import escape

_FONT = 'font-family="system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif"'
# Width of a letter of size 12, on average.
_LETTER = 6.4


def side_by_side(drawings: Sequence[str], n_columns: int = 2, gap: int = 28) -> str:
    """Return drawings in rows of ``n_columns``, as one."""
    sizes = [size_of(drawing) for drawing in drawings]
    parts, top, widest = [], 0.0, 0.0
    for start in range(0, len(drawings), n_columns):
        row = list(zip(drawings, sizes, strict=True))[start : start + n_columns]
        left = 0.0
        for drawing, (wide, high) in row:
            parts.append(
                drawing.replace(
                    "<svg ", f'<svg x="{left:.0f}" y="{top:.0f}" width="{wide:.0f}" height="{high:.0f}" ', 1
                )
            )
            left += wide + gap
        widest = max(widest, left - gap)
        top += max(high for _, (_, high) in row) + gap
    return drawn(widest, top - gap, parts)


def standalone(svg: str) -> str:
    """Return a figure as a file of its own: on white, whatever it is shown in."""
    wide, high = size_of(svg)
    paper = f'<rect x="-12" y="-12" width="{wide + 24:.0f}" height="{high + 24:.0f}" fill="#ffffff"/>'
    framed = svg.replace(
        f'viewBox="0 0 {wide:.0f} {high:.0f}"', f'viewBox="-12 -12 {wide + 24:.0f} {high + 24:.0f}"', 1
    )
    head, _, body = framed.partition(">")
    return f'{head} xmlns="http://www.w3.org/2000/svg" color="#1b1f24">{paper}{body}\n'


def drawn(width: float, height: float, parts: Sequence[str]) -> str:
    """Return a drawing of this size, in pixels."""
    body = "\n".join(part for part in parts if part)
    return f'<svg viewBox="0 0 {width:.0f} {height:.0f}" fill="currentColor" font-size="12" {_FONT}>\n{body}\n</svg>'


def size_of(svg: str) -> tuple[float, float]:
    """Return the width and height of a drawing."""
    wide, high = svg.partition('viewBox="0 0 ')[2].partition('"')[0].split()
    return float(wide), float(high)


def stroke(x: float, y: float, to_x: float, to_y: float, *, opacity: float) -> str:
    """Return a straight line."""
    return f'<path d="M{x:.1f} {y:.1f}L{to_x:.1f} {to_y:.1f}" stroke="currentColor" stroke-opacity="{opacity}"/>'


def label(
    x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, bold: bool = False, color: str = "",
    turned: tuple[float, float] | None = None,
) -> str:  # fmt: skip
    """Return words; ``turned``: at this place instead, read from below."""
    place = (
        f'x="{x:.1f}" y="{y:.1f}"'
        if turned is None
        else f'transform="translate({turned[0]:.1f} {turned[1]:.1f}) rotate(-90)"'
    )
    weight = ' font-weight="600"' if bold else ""
    fill = f' fill="{color}"' if color else ""
    return f'<text {place} text-anchor="{anchor}" font-size="{size}"{weight}{fill}>{escape(text)}</text>'


def width_of(text: str, *, bold: bool = False) -> float:
    """Return about how wide a text of size 12 is, in pixels."""
    return len(text) * _LETTER * (1.22 if bold else 1.0)


def shortened(value: float) -> str:
    """Return a number in at most three digits."""
    return f"{value:.3g}"
