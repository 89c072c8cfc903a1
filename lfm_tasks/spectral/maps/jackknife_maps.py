"""Full maps without a part of the points, the bases kept: for intervals and halves."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class PartedRows:
    """Rows of a basis by part, and G_j^(-1/2) of the rows outside part j; NaN where those do not determine it."""

    rows: tuple[Float[np.ndarray, "_ eigenpairs"], ...]
    whiteners: Float[np.ndarray, "parts eigenpairs eigenpairs"]


def parted_rows(
    rows: Float[np.ndarray, "points eigenpairs"], parts: Int[np.ndarray, " points"], n_parts: int
) -> PartedRows:
    """Return what one space contributes to `maps_without_each_part`; ``parts`` in [0, n_parts)."""
    inside = tuple(rows[parts == part] for part in range(n_parts))
    grams = rows.T @ rows - np.stack([own.T @ own for own in inside])
    values, vectors = np.linalg.eigh(grams)
    determined = values[:, 0] > 1e-10 * values[:, -1]
    n_left = np.array([len(rows) - len(own) for own in inside])
    values[~determined | (n_left < rows.shape[1])] = np.nan
    return PartedRows(inside, (vectors / np.sqrt(values)[:, None, :]) @ np.swapaxes(vectors, 1, 2))


def maps_without_each_part(source: PartedRows, target: PartedRows) -> Float[np.ndarray, "parts target source"]:
    """Return the map of the points outside part j, for every j, from bases whitened there (see `whitened_rows`).

    The graphs are not built again: what an interval from these maps says concerns the points that two fixed bases are
    compared on. All of them cost little more than the map of all points.
    """
    inside = np.stack([y.T @ x for x, y in zip(source.rows, target.rows, strict=True)])
    return target.whiteners @ (inside.sum(axis=0) - inside) @ source.whiteners
