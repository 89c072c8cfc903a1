"""Which measures there are: the catalog names them, this checks the names before work starts."""

from difflib import get_close_matches

from lfm_tasks.catalog import Catalog
from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.stages.map_scores import MAP_SCORES

CONVENTIONS = {name: score.convention for name, score in MAP_SCORES.items()} | {
    name: measure.convention for name, measure in MEASURES.items()
}
DISTANCES = frozenset(name for name, measure in MEASURES.items() if measure.kind == "distance")


def unknown_measures(catalog: Catalog) -> list[str]:
    """Return a sentence for each measure of the catalog that does not exist."""
    problems = []
    for name in catalog.atlas.measures:
        if name not in CONVENTIONS:
            near = get_close_matches(name, CONVENTIONS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(CONVENTIONS)}"
            problems.append(f"atlas.measures: unknown measure {name!r}{hint}")
    return problems
