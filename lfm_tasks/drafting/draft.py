"""The text that the first catalogs of all kinds of zoos share, and how values are written in YAML."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CATALOG = "data_catalog.yaml"


@dataclass(frozen=True)
class Draft:
    """A catalog as text, and sentences on what it does not know or leaves out."""

    text: str
    remarks: tuple[str, ...]


def relative(path: Path, home: Path) -> str:
    """Return a path as the catalog says it: relative to its folder, with slashes."""
    return Path(os.path.relpath(path.absolute(), home.absolute())).as_posix()


def as_flow(value: Any) -> str:
    """Return a value as YAML in one line, as a person would write it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {as_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(as_flow(item) for item in value) + "]"
    if isinstance(value, int):
        return str(value)
    text = str(value).replace("${", "$${")
    is_plain = re.fullmatch(r"[A-Za-z_./][A-Za-z0-9_./-]*", text) and text.lower() not in _WORDS
    return text if is_plain else json.dumps(text, ensure_ascii=False)


# What YAML reads as something else than text.
_WORDS = ("true", "false", "yes", "no", "on", "off", "null", "y", "n", "~", ".", ".inf", ".nan")
