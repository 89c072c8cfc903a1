"""Exit codes, parameters, messages and signal handling that all commands share."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from lfm_tasks.errors import Stopped
from lfm_tasks.variables import NOTHING_HIDDEN, HiddenValues

if TYPE_CHECKING:
    from lfm_tasks.catalog import Catalog
    from lfm_tasks.published.answers import Table
    from lfm_tasks.runtime.run import ProgressCallback


OK, CRASH, USAGE, LIMIT_BROKEN, SOME_FAILED = 0, 1, 2, 3, 4

CatalogPath = Annotated[Path, Parameter(name=["--catalog", "-c"], help="The catalog: a YAML file.")]
TrustCode = Annotated[
    bool, Parameter(help="Allow the factories that the catalog names, which are code, to run.", negative="")
]
Scheduler = Annotated[str, Parameter(help="Dask scheduler to use: tcp://host:port, tls://host:port or a file.")]
Force = Annotated[bool, Parameter(help="Replace an existing file, also one that lfm-atlas did not write.", negative="")]
TextOrJson = Annotated[Literal["text", "json"], Parameter(help="json: for programs, one object on stdout.")]
DatasetOfBoth = Annotated[str | None, Parameter(help="The dataset of both sides; needed if a model is on several.")]
DEFAULT_CATALOG = Path("data_catalog.yaml")


def load_catalog_or_exit(path: Path, trust_code: bool = False) -> "Catalog":
    """Return the catalog at ``path``; print all that is wrong with it and exit with `USAGE` if there is anything."""
    from lfm_tasks.catalog import CatalogError, read_catalog
    from lfm_tasks.stages.inventory.requests import unknown_measures

    try:
        catalog = read_catalog(path, trust_code=trust_code, more=unknown_measures)
    except CatalogError as error:
        print_err(str(error))
        sys.exit(USAGE)
    return _hiding_values(catalog)


def _hiding_values(catalog: "Catalog") -> "Catalog":
    """Return the catalog; from now on nothing that is printed shows its values of the environment."""
    _TERMINAL.hidden = catalog.hidden
    return catalog


def load_catalog_as_far_as_possible(path: Path, trust_code: bool) -> "tuple[Catalog, bool]":
    """Return the catalog and whether it is sound; print its mistakes, and exit if nothing can be opened by the rest."""
    from lfm_tasks.catalog import CatalogError, read_catalog
    from lfm_tasks.stages.inventory.requests import unknown_measures

    try:
        return _hiding_values(read_catalog(path, trust_code=trust_code, more=unknown_measures)), True
    except CatalogError as error:
        print_err(str(error))
        if error.usable is None:
            sys.exit(USAGE)
        return _hiding_values(error.usable), False


def check_folders_or_exit(path: Path, catalog: "Catalog", *keys: tuple[str, ...]) -> None:
    """Print which folders of the catalog hold what lfm-atlas must not write over, and exit with `USAGE` if any does.

    ``keys``: which folders, such as ``("atlas", "path")``; without any, all.
    """
    from lfm_tasks.catalog import CatalogError, problems_at
    from lfm_tasks.runtime.folders import refused_folders

    if refused := list(refused_folders(catalog, *keys)):
        print_err(str(CatalogError(problems_at(path, refused))))
        sys.exit(USAGE)


def warn_of_read_only_folders(catalog: "Catalog") -> None:
    """Print which folders of the catalog a run or an audit by this user, on this machine, could not write to."""
    from lfm_tasks.runtime.folders import read_only_folders

    for error in read_only_folders(catalog):
        print_err(f"a run could not write here: {format_os_error(error)}")


def override_scheduler_or_exit(catalog: "Catalog", scheduler: str) -> "Catalog":
    """Return the catalog with ``scheduler`` in place of its cluster; exit with `USAGE` if that is no address.

    An empty ``scheduler`` changes nothing.
    """
    from lfm_tasks.catalog import on_scheduler

    try:
        return on_scheduler(catalog, scheduler) if scheduler else catalog
    except ValueError as error:
        print_err(f"--scheduler: {error}")
        sys.exit(USAGE)


def absolute_scheduler(scheduler: str) -> str:
    """Return an address, or nothing, as it is, and the path of a scheduler file as an absolute one."""
    return str(Path(scheduler).absolute()) if scheduler and "://" not in scheduler else scheduler


# Holds nothing that can be imported or read as settings; anyone who can write to it can change this program.
EMPTY_FOLDER = Path(__file__).parent / "empty"


def work_folder(catalog: "Catalog") -> Path:
    """Return the folder to work in, for ``contextlib.chdir``: an empty one, where no module and no settings lie.

    With ``--trust-code`` it is the catalog's: the factories may then be imported from there, and find their files.
    """
    return catalog.root if catalog.trust.everything else EMPTY_FOLDER


@contextmanager
def environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """Set variables of this process and of those that it starts (None: unset); put them back when the block ends."""
    before = {name: os.environ.get(name) for name in values}
    _set_variables(values)
    try:
        yield
    finally:
        _set_variables(before)


def _set_variables(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def safe_children() -> dict[str, str]:
    """Return variables with which child processes import and read nothing from their working directory.

    numba reads ``.numba_config.yaml`` there, which could name a cache, and a cache holds code; the environment wins.
    """
    unset = {name: os.environ.get(name, "") for name in ("NUMBA_CACHE_DIR", "NUMBA_CACHE_LOCATOR_CLASSES")}
    return {"PYTHONSAFEPATH": "1"} | unset


@contextmanager
def exit_if_refused() -> Iterator[None]:
    """Print the `FolderError` by which the block ends, if it does, and exit with `USAGE`."""
    from lfm_tasks.errors import FolderError

    try:
        yield
    except FolderError as error:
        print_err(escape_unprintable(str(error)))
        sys.exit(USAGE)


@contextmanager
def exit_if_data_refused() -> Iterator[None]:
    """Print the error of the data by which the block ends, if it does, with its reason, and exit with `USAGE`."""
    from lfm_tasks.errors import CorruptUnitError, DataError

    try:
        yield
    except (DataError, CorruptUnitError) as error:
        reason = error.reason if isinstance(error, DataError) else "failed"
        print_err(escape_unprintable(f"{error} [{reason}]"))
        sys.exit(USAGE)


def announce_start(what: str) -> None:
    """Print the first line of a command that imports much before it can say more: for long, on a busy machine."""
    print_err(f"starting {what} ...")


def announce_dashboard(address: str) -> None:
    """Print the address of Dask's dashboard: anyone who has it sees what runs."""
    print_err(f"Dask's dashboard, until the run ends: {address}")


