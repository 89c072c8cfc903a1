"""Mistakes in the sections of a catalog, each with its line: pydantic's messages in the words of the catalog."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from lfm_tasks.catalog.cluster import KINDS
from lfm_tasks.catalog.names import Problem, describe, did_you_mean, is_near
from lfm_tasks.catalog.sections import CatalogText, keys_of, kinds_of
from lfm_tasks.catalog.yaml_tree import Entries, Items, Place, to_builtins

# What pydantic adds to a location: which side of a mapping, which branch of a union.
_KINDS = {f"<{name}>": kind for name, kind in KINDS.items()}
_MARKS = ("[key]", "<file>", "<word>", "<list>", "<number>", *_KINDS)

_NEEDS = {
    "int": "a whole number",
    "float": "a number",
    "string": "text. Put it in quotes",
    "bool": "true or false",
    "model": "a mapping such as {path: ids.npy}",
    "dict": "a mapping",
    "tuple": "a list",
}
# Each pass tells what the mistakes of the one before had hidden.
_MOST_PASSES = 4
_NEEDED = ("version", "datasets", "models", "discover")
# Without one of these, messages about the numbers of points would be wrong.
_SIZES = ("atlas", "atlas.graph", "atlas.graph.n_neighbors", "atlas.n_eigenpairs", "atlas.max_points")


@dataclass(frozen=True)
class CheckedSections:
    """The sections of a file without the parts that ``problems`` reports, which are in ``removed``."""

    sections: CatalogText | None
    problems: list[Problem]
    removed: frozenset[str] = frozenset()

    @property
    def is_usable(self) -> bool:
        """Whether sources may be opened by what is left, to tell of their mistakes as well."""
        return self.sections is not None and not self.removed & set(_SIZES)


def check_sections(tree: Entries, file: str) -> CheckedSections:
    """Return the sections of the catalog, and their mistakes: also those that the first ones had hidden."""
    content = to_builtins(tree)
    problems: list[Problem] = []
    removed: set[str] = set()
    for _ in range(_MOST_PASSES):
        try:
            return CheckedSections(CatalogText.model_validate(content), problems, frozenset(removed))
        except ValidationError as error:
            found = [details for details in error.errors(include_url=False) if not _only_follows(details)]
        told = [_explain(details, tree, file) for details in found]
        problems += [problem for problem in told if not _follows(problem, removed)]
        keys = {key for details in found if (key := _leave_out(content, details)) is not None}
        if not keys:
            break
        removed |= keys
    return CheckedSections(None, problems, frozenset(removed))


def _only_follows(details: ErrorDetails) -> bool:
    """Return whether a list is called too short because its items are wrong, which is reported for each of them."""
    return details["type"] == "too_short" and len(details["input"]) > details["ctx"]["actual_length"]


def _follows(problem: Problem, removed: set[str]) -> bool:
    """Return whether a mistake may only be there because a key that it names was left out."""
    below = [key for key in removed if key.startswith(f"{problem.where}.")]
    return problem.where in removed or any(key.rpartition(".")[2] in problem.message for key in below)


def _leave_out(content: Any, details: ErrorDetails) -> str | None:
    """Take the key of a mistake out of the catalog; return its dotted name, None if that is not possible."""
    way = [part for part in details["loc"] if part not in _MARKS]
    if details["type"] == "missing":
        way = way[:-1]
    while way and isinstance(way[-1], int):
        way = way[:-1]
    value = content
    for part in way[:-1]:
        is_there = (isinstance(value, dict) and part in value) or (
            isinstance(value, list) and isinstance(part, int) and part < len(value)
        )
        value = value[part] if is_there else None
    if not way or not isinstance(value, dict) or way[-1] not in value or way[0] in _NEEDED:
        return None
    del value[way[-1]]
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in way).removeprefix(".")


def _explain(details: ErrorDetails, tree: Entries, file: str) -> Problem:
    location = [part for part in details["loc"] if part not in _MARKS]
    place, value = find_place(tree, location)
    key = str(details["loc"][-1]) if details["loc"] else ""
    kind, context = details["type"], details.get("ctx", {})
    shape, _, ending = kind.rpartition("_")
    match kind:
        case "extra_forbidden":
            known = _known_keys(details["loc"][:-1])
            elsewhere = None if is_near(key, known) else _elsewhere(key, details["loc"][:-1])
            hint = f"; did you mean {elsewhere}?" if elsewhere else did_you_mean(key, known)
            message = f"unknown key{hint}"
        case "union_tag_invalid":
            place, value = find_place(tree, [*location, "type"])
            message = f"got {describe(value)}, expected {' or '.join(KINDS)}{did_you_mean(str(value), KINDS)}"
        case "missing":
            message = f"{key} is missing. Add it"
        case "literal_error":
            known = re.findall(r"'([^']*)'", str(context["expected"]))
            hint = did_you_mean(str(value), known) if isinstance(value, str) and len(known) > 1 else ""
            message = f"got {describe(value)}, expected {context['expected']}{hint}"
        case "value_error":
            message = str(context["error"])
        case "too_short":
            message = f"got {describe(value)}, expected at least one"
        case _ if ending == "type" and shape in _NEEDS:
            message = f"got {describe(value)}, expected {_NEEDS[shape]}"
        case _:
            message = f"got {describe(value)}, expected {_needed(details['msg'])}"
    if place.variables:  # whose values may be secrets
        _, expected, needs = message.rpartition(", expected ")  # the last one: a value may hold these words, too
        message = f"got a value of {' and '.join(place.variables)} that does not fit"
        message += f"{expected}{needs}" if expected else ""
    return Problem(file, place.line, place.where, message)


def _needed(message: str) -> str:
    """Return pydantic's ``message`` as the end of "got x, expected ..."."""
    needed = message.removeprefix("Input should be ").removeprefix("Input should ")
    for words, sign in (("greater than", ">"), ("less than", "<"), ("> or equal to", ">="), ("< or equal to", "<=")):
        needed = needed.replace(words, sign)
    return needed[0].lower() + needed[1:]


