"""The JSON schema of a catalog, for editors that complete and check while one writes."""

from typing import Any

from lfm_tasks.catalog.model import CatalogText, Model

_SCHEMA_VERSION = "https://json-schema.org/draft/2020-12/schema"
_PART_OF_A_MODEL = ("Model", "Discovery", "ActivationsSource", "OnnxModel", "TorchModel")


def catalog_schema() -> dict[str, Any]:
    """Return the JSON schema (2020-12) of ``data_catalog.yaml``.

    It is laxer than `read_catalog` in one point: a model's keys may be missing, because ``defaults`` may bring them.
    """
    schema = CatalogText.model_json_schema()
    for name in _PART_OF_A_MODEL:
        schema["$defs"][name].pop("required", None)
    schema["anyOf"] = [{"required": [key], "properties": {key: {"minProperties": 1}}} for key in ("models", "discover")]
    schema["properties"]["defaults"] = {"$ref": f"#/$defs/{Model.__name__}"}
    schema["patternProperties"] = {"^(x-|_)": {}}
    return {"$schema": _SCHEMA_VERSION, **schema, "title": "Catalog of lfm-atlas"}
