"""What only the whole zoo can say: false discoveries, unrelated pairs, the noise ceiling."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lfm_tasks.statistics.intervals import split_half_reliability
from lfm_tasks.statistics.many_pairs import false_discovery_rates

# With fewer unrelated pairs a rank among them says little.
FEWEST_UNRELATED = 20


def families(meta: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Return model → family: models are related where ``base_model`` (one name or several) leads from one to another.

    Two models of the same base are related, also where the base is not in the zoo.
    """
    links = [(model, str(base)) for model, facts in meta.items() for base in _several(facts.get("base_model"))]
    names = sorted({*meta, *(base for _, base in links)})
    place = {name: number for number, name in enumerate(names)}
    ends = np.array([[place[a], place[b]] for a, b in links]).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(names), len(names)))
    _, family = connected_components(graph, directed=False)
    return {model: int(family[place[model]]) for model in meta}


def q_values(p_values: Float[np.ndarray, "source target"], is_symmetric: bool) -> Float[np.ndarray, "source target"]:
    """Return false discovery rates over pairs of two different spaces; a symmetric measure counts each pair once."""
    counted = ~np.eye(len(p_values), dtype=bool)
    if is_symmetric:
        counted &= np.triu(np.ones_like(counted))
    found = np.full(p_values.shape, np.nan)
    found[counted] = false_discovery_rates(p_values[counted])
    return np.where(np.isnan(found), found.T, found) if is_symmetric else found


def unrelated_ranks(
    values: Float[np.ndarray, "source target"], unrelated: Bool[np.ndarray, "source target"]
) -> Float[np.ndarray, "source target"]:
    """Return for each pair the share of pairs of unrelated models whose value is at least as high; itself apart.

    NaN for all where fewer than 20 unrelated pairs have a value. ``values`` are calibrated: high is alike.
    """
    known = np.sort(values[unrelated & np.isfinite(values)])
    ranks = np.full(values.shape, np.nan)
    if len(known) < FEWEST_UNRELATED:
        return ranks
    finite = np.isfinite(values)
    # Rounding must not part what is equal: a pair and the same pair the other way.
    at_least = len(known) - np.searchsorted(known, values[finite] - 1e-9)
    own = unrelated[finite]
    ranks[finite] = (at_least - own) / (len(known) - own)
    return ranks


def split_half_reliabilities(halves: Float[np.ndarray, "2 source target"]) -> float:
    """Return the noise ceiling of the scores of one dataset and measure, over pairs of two different spaces."""
    apart = ~np.eye(halves.shape[1], dtype=bool)
    return split_half_reliability(halves[0][apart], halves[1][apart])


def _several(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
