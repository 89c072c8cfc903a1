"""Recognizes arrays beside activations that are no layers: ids, labels, masks, inputs, single values."""

import re
from collections.abc import Callable

import numpy as np

from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.stored_array import StoredArray
from lfm_tasks.sources.layers import LayerLocation

# Arrays of whole numbers (masks: of any) that lie beside activations under these names are what a network was fed.
_USUAL_INPUTS = frozenset(
    {"attention_mask", "id", "ids", "index", "input_ids", "label", "labels", "mask", "position_ids", "target"}
    | {"special_tokens_mask", "targets", "token_ids", "token_type_ids"}
)
# What messages say of arrays that no reader opens, and that are no activations.
_NEVER_LAYERS = {
    "got a single value": "a single value",
    "got pickled Python objects": "pickled objects",
    "got values of type (timestamp|date|time|duration|decimal|binary|large_binary|null|struct|map)": "no numbers",
}


def why_no_layer(
    layer: str,
    location: LayerLocation,
    opened: Callable[[], StoredArray],
    named: frozenset[tuple[str, str | None]],
) -> str:
    """Return why an array that is found by ``*`` is no layer; "" if it is one, or nobody can tell.

    Parameters
    ----------
    layer, location
        Its name, and where it lies.
    opened
        Opens it.
    named
        Paths and keys of the arrays that the catalog names as something else.
    """
    place = location.places[0]
    if len(location.places) == 1 and (str(place.path), place.key) in named:
        return "the catalog names it"
    try:
        array = _header(location, opened)
    except DataError as error:
        return next((reason for words, reason in _NEVER_LAYERS.items() if re.search(words, str(error))), "")
    if array.dtype.kind in "US":
        return "" if _holds_numbers(array) else "text"
    if len(array.shape) == 1:
        return "one number a row"
    name = re.split(r"[/.]", layer)[-1]
    is_input = name in _USUAL_INPUTS and (array.dtype.kind in "iub" or name.endswith("mask"))
    return "what networks are fed" if is_input else ""


def _header(location: LayerLocation, opened: Callable[[], StoredArray]) -> StoredArray:
    """Return the array, also if some of its chunks were never written: its shape tells what it is."""
    try:
        return opened()
    except DataError as error:
        if "missing_chunks" not in str(error):
            raise
        return location.places[0].of_any_chunks().open()


def _holds_numbers(array: StoredArray) -> bool:
    """Return whether text is numbers that were saved as text, a row of several a point: a layer that is refused."""
    if len(array.shape) < 2 or not array.shape[0]:
        return False
    with array.rows() as read:
        first = read(np.arange(1)).reshape(-1).tolist()
    try:
        return bool([float(value) for value in first])
    except ValueError:
        return False
