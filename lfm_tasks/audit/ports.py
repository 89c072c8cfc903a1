"""The ports of a catalog, its section ``parity``: each is a check of the audit, and a section of its pages.

They are no plug-ins, because they run networks or read recordings, which an atlas does not hold, and because they also
report NaN and infinite values, with which a space could not be compared.
"""

from collections.abc import Callable, Mapping
from typing import Any

from lfm_tasks.catalog import Catalog
from lfm_tasks.catalog.names import did_you_mean
from lfm_tasks.catalog.sections import Port
from lfm_tasks.checks import Finding, Measurement, Unjudged
from lfm_tasks.errors import DataError
from lfm_tasks.parity.files import parity_as_dict, space_in_words, verdict_as_lines
from lfm_tasks.parity.sides import Side, open_side
from lfm_tasks.parity.stage import LayerParity, Parity, compare_sides, options_of_port


def judge_port(catalog: Catalog, port: Port, keep: Callable[[Parity], None]) -> Measurement | Unjudged:
    """Return how many layers of a port are beyond tolerance, and which; ``keep`` gets the whole comparison."""
    try:
        found = compare_sides(
            _model(catalog, port.reference, port), _model(catalog, port.candidate, port), options_of_port(port)
        )
    except DataError as error:
        return Unjudged(f"{error} [{error.reason}]")
    keep(found)
    findings = tuple(_finding(layer) for layer in found.layers if layer.is_broken)
    message = "; ".join(list(verdict_as_lines(found))[:2])
    return Measurement(bool(findings), float(len(findings)), 0.0, message, findings)


def _model(catalog: Catalog, name: str, port: Port) -> Side:
    if name not in catalog.models:
        hint = did_you_mean(name, catalog.models)
        raise DataError("missing_source", f"parity: got no model {name[:100]!r} in the catalog{hint}")
    return open_side(name, catalog, port.dataset)


def _finding(layer: LayerParity) -> Finding:
    return {
        "layer": layer.reference,
        "candidate": layer.candidate,
        "rows_off": _number(layer.share_beyond),
        "largest": _number(layer.largest_relative),
        "tolerance": _number(layer.tolerance),
        "kind": layer.kind,
        "what_happened": layer.words or layer.message,
        "space": space_in_words(layer),
    }


def _number(value: float) -> float | None:
    """Return a number as JSON takes it: None for what is not finite."""
    return float(f"{value:.4g}") if abs(value) < float("inf") else None


def port_facts(catalog: Catalog, name: str, found: Parity) -> Mapping[str, Any]:
    """Return a comparison as ``audit.json`` holds it, and its pages show it, under the name of its check."""
    facts = {"check": name, "sentences": list(verdict_as_lines(found))} | parity_as_dict(found)
    return {key: _hidden(catalog, value) for key, value in facts.items()}


def _hidden(catalog: Catalog, value: Any) -> Any:
    """Return a value whose texts may be published: messages may name paths, and these values of the environment."""
    if isinstance(value, str):
        return catalog.hide_values(value)
    if isinstance(value, dict):
        return {key: _hidden(catalog, one) for key, one in value.items()}
    return [_hidden(catalog, one) for one in value] if isinstance(value, list) else value
