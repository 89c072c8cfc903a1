"""Patterns of the catalog: ``{model}`` in paths, globs of layers."""

import re
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

from lfm_tasks.catalog.problems import did_you_mean
from lfm_tasks.reasons import ReasonError

_FIELD = re.compile(r"\{([^{}]*)\}")


def fields(pattern: str) -> list[str]:
    """Return the names in braces, in order; ValueError for a brace that stands alone.

    Examples
    --------
    >>> fields("zoo/{model}/{layer}.npy")
    ['model', 'layer']
    """
    if re.search(r"[{}]", _FIELD.sub("", pattern)):
        raise ValueError(f"found a single brace in {pattern[:100]!r}, needs {{model}}, {{layer}} or {{dataset}}")
    return _FIELD.findall(pattern)


def check_fields(pattern: str, allowed: Collection[str]) -> str:
    """Return ``pattern``; ValueError if it names other fields than ``allowed``, or ``{layer}`` twice."""
    found = fields(pattern)
    for name in found:
        if name not in allowed:
            hint = did_you_mean(name, allowed)
            raise ValueError(f"found {{{name[:60]}}}, needs one of {', '.join(f'{{{a}}}' for a in allowed)}{hint}")
    if found.count("layer") > 1:
        raise ValueError(f"found {{layer}} {found.count('layer')} times, needs it once: which one names the layer?")
    return pattern


def fill(pattern: str, **values: str) -> str:
    r"""Return ``pattern`` with its fields replaced; a field without a value stays as it is.

    A value never adds a folder to a path: ValueError if it holds ``/``, ``\``, NUL or is ``..``.

    Examples
    --------
    >>> fill("zoo/{model}/{layer}.npy", model="resnet18")
    'zoo/resnet18/{layer}.npy'
    """
    for name, value in values.items():
        if value in {"", ".", ".."} or re.search(r"[/\\\x00]", value):
            raise ValueError(f"found {value[:60]!r} for {{{name}}}, needs one plain name without folders")
    return _FIELD.sub(lambda match: values.get(match[1], match[0]), pattern)


def expand_layers(patterns: Sequence[str], layer_names: Sequence[str]) -> tuple[str, ...]:
    """Return the layers that ``patterns`` choose, in the model's order.

    A pattern is a glob (``*``, ``?``, ``[ab]``) or a full name; with ``!`` in front it takes layers away. Without
    any positive pattern, all layers are there to be taken away from.

    Raises
    ------
    ReasonError
        ``unknown_layer``, if a positive pattern matches nothing or nothing is left.

    Examples
    --------
    >>> expand_layers(["conv*", "!*.down"], ["conv1", "conv1.down", "fc"])
    ('conv1',)
    """
    wanted = [pattern for pattern in patterns if not pattern.startswith("!")]
    unwanted = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    for pattern in wanted:
        if not any(matches(name, pattern) for name in layer_names):
            hint = did_you_mean(pattern, layer_names) if layer_names else "; the model has no layers"
            raise ReasonError("unknown_layer", f"no layer matches {pattern[:100]!r}{hint}")
    chosen = tuple(
        name
        for name in layer_names
        if (not wanted or any(matches(name, pattern) for pattern in wanted))
        and not any(matches(name, pattern) for pattern in unwanted)
    )
    if not chosen:
        raise ReasonError("unknown_layer", f"of {len(layer_names)} layers none is left: remove a pattern with !")
    return chosen


def matches(name: str, pattern: str) -> bool:
    """Return whether a glob, or a full name, fits ``name``."""
    return name == pattern or fnmatchcase(name, pattern)
