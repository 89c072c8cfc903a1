"""All measures of activations by name; the name is the convention.

Every module of this package that has a mapping called ``MEASURES`` contributes it, and so does every installed
distribution with an entry point in the group ``lfm_atlas.measures``: a `Measure`, whose name is that of the entry
point, or a mapping of names to Measures. tests/packaging/example_plugin is such a distribution.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pkgutil import iter_modules
from typing import Any

from lfm_tasks.measures.measure import Measure

ENTRY_POINTS = "lfm_atlas.measures"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}")


class PlugInError(ValueError):
    """An installed distribution brings measures that cannot be used; the message names it."""


class MeasureRegistry(Mapping[str, Measure]):
    """The measures by name, imported when the first is looked up: other people's code never runs at import.

    Raises
    ------
    PlugInError
        At the first look-up, if an installed distribution cannot be loaded, or brings what is no measure, or a name
        that is taken.
    """

    def __init__(self) -> None:
        self._origins: dict[str, str] = {}

    @cached_property
    def by_name(self) -> dict[str, Measure]:
        """The measures of this package, then those of installed distributions."""
        measures = shipped_measures()
        for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: (point.name, point.value)):
            for name, measure in _installed_measures(point).items():
                self._origins.setdefault(name, _origin(point))
                if name in measures:
                    raise PlugInError(f"{_origin(point)}: got the measure {name}, a name that is taken. Rename it")
                measures[name] = measure
        return measures

    def check_names(self, taken: Collection[str]) -> None:
        """Raise `PlugInError` if a measure of an installed distribution has one of the names that are ``taken``."""
        for name in self.by_name:
            if name in taken:
                origin = self._origins.get(name, __name__)
                raise PlugInError(f"{origin}: got the measure {name}, a name that is taken. Rename it")

    def __getitem__(self, name: str) -> Measure:
        if name not in self.by_name:
            raise KeyError(f"no measure of activations is called {name}, here and in the packages installed here")
        return self.by_name[name]

    def __contains__(self, name: object) -> bool:
        return name in self.by_name

    def __iter__(self) -> Iterator[str]:
        return iter(self.by_name)

    def __len__(self) -> int:
        return len(self.by_name)


MEASURES = MeasureRegistry()


def shipped_measures() -> dict[str, Measure]:
    """Return the measures of this package's modules, module by module; RuntimeError for a name that is there twice."""
    measures: dict[str, Measure] = {}
    package = import_module(__name__.rpartition(".")[0])
    for module in sorted(module.name for module in iter_modules(package.__path__)):
        contents = import_module(f"{package.__name__}.{module}")
        family: Any = getattr(contents, "MEASURES", {})
        if isinstance(family, MeasureRegistry):
            continue
        if repeated := measures.keys() & family.keys():
            raise RuntimeError(f"{contents.__name__}: got {', '.join(sorted(repeated))}, which another module has")
        measures |= family
    return measures


def _installed_measures(point: EntryPoint) -> dict[str, Measure]:
    """Return the measures of one entry point by name; PlugInError if there are none."""
    try:
        value = point.load()
    except Exception as error:  # another package's code
        message = f"{_origin(point)} cannot be loaded ({type(error).__name__}: {error})"
        raise PlugInError(f"{message}. Fix or remove its package") from error
    measures = dict(value) if isinstance(value, Mapping) else {point.name: value}
    for name, measure in measures.items():
        if not isinstance(measure, Measure):
            message = f"{_origin(point)}: got {type(measure).__name__} as {name!r}"
            raise PlugInError(f"{message}, expected a lfm_tasks.measures.Measure")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            message = f"{_origin(point)}: got the name {name!r}"
            raise PlugInError(f"{message}, expected letters, digits, _, . and -, at most 100")
    return measures


def _origin(point: EntryPoint) -> str:
    """Return how messages call an entry point: by its distribution, its name and what it points to."""
    distribution = point.dist.name if point.dist is not None else "an unknown distribution"
    return f"the measures of {distribution} ({point.name} = {point.value})"
