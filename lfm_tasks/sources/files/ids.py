"""Checks the ids of rows: visible text, unique also after Unicode normalization.

Ids are compared as they are. Where two lists nearly join, `near_join` says what would make them equal, and the catalog
asks for it by ``as``: nothing is joined without a request.
"""

import re
import unicodedata
from collections.abc import Callable
from pathlib import PureWindowsPath

import numpy as np
from jaxtyping import Shaped

from lfm_tasks.errors import DataError

# What nobody sees in an id, and what breaks lines: control characters and separators of lines and paragraphs.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def _row(row: int) -> str:
    return f"row {row}"


def _number(text: str) -> str:
    match = re.fullmatch(r"0*([0-9]+)", text.strip())
    return match[1] if match else text


def _stem(text: str) -> str:
    return PureWindowsPath(text).stem  # which knows both kinds of slash


def _stripped(text: str) -> str:
    return text.strip("\0").strip()


# By the word of the catalog: what is compared of an id, and how messages call it.
ID_FORMS: dict[str, tuple[Callable[[str], str], str]] = {
    "stripped": (_stripped, "without blanks and NUL bytes around them"),
    "nfc": (lambda text: unicodedata.normalize("NFC", text), "once their letters are composed in one way (NFC)"),
    "name": (lambda text: PureWindowsPath(text).name, "by file name"),
    "stem": (_stem, "by file stem"),
    "number": (_number, "as numbers without zeros in front"),
}


def near_join(
    ids: Shaped[np.ndarray, " some"], known: Shaped[np.ndarray, " others"], where: str = "ids", other: str = "its ids"
) -> str:
    """Return how a message goes on about ids that do not join: the first of each side, and what would join more.

    Parameters
    ----------
    ids, known
        Both lists.
    where
        The key of the catalog that names ``ids``.
    other
        How messages call the place that names ``known``.

    Examples
    --------
    >>> print(near_join(np.array(["a/1.png", "a/2.png"]), np.array(["1", "2"])))
    first 'a/1.png' and '1'; all 2 match by file stem. Say ids: {path: ..., as: stem}
    """
    first = f"first {ascii(str(ids[0]))[:60]} and {ascii(str(known[0]))[:60]}" if len(ids) and len(known) else "none"
    best, how = _n_common(ids, known), ""
    texts, others = [str(text) for text in ids], [str(text) for text in known]
    for word, (form, described) in ID_FORMS.items():
        formed = {form(text) for text in texts}
        if len(formed) < len(set(texts)):  # which would make two ids one
            continue
        plain = len(formed & set(others))
        both = {form(text) for text in others}
        in_both = len(formed & both) if len(both) == len(set(others)) else 0
        if max(plain, in_both) <= best:
            continue
        best = max(plain, in_both)
        n_all = min(len(formed), len(others))
        count = f"all {best}" if best == n_all else f"{best} of {n_all}"
        elsewhere = f", and as: {word} beside {other}" if in_both > plain else ""
        how = f"; {count} match {described}. Say {where}: {{path: ..., as: {word}}}{elsewhere}"
    return first + how


def _n_common(ids: Shaped[np.ndarray, " some"], known: Shaped[np.ndarray, " others"]) -> int:
    return len({str(text) for text in ids} & {str(text) for text in known})


def checked_ids(
    values: Shaped[np.ndarray, "..."], label: str, form: str | None, *, may_repeat: bool = False
) -> Shaped[np.ndarray, " rows"]:
    """Return ids as strings in a form of `ID_FORMS`; see `unique_ids`. ``may_repeat``: an id may name several rows."""
    ids = _column_of_ids(values, label)
    if form is not None:
        ids = np.array([ID_FORMS[form][0](text) for text in ids.tolist()])
        values = ids
    if may_repeat:
        unique_ids(np.unique(ids), label)
        return ids
    return unique_ids(values, label)


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
    ids = _column_of_ids(values, label)
    if values.dtype.kind in "US":
        _check_visible(ids, label, place)
    distinct, first, counts = np.unique(ids, return_index=True, return_counts=True)
    if len(distinct) < len(ids):
        repeated = distinct[counts > 1][np.argsort(first[counts > 1])]
        shown = ", ".join(ascii(str(name))[:60] for name in repeated[:3])
        rows = np.flatnonzero(ids == repeated[0])
        where = f"in {place(rows[0])} and {place(rows[1])}"
        problem = f"got {len(repeated)} ids more than once among {len(ids)}, first {shown} ({where})"
        advice = "Remove the repeated rows, or say repeats: mean where they are trials of one stimulus"
        raise DataError("bad_ids", f"{label}: {problem}, expected each once. {advice}")
    return ids


def _column_of_ids(values: Shaped[np.ndarray, "..."], label: str) -> Shaped[np.ndarray, " rows"]:
    if values.ndim != 1 or values.dtype.kind not in "USiu":
        problem = f"got {values.dtype} of shape {values.shape}"
        advice = "Save ids like that"
        if values.ndim == 1 and values.dtype.kind in "fMmOb":
            advice = "Save them as text: numpy.save(path, ids.astype(str))"
        raise DataError("bad_ids", f"{label}: {problem}, expected one column of text or integers. {advice}")
    return as_text(values, label)


def _check_visible(ids: Shaped[np.ndarray, " points"], label: str, place: Callable[[int], str]) -> None:
    blank = np.flatnonzero(np.char.str_len(np.char.strip(ids)) == 0)
    if len(blank):
        problem = f"got {len(blank)} empty ids, first in {place(blank[0])}"
        raise DataError("bad_ids", f"{label}: {problem}. Name each row")
    texts = ids.tolist()
    whole = "".join(texts)
    if _UNSEEN.search(whole):
        row = next(row for row, text in enumerate(texts) if _UNSEEN.search(text))
        problem = f"got a control character in the id {ascii(texts[row])[:60]}, in {place(row)}"
        raise DataError("bad_ids", f"{label}: {problem}, expected visible text. Remove it, or say as: stripped")
    if whole.isascii():
        return
    first: dict[str, int] = {}
    for row, text in enumerate(texts):
        earlier = first.setdefault(unicodedata.normalize("NFC", text), row)
        if texts[earlier] != text:
            ways = f"{ascii(texts[earlier])[:60]} in {place(earlier)} and {ascii(text)[:60]} in {place(row)}"
            problem = f"got one id composed in two ways, {ways}"
            raise DataError("bad_ids", f"{label}: {problem}, expected one way (NFC). Rename or remove one of them")


def as_text(values: Shaped[np.ndarray, " points"], label: str) -> Shaped[np.ndarray, " points"]:
    """Return values as strings; DataError ``bad_ids`` for bytes that are not UTF-8, or text that cannot be written."""
    try:
        text = np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values.astype(str)
        "".join(text.tolist()).encode()  # half a surrogate pair cannot be written anywhere
    except UnicodeError as error:
        raise DataError("bad_ids", f"{label}: got text that is not Unicode. Save it as UTF-8") from error
    return text
