"""How far a run is: bars on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lfm_tasks.runtime.run import Announce


def silently(stage: str, done: int, total: int) -> None:
    """Announce nothing."""


@contextmanager
def progress() -> Iterator[Announce]:
    """Give a function that shows (stage, done, total) on stderr."""
    if not sys.stderr.isatty():
        yield _line
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def announce(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            # A stage with nothing to do is done.
            bars.update(tasks[stage], completed=done or (total == 0), total=max(total, 1))

        yield announce


def _line(stage: str, done: int, total: int) -> None:
    if total and done in (0, total):
        sys.stderr.write(f"{stage}: {done}/{total}\n")
        sys.stderr.flush()
