"""Which measures there are: the catalog names them, this checks the names before work starts."""

from difflib import get_close_matches

from lfm_tasks.catalog import Catalog
from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.stages.map_scores import MAP_SCORES

CONVENTIONS = {name: score.convention for name, score in MAP_SCORES.items()} | {
    name: measure.convention for name, measure in MEASURES.items()
}
SYMMETRIC = frozenset({"overlap"} | {name for name, measure in MEASURES.items() if measure.is_symmetric})
_EXACT = "exact moments of all permutations, Pearson III curve (permutations where groups or strata are given)"
_FITTED = "; of fitted maps, random pairings of what is known instead"
_DRAWN = "permutations, (1 + reached)/(1 + drawn); where fewer than 10 reach the score, Pearson III with their moments"
P_VALUES = (
    {name: _DRAWN + _FITTED if score.has_null else "none" for name, score in MAP_SCORES.items()}
    | {name: _EXACT if measure.as_trace is not None else _DRAWN for name, measure in MEASURES.items()}
    | {"overlap": _EXACT + _FITTED}
)
DISTANCES = frozenset(name for name, measure in MEASURES.items() if measure.kind == "distance")


def unknown_measures(catalog: Catalog) -> list[str]:
    """Return a sentence for each measure of the catalog that does not exist."""
    problems = []
    named = [("atlas", catalog.atlas.measures)]
    named += [(f"comparisons.{name}", found.measures or ()) for name, found in catalog.comparisons.items()]
    for where, name in ((where, name) for where, names in named for name in names):
        if name not in CONVENTIONS:
            near = get_close_matches(name, CONVENTIONS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(CONVENTIONS)}"
            problems.append(f"{where}.measures: unknown measure {name!r}{hint}")
    return problems
