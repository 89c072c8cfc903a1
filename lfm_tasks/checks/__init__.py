"""The checks of an audit, a plug-in family: each is one class that holds its settings and how it is evaluated.

To add a check, write a class into a file of this folder, a new one or that of its topic, and a test beside those of
``tests/unit/checks``::

    from lfm_tasks.checks import Measurement, PublishedAtlas, Skipped, Unjudged, ZooCheck

    class TooManyLayers(ZooCheck):
        \"\"\"Models with more layers than anybody looks at.\"\"\"

        at_most: int = Field(default=100, ge=1, description="layers of a model")
        enforced: bool = False

        def evaluate(self, current: PublishedAtlas) -> Measurement | Skipped | Unjudged: ...

A `ZooCheck` sees the atlas that is audited, a `BaselineCheck` the baseline, too. ``Skipped`` says that there is nothing
to measure, ``Unjudged`` that what is there cannot be judged: an enforced check is then an error. The name of the class
gives the key in the catalog (``too_many_layers``); every setting needs a default. The section ``audit.checks`` of the
catalog, its JSON schema and messages, the order (of files, then of classes in a file), the evaluation and the files of
an audit follow from the class. A row of the table in ``docs/audit.md`` and a line of the example in
``docs/catalog.md`` describe it; the tests of these pages ask for both.

The catalog takes the settings of checks from here: this package knows nothing of catalogs, runs and stages.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, ClassVar

from lfm_tasks.config import Settings

if TYPE_CHECKING:
    import xarray as xr

    from lfm_tasks.lineage.relations import Relation
    from lfm_tasks.lineage.weights import WeightAgreement

Finding = Mapping[str, Any]


@dataclass(frozen=True)
class Measurement:
    """The result of a check: the measured value, and whether it breaks the limit.

    ``observed`` is the number that the limit ``threshold`` is about. ``findings`` is the evidence, the worst first;
    ``null`` what chance or habit looks like.
    """

    is_broken: bool
    observed: float | None
    threshold: float | None
    message: str
    findings: Sequence[Finding] = ()
    null: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Skipped:
    """Why a check has nothing to measure."""

    message: str


@dataclass(frozen=True)
class Unjudged:
    """Why a check cannot judge what is there: an enforced one then fails the audit, which must not promote it."""

    message: str


class Check(Settings):
    """The settings that every check has; a check derives from `ZooCheck` or `BaselineCheck`."""

    enforced: bool = True

    @classmethod
    def key(cls) -> str:
        """Return the key of the check in the catalog: the name of the class in snake case.

        Examples
        --------
        >>> class NearDuplicate(ZooCheck): ...
        >>> NearDuplicate.key()
        'near_duplicate'
        """
        return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()


class ZooCheck(Check):
    """A check of one atlas."""

    def evaluate(self, current: "PublishedAtlas") -> Measurement | Skipped | Unjudged:
        """Return the measurement of the atlas, or why there is nothing to measure or no way to judge it."""
        raise NotImplementedError(_without_method(type(self), "evaluate(self, current)"))


class BaselineCheck(Check):
    """A check of an atlas against the baseline; it is skipped as long as there is none.

    ``compares_numbers``: it is an error where the baseline's numbers follow another convention.
    """

    compares_numbers: ClassVar[bool] = True

    def evaluate(self, current: "PublishedAtlas", baseline: "PublishedAtlas") -> Measurement | Skipped | Unjudged:
        """Return the measurement between both atlases, or why there is nothing to measure or no way to judge it."""
        raise NotImplementedError(_without_method(type(self), "evaluate(self, current, baseline)"))


def _without_method(kind: type[Check], method: str) -> str:
    return f"got no method {method} in {kind.__name__} of {kind.__module__}. Add it"


# What may differ between two atlases whose scores are still the same numbers.
_NOT_IN_SCORES = ("measures", "null")


@dataclass(frozen=True)
class PublishedAtlas:
    """A published atlas as checks see it: arrays, summary, the days since it was written, how weights agree."""

    # Every reader of a catalog imports this file: xarray and SciPy, half a second each, are imported where they work.
    atlas: "xr.Dataset"
    summary: Mapping[str, Any]
    days: float = 0.0
    # Of pairs of models whose weights are at hand; an audit adds them.
    weights: Mapping[frozenset[str], "WeightAgreement"] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The key of the atlas."""
        return str(self.summary["key"])

    @cached_property
    def meta(self) -> dict[str, dict[str, Any]]:
        """The ``meta`` of each model in the catalog that the atlas was made from."""
        return {model["name"]: model["meta"] for model in self.summary["models"]}

    @property
    def measure(self) -> str:
        """The measure that models are compared by: overlap, or the first where the atlas has no overlap."""
        from lfm_tasks.lineage.relations import default_measure

        return default_measure([str(name) for name in self.atlas["measure"].values])

    @property
    def datasets(self) -> list[str]:
        """The names of the datasets."""
        return [str(name) for name in self.atlas["dataset"].values]

    @property
    def models(self) -> set[str]:
        """The names of the models."""
        return {str(name) for name in self.atlas["source_model"].values}

    @cached_property
    def relations(self) -> tuple["Relation", ...]:
        """How each pair of models of a dataset is related, the most alike first."""
        from lfm_tasks.lineage.relations import relations_of_atlas

        return relations_of_atlas(self.atlas, self.meta)

    @property
    def convention(self) -> str:
        """The convention that all numbers of the atlas follow."""
        return str(self.atlas.attrs["convention"])

    def spaces(self, dataset: str) -> list[str]:
        """Return the names of the spaces of a dataset."""
        present = self.atlas["n_points"].sel(dataset=dataset).values > 0
        return [str(name) for name in self.atlas["source"].values[present]]

    def differing_settings(self, other: "PublishedAtlas") -> list[str]:
        """Return the names of the settings for which the scores of the two atlases cannot be compared."""
        ours, theirs = self.summary["settings"], other.summary["settings"]
        names = sorted((ours.keys() & theirs.keys()).difference(_NOT_IN_SCORES))
        differing = [name for name in names if ours[name] != theirs[name]]
        return differing if self.convention == other.convention else ["convention", *differing]


def check_classes() -> dict[str, type[Check]]:
    """Return all checks by key, in the order of the files of this folder and of the classes in each."""
    modules = iter_modules(__path__, f"{__name__}.")
    return classes_by_key(kind for module in modules for kind in _classes_of(module.name))


def classes_by_key(classes: Iterable[type[Check]]) -> dict[str, type[Check]]:
    """Return checks by key.

    Raises
    ------
    TypeError
        If two classes have one key, a setting has no default, or a class is no `ZooCheck` and no `BaselineCheck`.
    """
    checks: dict[str, type[Check]] = {}
    for kind in classes:
        name = f"{kind.__module__}.{kind.__name__}"
        if kind.key() in checks:
            raise TypeError(f"{name}: got two checks of the key {kind.key()}, expected one. Rename the class")
        if not issubclass(kind, ZooCheck | BaselineCheck):
            raise TypeError(f"{name}: got a Check, expected a class derived from ZooCheck or BaselineCheck")
        if required := [key for key, field in kind.model_fields.items() if field.is_required()]:
            raise TypeError(f"{name}: got no default of {', '.join(required)}, expected one: catalogs need not name it")
        checks[kind.key()] = kind
    return checks


def _classes_of(module: str) -> list[type[Check]]:
    return [
        value
        for name, value in vars(import_module(module)).items()
        if isinstance(value, type) and issubclass(value, Check) and value.__module__ == module and name[0] != "_"
    ]