def find_place(tree: Entries, location: Sequence[int | str]) -> tuple[Place, object]:
    """Return the place and value of ``location``, or of the nearest part of it that was written."""
    place = Place(1, "")
    value: Any = tree
    for part in location:
        if isinstance(value, Entries) and part in value:
            place, value = value.places[str(part)], value[str(part)]
        elif isinstance(value, Items) and isinstance(part, int) and part < len(value):
            place, value = value.places[part], value[part]
        else:
            break
    return place, to_builtins(value)


def _known_keys(location: Sequence[int | str]) -> list[str]:
    """Return the keys that the types allow at ``location``."""
    kind: Any = CatalogText
    for part in location:
        if str(part) in _KINDS:
            kind = _KINDS[str(part)]
        elif part not in _MARKS and not isinstance(part, int):
            kind = next(iter(kinds_of(kind, str(part))), None)
    return keys_of(kind)


def _elsewhere(key: str, location: Sequence[int | str]) -> str | None:
    """Return the place of a known key that was written in another one: below it, else below ``atlas``."""
    kind: Any = CatalogText
    for part in location:
        if part not in _MARKS and str(part) not in _KINDS and not isinstance(part, int):
            kind = next(iter(kinds_of(kind, str(part))), None)
    written = ".".join(str(part) for part in location if part not in _MARKS)
    for start, name in ((kind, written), (kinds_of(CatalogText, "atlas")[0], "atlas")):
        level = [(start, name)]
        for _ in range(2):
            below = [
                (inner, f"{where}.{one}" if where else one)
                for outer, where in level
                for one in keys_of(outer)
                for inner in kinds_of(outer, one)
            ]
            level = below
            for inner, where in below:
                if key in keys_of(inner):
                    return f"{where}.{key}"
        if key in keys_of(start) and name != written:
            return f"{name}.{key}"
    return None
