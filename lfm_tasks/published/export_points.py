"""Points to look at: spaces by their similarity, or the points of one space where the atlas has embedded them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from lfm_tasks.published.atlas import Atlas
from lfm_tasks.published.matrices import refuse_distances
from lfm_tasks.published.names import one_of
from lfm_tasks.statistics.model_pairs import model_distances, symmetrised
from lfm_tasks.statistics.scaling import classical_scaling
from lfm_tasks.stores.atlas.files import write_columns
from lfm_tasks.stores.atlas.schema import AtlasError
from lfm_tasks.stores.units.durable import write_durably

MOST_AXES = 50
_N_NEIGHBORS = 10


@dataclass(frozen=True)
class Points:
    """Coordinates with what is told of each point; ``note`` says where they are from."""

    coordinates: np.ndarray
    told: Mapping[str, Sequence[str]]
    note: str


def space_points(atlas: Atlas, n_axes: int, *, measure: str | None = None, dataset: str | None = None) -> Points:
    """Return the spaces of a dataset by classical scaling of 1 − calibrated similarity, both directions averaged."""
    similarity = atlas.matrix(measure, reduce=None, dataset=dataset)
    refuse_distances(atlas.scores, str(similarity["measure"].item()), str(similarity.name))
    scaling = classical_scaling(model_distances(symmetrised(similarity.values)), n_axes)
    told = {"space": similarity["source"].values} | {
        str(name).removeprefix("source_"): values.values
        for name, values in similarity.coords.items()
        if str(name).startswith("source_")
    }
    used = scaling.points[:, np.any(scaling.points != 0, axis=0)] if n_axes > 2 else scaling.points
    note = f"classical scaling of 1 - {similarity.name} {similarity['measure'].item()}, stress {scaling.stress:.3f}"
    return Points(used, {name: [str(value) for value in values] for name, values in told.items()}, note)


def embedded_points(atlas: Atlas, space: str, *, dataset: str | None = None) -> Points:
    """Return the points of one space as the atlas embeds them."""
    names = [dataset] if dataset else atlas.datasets
    for name in names:
        group = atlas.section(f"embeddings/{one_of(name, atlas.datasets, 'dataset')}")
        if group is not None and space in group["space"].values:
            chosen = group.sel(space=space)
            there = np.isfinite(chosen["tsne"].transpose("point", "axis").values).all(axis=1)
            told = {"id": chosen["point"].values[there], "label": chosen["label"].values[there]}
            columns = {column: [str(value) for value in values] for column, values in told.items()}
            return Points(chosen["tsne"].transpose("point", "axis").values[there], columns, f"t-SNE of {space}")
    raise AtlasError(
        f"found no embedding of {space!r:.80} in the atlas, needs one to export its points: leave --points-of out for "
        "the spaces themselves, or have lfm-atlas run embed them"
    )


def export_projector(points: Points, output: Path) -> None:
    """Write a folder for TensorBoard's projector: ``tensors.tsv`` without a header, ``metadata.tsv`` with one."""
    rows = ["\t".join(repr(float(value)) for value in row) for row in points.coordinates]
    # One column alone would have to stand without a header.
    told = (
        {"number": [str(number) for number in range(len(rows))], **points.told} if len(points.told) < 2 else points.told
    )
    table = ["\t".join(told), *("\t".join(map(_one_cell, row)) for row in zip(*told.values(), strict=True))]
    for name, lines in (("tensors.tsv", rows), ("metadata.tsv", table)):
        write_durably(output / name, "".join(f"{line}\n" for line in lines).encode())


def export_embedding_atlas(points: Points, output: Path) -> None:
    """Write Parquet for Apple's Embedding Atlas: what is told, ``text``, ``x``, ``y``, ``neighbors`` by row number."""
    coordinates = points.coordinates[:, :2]
    n_near = min(_N_NEIGHBORS + 1, len(coordinates))
    distances, rows = cKDTree(coordinates).query(coordinates, n_near)
    neighbours = []
    for own, (near, far) in enumerate(zip(rows.reshape(-1, n_near), distances.reshape(-1, n_near), strict=True)):
        # Where several points are one, the nearest need not be the point itself.
        others = [(int(row), float(distance)) for row, distance in zip(near, far, strict=True) if row != own]
        neighbours.append({"ids": [row for row, _ in others], "distances": [distance for _, distance in others]})
    text = points.told.get("label", next(iter(points.told.values())))
    columns: dict[str, Sequence[Any]] = {**points.told, "row": range(len(coordinates)), "text": text}
    columns |= {"x": coordinates[:, 0].tolist(), "y": coordinates[:, 1].tolist(), "neighbors": neighbours}
    write_columns(columns, output)


def _one_cell(text: str) -> str:
    return re.sub(r"[\t\r\n]+", " ", text)
