"""Exports the fitted map for query servers: complete as safetensors and JSON, portable as ONNX."""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from lfm_tasks import __version__
from lfm_tasks.errors import DataError, FolderError
from lfm_tasks.runtime.run import Run
from lfm_tasks.sources.files.formats import find_format, open_array
from lfm_tasks.sources.files.paths import readable
from lfm_tasks.spectral.maps.descriptors import Anchors
from lfm_tasks.stages.transfers.job import AnchorSpec
from lfm_tasks.stages.transfers.named import FittedNamedMap, map_both_ways
from lfm_tasks.stores.outputs import check_output_folder, replace_files
from lfm_tasks.upgrades.adapters import Adapter, KnownPairs, ResidualLayer, from_alignment, unit_rows
from lfm_tasks.upgrades.bulk import KnownRows
from lfm_tasks.upgrades.evidence import CHOSEN, DIRECTIONS, QUERIES, STORED, Evidence, fit_and_choose
from lfm_tasks.upgrades.verdict import Verdict
from lfm_tasks.upgrades.writers import write_safetensors

_VERSION = 1
SUFFIXES = (".safetensors", ".json", ".onnx")
_RESIDUAL = ("first_matrix", "first_shift", "second_matrix", "second_shift")


# Known inputs that a saved map keeps, to tell confidence by.
_MOST_KNOWN = 2000


def files_of_maps() -> list[str]:
    """Return the names of the files that `save_upgrade` writes."""
    return [file for direction in DIRECTIONS for file in files_of_map(direction)]


