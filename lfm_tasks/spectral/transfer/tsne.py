"""A picture of a space: its points in the plane."""

import numpy as np
from jaxtyping import Float, Float32

from lfm_tasks.reasons import ReasonError
from lfm_tasks.spectral.neighbors.metric import Metric


def tsne(
    rows: Float[np.ndarray, "points features"], *, perplexity: float = 30.0, seed: int = 0, metric: Metric = "angular"
) -> Float32[np.ndarray, "points 2"]:
    """Return the t-SNE of ``rows``: near points stay near, distances and sizes of groups mean nothing.

    Angular rows are brought to length 1, so that their distances order as the angles do. It starts from the principal
    components; on one thread the same rows give the same bytes.

    Raises
    ------
    ReasonError
        ``too_few_points`` unless there are more points than ``perplexity``.

    References
    ----------
    van der Maaten and Hinton (2008), "Visualizing data using t-SNE".
    """
    from sklearn.manifold import TSNE  # takes a second to import

    if len(rows) <= perplexity:
        found = f"found {len(rows)} points, t-SNE with perplexity {perplexity:g} needs more of them"
        raise ReasonError("too_few_points", f"{found}: lower atlas.embeddings.perplexity, or give more points")
    wide = np.pad(rows.astype(np.float64), [(0, 0), (0, max(0, 2 - rows.shape[1]))])
    if metric == "angular":
        wide /= np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), np.finfo(float).tiny)
    drawn = TSNE(perplexity=float(perplexity), init="pca", random_state=seed, n_jobs=1).fit_transform(wide)
    return np.asarray(drawn, dtype=np.float32)
