"""Which measures there are: the catalog names them, this checks the names before work starts."""

from difflib import get_close_matches

from lfm_tasks.catalog import Catalog
from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.spectral.bases.map_measures import MAP_SCORES

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


def unknown_measures(catalog: Catalog) -> list[tuple[tuple[str | int, ...], str]]:
    """Return, for each measure of the catalog that does not exist, where it stands and a sentence."""
    named: list[tuple[tuple[str, ...], tuple[str, ...]]] = [(("atlas", "measures"), catalog.atlas.measures)]
    named += [(("comparisons", name, "measures"), own.measures or ()) for name, own in catalog.comparisons.items()]
    return [
        ((*where, number), f"unknown measure {name!r}{_hint(name)}")
        for where, names in named
        for number, name in enumerate(names)
        if name not in CONVENTIONS
    ]


def _hint(name: str) -> str:
    near = get_close_matches(name, CONVENTIONS, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(CONVENTIONS)}"