def save_upgrade(
    folder: Path,
    old: Float[np.ndarray, "points old_features"],
    new: Float[np.ndarray, "points new_features"],
    evidence: Evidence,
    verdict: Verdict,
    *,
    force: bool = False,
) -> None:
    """Fit the maps of all pairs in either direction, the best by held-out pairs, and save them.

    ``stored`` carries vectors of the old model into the new space, ``queries`` those of the new model into the old one.

    Raises
    ------
    FolderError
        If something else is there.
    """
    check_output_folder(folder, files_of_maps(), force=force)
    sides = {STORED: unit_rows(old.astype(np.float64)), QUERIES: unit_rows(new.astype(np.float64))}
    rows = np.arange(len(old))
    fitted: dict[str, Adapter] = {}
    names: dict[str, str] = {}
    for direction, other in ((STORED, QUERIES), (QUERIES, STORED)):
        known = KnownPairs(sides[direction], sides[other], Anchors(rows, rows))
        adapters, names[direction] = fit_and_choose(known, evidence.k, _MOST_KNOWN // 2)
        fitted[direction] = adapters[names[direction]]
    some = np.random.default_rng(0).permutation(len(rows))[:_MOST_KNOWN]
    contents: dict[str, bytes] = {}
    for direction, other in ((STORED, QUERIES), (QUERIES, STORED)):
        cell = evidence.cell(direction, evidence.sizes[-1], CHOSEN)
        facts = {
            "carries": direction, "map": names[direction], "n_pairs": len(rows), "verdict": verdict.sentence,
            "k": evidence.k, "recall": None if cell is None else cell.recall,
            "recall_reach": None if cell is None else cell.recall_reach, "rows": "of any length",
        }  # fmt: skip
        of_known = [sides[one][some].astype(np.float32) for one in (direction, other)]
        beside = KnownRows(fitted[other], of_known[0], of_known[1])
        contents |= _contents(direction, fitted[direction], beside, facts)
    folder.mkdir(parents=True, exist_ok=True)
    replace_files({folder / file: content for file, content in contents.items()})


@contextmanager
def folder_for_maps(folder: Path | None) -> Iterator[None]:
    """Make the folder that maps will be saved in, before work starts; without maps in the end it is removed again.

    Raises
    ------
    FolderError
        If it cannot be made or written to. None: nothing is done.
    """
    if folder is None:
        yield
        return
    made = [one for one in (folder, *folder.parents) if not os.path.lexists(one)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        _remove_empty(made)
        raise FolderError(f"{folder}: cannot be written to ({error.strerror}). Name another folder") from error
    try:
        yield
    finally:
        _remove_empty(made)


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def save_named_map(run: Run, fitted: FittedNamedMap, anchor_spec: AnchorSpec, folder: Path, *, force: bool) -> None:
    """Save a named map as ``NAME.safetensors``, ``NAME.json`` and ``NAME.onnx``.

    The map back is fitted, too: where points are known in both spaces, these serve for confidence.

    Raises
    ------
    FolderError
        If something else is there.
    DataError
        If no map leads back.
    """
    named = fitted.named
    ways = map_both_ways(run, named, anchor_spec, _MOST_KNOWN)
    known = None
    if ways.known is not None:
        source, target = (unit_rows(rows).astype(np.float32) for rows in ways.known)
        known = KnownRows(from_alignment(ways.back), source, target, is_of_units=False)
    score = next(row for row in fitted.facts["table"] if row["name"] == fitted.facts["chosen"])
    facts = {
        "carries": f"{named.source} -> {named.target}", "map": fitted.facts["chosen"], "regime": named.regime,
        "n_pairs": named.n_anchors, "why": fitted.facts["why"], "held_out": score["held_out"], "rows": "as recorded",
    }  # fmt: skip
    save_map(folder, named.name, from_alignment(ways.there), known, facts, force=force)


def files_of_map(name: str) -> list[str]:
    """Return the names of the files that `save_map` writes."""
    return [f"{name}{suffix}" for suffix in SUFFIXES]


def save_map(
    folder: Path,
    name: str,
    adapter: Adapter,
    known: KnownRows | None,
    facts: Mapping[str, Any],
    *,
    force: bool = False,
) -> None:
    """Write ``NAME.safetensors``, ``NAME.json`` and ``NAME.onnx`` into a folder, all or none.

    Parameters
    ----------
    folder, name
        Where; the folder is made if it is missing.
    adapter
        The map.
    known
        The rows that confidence is computed from; None: the map is saved without.
    facts
        What the JSON says of it beside its shapes: what it carries, how good it is.
    force
        Whether files that are there are replaced.

    Raises
    ------
    FolderError
        If something else is there.
    """
    check_output_folder(folder, files_of_map(name), force=force)
    folder.mkdir(parents=True, exist_ok=True)
    replace_files({folder / file: content for file, content in _contents(name, adapter, known, facts).items()})


def _contents(name: str, adapter: Adapter, known: KnownRows | None, facts: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the files of a map, by their names."""
    adapter = replace(adapter, takes_directions=known is not None and known.is_of_units)
    arrays = _arrays("", adapter)
    if known is not None:
        arrays |= _arrays("back.", known.back) | {"known.source": known.source, "known.target": known.target}
        arrays["known.is_of_units"] = np.array([known.is_of_units])
    tensors = BytesIO()
    write_safetensors(tensors, {key: np.asarray(one, np.float32) for key, one in arrays.items()}, {"format": "np"})
    formula = f"z = {'x / |x|' if adapter.takes_directions else 'x'} @ matrix + shift"
    if adapter.residual is not None:
        formula += "; z + max(0, z @ first_matrix + first_shift) @ second_matrix + second_shift"
    content = {
        "schema_version": _VERSION, "program": f"lfm-atlas {__version__}", "source_features": adapter.matrix.shape[0],
        "target_features": adapter.matrix.shape[1], "is_linear": adapter.residual is None,
        "formula": formula, **facts,
    }  # fmt: skip
    return {
        f"{name}.safetensors": tensors.getvalue(),
        f"{name}.json": (json.dumps(content, indent=1, allow_nan=False) + "\n").encode(),
        f"{name}.onnx": as_onnx(adapter),
    }


def _arrays(prefix: str, adapter: Adapter) -> dict[str, np.ndarray]:
    arrays = {f"{prefix}matrix": adapter.matrix, f"{prefix}shift": adapter.shift}
    if adapter.residual is not None:
        arrays |= {f"{prefix}{key}": getattr(adapter.residual, key) for key in _RESIDUAL}
    return arrays


def as_onnx(adapter: Adapter) -> bytes:
    """Return the map as an ONNX network: ``rows`` (points, source features) to ``carried``, float32."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    constants = {key: np.asarray(one, np.float32) for key, one in _arrays("", adapter).items()}
    nodes = [helper.make_node("Gemm", ["rows", "matrix", "shift"], ["linear"])]
    if adapter.takes_directions:
        constants["least"] = np.array(np.finfo(np.float32).tiny, np.float32)
        nodes = [
            helper.make_node("ReduceL2", ["rows"], ["lengths"], axes=[1], keepdims=1),
            helper.make_node("Max", ["lengths", "least"], ["divisors"]),
            helper.make_node("Div", ["rows", "divisors"], ["units"]),
            helper.make_node("Gemm", ["units", "matrix", "shift"], ["linear"]),
        ]
    if adapter.residual is None:
        nodes[-1].output[0] = "carried"
    else:
        nodes += [
            helper.make_node("Gemm", ["linear", "first_matrix", "first_shift"], ["before"]),
            helper.make_node("Relu", ["before"], ["hidden"]),
            helper.make_node("Gemm", ["hidden", "second_matrix", "second_shift"], ["more"]),
            helper.make_node("Add", ["linear", "more"], ["carried"]),
        ]
    n_features, n_results = adapter.matrix.shape
    graph = helper.make_graph(
        nodes, "upgrade",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["points", n_features])],
        [helper.make_tensor_value_info("carried", TensorProto.FLOAT, ["points", n_results])],
        [numpy_helper.from_array(values, key) for key, values in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def is_saved_map(name: str) -> bool:
    """Return whether a text names a saved map and no map of a store."""
    return name.endswith(".safetensors")


def read_saved_map(path: Path) -> tuple[Adapter, KnownRows | None]:
    """Return a map that `save_map` wrote, and the rows for confidence, if they were saved.

    Raises
    ------
    DataError
        ``missing_source`` if it is not there, or no map.
    """

    def read(key: str) -> np.ndarray:
        try:
            values: np.ndarray = open_array(path, str(path), key).load()
        except DataError as error:
            if error.reason == "missing_source" and path.is_file():
                problem = f"got no tensor {key!r}, expected a map that lfm-atlas upgrade --save wrote"
                raise DataError("missing_source", f"{path}: {problem}. Name its .safetensors.") from error
            raise
        if not np.isfinite(values).all():
            problem = f"got NaN or infinite values in the tensor {key!r}, expected finite numbers"
            raise DataError("not_finite", f"{path}: {problem}. Save the map again.")
        return values

    keys = _keys(path)
    adapter = _adapter(read, "", keys)
    if "known.source" not in keys:
        return adapter, None
    is_of_units = bool(read("known.is_of_units")[0])
    adapter = replace(adapter, takes_directions=is_of_units)
    return adapter, KnownRows(_adapter(read, "back.", keys), read("known.source"), read("known.target"), is_of_units)


def _keys(path: Path) -> tuple[str, ...]:
    reader = find_format(path, str(path))
    with readable(str(path)):
        return reader.keys(path, str(path)) or ()


def _adapter(read: Any, prefix: str, keys: tuple[str, ...]) -> Adapter:
    matrix, shift = read(f"{prefix}matrix"), read(f"{prefix}shift")
    if matrix.ndim != 2 or shift.shape != matrix.shape[1:]:
        raise DataError("wrong_shape", f"got a map of shapes {matrix.shape} and {shift.shape}. Save it again.")
    if f"{prefix}first_matrix" not in keys:
        return Adapter(matrix, shift)
    return Adapter(matrix, shift, ResidualLayer(*(read(f"{prefix}{key}") for key in _RESIDUAL)))
