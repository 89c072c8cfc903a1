"""A list of rows that prints as a table: what queries of an atlas return to people and programs alike."""

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, Any

from lfm_tasks.stores.atlas.schema import AtlasError

if TYPE_CHECKING:
    import pandas as pd


class Rows(list[dict[str, Any]]):
    """Rows of plain values by column; a list, which prints as a table and becomes a data frame.

    Examples
    --------
    >>> Rows([{"name": "resnet", "value": 0.81234}, {"name": "vit", "value": None}])
    name    value
    resnet  0.812
    vit
    """

    @property
    def columns(self) -> list[str]:
        """The columns that any row has a value of, in order.

        Examples
        --------
        >>> Rows([{"name": "resnet", "value": None}]).columns
        ['name']
        """
        names = dict.fromkeys(name for row in self for name in row)
        return [name for name in names if any(row.get(name) not in (None, "") for row in self)]

    def to_frame(self) -> "pd.DataFrame":
        """Return the rows as a pandas data frame; `AtlasError` without pandas.

        Examples
        --------
        >>> Rows([{"name": "resnet", "value": 0.8}]).to_frame().shape
        (1, 2)
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise AtlasError("got no pandas, expected it for to_frame. Do: pip install pandas") from error
        return pd.DataFrame(list(self))

    def __repr__(self) -> str:
        if not self:
            return "no rows"
        names = self.columns
        cells = [names, *([_text(row.get(name)) for name in names] for row in self)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        is_number = [all(isinstance(row.get(name), int | float | None) for row in self) for name in names]
        return "\n".join(_line(row, widths, is_number) for row in cells)

    def _repr_html_(self) -> str:
        names = self.columns
        head = _html_row("th", names)
        return (
            f"<table><thead>{head}</thead><tbody>"
            + "".join(_html_row("td", (_text(row.get(name)) for name in names)) for row in self)
            + "</tbody></table>"
        )


def _line(cells: Iterable[str], widths: Iterable[int], is_number: Iterable[bool]) -> str:
    aligned = zip(cells, widths, is_number, strict=True)
    return "  ".join(cell.rjust(width) if right else cell.ljust(width) for cell, width, right in aligned).rstrip()


def _html_row(tag: str, cells: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.1e}"
    return str(value)
