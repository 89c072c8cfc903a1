"""What every command does alike: its exit codes, the catalog it reads, where it writes."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from lfm_tasks.catalog import Catalog

OK, CRASH, USAGE, LIMIT_BROKEN, SOME_FAILED = 0, 1, 2, 3, 4

CatalogPath = Annotated[Path, Parameter(alias="-c", help="The catalog: a YAML file.")]
TrustCode = Annotated[bool, Parameter(help="Run the factories that the catalog names: they are code.", negative="")]
Scheduler = Annotated[str, Parameter(help="Work there: tcp://host:port, tls://host:port or a scheduler file.")]
DEFAULT_CATALOG = Path("data_catalog.yaml")


def read_or_leave(path: Path, trust_code: bool = False) -> "Catalog":
    """Return the catalog at ``path``; if anything is wrong with it, say all of it and leave with `USAGE`."""
    from lfm_tasks.catalog import CatalogError, problems_at, read_catalog
    from lfm_tasks.stages.inventory.measures import unknown_measures

    try:
        catalog = read_catalog(path, trust_code=trust_code)
    except CatalogError as error:
        complain(str(error))
        sys.exit(USAGE)
    if unknown := unknown_measures(catalog):
        complain(str(CatalogError(problems_at(path, unknown))))
        sys.exit(USAGE)
    return catalog


def moved_or_leave(catalog: "Catalog", scheduler: str) -> "Catalog":
    """Return the catalog with its work on ``scheduler``, if that is said; leave with `USAGE` if it can be none."""
    from lfm_tasks.catalog import on_scheduler

    try:
        return on_scheduler(catalog, scheduler) if scheduler else catalog
    except ValueError as error:
        complain(f"--scheduler: {error}")
        sys.exit(USAGE)


def is_file_to_write(path: Path) -> bool:
    """Whether ``path`` can be a file; if it is a folder, say so."""
    if path.is_dir():
        complain(f"{path}: found a folder, needs a file to write: give its name, too")
        return False
    return True


def say(text: str) -> None:
    """Write a line to stdout: what was asked for."""
    sys.stdout.write(f"{text}\n")


def complain(text: str) -> None:
    """Write a line to stderr: what a person has to know beside it."""
    sys.stderr.write(f"{text}\n")
