"""What is wrong with a catalog: every mistake with its file and line."""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True, order=True)
class Problem:
    """One mistake: ``where`` is the dotted key, ``line`` counts from 1 (0: the file as a whole)."""

    file: str
    line: int
    where: str
    message: str

    def __str__(self) -> str:
        """``file:line: where: message``, on one line."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (place, self.where, self.message) if part)


class CatalogError(Exception):
    """A catalog that cannot be used; ``problems`` holds all its mistakes, in the order of their lines."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type["CatalogError"], tuple[tuple[Problem, ...]]]:
        """Keep the problems when the error travels between processes."""
        return type(self), (self.problems,)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` with the nearest known names, or what there is when nothing is near.

    Examples
    --------
    >>> did_you_mean("formt", ["format", "path"])
    "; did you mean 'format'?"
    """
    names = sorted(known)
    lowered = {candidate.casefold(): candidate for candidate in names}
    near = [lowered[match] for match in get_close_matches(name.casefold()[:200], lowered, n=3, cutoff=0.6)]
    if near:
        return f"; did you mean {' or '.join(repr(candidate) for candidate in near)}?"
    if not names:
        return ""
    shown = ", ".join(names[:12])
    return f"; there is {shown}" + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def describe(value: object) -> str:
    """Return what was found, in the words of YAML, on one line of at most about 80 characters."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {str(value)[:60]}" if abs(value) < 10**50 else "a huge number"
        case str():
            return f"the text {value!r}" if len(value) <= 60 else f"the text {value[:60]!r}..."
        case dict():
            return "a mapping" if value else "an empty mapping"
        case list() | tuple():
            return "a list" if value else "an empty list"
        case _:
            return f"a {type(value).__name__}"
