"""Layers of the candidate and the reference, paired by name, by a table, or by the similarity of their spaces."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import scipy  # its parts are imported when they are first used
from jaxtyping import Float

from lfm_tasks.catalog.names import did_you_mean
from lfm_tasks.errors import DataError
from lfm_tasks.spectral.bases.full_map import full_map, overlap
from lfm_tasks.spectral.bases.space import spectral_space

LayerPairs = tuple[tuple[str, str], ...]


def pairs_by_name(reference: Sequence[str], candidate: Sequence[str]) -> tuple[LayerPairs, tuple[str, ...]]:
    """Return the layers that have the same name on both sides, and a note about the others.

    Raises
    ------
    DataError
        ``unknown_layer`` if no name is common.
    """
    pairs = tuple((layer, layer) for layer in reference if layer in candidate)
    if not pairs:
        names = f"{', '.join(reference[:3])} and {', '.join(candidate[:3])}"
        advice = "Give a table of layers (--layers FILE), or have them matched (--match likeness)"
        raise DataError("unknown_layer", f"got no layer of the same name ({names}), expected at least one. {advice}.")
    lone = [*(one for one in reference if one not in candidate), *(one for one in candidate if one not in reference)]
    shown = f"{', '.join(lone[:5])}{' and more' if len(lone) > 5 else ''}"
    return pairs, (f"layers on one side only: {shown}",) if lone else ()


def pairs_by_table(table: Mapping[str, str], reference: Sequence[str], candidate: Sequence[str]) -> LayerPairs:
    """Return the pairs of a table, in the order of the reference's layers.

    Raises
    ------
    DataError
        ``unknown_layer`` for a name that a side lacks.
    """
    for names, known in ((table.keys(), reference), (table.values(), candidate)):
        for name in names:
            if name not in known:
                raise DataError(
                    "unknown_layer", f"got the layer {name[:100]!r} in the table{did_you_mean(name, known)}"
                )
    return tuple((layer, table[layer]) for layer in reference if layer in table)


def read_table_of_layers(path: Path) -> dict[str, str]:
    """Return the pairs of a CSV file of two columns without a head: a layer of the reference, one of the candidate.

    Raises
    ------
    DataError
        ``missing_source`` for a file that cannot be read, ``wrong_shape`` for rows of another number of columns,
        ``bad_name`` for a layer that stands there twice.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("missing_source", f"{path}: cannot be read ({error}). Check the path.") from error
    if any(len(row) != 2 for row in rows) or not rows:
        widths = sorted({len(row) for row in rows})
        problem = f"got rows of {', '.join(map(str, widths)) or 'no'} columns"
        raise DataError("wrong_shape", f"{path}: {problem}, expected two: a layer of each side. Fix the file.")
    for column in (0, 1):
        names = [row[column] for row in rows]
        if repeated := next((name for name in names if names.count(name) > 1), None):
            raise DataError("bad_name", f"{path}: got the layer {repeated[:100]!r} twice, expected each once. Fix it.")
    return {row[0]: row[1] for row in rows}


def pairs_by_likeness(
    reference: Mapping[str, Float[np.ndarray, "points _"]], candidate: Mapping[str, Float[np.ndarray, "points _"]]
) -> LayerPairs:
    """Return for each layer of the reference the candidate's that is most like it, each of these once.

    The overlap of the spaces' bases, row and column means taken away: raw scores are misled by layers that are like
    everything. Layers without a graph (constant rows) take no part.
    """
    bases = [_bases(side) for side in (reference, candidate)]
    if not all(bases):
        raise DataError("unknown_layer", "got no layers to match, expected some whose rows differ. Match by name.")
    scores = np.array(
        [[float(overlap(full_map(a, b))) for b in bases[1].values()] for a in bases[0].values()], dtype=np.float64
    )
    centered = scores - scores.mean(axis=0) - scores.mean(axis=1, keepdims=True)
    rows, columns = scipy.optimize.linear_sum_assignment(-centered)
    names = list(bases[0]), list(bases[1])
    return tuple((names[0][row], names[1][column]) for row, column in zip(rows, columns, strict=True))


def _bases(side: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    found = {}
    for name, rows in side.items():
        try:
            found[name] = spectral_space(rows).basis.eigenvectors
        except DataError:
            continue  # constant, or too few points: nothing to match by
    return found
