"""Rows that belong together: an array told apart by its values."""

import numpy as np
from jaxtyping import Int, Shaped


def rows_by_value(values: Shaped[np.ndarray, " rows"]) -> tuple[Int[np.ndarray, " _"], ...]:
    """Return the rows that have each value: values ascending, rows in their order; nothing for no rows."""
    order = np.argsort(values, kind="stable")
    _, starts = np.unique(values[order], return_index=True)
    return tuple(np.split(order, starts[1:])) if len(order) else ()
