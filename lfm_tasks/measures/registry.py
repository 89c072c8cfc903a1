"""All measures of activations by name; the name is the convention."""

from collections.abc import Mapping

from lfm_tasks.measures import cca, cka, distance_correlation, matching, neighbourhoods, prediction, procrustes, rsa
from lfm_tasks.measures.measure import Measure

MEASURES: Mapping[str, Measure] = {
    **cka.MEASURES,
    **cca.MEASURES,
    **procrustes.MEASURES,
    **rsa.MEASURES,
    **neighbourhoods.MEASURES,
    **prediction.MEASURES,
    **distance_correlation.MEASURES,
    **matching.MEASURES,
}
