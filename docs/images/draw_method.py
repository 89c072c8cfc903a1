"""Draw the pictures of docs/method.md with the functions of this project, on scikit-learn's digits.

Run ``python docs/images/draw_method.py`` in a checkout; it needs the extra ``plot``. Colors are legible on white and on
black; the background is transparent.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from sklearn.datasets import load_digits
from sklearn.manifold import TSNE

from lfm_tasks.spectral import full_map, lfm, overlap, spectral_space

FOLDER = Path(__file__).parent
N_POINTS, N_NEIGHBORS, N_EIGENPAIRS, N_SHUFFLED = 300, 8, 16, 100
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
INK = "#7a828a"
# From orange through gray to violet: the middle is seen on white and on black.
DIVERGING = LinearSegmentedColormap.from_list("diverging", ["#e66101", "#b8bcc0", "#7b52c7"])
STYLE: Mapping[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lfm-atlas",
    "savefig.transparent": True,
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.titlesize": 12,
    **{f"{name}.color": INK for name in ("text", "xtick", "ytick")},
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
}


def basis_of(rows: np.ndarray) -> Any:
    """Return the space of rows: its graph and its basis."""
    return spectral_space(rows, n_eigenpairs=N_EIGENPAIRS, n_neighbors=N_NEIGHBORS, kernel="binary")


def save(name: str) -> None:
    """Write the open picture as ``method-<name>.svg``."""
    plt.savefig(FOLDER / f"method-{name}.svg", metadata={"Date": None, "Creator": None}, bbox_inches="tight")
    plt.close()


def draw_graph(space: Any, places: np.ndarray, labels: np.ndarray) -> None:
    """Draw the points of a space, and the same points with the edges of its neighbor graph."""
    _, axes = plt.subplots(1, 2, figsize=(9, 4))
    edges = space.graph.tocoo()
    once = edges.row < edges.col
    ends = [places[edges.row[once]], places[edges.col[once]], np.full((once.sum(), 2), np.nan)]
    axes[1].plot(*np.stack(ends, axis=1).reshape(-1, 2).T, color=INK, linewidth=0.4, alpha=0.7, zorder=0)
    titles = (f"{len(places)} points of one space", f"joined to their {N_NEIGHBORS} nearest neighbors")
    for panel, title in zip(axes, titles, strict=True):
        for label, color in enumerate(COLORS):
            panel.plot(*places[labels == label].T, "o", color=color, markersize=3.2, markeredgewidth=0, clip_on=False)
        panel.set_title(title)
        panel.set_axis_off()
    save("graph")


def draw_eigenvectors(space: Any, places: np.ndarray) -> None:
    """Draw low eigenvectors and a high one as colors of the points."""
    shown = (1, 2, 3, N_EIGENPAIRS - 1)
    _, axes = plt.subplots(1, len(shown), figsize=(9, 2.6))
    for panel, k in zip(axes, shown, strict=True):
        values = space.basis.eigenvectors[:, k]
        reach = np.abs(values).max()
        panel.scatter(*places.T, c=values, cmap=DIVERGING, vmin=-reach, vmax=reach, s=8, linewidths=0, clip_on=False)
        panel.set_title(f"k = {k}, λ = {space.basis.eigenvalues[k]:.2f}")
        panel.set_axis_off()
    save("eigenvectors")


def draw_maps(source: Any, targets: Mapping[str, Any], generator: np.random.Generator) -> None:
    """Draw the functional maps from one space to several, each with its scores and their chance levels."""
    _, axes = plt.subplots(1, len(targets), figsize=(9, 3.6))
    for panel, (title, target) in zip(axes, targets.items(), strict=True):
        x, y = source.basis.eigenvectors, target.basis.eigenvectors
        functional_map = full_map(x, y)
        shuffled = np.stack([full_map(x, generator.permutation(y)) for _ in range(N_SHUFFLED)])
        panel.imshow(np.abs(functional_map), cmap="Purples", vmin=0, vmax=1)
        panel.set_title(title)
        panel.set_xlabel("source eigenvector")
        panel.set_xticks([0, N_EIGENPAIRS - 1])
        panel.set_yticks([0, N_EIGENPAIRS - 1])
        lines = [
            f"{score.__name__} {score(functional_map):.2f}, chance {score(shuffled).mean():.2f}"
            for score in (overlap, lfm)
        ]
        panel.text(0.5, -0.32, "\n".join(lines), transform=panel.transAxes, ha="center", va="top")
    axes[0].set_ylabel("target eigenvector")
    save("maps")


def main() -> None:
    """Draw all pictures into the folder of this file."""
    pixels, labels = load_digits(n_class=len(COLORS), return_X_y=True)
    pixels, labels = pixels[:N_POINTS], labels[:N_POINTS]
    generator = np.random.default_rng(0)
    places = TSNE(random_state=0, init="pca", perplexity=20).fit_transform(pixels)
    first = basis_of(pixels)
    rotation = np.linalg.qr(generator.normal(size=(64, 64)))[0]
    network = np.tanh(pixels @ generator.normal(size=(64, 48)) / 40)
    targets = {
        "the same space, rotated": basis_of(pixels @ rotation),
        "a random network's layer": basis_of(network),
        "rows in random order": basis_of(generator.permutation(pixels)),
    }
    with plt.rc_context(dict(STYLE)):
        draw_graph(first, places, labels)
        draw_eigenvectors(first, places)
        draw_maps(first, targets, generator)


if __name__ == "__main__":
    main()
