"""Environment variables in the texts of a catalog: programs use their values, messages never show them.

Two lines of defense. A path with a variable in it is an `ExpandedText`: what opens files gets the value, what writes
messages gets ``${NAME}``. What other libraries say of a path, with the value in it, goes through `HiddenValues` before
it leaves the program: failures, errors, logs, the terminal, Prefect.
"""

import json
import logging
import os
import re
import traceback
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote, quote_plus, unquote

from lfm_tasks.errors import REASONS

Pieces = tuple[tuple[str, str], ...]


class ExpandedText(str):
    """Text of a catalog with the values of variables in it.

    It is its value: for `str`, for comparisons, for paths. In f-strings and by `repr`, as messages are made, it is
    ``written``: ``${NAME}`` in the place of each value.

    Parameters
    ----------
    pieces
        The parts of the text, each as it is used and as it is written; for plain text the two are the same.
    """

    pieces: Pieces

    def __new__(cls, pieces: Pieces) -> "ExpandedText":
        """Return the text that the pieces make."""
        text = super().__new__(cls, "".join(used for used, _ in pieces))
        text.pieces = pieces
        return text

    @property
    def written(self) -> str:
        """The text as people may see it."""
        return "".join(written for _, written in self.pieces)

    def __format__(self, specification: str) -> str:
        """Return it as written."""
        return format(self.written, specification)

    def __repr__(self) -> str:
        """Return it as written, in quotes."""
        return repr(self.written)

    def __reduce__(self) -> tuple[type["ExpandedText"], tuple[Pieces]]:
        """Keep both forms when it travels between processes."""
        return type(self), (self.pieces,)


def names_variable(part: str) -> bool:
    """Return whether a part of a path, as written, stands for a value: then no similar name may be printed."""
    return "${" in f"{part}"


# Shorter values, and words of the messages themselves, are hidden only as part of a path that the catalog names.
_MIN_CHARACTERS = 4
# Up to this length only whole words are hidden.
_MAX_WORD = 7
_COMMON = """activations array atlas audit baseline cannot catalog column dataset default error expected file folder
found free from give into layer least line link local many model models name needs none nothing number path
permission place read remove report rows shape source space store such text than there they this train type value
values with"""
_WORDS = frozenset(re.findall(r"[a-z]+", " ".join([*REASONS, *REASONS.values(), _COMMON])))
_FIELD = re.compile(r"\{[^{}]*\}")


@dataclass(frozen=True)
class HiddenValues:
    """Puts ``${NAME}`` in the place of values in any text; false if there is nothing to hide.

    ``rules``: patterns, and what to put in the place of each; ``{}`` in it is what a field such as ``{layer}`` stands
    for. The first that fits counts.
    """

    rules: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        """Return whether there is anything to hide."""
        return bool(self.rules)

    def __repr__(self) -> str:
        """Return how much is hidden, and not what."""
        return f"HiddenValues of {len(self.rules)} rules"

    def __call__(self, text: str) -> str:
        """Return ``text`` without the values; what went through already stays as it is."""
        return _compiled(self.rules).sub(self._replacement, text) if self.rules else text

    def _replacement(self, match: re.Match[str]) -> str:
        number = int(str(match.lastgroup).removeprefix("r"))
        of_rules = set(match.re.groupindex.values())
        fields = [match[group] for group in range(1, match.re.groups + 1) if group not in of_rules]
        return self.rules[number][1].format(*(field for field in fields if field is not None))


NOTHING_HIDDEN = HiddenValues()


@lru_cache(maxsize=32)
def _compiled(rules: tuple[tuple[str, str], ...]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?P<r{number}>{pattern})" for number, (pattern, _) in enumerate(rules)))


def hidden_values(
    variables: Mapping[str, str], texts: Iterable[ExpandedText] = (), root: Path = Path("/"), known: Iterable[str] = ()
) -> HiddenValues:
    """Return the function that hides the values of ``variables`` and the paths that contain them.

    Parameters
    ----------
    variables
        Values by name.
    texts
        The paths of the catalog that these values are in.
    root
        The folder that these paths are relative to.
    known
        Words that are no secrets, though a value may equal one: the names of models and datasets.

    Examples
    --------
    >>> hidden_values({"ZOO": "/scratch/zoo"})("/scratch/zoo/a.npz: not found")
    '${ZOO}/a.npz: not found'
    """
    paths = list(dict.fromkeys(texts))
    words = _WORDS | {word.casefold() for word in known}
    # Parts of paths that stand in the catalog or in its own path for everybody to read.
    openly = {part.casefold() for path in paths for part in PurePath(path.written).parts}
    openly |= {part.casefold() for part in root.parts}
    rules = {pattern: (length, shown) for path in paths for length, pattern, shown in _rules_of_path(path, root)}
    for name, value in variables.items():
        parts = [part for part in PurePath(value).parts if part.casefold() not in openly]
        for hidden in (value, *parts):
            for length, pattern in _patterns_of_value(hidden, words):
                rules.setdefault(pattern, (length, f"${{{{{name}}}}}"))
    # Of two that fit at one place, the one that hides more.
    longest_first = sorted(rules.items(), key=lambda rule: (-rule[1][0], rule[0]))
    return HiddenValues(tuple((pattern, shown) for pattern, (_, shown) in longest_first))


