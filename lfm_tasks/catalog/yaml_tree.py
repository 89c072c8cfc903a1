"""Reads YAML into plain values that remember their lines; builds no objects and runs nothing.

ruamel.yaml parses; the values are made here, from its nodes, because that is where lines, tags and repeated keys are
still known. The core types are strings, numbers, true/false and null; any other tag is a mistake.
"""

import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, ReusedAnchorWarning, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from lfm_tasks.catalog.names import CatalogError, Problem, shorten
from lfm_tasks.variables import ExpandedText, Pieces

_MAX_BYTES = 2**20
_MAX_NODES = 100_000  # after aliases are expanded
_MAX_DEPTH = 100
_TAG = "tag:yaml.org,2002:"
_VARIABLE = re.compile(r"\$\$\{|\$\{([^}]*)\}|\$\{")
_VARIABLE_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?\Z", re.DOTALL)


@dataclass(frozen=True)
class Place:
    """Where a value was written: its line, from 1, its dotted key, and the variables that it is made of."""

    line: int
    where: str
    variables: tuple[str, ...] = ()


class Entries(dict[str, Any]):
    """A YAML mapping that knows the place of each key."""

    def __init__(self) -> None:
        super().__init__()
        self.places: dict[str, Place] = {}

    def put(self, key: str, value: object, place: Place) -> None:
        """Add one entry with its place."""
        self[key] = value
        self.places[key] = place