def print_out(text: str) -> None:
    """Write a line to stdout: the result of the command."""
    sys.stdout.write(f"{text}\n")


@dataclass
class _Terminal:
    """The text that this process hides in its output: values of environment variables in the catalog."""

    hidden: HiddenValues = NOTHING_HIDDEN


# One for the process, as its stdout and stderr are: threads print, too.
_TERMINAL = _Terminal()


def shown(text: object) -> str:
    """Return the text of a path or a message as people may see it: values of the environment by their names."""
    return _TERMINAL.hidden(str(text))


def print_err(text: str) -> None:
    """Write a line to stderr: errors and notes, so that programs can read stdout; values are hidden."""
    sys.stderr.write(f"{shown(text)}\n")


RESUMES = "what was finished is kept, the next run goes on from there"


def format_os_error(error: Exception, *, resumes: bool = True) -> str:
    """Return the message for an error that ended a command, with a remedy for those of disks and permissions.

    ``resumes``: whether the command goes on from what it finished.
    """
    then = f"; {RESUMES}" if resumes else ""
    if not isinstance(error, OSError) or error.errno is None:
        return f"{type(error).__name__}: {error}"
    place = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    where = f"{place}: " if place else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = _free_space(place)
        return f"{where}got no space left on the disk{free}, expected more. Free some, then run again{then}"
    if error.errno == errno.EFBIG:
        problem = "got a file beyond the size limit (ulimit -f), expected a higher limit"
        return f"{where}{problem}. Raise it, then run again{then}"
    if error.errno == errno.EROFS:
        return f"{where}got a read-only disk, expected one to write to. Choose another place, or remount it"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{where}permission denied. Choose a place that you may write to, or change its rights"
    if error.errno == errno.EIO:
        problem = f"got a disk that fails ({error.strerror}), expected a sound one"
        return f"{where}{problem}. Check it, then run again{then}"
    return f"{type(error).__name__}: {error}"


def _free_space(place: str) -> str:
    """Return the free space of the disk that holds ``place``, in parentheses; "" if ``place`` is not known."""
    # Of a place with a hidden value in it nobody can tell the disk.
    for folder in Path(place).absolute().parents if place and "${" not in place else ():
        if folder.is_dir():
            return f" ({shutil.disk_usage(folder).free / 1e6:.1f} MB free)"
    return ""


# A run that gets a signal has exited after this long, whatever it waits for (seconds).
STOP_SECONDS = 7.0


def stop_on_signals() -> None:
    """Exit with 143 on SIGTERM, raise KeyboardInterrupt on SIGINT; exit at once on a second signal of either kind.

    The run's child processes end with it in every case: the Prefect server dies with its parent, and Dask's workers
    watch theirs.
    """
    _handle_signals()
    sys.unraisablehook = partial(_deliver_again, sys.unraisablehook)


def _handle_signals() -> None:
    signal.signal(signal.SIGTERM, _on_signal)
    # A shell has SIGINT ignored in what it starts in the background: that stays so.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _on_signal)


# Prefect's handler raises the last of these inside a flow.
_OF_SIGNALS = {"Stopped": signal.SIGTERM, "KeyboardInterrupt": signal.SIGINT, "TerminationSignal": signal.SIGTERM}


