"""What all commands share: exit codes, parameters, messages, signals."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from lfm_tasks.runtime.run import ProgressCallback

if TYPE_CHECKING:
    from lfm_tasks.catalog import Catalog
    from lfm_tasks.published.answers import Table


OK, CRASH, USAGE, LIMIT_BROKEN, SOME_FAILED = 0, 1, 2, 3, 4

CatalogPath = Annotated[Path, Parameter(alias="-c", help="The catalog: a YAML file.")]
TrustCode = Annotated[bool, Parameter(help="Run the factories that the catalog names: they are code.", negative="")]
Scheduler = Annotated[str, Parameter(help="Work there: tcp://host:port, tls://host:port or a scheduler file.")]
DEFAULT_CATALOG = Path("data_catalog.yaml")


def load_catalog_or_exit(path: Path, trust_code: bool = False) -> "Catalog":
    """Return the catalog at ``path``; if anything is wrong with it, say all of it and leave with `USAGE`."""
    from lfm_tasks.catalog import CatalogError, problems_at, read_catalog
    from lfm_tasks.stages.inventory.requests import unknown_measures

    try:
        catalog = read_catalog(path, trust_code=trust_code)
    except CatalogError as error:
        print_err(str(error))
        sys.exit(USAGE)
    if unknown := unknown_measures(catalog):
        print_err(str(CatalogError(problems_at(path, unknown))))
        sys.exit(USAGE)
    return catalog


def override_scheduler_or_exit(catalog: "Catalog", scheduler: str) -> "Catalog":
    """Return the catalog with its work on ``scheduler``, if that is said; leave with `USAGE` if it can be none."""
    from lfm_tasks.catalog import on_scheduler

    try:
        return on_scheduler(catalog, scheduler) if scheduler else catalog
    except ValueError as error:
        print_err(f"--scheduler: {error}")
        sys.exit(USAGE)


def is_file_to_write(path: Path) -> bool:
    """Whether ``path`` can be a file; if it is a folder, say so."""
    if path.is_dir():
        print_err(f"{path}: found a folder, needs a file to write: give its name, too")
        return False
    return True


def print_out(text: str) -> None:
    """Write a line to stdout: what was asked for."""
    sys.stdout.write(f"{text}\n")


def print_err(text: str) -> None:
    """Write a line to stderr: what a person has to know beside it."""
    sys.stderr.write(f"{text}\n")


_KEPT = "what was finished is kept, the next run goes on from there"


def format_os_error(error: Exception) -> str:
    """Return what to tell a person of an error that ended a command."""
    if not isinstance(error, OSError) or error.errno is None:
        return f"{type(error).__name__}: {error}"
    place = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    where = f"{place}: " if place else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{where}found no space left on the disk{_free(place)}, needs more: free some, then run again; {_KEPT}"
    if error.errno == errno.EFBIG:
        return f"{where}found a limit on the size of files, needs a higher one: see ulimit -f, then run again; {_KEPT}"
    if error.errno == errno.EROFS:
        return f"{where}found a disk that can only be read, needs one to write to: choose another place, or remount it"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{where}permission denied: choose a place that you may write to, or change its rights"
    if error.errno == errno.EIO:
        return (
            f"{where}found a disk that fails ({error.strerror}), needs a sound one: check it, then run again; {_KEPT}"
        )
    return f"{type(error).__name__}: {error}"


def _free(place: str) -> str:
    """Return how much there is, as far as the place is known."""
    for folder in Path(place).absolute().parents if place else ():
        if folder.is_dir():
            return f" ({shutil.disk_usage(folder).free / 1e6:.1f} MB free)"
    return ""


# A run that was told to stop has left after this long, whatever it waits for (seconds).
STOP_SECONDS = 7.0


def stop_on_signals() -> None:
    """Leave with 143 on SIGTERM, by KeyboardInterrupt on SIGINT; at once on a second signal of either kind.

    Leaving takes the run's children with it, however it comes about: the Prefect server dies with its parent, and
    Dask's workers watch theirs.
    """
    signal.signal(signal.SIGTERM, _stop)
    # A shell has SIGINT ignored in what it starts in the background: that stays so.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    for again in (signal.SIGTERM, signal.SIGINT):
        signal.signal(again, lambda now, _: _leave(128 + now))
    # What ends in order may wait for a cluster, a server or a computation that does not look up.
    late = threading.Timer(STOP_SECONDS, _leave, [128 + number])
    late.daemon = True
    late.start()
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def _leave(code: int) -> None:
    """End this process and its workers now: one that starts would only look for its parent seconds later."""
    try:
        for child in multiprocessing.active_children():
            child.kill()
    finally:
        os._exit(code)


_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# What no terminal says about its width gets.
_WIDE = 160


def print_tables(tables: Iterable["Table"]) -> None:
    """Write tables to stdout."""
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else _WIDE, highlight=False)
    for table in tables:
        console.print(Text(visible(table.title), style="bold"))
        if not table.rows:
            continue
        drawn = RichTable(box=None, pad_edge=False, header_style="dim")
        names = list(table.shown) or list(dict.fromkeys(name for row in table.rows for name in row))
        names = [name for name in names if any(row.get(name) not in (None, "") for row in table.rows)]
        for name in names:
            numbers = all(isinstance(row.get(name), int | float | None) for row in table.rows)
            drawn.add_column(Text(visible(name)), justify="right" if numbers else "left", overflow="fold")
        for row in table.rows:
            drawn.add_row(*(Text(visible(cell(row.get(name)))) for name in names))
        console.print(drawn)


def cell(value: Any) -> str:
    """Return a value as it stands in a table: numbers to three digits, nothing where there is none."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.1e}"
    return str(value)


def visible(text: str) -> str:
    """Return ``text`` with control and other unseen characters written out, so that a terminal only shows them."""
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in _UNSEEN else character
        for character in text
    )


def as_json(content: Mapping[str, Any]) -> str:
    """Return one object; all but ASCII is escaped, for the same reason."""
    return json.dumps(content, indent=1, allow_nan=False)


def no_progress(stage: str, done: int, total: int) -> None:
    """ProgressCallback nothing."""


@contextmanager
def progress() -> Iterator[ProgressCallback]:
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
