"""The command line ``lfm-atlas``: its commands, its exit codes, and what ends a command in order."""

import signal
import sys
from typing import NoReturn

from cyclopts import App

from lfm_atlas.cli import atlas, audit, maps, reproduce, run
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
from lfm_tasks import __version__
from lfm_tasks.errors import FolderError, TooLargeError

app = App(
    name="lfm-atlas",
    version=__version__,
    help="""Which representations of a model zoo are alike? Writes a similarity atlas of all (model, layer) spaces.

    Start with `lfm-atlas init` in an empty folder, then `lfm-atlas run`, then open atlas/report.html.

    Exit codes: 0 done, 1 crash, 2 usage or bad catalog, 3 a limit is broken (audit, keep_if_below),
    4 done but some spaces failed, 130 or 143 stopped by SIGINT or SIGTERM.""",
    suppress_keyboard_interrupt=False,  # main prints what a person has to know
)
# A new command is a function in one of these modules, named in its ``add_commands``.
for module in (run, atlas, maps, reproduce, audit):
    module.add_commands(app)


def main() -> NoReturn:
    """Run the command and exit with its code."""
    stop_on_signals()
    try:
        with environment(safe_children()):
            result = app(result_action="return_value")
        code = result if isinstance(result, int) else OK
    except KeyboardInterrupt:
        print_err(f"stopped; {RESUMES}")
        code = 128 + signal.SIGINT
    except (FolderError, TooLargeError) as error:
        print_err(str(error))
        code = USAGE
    except (OSError, RuntimeError) as error:
        # Full disk, a busy store: the message names the cause, a traceback would hide it.
        print_err(format_os_error(error))
        code = CRASH
    sys.stdout.flush()
    sys.exit(code)
