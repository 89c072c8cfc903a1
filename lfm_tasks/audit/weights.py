"""The second witness of an audit: how the weights of models agree that may be related, where they are at hand."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np

from lfm_tasks.catalog import Catalog
from lfm_tasks.errors import DataError
from lfm_tasks.lineage.levels import Level
from lfm_tasks.lineage.relations import Relation
from lfm_tasks.lineage.weights import WeightAgreement, matched_tensors, weight_agreement
from lfm_tasks.sources.weight_matrices import WeightMatrix, weight_matrices

logger = logging.getLogger(__name__)

# Models whose weights are in memory at a time, at most 8 MB each.
_N_KEPT = 16


def weight_agreements(catalog: Catalog, relations: Sequence[Relation]) -> Mapping[frozenset[str], WeightAgreement]:
    """Return how weights agree of each pair that is declared, or at least of the same family by its activations.

    Pairs of which a model's weights are not at hand, or cannot be read, have none: weights are never required.
    """
    asked = {
        (one.source, one.target): None for one in relations if one.declared or one.level.is_at_least(Level.SAME_FAMILY)
    }
    matrices = {model: _matrices(catalog, model) for model in dict.fromkeys(name for pair in asked for name in pair)}

    @lru_cache(maxsize=_N_KEPT)
    def values(model: str) -> Mapping[str, np.ndarray]:
        return {name: matrix.read() for name, matrix in matrices[model].items()}

    found = {}
    for first, second in sorted(asked):
        if matrices[first] and matrices[second]:
            try:
                found[frozenset((first, second))] = _agreement(matrices, values, first, second)
            except (DataError, OSError) as error:
                logger.warning("weights of %s and %s could not be compared: %s", first, second, error)
    return found


def _agreement(
    matrices: Mapping[str, Mapping[str, WeightMatrix]],
    values: Callable[[str], Mapping[str, np.ndarray]],
    first: str,
    second: str,
) -> WeightAgreement:
    shapes = [{name: matrix.shape for name, matrix in matrices[model].items()} for model in (first, second)]
    pairs = matched_tensors(*shapes)
    tensors = ((values(first)[left], values(second)[right]) for left, right in pairs)
    return weight_agreement(tensors, min(map(len, shapes)))


def _matrices(catalog: Catalog, model: str) -> Mapping[str, WeightMatrix]:
    """Return the weight matrices of a model; none if they are not at hand."""
    if model not in catalog.models:
        return {}
    try:
        return weight_matrices(model, catalog.models[model].on_datasets[0], catalog) or {}
    except (DataError, OSError) as error:
        logger.warning("weights of %s could not be read: %s", model, error)
        return {}
