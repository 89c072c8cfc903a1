"""Which measures there are: the catalog names them, this checks the names before work starts."""

from difflib import get_close_matches

from lfm_tasks.catalog import Catalog
from lfm_tasks.stages.scores import MAP_SCORES


def unknown_measures(catalog: Catalog) -> list[str]:
    """Return a sentence for each measure of the catalog that does not exist."""
    problems = []
    for name in catalog.atlas.measures:
        if name not in MAP_SCORES:
            near = get_close_matches(name, MAP_SCORES, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(MAP_SCORES)}"
            problems.append(f"atlas.measures: unknown measure {name!r}{hint}")
    return problems