def _rules_of_path(text: ExpandedText, root: Path) -> Iterator[tuple[int, str, str]]:
    """Yield length, pattern and replacement of each form that libraries may give a path, up to its last value."""
    last = max((number for number, (used, written) in enumerate(text.pieces) if used != written), default=-1)
    used, shown = ("".join(piece[side] for piece in text.pieces[: last + 1]) for side in (0, 1))
    if not used.strip("./\\ "):
        return
    rest = str(text)[len(used) :]
    end = r"(?!\w)" if rest[:1] in ("", "/") else "" if rest[0] == "{" else f"(?=/?{re.escape(rest[0])})"
    places = {used: shown} if os.path.isabs(used) or "://" in used else {}
    if "://" not in used:
        absolute, shown_absolute = os.path.normpath(root / used), os.path.normpath(root / shown)
        places |= dict.fromkeys((absolute, os.path.realpath(absolute)), shown_absolute)
        # As files are called while they are written.
        places[_hidden_name(absolute)] = _hidden_name(shown_absolute)
    for place, shown_place in places.items():
        for form in dict.fromkeys((place, quote(place, safe="/:{}"), repr(place)[1:-1], ascii(place)[1:-1])):
            if len(form.strip("/")) > 1 and root != Path(form):
                yield len(form), _pattern(form) + end, _template(shown_place)
    # The part of the path that has other text beside the value in it.
    part, shown_part = (side.rpartition("/")[2] + rest.partition("/")[0] for side in (used, shown))
    is_whole = "/" not in text.pieces[last][0]
    if is_whole and len(part) >= _MIN_CHARACTERS and re.sub(r"\$\{[^}]*\}", "", shown_part):
        yield len(part), rf"(?<![\w{{]){_pattern(part)}(?!\w)", _template(shown_part)


def _hidden_name(path: str) -> str:
    return os.path.join(os.path.dirname(path), f".{os.path.basename(path)}")


def _pattern(path: str) -> str:
    """Return a pattern of ``path`` in which each field stands for a name."""
    return r"([^/\s'\"]+)".join(map(re.escape, _FIELD.split(path)))


def _template(shown: str) -> str:
    """Return ``shown`` for `str.format`, its fields empty and its variables as they are."""
    parts = re.split(r"(\$\{[^}]*\})", shown)
    texts = (part if number % 2 else _FIELD.split(part) for number, part in enumerate(parts))
    return "".join(_doubled(text) if isinstance(text, str) else "{}".join(map(_doubled, text)) for text in texts)


def _doubled(text: str) -> str:
    """Return ``text`` for `str.format`, which makes one brace of two."""
    return re.sub(r"([{}])", r"\1\1", text)


def _patterns_of_value(value: str, words: Collection[str]) -> Iterator[tuple[int, str]]:
    """Yield length and pattern of each form that a value may have in a message: escaped, encoded, cut."""
    if value.isdigit() or value.casefold() in words or not value.strip("./\\ "):
        return
    if len(value) < _MIN_CHARACTERS:
        yield len(value), rf"(?<=['\"]){re.escape(value)}(?=['\"])"
        return
    before, after = (r"(?<![\w{])", r"(?!\w)") if len(value) <= _MAX_WORD else (r"(?<!\$\{)", "")
    forms = [value, value.rstrip("/"), unquote(value), quote(value), quote(value, safe=""), quote_plus(value)]
    forms += [unicodedata.normalize(kind, value) for kind in ("NFC", "NFD")]
    forms += [repr(value)[1:-1], ascii(value)[1:-1], json.dumps(value)[1:-1], value[:60]]
    for form in dict.fromkeys(forms):
        if len(form) >= _MIN_CHARACTERS:
            yield len(form), before + re.escape(form) + after


@contextmanager
def hiding_values(hidden: HiddenValues) -> Iterator[None]:
    """Hide values in the error that ends the block, and in what it was raised from: text goes into logs and records."""
    try:
        yield
    except BaseException as error:
        if not hidden or _hide_in_error(error, hidden):
            raise
        # An error that makes its text itself.
        raise RuntimeError(hidden(f"{type(error).__name__}: {error}")) from None


def _hide_in_error(error: BaseException, hidden: HiddenValues) -> bool:
    """Hide values in an error and its causes, which stay the errors that they are; return whether that worked."""
    waiting: list[BaseException | None] = [error]
    seen: list[BaseException] = []
    while waiting:
        one = waiting.pop()
        if one is None or one in seen:
            continue
        seen.append(one)
        waiting += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]
        one.args = tuple(hidden(str(part)) if isinstance(part, str) else part for part in one.args)
        for name in ("filename", "filename2", "strerror", "__notes__"):
            value = getattr(one, name, None)
            if isinstance(value, str):
                setattr(one, name, hidden(str(value)))
            elif isinstance(value, list):
                setattr(one, name, [hidden(str(note)) for note in value])
    return all(hidden(str(one)) == str(one) for one in seen)


@contextmanager
def hiding_logs(hidden: HiddenValues) -> Iterator[None]:
    """Hide values in all that this process logs while the block runs, tracebacks included."""
    if not hidden:
        yield
        return
    make_record = logging.getLogRecordFactory()

    def make_hidden_record(*arguments: Any, **options: Any) -> logging.LogRecord:
        record = make_record(*arguments, **options)
        # Logging itself reports one whose arguments do not fit.
        with suppress(TypeError, ValueError, KeyError):
            record.msg, record.args = hidden(record.getMessage()), ()
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text, record.exc_info = hidden("".join(traceback.format_exception(*record.exc_info))), None
        return record

    logging.setLogRecordFactory(make_hidden_record)
    try:
        yield
    finally:
        logging.setLogRecordFactory(make_record)
