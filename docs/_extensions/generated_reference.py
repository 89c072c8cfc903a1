"""Insert into pages what the program knows (commands, catalog keys, columns, measures), and files of the root.

A page holds a line ``<!-- generated: commands -->`` or ``<!-- file: CHANGELOG.md -->``; the build puts the text there,
so the reference cannot differ from the program.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
MARK = re.compile(r"^<!-- (generated|file): ([\w./]+) -->$", re.MULTILINE)
# Files outside docs/ that are pages of the site.
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
    "SECURITY.md": "security_policy.md",
    "deploy/licenses.md": "licenses.md",
}


def commands() -> str:
    """Return every command of ``lfm-atlas`` with its arguments and options."""
    from lfm_atlas.cli.main import app

    text = app.generate_docs(output_format="markdown", usage_name="lfm-atlas")
    # From the first command on: the page has a title, and the theme a table of contents. Cyclopts takes the module that
    # Python runs (python -m sphinx) for a part of the command.
    return re.sub(r" -m [\w.]+", "", text[text.index("\n## lfm-atlas ") :])


def columns() -> str:
    """Return the columns of every published table."""
    from lfm_tasks.stores.atlas.schema import Table, columns_as_markdown

    return "\n\n".join(f"## `{table}.parquet`\n\n{columns_as_markdown(table)}" for table in get_args(Table))


def measures() -> str:
    """Return every measure: its name, whether high or low means alike, its range and what it computes."""
    from lfm_atlas import measures
    from lfm_tasks.measures.registry import shipped_measures

    rows = []
    for name, measure in sorted(shipped_measures().items()):
        low, high = (f"{end:g}".replace("inf", "∞") for end in measure.value_range)
        rows.append(f"| `{name}` | {measure.kind} | {low} to {high} | {_cell(measures[name].convention)} |")
    return "\n".join(["| measure | kind | range | value |", "|---|---|---|---|", *rows])


def catalog() -> str:
    """Return every section of a catalog: its keys with their types, defaults and meanings."""
    from lfm_tasks.catalog import catalog_schema

    schema = catalog_schema()
    parts = ["## Top level", _section(schema, schema["$defs"])]
    places = _places(schema)
    for name, place in places.items():
        title = place if list(places.values()).count(place) == 1 else f"{place} ({name})"
        parts += [f"({name.lower()})=\n## {title}", _section(schema["$defs"][name], schema["$defs"])]
    return "\n\n".join(parts)


GENERATED: dict[str, Callable[[], str]] = {
    "commands": commands,
    "columns": columns,
    "measures": measures,
    "catalog": catalog,
}


def _places(schema: dict[str, Any]) -> dict[str, str]:
    """Return where in a catalog each definition stands first, such as ``atlas.graph``, from the top down."""
    places: dict[str, str] = {}
    levels = [("", schema)]
    while levels:
        prefix, definition = levels.pop(0)
        for key, value in definition["properties"].items():
            for name in re.findall(r"#/\$defs/(\w+)", json.dumps(value)):
                found = schema["$defs"][name]
                if name not in places and "properties" in found:
                    named = ".NAME" if f'/{name}"' in json.dumps(value.get("additionalProperties", "")) else ""
                    places[name] = f"{prefix}{key}{named}"
                    levels.append((f"{places[name]}.", found))
    return places


def _section(definition: dict[str, Any], definitions: dict[str, Any]) -> str:
    """Return the description of an object of the schema and a table of its keys."""
    required = definition.get("required", ())
    rows = []
    for key, value in definition["properties"].items():
        # The defaults of an object stand in its section.
        shown = value.get("default", {})
        default = "" if isinstance(shown, dict) else f"`{json.dumps(shown)}`"
        cells = (_type(value), "required" if key in required else default, _meaning(value, definitions))
        rows.append(f"| `{key}` | {' | '.join(_cell(cell) for cell in cells)} |")
    description = definition.get("description", "").replace("``", "`")
    return "\n".join([description, "", "| key | type | default | meaning |", "|---|---|---|---|", *rows])


def _meaning(value: dict[str, Any], definitions: dict[str, Any]) -> str:
    """Return the description of a key; where it has none, that of the only object that it takes."""
    names = set(re.findall(r"#/\$defs/(\w+)", json.dumps(value)))
    object_text = definitions[names.pop()].get("description", "") if len(names) == 1 else ""
    return str(value.get("description") or object_text.partition("\n\n")[0])


def _type(value: dict[str, Any]) -> str:
    """Return the type of a key in a few words; a type with keys is a link to its section."""
    return " or ".join(dict.fromkeys(_types(value)))


def _types(value: dict[str, Any]) -> Iterator[str]:
    for union in ("anyOf", "oneOf"):
        if union in value:
            for one in value[union]:
                yield from _types(one)
            return
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        yield "any value" if name == "JsonValue" else f"[{name}](#{name.lower()})"
    elif "enum" in value:
        yield ", ".join(f"`{json.dumps(one)}`" for one in value["enum"])
    elif "const" in value:
        yield f"`{json.dumps(value['const'])}`"
    elif value.get("type") == "array":
        yield f"list of {_type(value['items'])}" if "items" in value else "list"
    elif isinstance(entries := value.get("additionalProperties"), dict):
        yield f"mapping of names to {_type(entries)}"
    else:
        yield {"string": "text", "object": "mapping"}.get(value.get("type", ""), value.get("type", "any"))


def _cell(text: str) -> str:
    """Return text that can stand in a cell of a table."""
    return text.replace("``", "`").replace("|", "\\|").replace("\n", " ")


def insert(app: "Sphinx", page: str, source: list[str]) -> None:
    """Put the text in place of the marks of a page, and turn links to files of the root into links to their pages."""
    up = "../" * (page.count("/") + 1)
    text = MARK.sub(lambda mark: GENERATED[mark[2]]() if mark[1] == "generated" else _root_file(mark[2]), source[0])
    for file, target in PAGES.items():
        text = text.replace(f"]({up}{file}", f"]({up[3:]}{target}")
    source[0] = text


def _root_file(name: str) -> str:
    """Return a file of the root with its links as they are seen from docs/."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.sub(r"\]\((?!https?:|#)(docs/)?", lambda link: "](" if link[1] else "](../", text)


def setup(app: "Sphinx") -> dict[str, Any]:
    """Register the extension."""
    app.connect("source-read", insert)
    return {"parallel_read_safe": True}
