"""One map that a person asks for by the names of its spaces: computed where it is missing, fitted, and named."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lfm_tasks.catalog import Catalog
from lfm_tasks.catalog.names import did_you_mean
from lfm_tasks.errors import DataError
from lfm_tasks.runtime.run import Run
from lfm_tasks.sources.opening import read_dataset
from lfm_tasks.stages.activations.stage import record_activations
from lfm_tasks.stages.inventory.requests import PairSelection
from lfm_tasks.stages.inventory.stage import PlannedSpace, Zoo, plan_model
from lfm_tasks.stages.transfers.apply import class_labels
from lfm_tasks.stages.transfers.job import AnchorSpec, MapSide, map_job, store_map
from lfm_tasks.stores.named_maps import NamedMap, check_map_name, write_named_map
from lfm_tasks.workers.pool import JobFailure

_NO_NAME = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True)
class FittedNamedMap:
    """A named map, what its receipt says of it, and whether it was fitted now."""

    named: NamedMap
    facts: Mapping[str, Any]
    is_new: bool


def fit_named_map(run: Run, source: str, target: str, known: AnchorSpec, name: str | None = None) -> FittedNamedMap:
    """Record what is missing of two spaces (``model/layer``), fit their map if it is not there, and name it.

    Raises
    ------
    ReasonError
        For a space that is not there or cannot be used, for anchors that do not fit it, for a name that is taken.
    """
    planned = [find_space(run.catalog, side) for side in (source, target)]
    datasets = [one.space.dataset for one in planned]
    if datasets[0] != datasets[1]:
        found = f"found {source} on the dataset {datasets[0]} and {target} on {datasets[1]}"
        raise DataError("no_overlap", f"{found}, needs one dataset: record both on the same inputs")
    named = NamedMap(name or default_name(source, target), datasets[0], source, target, known.regime, 0, "")
    check_map_name(run.store.root, named)
    sides = _record(run, planned)
    labels = class_labels(read_dataset(datasets[0], run.catalog))
    job = map_job(run.store, sides[0], sides[1], known, run.catalog, labels)
    receipt = run.store.find("maps", job.key)
    is_new = receipt is None
    if receipt is None:
        for _, result in run.workers.run(store_map, [job]):
            if isinstance(result, JobFailure):
                if result.reason == "failed":
                    raise RuntimeError(result.message)  # no fault of what was asked
                raise DataError(result.reason, result.message)
        receipt = run.store.receipt("maps", job.key)
    run.stage_counts.count("maps", int(is_new), int(not is_new))
    named = NamedMap(named.name, datasets[0], source, target, known.regime, receipt.facts["n_anchors"], job.key)
    write_named_map(run.store.root, named)
    return FittedNamedMap(named, receipt.facts, is_new)


def default_name(source: str, target: str) -> str:
    """Return the name of a map that was given none.

    Examples
    --------
    >>> default_name("mlp_s0/relu4", "mlp_s1/relu4")
    'mlp_s0.relu4--mlp_s1.relu4'
    """
    return "--".join(_NO_NAME.sub("-", side.replace("/", ".", 1)) for side in (source, target))


def find_space(catalog: Catalog, name: str) -> PlannedSpace:
    """Return the space ``model/layer`` of the catalog; only its model is opened.

    Raises
    ------
    ReasonError
        ``missing_source`` for a name without a layer, or a model that is not there; ``unknown_layer`` for a layer that
        the catalog does not choose; and as opening the model does.
    """
    model_name, _, layer = name.partition("/")
    if model_name not in catalog.models:
        hint = did_you_mean(model_name, catalog.models)
        raise DataError("missing_source", f"found no model {model_name[:100]!r} in the catalog{hint}")
    model = catalog.models[model_name]
    spaces, failures = plan_model(model_name, model, catalog, read_dataset(model.dataset, catalog))
    found = {planned.space.name: planned for planned in spaces}
    if name in found:
        return found[name]
    for failure in failures:
        if failure.layer == layer:
            raise DataError(failure.reason, failure.message)
    needs = f"found no space {name[:100]!r}, needs model/layer with a layer that the catalog chooses"
    raise DataError("unknown_layer", f"{needs}{did_you_mean(name, found)}")


def _record(run: Run, planned: list[PlannedSpace]) -> list[MapSide]:
    spaces = tuple(sorted({one.space for one in planned}))
    part = PairSelection("", spaces[0].dataset, (), spaces, spaces)
    zoo = Zoo(tuple({one.space: one for one in planned}[space] for space in spaces), (), {}, (part,))
    recorded = record_activations(run, zoo)
    for failure in run.failures:
        raise DataError(failure.reason, f"{failure.model}/{failure.layer}: {failure.message}")
    by_space = {one.space: MapSide(one.space, one.key, one.content) for one in recorded}
    return [by_space[one.space] for one in planned]


_COLUMNS = {
    "held_out": "held out",
    "typical_rank": "rank",
    "round_trip": "round trip",
    "accuracy": "accuracy",
    "mrr": "MRR",
    "stitched_accuracy": "stitched",
}


def maps_as_lines(fitted: FittedNamedMap) -> str:
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


def maps_as_json(fitted: FittedNamedMap) -> str:
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
