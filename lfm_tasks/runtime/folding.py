"""Failures of one reason merged into one line, with their number and the first three names."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from lfm_tasks.runtime.run import Failure

# So many names stand in a line; failures that differ only by numbers are printed one by one up to this many.
N_NAMED = 3


@dataclass(frozen=True)
class FoldedFailures:
    """Failures of one stage and reason whose messages differ by names and numbers only, in their order."""

    failures: tuple[Failure, ...]

    @property
    def names(self) -> str:
        """The first three spaces, or models, and how many more there are."""
        models = list(dict.fromkeys(failure.model for failure in self.failures))
        layers = list(dict.fromkeys(failure.layer for failure in self.failures))
        if len(models) == 1:
            return f"{models[0]}/{_first_names(layers, 'layers')}" if layers != [""] else models[0]
        if len(self.failures) == len(models):
            return _first_names([_name(failure) for failure in self.failures], "")
        return _first_names(models, "models")

    def line(self, *, with_dataset: bool = False) -> str:
        """Return who failed and why, on one line: the message is that of the first."""
        first, datasets = self.failures[0], list(dict.fromkeys(failure.dataset for failure in self.failures))
        where = f" ({_first_names(datasets, 'datasets')})" if with_dataset else ""
        counted = f"{len(self.failures):,} times: " if len(self.failures) > N_NAMED else ""
        return f"{self.names}{where}: {counted}{first.message} [{first.reason}]"


def fold_failures(failures: Iterable[Failure]) -> list[FoldedFailures]:
    """Return all failures, those together that say the same, in the order of the first of each.

    Examples
    --------
    >>> lost = [Failure("probe", f"net{i}", "", "validate", "missing_source", f"net{i}.npy: no file") for i in range(9)]
    >>> [folded.line() for folded in fold_failures(lost)]
    ['net0, net1, net2 and 6 more: 9 times: net0.npy: no file [missing_source]']
    """
    groups: dict[tuple[str, str, str], dict[str, list[Failure]]] = {}
    firsts: dict[Failure, Failure] = {}
    for failure in failures:
        # One message for several layers of a model counts as the same, also where it names some of them.
        first = firsts.setdefault(replace(failure, layer=""), failure)
        groups.setdefault(_kind(first), {}).setdefault(_without_names(first), []).append(failure)
    folded = []
    for by_text in groups.values():
        if len(by_text) > N_NAMED:
            folded.append(FoldedFailures(tuple(failure for same in by_text.values() for failure in same)))
        else:
            folded += [FoldedFailures(tuple(same)) for same in by_text.values()]
    return folded


def failures_as_json(failures: Sequence[Failure]) -> list[dict[str, Any]]:
    """Return failures for ``summary.json`` and the log: the fields of the first of its kind; of many, ``count``, too.

    Up to three that say the same stand there one by one. ``names``, beside ``count``, has the first three.
    """
    entries: list[dict[str, Any]] = []
    for folded in fold_failures(failures):
        if len(folded.failures) <= N_NAMED:
            entries += [asdict(failure) for failure in folded.failures]
        else:
            entries.append(asdict(folded.failures[0]) | {"count": len(folded.failures), "names": folded.names})
    return entries


def says_the_same(first: Failure, second: Failure) -> bool:
    """Return whether two failures have one reason, and messages that differ by names and numbers only."""
    return _kind(first) == _kind(second)


def _kind(failure: Failure) -> tuple[str, str, str]:
    return failure.stage, failure.reason, re.sub(r"\d+", "#", _without_names(failure))


def _without_names(failure: Failure) -> str:
    """Return the message with marks in the place of the failure's own model, layer and dataset."""
    names = sorted({failure.model, failure.layer, failure.dataset} - {""}, key=len, reverse=True)
    pattern = "|".join(re.escape(name) for name in names)
    return re.sub(rf"(?<![^\W_])(?:{pattern})(?![^\W_])", "<name>", failure.message) if pattern else failure.message


def _name(failure: Failure) -> str:
    return f"{failure.model}/{failure.layer}" if failure.layer else failure.model


def _first_names(names: Sequence[str], what: str) -> str:
    shown, n_more = ", ".join(names[:N_NAMED]), len(names) - N_NAMED
    return shown if n_more < 1 else f"{shown} and {n_more:,} more{f' {what}' if what else ''}"
