"""Words of a catalog: allowed names, patterns with fields and globs, suggestions for misspelled names, problems."""

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from lfm_tasks.errors import DataError
from lfm_tasks.variables import ExpandedText

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
# https://learn.microsoft.com/windows/win32/fileio/naming-a-file: with any extension, in any case.
_RESERVED = frozenset({"con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(10)})
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_MAX_LAYER_NAME = 256  # characters


def check_name(name: str) -> str:
    """Return the ``name`` of a model or dataset; ValueError if it could not be a file name everywhere."""
    if not _NAME.match(name):
        raise ValueError(
            f"got the name {shorten(name)}, expected 1 to 128 of A-Z a-z 0-9 . _ -, a letter or digit first"
        )
    if name.split(".")[0].lower() in _RESERVED:
        raise ValueError(f"got the name {name!r}, which Windows reserves for a device. Rename it")
    if name.endswith("."):
        raise ValueError(f"got the name {name!r}, which ends in a dot that Windows drops. Rename it")
    return name


def check_layer_name(name: str) -> str:
    """Return the ``name`` (or pattern) of a layer, any visible text; ValueError if it is not."""
    if not 1 <= len(name) <= _MAX_LAYER_NAME:
        problem = f"got a layer name of {len(name)} characters, expected 1 to {_MAX_LAYER_NAME}"
        raise ValueError(f"{problem}: {shorten(name)}")
    return check_visible(name)


def check_visible(text: str) -> str:
    """Return ``text``; ValueError if it holds control characters, which would break logs and paths."""
    if any(unicodedata.category(character) in _UNSEEN for character in text):
        raise ValueError(f"got invisible or control characters in {shorten(text)}, expected visible text. Remove them")
    return text


def colliding(names: Iterable[str]) -> dict[str, str]:
    """Return each name that equals an earlier one but for upper and lower case, with that earlier one."""
    first: dict[str, str] = {}
    return {name: earlier for name in names if (earlier := first.setdefault(name.casefold(), name)) != name}


def shorten(text: str) -> str:
    """Return ``text`` quoted, printable, and cut after 60 characters."""
    return ascii(text) if len(text) <= 60 else f"{text[:60]!a}..."


@dataclass(frozen=True, order=True)
class Problem:
    """One mistake in a catalog: ``where`` is the dotted key, ``line`` counts from 1 (0: the file as a whole)."""

    file: str
    line: int
    where: str
    message: str

    def __str__(self) -> str:
        """``file:line: where: message``, on one line."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (place, self.where, self.message) if part)


class CatalogError(Exception):
    """A catalog that cannot be used; ``problems`` holds all its mistakes, in the order of their lines.

    ``usable``: the catalog without them, where that is enough to open its sources and tell of their mistakes as well.
    """

    def __init__(self, problems: Iterable[Problem], usable: Any = None) -> None:
        self.usable = usable
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type["CatalogError"], tuple[tuple[Problem, ...]]]:
        """Keep the problems when the error travels between processes."""
        return type(self), (self.problems,)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` with the nearest known names, or all known names when none is near.

    Examples
    --------
    >>> did_you_mean("formt", ["format", "path"])
    "; did you mean 'format'?"
    """
    names = sorted(known)
    near = _near(name, names)
    if near:
        return f"; did you mean {' or '.join(repr(candidate) for candidate in near)}?"
    if not names:
        return ""
    shown = ", ".join(names[:12])
    return f"; there is {shown}" + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def is_near(name: str, known: Iterable[str]) -> bool:
    """Return whether any known name is spelled almost like ``name``."""
    return bool(_near(name, known))


def _near(name: str, known: Iterable[str]) -> list[str]:
    lowered = {candidate.casefold(): candidate for candidate in known}
    return [lowered[match] for match in get_close_matches(name.casefold()[:200], lowered, n=3, cutoff=0.6)]


def alias_of(name: str) -> str | None:
    """Return the name here of a model such as ``openai/clip-vit``, as in the hub's cache; None for other names.

    Examples
    --------
    >>> alias_of("openai/clip-vit"), alias_of("clip"), alias_of("../clip")
    ('openai--clip-vit', None, None)
    """
    parts = name.split("/")
    try:
        return check_name("--".join(check_name(part) for part in parts)) if len(parts) > 1 else None
    except ValueError:
        return None


def describe(value: object) -> str:
    """Return a value in the words of YAML, on one line of at most about 80 characters."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {str(value)[:60]}" if abs(value) < 10**50 else "a huge number"
        case str():
            return f"the text {value!r}" if len(value) <= 60 else f"the text {value[:60]!r}..."
        case dict():
            return "a mapping" if value else "an empty mapping"
        case list() | tuple():
            return "a list" if value else "an empty list"
        case _:
            return f"a {type(value).__name__}"


_WILDCARD = re.compile(r"[*?[]")


def has_wildcard(path: str) -> bool:
    """Return whether a path is a glob of several files.

    Examples
    --------
    >>> has_wildcard("images/*/*.png"), has_wildcard("images.parquet")
    (True, False)
    """
    return _WILDCARD.search(path) is not None


_FIELD = re.compile(r"\{([^{}]*)\}")


def pattern_fields(pattern: str) -> list[str]:
    """Return the names in braces, in order; ValueError for a brace that stands alone.

    Examples
    --------
    >>> pattern_fields("zoo/{model}/{layer}.npy")
    ['model', 'layer']
    """
    if re.search(r"[{}]", _FIELD.sub("", pattern)):
        raise ValueError(f"got a single brace in {pattern[:100]!r}, expected {{model}}, {{layer}} or {{dataset}}")
    return _FIELD.findall(pattern)


def check_fields(pattern: str, allowed: Collection[str]) -> str:
    """Return ``pattern``; ValueError if it names other fields than ``allowed``, or ``{layer}`` twice."""
    names = pattern_fields(pattern)
    for name in names:
        if name not in allowed:
            hint = did_you_mean(name, allowed)
            raise ValueError(f"got {{{name[:60]}}}, expected one of {', '.join(f'{{{a}}}' for a in allowed)}{hint}")
    for name in ("layer", "id", "shard"):
        if names.count(name) > 1:
            raise ValueError(f"got {{{name}}} {names.count(name)} times, expected it once: which one names it?")
    return pattern


def fill_pattern(pattern: str, **values: str) -> str:
    r"""Return ``pattern`` with its fields replaced; a field without a value stays as it is.

    A value never adds a folder to a path: ValueError if it holds ``/``, ``\``, NUL or is ``..``.

    Parameters
    ----------
    pattern
        Text with fields such as ``{model}``.
    values
        Value of each field by name.

    Raises
    ------
    ValueError
        If a value holds ``/``, ``\``, NUL or is ``..``.

    Examples
    --------
    >>> fill_pattern("zoo/{model}/{layer}.npy", model="resnet18")
    'zoo/resnet18/{layer}.npy'
    """
    for name, value in values.items():
        if value in {"", ".", ".."} or re.search(r"[/\\\x00]", value):
            raise ValueError(f"got {value[:60]!r} for {{{name}}}, expected one plain name without folders")

    def fill(text: str) -> str:
        return _FIELD.sub(lambda match: values.get(match[1], match[0]), text)

    if isinstance(pattern, ExpandedText):
        pieces = ((fill(used), fill(written) if used == written else written) for used, written in pattern.pieces)
        return ExpandedText(tuple(pieces))
    return fill(pattern)


def expand_layers(patterns: Sequence[str], layer_names: Sequence[str]) -> tuple[str, ...]:
    """Return the layers that ``patterns`` choose, in the model's order.

    A pattern is a glob (``*``, ``?``, ``[ab]``) or a full name; with ``!`` in front it excludes layers. Where every
    pattern excludes, it excludes from all layers.

    Parameters
    ----------
    patterns
        Globs and names, ``!`` in front excludes.
    layer_names
        Layers of the model, in its order.

    Raises
    ------
    DataError
        ``unknown_layer``, if a positive pattern matches nothing or nothing is left.

    Examples
    --------
    >>> expand_layers(["conv*", "!*.down"], ["conv1", "conv1.down", "fc"])
    ('conv1',)
    """
    included, excluded = included_and_excluded(patterns)
    for pattern in included:
        if not any(matches(name, pattern) for name in layer_names):
            hint = did_you_mean(pattern, layer_names) if layer_names else "; the model has no layers"
            raise DataError("unknown_layer", f"no layer matches {pattern[:100]!r}{hint}")
    chosen = tuple(
        name
        for name in layer_names
        if (not included or any(matches(name, pattern) for pattern in included))
        and not any(matches(name, pattern) for pattern in excluded)
    )
    if not chosen:
        raise DataError("unknown_layer", f"of {len(layer_names)} layers none is left. Remove a pattern with !")
    return chosen


def included_and_excluded(patterns: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the patterns without ``!`` in front, and those with it, without the ``!``.

    Examples
    --------
    >>> included_and_excluded(["conv*", "!*.down"])
    (['conv*'], ['*.down'])
    """
    included = [pattern for pattern in patterns if not pattern.startswith("!")]
    return included, [pattern[1:] for pattern in patterns if pattern.startswith("!")]


def matches(name: str, pattern: str) -> bool:
    """Return whether a glob, or a full name, fits ``name``."""
    return name == pattern or fnmatchcase(name, pattern)
