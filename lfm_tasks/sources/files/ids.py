"""Checks what is to be the ids of rows: visible text, each once, whichever way its letters are composed."""

import re
import unicodedata
from collections.abc import Callable

import numpy as np
from jaxtyping import Shaped

from lfm_tasks.errors import DataError

# What nobody sees in an id, and what breaks lines: control characters and separators of lines and paragraphs.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def _row(row: int) -> str:
    return f"row {row}"


def unique_ids(
    values: Shaped[np.ndarray, "..."], label: str, place: Callable[[int], str] = _row
) -> Shaped[np.ndarray, " points"]:
    """Return ids as strings, integers as decimal numbers; DataError ``bad_ids`` for what cannot name rows.

    Parameters
    ----------
    values
        One column of text or integers.
    label
        How messages call where they come from.
    place
        How messages call a row.
    """
    if values.ndim != 1 or values.dtype.kind not in "USiu":
        problem = f"found {values.dtype} of shape {values.shape}"
        raise DataError("bad_ids", f"{label}: {problem}, needs one column of text or integers: save ids like that")
    ids = as_text(values, label)
    if values.dtype.kind in "US":
        _check_visible(ids, label, place)
    distinct, first, counts = np.unique(ids, return_index=True, return_counts=True)
    if len(distinct) < len(ids):
        repeated = distinct[counts > 1][np.argsort(first[counts > 1])]
        shown = ", ".join(ascii(str(name))[:60] for name in repeated[:3])
        rows = np.flatnonzero(ids == repeated[0])
        where = f"in {place(rows[0])} and {place(rows[1])}"
        problem = f"found {len(repeated)} ids more than once among {len(ids)}, first {shown} ({where})"
        raise DataError("bad_ids", f"{label}: {problem}, needs each once: remove the repeated rows")
    return ids


def _check_visible(ids: Shaped[np.ndarray, " points"], label: str, place: Callable[[int], str]) -> None:
    blank = np.flatnonzero(np.char.str_len(np.char.strip(ids)) == 0)
    if len(blank):
        problem = f"found {len(blank)} empty ids, first in {place(blank[0])}"
        raise DataError("bad_ids", f"{label}: {problem}: name each row")
    texts = ids.tolist()
    whole = "".join(texts)
    if _UNSEEN.search(whole):
        row = next(row for row, text in enumerate(texts) if _UNSEEN.search(text))
        problem = f"found a control character in the id {ascii(texts[row])[:60]}, in {place(row)}"
        raise DataError("bad_ids", f"{label}: {problem}, needs visible text: remove it")
    if whole.isascii():
        return
    first: dict[str, int] = {}
    for row, text in enumerate(texts):
        earlier = first.setdefault(unicodedata.normalize("NFC", text), row)
        if texts[earlier] != text:
            ways = f"{ascii(texts[earlier])[:60]} in {place(earlier)} and {ascii(text)[:60]} in {place(row)}"
            problem = f"found one id composed in two ways, {ways}"
            raise DataError("bad_ids", f"{label}: {problem}, needs one way (NFC): rename or remove one of them")


def as_text(values: Shaped[np.ndarray, " points"], label: str) -> Shaped[np.ndarray, " points"]:
    """Return values as strings; DataError ``bad_ids`` for bytes that are not UTF-8, or text that cannot be written."""
    try:
        text = np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values.astype(str)
        "".join(text.tolist()).encode()  # half a surrogate pair cannot be written anywhere
    except UnicodeError as error:
        raise DataError("bad_ids", f"{label}: found text that is not Unicode: save it as UTF-8") from error
    return text
