"""The command line ``lfm-atlas``: its commands, exit codes and orderly shutdown."""

import gc
import signal
import sys
import traceback
from typing import NoReturn

from cyclopts import App

from lfm_atlas.cli import atlas, audit, maps, parity, reproduce, run, upgrade
from lfm_atlas.console import (
    CRASH,
    OK,
    RESUMES,
    USAGE,
    environment,
    format_os_error,
    print_err,
    safe_children,
    stop_on_signals,
)
from lfm_atlas.limits import why_exhausted, why_unfit
from lfm_atlas.prefect_access import PrefectError
from lfm_atlas.proxies import no_proxy_on_loopback
from lfm_atlas.streams import protect_streams
from lfm_tasks import __version__
from lfm_tasks.errors import FolderError, TooLargeError

app = App(
    name="lfm-atlas",
    version=__version__,
    help="""Compare the representations of many models: compute a similarity atlas of all (model, layer) spaces.

    Start with `lfm-atlas init` in an empty folder, then `lfm-atlas run`, then open atlas/report.html.

    Exit codes: 0 done, 1 crash, 2 usage or bad catalog, 3 a limit is broken (audit, keep_if_below, parity),
    4 done but some spaces failed, 130 or 143 stopped by SIGINT or SIGTERM.""",
    suppress_keyboard_interrupt=False,  # main prints what a person has to know
)
# A new command is a function in one of these modules, named in its ``add_commands``.
for module in (run, atlas, maps, parity, upgrade, reproduce, audit):
    module.add_commands(app)
app.register_install_completion_command(help="Complete commands and options by Tab in this shell, from its next start.")


# They do nothing but print, and end as others do when nobody reads on: lfm-atlas show | head.
_ONLY_PRINT = {"catalog", "diff", "layers", "maps", "plan", "show", "--help", "--version"}
# How many objects these make before Python looks for cycles among them: by default a tenth of their time goes there,
# as what they import stays.
_OBJECTS = 500_000


# Commands whose next run goes on from what the last one finished.
_RESUME = frozenset({"run", "audit", "serve", "reproduce"})


def main() -> NoReturn:
    """Run the command and exit with its code."""
    command = next(iter(sys.argv[1:]), "")
    protect_streams(only_prints=command in _ONLY_PRINT)
    if refusal := why_unfit(command):
        print_err(refusal)
        sys.exit(USAGE)
    if command in _ONLY_PRINT:
        gc.set_threshold(_OBJECTS)
    stop_on_signals()
    try:
        with environment(safe_children() | no_proxy_on_loopback()):
            result = app(result_action="return_value")
        code = result if isinstance(result, int) else OK
        sys.stdout.flush()
    except KeyboardInterrupt:
        print_err(f"stopped; {RESUMES}" if command in _RESUME else "stopped")
        code = 128 + signal.SIGINT
    except (FolderError, TooLargeError, PrefectError) as error:
        print_err(str(error))
        code = USAGE
    except Exception as error:
        # A limit, a full disk, a busy store: the message names the cause, a traceback would hide it.
        named = why_exhausted(error)
        if not named and isinstance(error, OSError | RuntimeError):
            named = format_os_error(error, resumes=command in _RESUME)
        # As Python does, but without values of the environment.
        print_err(named or traceback.format_exc().rstrip())
        code = CRASH
    sys.exit(code)
