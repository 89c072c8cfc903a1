"""What a person reads of a fitted map: which candidate was chosen and why, all of them in one table."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lfm_tasks.stages.transfers.named import FittedMap
from lfm_tasks.stores.named_maps import NamedMap

_COLUMNS = {
    "held_out": "held out",
    "typical_rank": "rank",
    "round_trip": "round trip",
    "accuracy": "accuracy",
    "mrr": "MRR",
    "stitched_accuracy": "stitched",
}


def as_lines(fitted: FittedMap) -> str:
    """Return the table of a fitted map with what stands beside it; columns without a number are left out."""
    named, facts = fitted.named, fitted.facts
    known = f"{facts['n_anchors']} anchors" if named.regime == "anchors" else f"regime {named.regime}"
    lines = [
        f"{named.source} -> {named.target}: {known}, {facts['n_common']} common points",
        f"chosen: {facts['chosen']}",
        f"why: {facts['why']}",
        "",
        *_table(facts["table"], facts["chosen"]),
        "",
    ]
    if named.regime == "full":
        lines.append("accuracy and MRR are of points that the fit has seen; held out and rank are not")
    if facts["fit"] is not None:
        kinds = ("residual", "orthogonality_error", "commutativity_error")
        errors = ", ".join(f"{kind.replace('_', ' ')} {facts['fit'][kind]:.3f}" for kind in kinds)
        lines.append(f"functional map: {errors}")
    if facts["own_accuracy"] is not None:
        beside = f"{named.target}'s own {facts['own_accuracy']:.3f}"
        if facts["all_pairs_accuracy"] is not None:
            beside += f", all {facts['n_common']} pairs known {facts['all_pairs_accuracy']:.3f}"
        lines.append(f"stitched, beside: {beside}")
    else:
        lines.append(f"not stitched: {facts['no_stitching']}")
    state = "fitted" if fitted.is_new else "nothing to compute"
    lines.append(f"map {named.name} ({state}); next: lfm-atlas transfer {named.name} input.npy output.npy")
    return "\n".join(lines)


def as_json(fitted: FittedMap) -> str:
    """Return the same for programs."""
    content = {**asdict(fitted.named), **fitted.facts, "is_new": fitted.is_new}
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)


def listed(maps: Iterable[NamedMap]) -> str:
    """Return a line for each named map."""
    found = list(maps)
    width = max((len(one.name) for one in found), default=0)
    return "\n".join(
        f"{one.name:<{width}}  {one.source} -> {one.target}  "
        f"{f'{one.n_anchors} anchors' if one.regime == 'anchors' else one.regime}"
        for one in found
    )


def _table(table: Sequence[Mapping[str, Any]], chosen: str) -> list[str]:
    columns = [key for key in _COLUMNS if any(row.get(key) is not None for row in table)]
    width = max(len(row["name"]) for row in table)
    lines = [" " * (width + 2) + "".join(f"{_COLUMNS[key]:>12}" for key in columns)]
    for row in table:
        cells = "".join(f"{_cell(key, row.get(key)):>12}" for key in columns)
        lines.append(f"{'*' if row['name'] == chosen else ' '} {row['name']:<{width}}{cells}")
    return lines


def _cell(key: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if key == "typical_rank" else f"{value:.3f}"
