"""Docstrings of public functions name their parameters in numpydoc sections; first lines can be read alone."""

import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FACADES = ("lfm_atlas", "lfm_tasks.catalog", "lfm_tasks.measures", "lfm_tasks.sources", "lfm_tasks.spectral")
# First lines that only make sense beside a neighbor, and topics that are questions.
NEEDS_CONTEXT = re.compile(r"(?:(?:return|yield|give) )?(?:the same|those of|that of|what)\b", re.IGNORECASE)
QUESTION = re.compile(r"(?:what|how|which|where|when|who|whether|why)\b", re.IGNORECASE)


def public_functions() -> Iterator[Any]:
    for facade in map(import_module, FACADES):
        for name in getattr(facade, "__all__", dir(facade)):
            if inspect.isfunction(value := getattr(facade, name)):
                yield pytest.param(value, id=f"{facade.__name__}.{name}")


@pytest.mark.parametrize("function", list(public_functions()))
def test_public_function__has_its_parameters_in_a_section(function: Any) -> None:
    section = re.search(r"Parameters\n-{10}\n(.*?)(?:\n\n\w+\n-{3}|\Z)", inspect.getdoc(function) or "", re.DOTALL)
    named = re.findall(r"^\*{0,2}(\w[\w, ]*)$", section[1], re.MULTILINE) if section else []

    assert ", ".join(named).split(", ") == (list(inspect.signature(function).parameters) or [""])


def first_lines() -> Iterator[str]:
    for package in (ROOT / "lfm_tasks", ROOT / "flows/lfm_atlas"):
        for path in sorted(package.rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    line = (ast.get_docstring(node) or "").partition("\n")[0]
                    yield f"{path.relative_to(ROOT)}:{node.lineno}: {line}"


def test_first_lines_of_modules__name_a_topic() -> None:
    modules = [*(ROOT / "lfm_tasks").rglob("*.py"), *(ROOT / "flows/lfm_atlas").rglob("*.py")]
    lines = {
        str(path.relative_to(ROOT)): ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        for path in modules
    }

    assert [name for name, line in lines.items() if QUESTION.match(line) or NEEDS_CONTEXT.match(line)] == []


def test_first_lines__can_be_read_alone() -> None:
    found = [line for line in first_lines() if NEEDS_CONTEXT.match(line.split(": ", 1)[1])]

    assert found == []


@pytest.mark.parametrize("planted", ["Return what is left.", "The same, of columns.", "Return those of some."])
def test_first_line__that_needs_context_is_seen(planted: str) -> None:
    assert NEEDS_CONTEXT.match(planted)
