"""Groups of inputs without labels: clusters of their vectors, each named by the inputs that are nearest its center."""

import warnings

import numpy as np
from jaxtyping import Float, Shaped

from lfm_tasks.upgrades.adapters import unit_rows

# A cluster has about so many inputs: a fifth or fewer are queries, of which its recall is the mean.
_INPUTS_IN_CLUSTER = 150
_MOST_CLUSTERS = 12
_N_NAMED = 3


def clusters_by_name(
    rows: Float[np.ndarray, "points features"], ids: Shaped[np.ndarray, " points"], *, seed: int = 0
) -> Shaped[np.ndarray, " points"]:
    """Return for each row the name of its cluster: ``near i7, i30, i2``, the inputs nearest to its center.

    Clusters are those of k-means on the rows' directions: one for each 150 inputs, 2 to 12.

    Examples
    --------
    >>> rows = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [0.1, 1.0]])
    >>> clusters_by_name(rows, np.array(["a", "b", "c", "d"])).tolist()
    ['near a, c', 'near b, d', 'near a, c', 'near b, d']
    """
    from sklearn.cluster import KMeans  # takes a second to import
    from sklearn.exceptions import ConvergenceWarning

    units = unit_rows(rows.astype(np.float64))
    n_clusters = int(np.clip(len(rows) // _INPUTS_IN_CLUSTER, 2, _MOST_CLUSTERS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters: fewer come out
        found = KMeans(n_clusters, n_init=1, random_state=seed).fit(units)
    names = np.empty(len(rows), dtype=object)
    apart = np.linalg.norm(units - found.cluster_centers_[found.labels_], axis=1)
    for cluster in np.unique(found.labels_):
        members = np.flatnonzero(found.labels_ == cluster)
        nearest = members[np.argsort(apart[members], kind="stable")[:_N_NAMED]]
        names[members] = f"near {', '.join(str(ids[row]) for row in nearest)}"
    return names.astype(str)
