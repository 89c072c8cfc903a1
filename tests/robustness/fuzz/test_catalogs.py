"""Catalogs that are changed in their structure: each is read or refused with its mistakes, within seconds."""

import copy
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from lfm_tasks.catalog import CatalogError, read_catalog

SECONDS = float(os.environ.get("LFM_ATLAS_FUZZ_SECONDS", "60"))
SHIPPED = Path(__file__).parents[3] / "data_catalog.yaml"
MOST_SECONDS = 5.0  # a catalog

pytestmark = pytest.mark.fuzz
# ruff: noqa: E501, S311

VALUES: list[Any] = [
    None, True, 0, -1, 2**63, 10**400, 1e308, float("nan"), float("inf"), "", "x" * 10_000, "../..", "/etc/passwd", "\0",
    "{model}{layer}{layer}", "{", "${", "${A:-${B}}", "a/b", "CON", "\u202e", "\ud7ff", [], {}, [[]], {"a": {}}, ["*"] * 500,
    {"path": "a.npy", "key": {"path": "b"}}, {"count": 10**30, "seed": -1}, "!!python/object:os.system", "<<", "2024-01-01",
]  # fmt: skip
TEXTS = [
    "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(f"{n}: &{n} [{', '.join([f'*{p}'] * 9)}]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True)),
    "a: &a\n  <<: *a\n", "&a [*a]", "[" * 5000, "{a: " * 3000, "- " * 3000 + "x", "!!python/object/apply:os.system [id]",
    "!!python/name:os.system", "!<tag:yaml.org,2002:python/module:os> x", "a: 1\na: 2\n", "? [a]\n: b", "? {a: b}\n: c",
    "%YAML 9.9\n---\na: 1", "--- a\n--- b", "a: " + "9" * 5000, "a: 0x" + "f" * 5000, "a: 1e" + "9" * 400, "a: 1_0:59:59.5",
    "a: !!float .", "a: !!int x", "a: !!binary '?'", "a: !!timestamp 9999-99-99", "a: !!set {b}", "a: !!omap [b: 1]",
    "\ufeffa: 1", "a: \"\\ud800\"", "a: \"\\x00\"", "a: |9\n x", "a: >-2\n", "a: *b", "&a a: &a b", "a: [", "'", '"', "\t", "...",
]  # fmt: skip


def nodes(tree: Any) -> list[tuple[Any, Any]]:
    """Return each container of a tree with each of its keys."""
    places = list(tree) if isinstance(tree, dict) else list(range(len(tree))) if isinstance(tree, list) else []
    return [(tree, place) for place in places] + [found for place in places for found in nodes(tree[place])]


def changed(tree: Any, chance: random.Random) -> Any:
    """Return the tree with one to four values replaced, removed, doubled, exchanged or put elsewhere."""
    tree = copy.deepcopy(tree)
    for _ in range(chance.randint(1, 4)):
        found = nodes(tree)
        if not found:
            return tree
        (container, place), (other, elsewhere) = chance.choice(found), chance.choice(found)
        match chance.randrange(5):
            case 0:
                container[place] = copy.deepcopy(chance.choice(VALUES))
            case 1:
                del container[place]
            case 2:
                container[place] = copy.deepcopy(other[elsewhere])
            case 3 if isinstance(container, dict):
                key = chance.choice(VALUES)
                container[key if isinstance(key, str) else str(key)[:300]] = copy.deepcopy(other[elsewhere])
            case _:
                container[place] = [copy.deepcopy(container[place])] * chance.randint(0, 3)
    return tree


def test_changed_catalogs__are_read_or_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shipped, chance, path = YAML(typ="safe").load(SHIPPED.read_text()), random.Random(0), tmp_path / "c.yaml"
    tried = read = 0
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        if tried < len(TEXTS):
            path.write_bytes(TEXTS[tried].encode("utf-8", "surrogatepass"))
        else:
            with path.open("w", encoding="utf-8") as file:
                YAML(typ="safe").dump(changed(shipped, chance), file)
        start = time.monotonic()
        try:
            read_catalog(path, {})
            read += 1
        except CatalogError:
            pass
        assert time.monotonic() - start < MOST_SECONDS, path.read_text()[:2000]
        tried += 1
    with capsys.disabled():
        sys.stdout.write(f"\ncatalog: {tried:,} inputs, {read:,} read\n")
    assert tried > len(TEXTS)
