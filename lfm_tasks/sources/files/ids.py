"""Checks what is to be the ids of rows: text, each once, none empty."""

import numpy as np
from jaxtyping import Shaped

from lfm_tasks.errors import DataError


def unique_ids(values: Shaped[np.ndarray, "..."], label: str) -> Shaped[np.ndarray, " points"]:
    """Return ids as strings, integers as decimal numbers; DataError ``bad_ids`` for what cannot name rows.

    Parameters
    ----------
    values
        One column of text or integers.
    label
        How messages call where they come from.
    """
    if values.ndim != 1 or values.dtype.kind not in "USiu":
        problem = f"found {values.dtype} of shape {values.shape}"
        raise DataError("bad_ids", f"{label}: {problem}, needs one column of text or integers: save ids like that")
    ids = as_text(values, label)
    empty = np.flatnonzero(ids == "")
    if len(empty):
        raise DataError("bad_ids", f"{label}: found {len(empty)} empty ids, first in row {empty[0]}: name each row")
    distinct, first, counts = np.unique(ids, return_index=True, return_counts=True)
    if len(distinct) < len(ids):
        repeated = distinct[counts > 1][np.argsort(first[counts > 1])]
        shown = ", ".join(ascii(str(name))[:60] for name in repeated[:3])
        problem = f"found {len(repeated)} ids more than once among {len(ids)}, first {shown}"
        raise DataError("bad_ids", f"{label}: {problem}, needs each once: remove the repeated rows")
    return ids


def as_text(values: Shaped[np.ndarray, " points"], label: str) -> Shaped[np.ndarray, " points"]:
    """Return values as strings; DataError ``bad_ids`` for bytes that are not UTF-8, or text that cannot be written."""
    try:
        text = np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values.astype(str)
        "".join(text.tolist()).encode()  # half a surrogate pair cannot be written anywhere
    except UnicodeError as error:
        raise DataError("bad_ids", f"{label}: found text that is not Unicode: save it as UTF-8") from error
    return text
