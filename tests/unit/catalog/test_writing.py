"""The schema that editors take agrees with what the reader takes."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from lfm_tasks.catalog import catalog_schema
from lfm_tasks.catalog.yaml_tree import plain, read_tree

SHIPPED = Path(__file__).parents[3] / "data_catalog.yaml"


def shipped() -> dict[str, Any]:
    tree, problems = read_tree(SHIPPED)
    assert problems == []
    content: dict[str, Any] = plain(tree)
    return {key: value for key, value in content.items() if not key.startswith("x-")}


def test_schema__is_a_schema_and_takes_the_shipped_catalog() -> None:
    schema = catalog_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(shipped(), schema)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"modles": {}},
        {"models": {}},
        {"atlas": {"n_eigenpairs": 0}},
        {"atlas": {"graph": {"metric": "cosine"}}},
        {"datasets": {"digits": {"builtin": "letters"}}},
    ],
)
def test_schema__refuses_what_the_reader_refuses(change: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(shipped() | change, catalog_schema())
