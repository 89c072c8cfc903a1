"""The page of a comparison of two networks: the verdict, the profile of the difference along the depth, a table."""

from collections.abc import Mapping, Sequence
from math import log10
from typing import Any

from lfm_tasks.report.templates import allowed, resource, templates

_WIDTH, _HEIGHT, _MARGIN = 900, 240, 46
_LONGEST_NAME = 48


def render_parity(parity: Mapping[str, Any], sentences: Sequence[str]) -> str:
    """Return the page as HTML: no script, nothing fetched; ``sentences`` say what was found."""
    style = resource("page.css")
    page = templates().get_template("parity.html.jinja")
    return page.render(
        parity=parity, sentences=sentences, profile=depth_profile(parity["layers"]), style=style,
        style_hash=allowed(style),
    )  # fmt: skip


def depth_profile(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the places of a chart: the largest and the typical difference of each layer on a logarithmic axis.

    Layers that are equal stand on the lowest line, layers that are not finite or have no values on the highest one.
    """
    numbers = [layer[key] for layer in layers for key in ("largest_relative", "typical_relative", "tolerance")]
    exponents = [log10(number) for number in numbers if number]
    low, high = (int(min(exponents)) - 1, int(max(exponents)) + 1) if exponents else (-8, 0)
    high = max(high, low + 1)
    step = (_WIDTH - 2 * _MARGIN) / max(1, len(layers) - 1)

    def height(number: float | None) -> float:
        share = 1.0 if number is None else 0.0 if number <= 0 else (log10(number) - low) / (high - low)
        return round(_HEIGHT - _MARGIN - share * (_HEIGHT - 2 * _MARGIN), 1)

    places = [round(_MARGIN + index * step, 1) for index in range(len(layers))]
    points = [
        {
            "x": x, "largest": height(layer["largest_relative"]), "typical": height(layer["typical_relative"]),
            "name": layer["reference"], "status": layer["status"],
        }
        for x, layer in zip(places, layers, strict=True)
    ]  # fmt: skip
    limits = [
        f"{x},{height(layer['tolerance'])}" for x, layer in zip(places, layers, strict=True) if layer["tolerance"]
    ]
    return {
        "width": _WIDTH, "height": _HEIGHT, "left": _MARGIN, "right": _WIDTH - _MARGIN, "points": points,
        "limit": " ".join(limits), "labels": _labels(layers, places),
        "typical": " ".join(f"{point['x']},{point['typical']}" for point in points if point["status"] != "failed"),
        "ticks": [{"y": height(10.0**exponent), "exponent": exponent} for exponent in range(low, high + 1, 2)],
    }  # fmt: skip


def _labels(layers: Sequence[Mapping[str, Any]], places: Sequence[float]) -> list[dict[str, Any]]:
    """Return the names below the chart: of the first layer, of the last one, and, a line lower, of the first broken."""
    broken = next((place for place, layer in enumerate(layers) if layer["status"] in ("beyond", "failed")), None)
    ends = {0: "start", len(layers) - 1: "end"} if layers else {}
    shown = [(place, anchor, False) for place, anchor in ends.items() if place != broken]
    if broken is not None:
        middle = "start" if places[broken] < _WIDTH / 3 else "end" if places[broken] > 2 * _WIDTH / 3 else "middle"
        shown.append((broken, middle, True))
    return [
        {
            "x": places[place], "y": _HEIGHT - _MARGIN + (32 if is_broken else 18), "anchor": anchor,
            "name": _short(str(layers[place]["reference"])), "is_broken": is_broken,
        }
        for place, anchor, is_broken in shown
    ]  # fmt: skip


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
