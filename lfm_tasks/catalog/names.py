"""Which names may be used: those of models and datasets become paths, those of layers stay data."""

import re
import unicodedata
from collections.abc import Iterable

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
# https://learn.microsoft.com/windows/win32/fileio/naming-a-file: with any extension, in any case.
_RESERVED = frozenset({"con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(10)})
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_MAX_LAYER_NAME = 256  # characters


def check_name(name: str) -> str:
    """Return the ``name`` of a model or dataset; ValueError if it could not be a file name everywhere."""
    if not _NAME.match(name):
        raise ValueError(
            f"found the name {shorten(name)}, needs 1 to 128 of A-Z a-z 0-9 . _ -, a letter or digit first"
        )
    if name.split(".")[0].lower() in _RESERVED:
        raise ValueError(f"found the name {name!r}, which Windows reserves for a device: rename it")
    if name.endswith("."):
        raise ValueError(f"found the name {name!r}, which ends in a dot that Windows drops: rename it")
    return name


def check_layer_name(name: str) -> str:
    """Return the ``name`` (or pattern) of a layer, any visible text; ValueError if it is not."""
    if not 1 <= len(name) <= _MAX_LAYER_NAME:
        raise ValueError(f"found a layer name of {len(name)} characters, needs 1 to {_MAX_LAYER_NAME}: {shorten(name)}")
    return check_visible(name)


def check_visible(text: str) -> str:
    """Return ``text``; ValueError if it holds control characters, which would break logs and paths."""
    if any(unicodedata.category(character) in _UNSEEN for character in text):
        raise ValueError(f"found invisible or control characters in {shorten(text)}, needs visible text: remove them")
    return text


def colliding(names: Iterable[str]) -> dict[str, str]:
    """Return each name that equals an earlier one but for upper and lower case, with that earlier one."""
    first: dict[str, str] = {}
    return {name: earlier for name in names if (earlier := first.setdefault(name.casefold(), name)) != name}


def shorten(text: str) -> str:
    """Return ``text`` quoted, printable, and cut after 60 characters."""
    return ascii(text) if len(text) <= 60 else f"{text[:60]!a}..."
