"""The examples in docstrings run and give what they say."""

import doctest
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

import lfm_atlas
from lfm_atlas import open_atlas
from lfm_atlas.in_memory import Score
from lfm_atlas.measure_functions import MeasureFunction
from lfm_tasks.published.atlas import Atlas
from lfm_tasks.published.plots import AtlasPlots
from lfm_tasks.published.rows import Rows
from lfm_tasks.spectral.transfer.selection import FittedMap

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    ".".join(path.relative_to(root).with_suffix("").parts)
    for root, package in ((ROOT, "lfm_tasks"), (ROOT / "flows", "lfm_atlas"))
    for path in (root / package).rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


# Their examples use the atlas of the shipped zoo, in the working directory.
WITH_ATLAS = ("lfm_tasks.published.atlas", "lfm_tasks.published.plots")


@pytest.mark.parametrize("name", [name for name in MODULES if name not in WITH_ATLAS])
def test_examples__give_what_they_say(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.attempted > 0
    assert results.failed == 0


@pytest.mark.parametrize("name", WITH_ATLAS)
def test_examples_of_an_atlas__give_what_they_say(
    name: str, zoo_folder_built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib.pyplot").switch_backend("agg")
    monkeypatch.chdir(zoo_folder_built)
    with open_atlas("atlas") as atlas:
        results = doctest.testmod(
            importlib.import_module(name),
            extraglobs={"atlas": atlas, "open_atlas": open_atlas},
            optionflags=doctest.NORMALIZE_WHITESPACE,
        )
    assert results.attempted > 5
    assert results.failed == 0


PUBLIC = (AtlasPlots, Rows, Score, MeasureFunction, FittedMap, Atlas, *map(type, [lfm_atlas.measures]))


def public_members() -> Iterator[tuple[str, object]]:
    """Yield every name that ``lfm_atlas`` shows, and the members of its classes and of what they return."""
    classes = [value for name in dir(lfm_atlas) if isinstance(value := getattr(lfm_atlas, name), type)]
    yield from ((name, getattr(lfm_atlas, name)) for name in dir(lfm_atlas) if name != "__version__")
    for one in (*classes, *PUBLIC):
        yield one.__name__, one
        for name in vars(one):
            member = inspect.getattr_static(one, name)
            member = member.fget if isinstance(member, property) else member
            if not name.startswith("_") and inspect.isfunction(member):
                yield f"{one.__name__}.{name}", member


@pytest.mark.parametrize(("name", "value"), [pytest.param(*one, id=one[0]) for one in public_members()])
def test_public_name__has_an_example(name: str, value: object) -> None:
    assert ">>> " in (inspect.getdoc(value) or "")
