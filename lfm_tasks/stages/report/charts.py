"""Charts: empty Bokeh heat maps that the page's script fills; the one door to Bokeh."""

from typing import Any

from bokeh.embed import json_item
from bokeh.models import ColumnDataSource, FixedTicker, HoverTool, LinearColorMapper, Plot, Range1d, TapTool
from bokeh.palettes import Viridis256
from bokeh.plotting import figure
from bokeh.resources import Resources

_HOVER = [("source", "@source"), ("target", "@target"), ("value", "@label"), ("chance", "@chance"), ("p", "@p")]


def bokeh_script() -> str:
    """Return BokehJS, without its widgets."""
    return "\n".join(Resources(mode="inline", components=["bokeh"]).js_raw)


def heat_map(name: str) -> dict[str, Any]:
    """Return an empty square heat map as JSON: sources downwards, targets to the right, room for a dendrogram."""
    plot = figure(
        name=name,
        x_range=Range1d(0, 1),
        y_range=Range1d(1, 0),
        x_axis_location="above",
        tools="",
        toolbar_location=None,
        match_aspect=False,
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=None,
        min_border=4,
    )
    plot.grid.visible = False
    plot.axis.axis_line_color = None
    plot.axis.major_tick_line_color = None
    plot.axis.minor_tick_line_color = None
    plot.axis.major_label_text_font_size = "13px"
    plot.xaxis.major_label_orientation = 0.9
    for axis, side in ((plot.xaxis[0], "x"), (plot.yaxis[0], "y")):
        axis.ticker = FixedTicker(ticks=[])
        axis.name = f"{name}-{side}"
    columns = ("x", "y", "value", "label", "ink", "source", "target", "chance", "p")
    cells = ColumnDataSource(data={column: [] for column in columns}, name=f"{name}-cells")
    mapper = LinearColorMapper(palette=list(Viridis256), low=0, high=1, nan_color="#8884", name=f"{name}-colours")
    drawn = plot.rect(
        "x", "y", 0.98, 0.98, source=cells, line_color=None, fill_color={"field": "value", "transform": mapper}
    )
    plot.text(
        "x", "y", "label", source=cells, text_align="center", text_baseline="middle", text_color="ink",
        text_font_size="12px", name=f"{name}-labels",
    )  # fmt: skip
    marks = ColumnDataSource(data={"x": [], "y": [], "ink": []}, name=f"{name}-marks")
    plot.rect("x", "y", 0.9, 0.9, source=marks, fill_color=None, line_color="ink", line_width=2.5)
    tree = ColumnDataSource(data={"xs": [], "ys": []}, name=f"{name}-tree")
    plot.multi_line("xs", "ys", source=tree, line_color="#888888", line_width=1.5)
    # A tap is handled by the page; the cells keep their looks.
    drawn.nonselection_glyph = None
    plot.add_tools(HoverTool(renderers=[drawn], tooltips=_HOVER), TapTool(renderers=[drawn]))
    return _numbered(plot)


def _numbered(plot: Plot) -> dict[str, Any]:
    """Return the plot as JSON with its models numbered from 1: Bokeh counts on through the life of a process."""
    item: dict[str, Any] = json_item(plot, plot.name)
    numbers: dict[str, str] = {}

    def renumber(node: Any) -> Any:
        if isinstance(node, list):
            return [renumber(part) for part in node]
        if not isinstance(node, dict):
            return node
        is_model = set(node) == {"id"} or node.get("type") == "object"
        return {
            key: numbers.setdefault(part, f"{plot.name}{len(numbers) + 1}")
            if key == "id" and is_model
            else renumber(part)
            for key, part in node.items()
        }

    document = renumber(item["doc"])
    return {**item, "doc": document, "root_id": numbers[item["root_id"]]}
