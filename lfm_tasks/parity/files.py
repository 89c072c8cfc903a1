"""Output of a comparison: lines for people, JSON for programs, JUnit for CI, and a page with the depth profile."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree

import numpy as np

from lfm_tasks.parity.stage import OF_AN_UPDATE, LayerParity, Parity
from lfm_tasks.parity.transformations import SAME_SPACE
from lfm_tasks.report.parity import render_parity

_STATUS = {"equal": "equal", "within": "within", "beyond": "BEYOND", "failed": "FAILED"}


def parity_as_lines(parity: Parity) -> Iterator[str]:
    """Yield the report: a line for each layer, then where the two part, for which inputs, and into what."""
    yield f"{parity.reference} -> {parity.candidate}: {len(parity.layers)} layers, {parity.n_common:,} common inputs"
    for note in parity.notes:
        yield f"note: {note}"
    yield ""
    width = max(max(len(_name(layer)) for layer in parity.layers), len("layer"))
    yield (
        f"{'layer':<{width}}  {'':<6}  {'rows off':>8}  {'largest':>9}  {'typical':>9}  {'ulp':>8}  {'cosine':>8}"
        f"  {'NaN, inf':>9}  precision"
    )
    for layer in parity.layers:
        if layer.status == "failed":
            yield f"{_name(layer):<{width}}  FAILED  {layer.message}"
            continue
        not_finite = "" if layer.n_not_finite == (0, 0) else f"{layer.n_not_finite[0]}, {layer.n_not_finite[1]}"
        yield (
            f"{_name(layer):<{width}}  {_STATUS[layer.status]:<6}  {layer.share_beyond:>8.1%}"
            f"  {layer.largest_relative:>9.2g}  {layer.typical_relative:>9.2g}  {layer.typical_ulps:>8.3g}"
            f"  {layer.least_cosine:>8.5f}  {not_finite:>9}  {layer.precision}"
        )
    yield ""
    yield from verdict_as_lines(parity)


def _name(layer: LayerParity) -> str:
    return layer.reference if layer.reference == layer.candidate else f"{layer.reference} = {layer.candidate}"


def verdict_as_lines(parity: Parity) -> Iterator[str]:
    """Yield where the two part, what happened there, for which inputs, and what space is left."""
    first = parity.first_broken
    if first is None:
        jump = parity.first_jump
        grows = "" if jump is None else f"; the difference first jumps at {_name(jump)}, within tolerance"
        yield f"the same: every row of every layer is within tolerance{grows}"
        return
    if first.status == "failed":
        yield f"first layer without values: {_name(first)}: {first.message}"
        return
    rows = f"{round(first.share_beyond * first.n_rows):,} of {first.n_rows:,} rows"
    yield f"first beyond tolerance: {_name(first)}, {rows} off by more than {first.tolerance:g} of their largest number"
    if first.words:
        yield f"what happened there: {first.words} [{first.kind}]"
    if first.inputs:
        named = ", ".join(f"{name} ({off:.2g})" for name, off in first.inputs[:5])
        yield f"inputs that differ most there: {named}"
    for layer in parity.layers:
        if layer.geometry is None:
            continue
        alike = layer.geometry
        named = f" ({layer.words})" if layer.words and layer is not first else ""
        numbers = (
            f"overlap {alike.overlap:.3f} ± {alike.overlap_reach:.3f}, CKA {alike.cka:.3f} ± {alike.cka_reach:.3f}"
        )
        yield f"{_name(layer)}: {space_in_words(layer)}{named}; {numbers}"


def space_in_words(layer: LayerParity) -> str | None:
    """Return whether a layer beyond tolerance is the same space all the same; None where that was not compared."""
    if layer.geometry is None:
        return None
    if layer.kind in SAME_SPACE and not layer.words.startswith(OF_AN_UPDATE):
        return "other numbers, same space"
    return "the same geometry" if layer.geometry.is_same else "another geometry"


def parity_as_dict(parity: Parity) -> dict[str, Any]:
    """Return all of a comparison as JSON takes it; numbers that are not finite are None."""
    first, jump = parity.first_broken, parity.first_jump
    return {
        "reference": parity.reference,
        "candidate": parity.candidate,
        "n_common": parity.n_common,
        "notes": list(parity.notes),
        "is_same": first is None,
        "first_beyond": None if first is None else first.reference,
        "first_jump": None if jump is None else jump.reference,
        "layers": [_plain(asdict(layer)) | {"space": space_in_words(layer)} for layer in parity.layers],
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def parity_as_junit(parity: Parity) -> str:
    """Return the layers as a JUnit suite, a test case each."""
    failed = sum(layer.status == "beyond" for layer in parity.layers)
    errors = sum(layer.status == "failed" for layer in parity.layers)
    suite = ElementTree.Element(
        "testsuite", name="lfm-atlas parity", tests=str(len(parity.layers)), failures=str(failed), errors=str(errors)
    )
    for layer in parity.layers:
        case = ElementTree.SubElement(suite, "testcase", classname="parity", name=_printable(_name(layer)))
        if layer.status == "beyond":
            off = f"{layer.share_beyond:.1%} of the rows are off by more than {layer.tolerance:g}"
            words = f"; {layer.words}" if layer.words else ""
            ElementTree.SubElement(case, "failure").set("message", _printable(f"{off}{words}"))
        elif layer.status == "failed":
            ElementTree.SubElement(case, "error").set("message", _printable(layer.message))
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def _printable(text: str) -> str:
    """Return text without control characters, which XML cannot hold."""
    return "".join(character if character.isprintable() else " " for character in text)


def parity_page(parity: Parity) -> str:
    """Return the comparison as a page of HTML: the verdict, the profile along the depth, a table of the layers."""
    return render_parity(parity_as_dict(parity), list(verdict_as_lines(parity)))