class Items(list[Any]):
    """A YAML sequence that knows the place of each item."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[Place] = []


def read_tree(path: Path, environment: Mapping[str, str] | None = None) -> tuple[object, list[Problem]]:
    """Return the values of the YAML file at ``path``, and the mistakes in it.

    ``${NAME}`` and ``${NAME:-default}`` are replaced from ``environment``, by default that of the process; ``$${``
    stands for a plain ``${``.

    Raises
    ------
    CatalogError
        If the file cannot be read or is not YAML, so that there are no values.
    """
    text = _read_text(path)
    if _depth(text) > _MAX_DEPTH:  # the parser takes minutes to give up
        raise CatalogError([Problem(str(path), 0, "", "got hundreds of nested levels, expected a few")])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ReusedAnchorWarning)  # YAML allows it, the last one counts
            node = YAML(typ="rt", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 0
        message = "not YAML: " + ", ".join(_one_line(part) for part in (error.context, error.problem) if part)
        raise CatalogError([Problem(str(path), line, "", message + _quote_hint(text, line))]) from error
    except RecursionError as error:
        raise CatalogError([Problem(str(path), 0, "", "got hundreds of nested levels, expected a few")]) from error
    except (
        YAMLError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        AssertionError,
        NotImplementedError,
    ) as error:
        # On malformed text ruamel raises some of these by mistake; they all mean that the text is not YAML.
        message = f"not YAML: {_one_line(str(error))}"
        raise CatalogError([Problem(str(path), _error_line(text, error), "", message)]) from error
    if node is None:
        raise CatalogError([Problem(str(path), 1, "", "the file is empty, expected version, datasets and models")])
    builder = _Builder(str(path), os.environ if environment is None else environment)
    return builder.build(node, Place(1, "")), builder.problems


def variables_in(tree: object) -> set[str]:
    """Return the names of all variables that values of ``tree`` are made of."""
    if not isinstance(tree, Entries | Items):
        return set()
    items = list(zip(tree.values(), tree.places.values(), strict=True)) if isinstance(tree, Entries) else []
    items += zip(tree, tree.places, strict=True) if isinstance(tree, Items) else []
    return {name for value, place in items for name in (*place.variables, *variables_in(value))}


def expanded_texts(tree: object) -> Iterator[ExpandedText]:
    """Yield all texts of ``tree`` that values of variables stand in."""
    if isinstance(tree, Entries | Items):
        for value in tree.values() if isinstance(tree, Entries) else tree:
            yield from expanded_texts(value)
    elif isinstance(tree, ExpandedText):
        yield tree


def to_builtins(tree: object) -> Any:
    """Return ``tree`` as plain dicts and lists, without places."""
    if isinstance(tree, Entries):
        return {key: to_builtins(value) for key, value in tree.items()}
    if isinstance(tree, Items):
        return [to_builtins(value) for value in tree]
    return tree


def _read_text(path: Path) -> str:
    def refuse(message: str, line: int = 0) -> CatalogError:
        return CatalogError([Problem(str(path), line, "", message)])

    try:
        if path.exists() and not path.is_file():
            raise refuse("got a folder or a device, expected a file. Add /data_catalog.yaml")
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise refuse(f"cannot be read ({reason}). Check the path, or write one with lfm-atlas init") from error
    if content.startswith(b"version https://git-lfs.github.com/"):
        raise refuse("got a git-lfs pointer, expected the catalog that it stands for. Fetch it: git lfs pull")
    if len(content) > _MAX_BYTES:
        raise refuse(f"got more than {_MAX_BYTES:,} bytes, expected at most that: is this a catalog?")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise refuse("got bytes that are not UTF-8. Save the file as UTF-8", line) from error


def _depth(text: str) -> int:
    """Return the greatest depth of nested brackets and dashes in ``text``; quotes and comments count as well."""
    steps = (1 if character in "[{" else -1 for character in re.sub(r"[^][{}]", "", text))
    deepest = max((depth for depth in accumulate(steps)), default=0)
    return max(deepest, *(len(line) // 2 for line in re.findall(r"(?m)^\s*((?:[-?:] )*)", text)), 0)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]


def _quote_hint(text: str, line: int) -> str:
    written = text.splitlines()[line - 1 : line] if line else []
    if written and "{" in written[0]:
        return '; inside {...} and [...], quote what holds braces: {path: "zoo/{model}.npz"}'
    return ""


def _error_line(text: str, error: Exception) -> int:
    position = getattr(error, "position", None)
    return text.count("\n", 0, position) + 1 if isinstance(position, int) else 0


@dataclass
class _Builder:
    file: str
    environment: Mapping[str, str]
    problems: list[Problem] = field(default_factory=list)
    n_nodes: int = 0
    variables: list[str] = field(default_factory=list)  # of the scalar that is read
    open_nodes: set[int] = field(default_factory=set)

    def build(self, node: Node, place: Place) -> object:
        """Return the value of ``node``; None and a problem where it is not one of a catalog."""
        self.n_nodes += 1
        if self.n_nodes > _MAX_NODES:
            message = f"got more than {_MAX_NODES:,} values once aliases are expanded, expected fewer"
            raise CatalogError([*self.problems, Problem(self.file, place.line, place.where, message)])
        if isinstance(node, ScalarNode):
            return self._scalar(node, place)
        kind = "map" if isinstance(node, MappingNode) else "seq"
        if str(node.tag) != _TAG + kind:
            return self._refuse(place, f"got the tag {_short_tag(node)}, expected plain YAML. Remove the tag")
        if id(node) in self.open_nodes:
            return self._refuse(place, "got an alias inside its own anchor, expected an end. Remove the alias")
        self.open_nodes.add(id(node))
        value = self._mapping(node, place) if isinstance(node, MappingNode) else self._sequence(node.value, place)
        self.open_nodes.discard(id(node))
        return value

    def _refuse(self, place: Place, message: str) -> object:
        self.problems.append(Problem(self.file, place.line, place.where, message))
        return None

    def _mapping(self, node: MappingNode, place: Place) -> Entries:
        entries, merged = Entries(), Entries()
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if str(key_node.tag) == _TAG + "merge":
                for key, value, origin in self._merged(value_node, Place(line, place.where)):
                    if key not in merged:
                        merged.put(key, value, origin)
                continue
            if not isinstance(key_node, ScalarNode):
                self._refuse(Place(line, place.where), "got a list or mapping as a key, expected text")
                continue
            key = str(key_node.value)
            here = Place(line, f"{place.where}.{_key_text(key)}" if place.where else _key_text(key))
            if key in entries:
                self._refuse(here, f"got the key twice, first in line {entries.places[key].line}. Keep one")
                continue
            entries.put(key, *self._build_at(value_node, here))
        for key, value in merged.items():
            if key not in entries:
                entries.put(key, value, merged.places[key])
        return entries

    def _merged(self, node: Node, place: Place) -> Iterator[tuple[str, object, Place]]:
        for part in node.value if isinstance(node, SequenceNode) else [node]:
            value = self.build(part, place)
            if isinstance(value, Entries):
                yield from ((key, value[key], value.places[key]) for key in value)
            elif value is not None:
                self._refuse(place, "got << with something else than a mapping, expected an alias such as *name")

    def _sequence(self, parts: Sequence[Node], place: Place) -> Items:
        items = Items()
        for index, part in enumerate(parts):
            here = Place(part.start_mark.line + 1, f"{place.where}[{index}]")
            value, origin = self._build_at(part, here)
            items.append(value)
            items.places.append(origin)
        return items

    def _build_at(self, node: Node, place: Place) -> tuple[object, Place]:
        """Return the value of ``node``, and its place with the variables in it."""
        self.variables.clear()
        value = self.build(node, place)
        used = tuple(dict.fromkeys(self.variables)) if isinstance(node, ScalarNode) else ()
        return value, replace(place, variables=used)

    def _scalar(self, node: ScalarNode, place: Place) -> object:
        tag, text = str(node.tag), str(node.value)
        if "${" in text:
            pieces = self._pieces(text, place)
            is_plain = all(used == written for used, written in pieces)
            text = "".join(used for used, _ in pieces) if is_plain else ExpandedText(pieces)
            if node.style is None and tag == _TAG + "str":
                tag = _resolve_tag(str(text))
        if tag == _TAG + "str" or tag == _TAG + "timestamp":
            return text
        try:
            return _CONVERT[tag.removeprefix(_TAG)](str(text))
        except (KeyError, ValueError):
            written = shorten(str(node.value))  # a variable is named; its value may be a secret
            return self._refuse(place, f"got {written} with the tag {_short_tag(node)}. Remove the tag")

    def _pieces(self, text: str, place: Place) -> Pieces:
        """Return the parts of ``text``, each as it is used and as messages show it."""
        pieces: list[tuple[str, str]] = []
        end = 0
        for match in _VARIABLE.finditer(text):
            between = text[end : match.start()]
            pieces += [(between, between), self._variable(match, place)]
            end = match.end()
        return (*pieces, (text[end:], text[end:]))

    def _variable(self, match: re.Match[str], place: Place) -> tuple[str, str]:
        """Return the value of a variable and its name, or a default, which is written for all to read, twice."""
        if match[0] == "$${":
            return "${", "${"
        named = _VARIABLE_NAME.match(match[1] or "")
        if named is None:
            self._refuse(place, f"got {shorten(match[0])}, expected ${{NAME}} or ${{NAME:-default}}")
            return "", ""
        self.variables.append(named[1])
        if value := self.environment.get(named[1]):
            return value, f"${{{named[1]}}}"
        if named[2] is None and named[1] not in self.environment:
            self._refuse(place, f"the variable {named[1]} is not set. Set it, or write ${{{named[1]}:-default}}")
        return named[2] or "", named[2] or ""


def _resolve_tag(text: str) -> str:
    """Return the tag that YAML gives to ``text`` written without quotes."""
    resolver: Any = YAML(typ="rt", pure=True).resolver
    return str(resolver.resolve(ScalarNode, text, (True, False)))


def _short_tag(node: Node) -> str:
    return shorten(str(node.tag).replace(_TAG, "!!"))


def _key_text(key: str) -> str:
    return key if key.isprintable() and 0 < len(key) <= 100 else shorten(key)


def _integer(text: str) -> int:
    digits = text.replace("_", "")
    return int(digits, 0) if re.match(r"[-+]?0[xob]", digits) else int(digits)


def _float(text: str) -> float:
    plain_text = text.replace("_", "").lower()
    return float(re.sub(r"\.(inf|nan)\Z", r"\1", plain_text))


def _boolean(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


_CONVERT: dict[str, Callable[[str], object]] = {
    "int": _integer,
    "float": _float,
    "bool": _boolean,
    "null": lambda text: None,
}
