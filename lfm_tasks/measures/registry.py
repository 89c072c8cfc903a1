"""All measures of activations by name; the name is the convention."""

from collections.abc import Mapping

from lfm_tasks.measures import cka, neighborhoods, procrustes, regression, rsa
from lfm_tasks.measures.measure import Measure

MEASURES: Mapping[str, Measure] = {
    **cka.MEASURES,
    **procrustes.MEASURES,
    **rsa.MEASURES,
    **neighborhoods.MEASURES,
    **regression.MEASURES,
}
