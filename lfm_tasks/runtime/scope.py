"""scope.py."""

from dataclasses import dataclass

from lfm_tasks.catalog import Catalog
from lfm_tasks.catalog.patterns import matches
from lfm_tasks.catalog.problems import did_you_mean


@dataclass(frozen=True)
class Scope:
    """What one run computes of what the catalog asks: models (globs) and comparisons, everything where empty."""

    only: tuple[str, ...] = ()
    comparisons: tuple[str, ...] = ()

    def problems(self, catalog: Catalog) -> list[str]:
        """Return a sentence for each name that the catalog does not have."""
        found = [
            f"--only: no model matches {pattern[:100]!r}{did_you_mean(pattern, catalog.models)}"
            for pattern in self.only
            if not any(matches(name, pattern) for name in catalog.models)
        ]
        known = catalog.comparisons
        return found + [
            f"--comparison: no {name[:100]!r}{did_you_mean(name, known) or '; the catalog has no comparisons'}"
            for name in self.comparisons
            if name not in catalog.comparisons
        ]

    def has(self, model: str) -> bool:
        """Return whether a model is one to compute."""
        return not self.only or any(matches(model, pattern) for pattern in self.only)