def _deliver_again(
    otherwise: Callable[["sys.UnraisableHookArgs"], object], ignored: "sys.UnraisableHookArgs", /
) -> None:
    """Send a signal to this process again if its exception was raised where Python ignores exceptions.

    That is in finalizers and callbacks of weak references: the handler has raised, nobody has caught it, and the run
    would go on as if nobody had stopped it.
    """
    received = _OF_SIGNALS.get(ignored.exc_type.__name__)
    if received is None:
        otherwise(ignored)
        return
    if ignored.exc_type is Stopped or received == signal.SIGINT:
        # The first signal, not the second, which ends at once.
        _handle_signals()
    # Later, once the finalizer has returned.
    again = threading.Timer(0.01, os.kill, [os.getpid(), received])
    again.daemon = True
    # An interpreter that ends starts no threads; it ends anyway.
    with suppress(RuntimeError):
        again.start()


def _on_signal(received: int, frame: FrameType | None) -> None:
    for stopping in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stopping, lambda second, _: _exit_now(128 + second))
    # An orderly end may wait for a cluster, a server or a computation that checks no signals.
    deadline = threading.Timer(STOP_SECONDS, _exit_now, [128 + received])
    deadline.daemon = True
    deadline.start()
    if received == signal.SIGINT:
        raise KeyboardInterrupt
    raise Stopped(128 + received)


def _exit_now(code: int) -> None:
    """End this process and its workers now: a worker that is starting would notice its parent's end seconds later."""
    try:
        for child in multiprocessing.active_children():
            child.kill()
    finally:
        os._exit(code)


_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Characters a line, where stdout is no terminal.
_DEFAULT_WIDTH = 160


def print_tables(tables: Iterable["Table"]) -> None:
    """Write tables to stdout."""
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else _DEFAULT_WIDTH, highlight=False)
    for table in tables:
        console.print(Text(escape_unprintable(table.title), style="bold"))
        if not table.rows:
            continue
        names = list(table.columns) or list(dict.fromkeys(name for row in table.rows for name in row))
        names = [name for name in names if any(row.get(name) not in (None, "") for row in table.rows)]
        for chosen in _fitting(names, table.rows, console.width) if names else ():
            drawn = RichTable(box=None, pad_edge=False, header_style="dim")
            for name in chosen:
                is_numeric = all(isinstance(row.get(name), int | float | None) for row in table.rows)
                side: Literal["left", "right"] = "right" if is_numeric else "left"
                drawn.add_column(Text(escape_unprintable(name)), justify=side, overflow="fold")
            for row in table.rows:
                drawn.add_row(*(Text(escape_unprintable(format_cell(row.get(name)))) for name in chosen))
            console.print(drawn)


def _fitting(names: Sequence[str], rows: Sequence[Mapping[str, Any]], width: int) -> Iterator[list[str]]:
    """Yield the columns that fit side by side: all, or groups of them, each after the first column."""
    from rich.cells import cell_len

    first, *others = names
    widths = {
        name: max(cell_len(escape_unprintable(text)) for text in (name, *(format_cell(row.get(name)) for row in rows)))
        for name in names
    }
    group, used = [first], widths[first]
    for name in others:
        if len(group) > 1 and used + 2 + widths[name] > width:
            yield group
            group, used = [first], widths[first]
        group.append(name)
        used += 2 + widths[name]
    yield group


def format_cell(value: Any) -> str:
    """Return the text of a table cell: three decimals, an exponent for very small or large numbers, "" for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.1e}"
    return str(value)


def escape_unprintable(text: str) -> str:
    """Return ``text`` with control and other invisible characters as escapes, so that no terminal obeys them."""
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in _UNPRINTABLE else character
        for character in text
    )


def as_json(content: Mapping[str, Any]) -> str:
    """Return ``content`` as one JSON object in ASCII, so that no terminal obeys what stands in it."""
    return json.dumps(content, indent=1, allow_nan=False)


# Where stderr is no terminal, a stage that works says so after this long at the latest.
PROGRESS_SECONDS = 60.0


def no_progress(stage: str, done: int, total: int) -> None:
    """Report nothing: a progress callback for programs."""


@contextmanager
def progress() -> Iterator["ProgressCallback"]:
    """Yield a progress callback that shows (stage, done, total) on stderr: bars in a terminal, else lines."""
    if not sys.stderr.isatty():
        yield _progress_lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def report_progress(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            # A stage with nothing to do is done.
            bars.update(tasks[stage], completed=done or (total == 0), total=max(total, 1))

        yield report_progress


def _progress_lines() -> "ProgressCallback":
    """Return a progress callback that prints a line at each tenth of a stage, and where none came for long."""
    printed: dict[str, tuple[int, float]] = {}

    def report_progress(stage: str, done: int, total: int) -> None:
        if not total:
            return
        tenth, now = 10 * done // total, time.monotonic()
        last_tenth, last_time = printed.get(stage, (-1, now))
        if tenth != last_tenth or now - last_time >= PROGRESS_SECONDS:
            printed[stage] = (tenth, now)
            sys.stderr.write(f"{stage}: {done}/{total}\n")
            sys.stderr.flush()

    return report_progress
