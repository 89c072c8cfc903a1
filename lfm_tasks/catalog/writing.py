"""Writes a catalog as it was understood: variables, defaults and ``discover`` worked in."""

import io
from typing import Any

from ruamel.yaml import YAML

from lfm_tasks.catalog.model import Catalog, CatalogText, Model
from lfm_tasks.config import Settings


def catalog_yaml(catalog: Catalog) -> str:
    """Return YAML that `read_catalog` reads as the same models and settings, if it lies in the same folder.

    Settings of the run are written out; a dataset or a model has what differs from what it would be without saying.
    ``storage`` stays the name that it is: what it gives access to is never part of a catalog.
    """
    sections: dict[str, Any] = {"version": catalog.version}
    for name in ("datasets", "models", "comparisons"):
        own = getattr(catalog, name)
        if own:
            sections[name] = {key: value.model_dump(mode="json", exclude_defaults=True) for key, value in own.items()}
    for name in ("atlas", "cluster"):
        sections[name] = _written_out(getattr(catalog, name))
    maps = catalog.atlas.maps
    # What does not fit a regime may not stand beside it, not even as the default that it is.
    sections["atlas"]["maps"] = {"regime": maps.regime, **maps.model_dump(mode="json", exclude_defaults=True)}
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    # Models keep their order.
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.allow_unicode = True
    yaml.width = 4096
    text = io.StringIO()
    yaml.dump(_escaped({name: value for name, value in sections.items() if value}), text)
    return text.getvalue()


def _written_out(settings: Settings) -> dict[str, Any]:
    """Return all settings; those that are none, only where without them there would be some."""
    fields = type(settings).model_fields
    switched_off = {name: None for name, value in settings if value is None and fields[name].default is not None}
    return settings.model_dump(mode="json", exclude_none=True) | switched_off


def _escaped(value: Any) -> Any:
    """Return ``value`` with every ``${`` written so that it is read as text, not as a variable."""
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    return [_escaped(item) for item in value] if isinstance(value, list) else value


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
