"""Agreement of the weights of two models, where weights are at hand: an audit's second evidence of a relation."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from lfm_tasks.catalog import Catalog
from lfm_tasks.errors import DataError
from lfm_tasks.lineage.levels import Level
from lfm_tasks.lineage.relations import Relation
from lfm_tasks.lineage.weights import (
    WeightAgreement,
    embedding_agreement,
    embedding_tables,
    matched_tensors,
    weight_agreement,
)
from lfm_tasks.sources.weight_matrices import WeightMatrix, weight_matrices

logger = logging.getLogger(__name__)

# Of so many models with weights all pairs are compared, and the values of as many are in memory, at most 4 MB each.
N_COMPARED_ALL = 64


def weight_agreements(catalog: Catalog, relations: Sequence[Relation]) -> Mapping[frozenset[str], WeightAgreement]:
    """Return how the weights of each pair of models agree, where they are at hand.

    In a large zoo only pairs that are declared, or at least of the same family by their activations. Pairs of which a
    model's weights are not at hand, or cannot be read, have none: weights are never required.
    """
    models = sorted({name for one in relations for name in (one.source, one.target)})
    matrices = {model: of_model for model in models if (of_model := _matrices(catalog, model))}
    pairs = {
        (one.source, one.target)
        for one in relations
        if one.source in matrices and one.target in matrices
        if len(matrices) <= N_COMPARED_ALL or one.declared or one.level.is_at_least(Level.SAME_FAMILY)
    }

    @lru_cache(maxsize=N_COMPARED_ALL)
    def values(model: str) -> Mapping[str, np.ndarray]:
        return {name: matrix.read() for name, matrix in matrices[model].items()}

    found = {}
    for first, second in sorted(pairs):
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
    found = weight_agreement(tensors, min(map(len, shapes)))
    tables = embedding_tables(*shapes)
    if tables is None:
        return found
    rows = matrices[first][tables[0]].read_rows(), matrices[second][tables[1]].read_rows()
    return replace(found, embeddings=embedding_agreement(*rows))


def _matrices(catalog: Catalog, model: str) -> Mapping[str, WeightMatrix]:
    """Return the weight matrices of a model; none if they are not at hand."""
    if model not in catalog.models:
        return {}
    try:
        return weight_matrices(model, catalog.models[model].on_datasets[0], catalog) or {}
    except (DataError, OSError) as error:
        logger.warning("weights of %s could not be read: %s", model, error)
        return {}
