"""``measures``: every measure as a function of two arrays, by name: ``measures.cka_linear(x, y)``."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any

import numpy as np

from lfm_atlas.arrays import rows_of
from lfm_tasks.catalog.names import did_you_mean
from lfm_tasks.errors import DataError
from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.spectral.bases.full_map import MAP_SCORES
from lfm_tasks.stages.scores.row_measures import check_rows
from lfm_tasks.threads import one_thread


@dataclass(frozen=True, repr=False)
class MeasureFunction:
    """A measure that is called with two arrays; ``convention`` says in one line what its value is.

    Attributes
    ----------
    name, convention
        What catalogs call it, and what it computes.

    Examples
    --------
    >>> import numpy as np
    >>> from lfm_atlas import measures
    >>> x = np.random.default_rng(0).normal(size=(50, 4))
    >>> round(measures["gulp_lambda_0.01"](x, x), 6)
    0.0
    """

    name: str
    convention: str

    def __call__(self, x: Any, y: Any) -> float:
        """Return the value for two arrays (points, features) whose rows are the same points.

        Raises
        ------
        TypeError, DataError
            For arrays as `lfm_atlas.compare`, and where the measure has no value for them; DataError is a ValueError.
        """
        source, target = (_in_precision(rows_of(value, name)) for value, name in ((x, "x"), (y, "y")))
        if len(source) != len(target):
            found = f"got {len(source):,} rows of x and {len(target):,} of y"
            raise DataError("wrong_shape", f"{found}, expected the same points in the same order.")
        if self.name in MAP_SCORES:
            from lfm_atlas.in_memory import compare

            without = {"null": {"n_permutations": 0}, "intervals": {"n_splits": 0}}
            return compare(source, target, measures=self.name, **without)[self.name].score
        check_rows(self.name, source, target)
        with one_thread():
            value = MEASURES[self.name](source, target)
        if not np.isfinite(value):
            raise DataError(
                "undefined", f"{self.name}: got no number for these arrays (0 divided by 0, or beyond floating point)."
            )
        return float(value)

    def __repr__(self) -> str:
        return f"{self.name}(x, y): {self.convention}"


def _in_precision(rows: np.ndarray) -> np.ndarray:
    """Return rows in the precision that a run computes in: half precision in single, whole numbers in double."""
    if rows.dtype == np.float16:
        return rows.astype(np.float32)
    return rows if rows.dtype in (np.float32, np.float64) else rows.astype(np.float64)


class Measures(Mapping[str, MeasureFunction]):
    """All measures by name, as attributes and as keys; it prints as a list with one line each.

    Names that are no Python names are keys only: ``measures["gulp_lambda_0.01"]``.

    Examples
    --------
    >>> import numpy as np
    >>> from lfm_atlas import measures
    >>> x = np.random.default_rng(0).normal(size=(50, 4))
    >>> round(measures.cka_linear_debiased_song(x, 2 * x), 6)
    1.0
    >>> measures.procrustes_centered
    procrustes_centered(x, y): centered, not scaled: in the units of the spaces
    """

    @cached_property
    def _functions(self) -> dict[str, MeasureFunction]:
        conventions = {name: measure.convention for name, measure in MAP_SCORES.items()}
        conventions |= {name: measure.convention for name, measure in MEASURES.items()}
        return {name: MeasureFunction(name, convention) for name, convention in conventions.items()}

    def __getitem__(self, name: str) -> MeasureFunction:
        if name not in self._functions:
            raise KeyError(f"got {name!r}, expected a measure{did_you_mean(str(name), self)}")
        return self._functions[name]

    def __getattr__(self, name: str) -> MeasureFunction:
        if name.startswith("_") or name not in self._functions:
            known = () if name.startswith("_") else self
            raise AttributeError(f"got measures.{name}, expected a measure{did_you_mean(name, known) if known else ''}")
        return self._functions[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._functions)

    def __len__(self) -> int:
        return len(self._functions)

    def __dir__(self) -> list[str]:
        return sorted(name for name in self if name.isidentifier())

    def __repr__(self) -> str:
        width = max(map(len, self))
        return "\n".join(f"{name:<{width}}  {one.convention}" for name, one in self.items())

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th scope="row">{escape(name)}</th><td>{escape(one.convention)}</td></tr>'
            for name, one in self.items()
        )
        return f"<table><tbody>{rows}</tbody></table>"


measures = Measures()
