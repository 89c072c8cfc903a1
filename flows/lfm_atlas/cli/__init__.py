"""The commands of ``lfm-atlas``, a module a topic; ``main`` puts them together.

Importing this package takes the working directory off the path, before anything that is not Python's own is imported.
"""

import os
import sys


def forget_working_directory() -> None:
    """Take the working directory off ``sys.path`` and out of ``PYTHONPATH``, where an empty entry stands for it.

    A working directory that the user names there stays, and so does one that holds this installation.
    """
    sys.path[:] = [entry for entry in sys.path if entry]
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    # Absolute: child processes start elsewhere.
    named = [os.path.abspath(entry) for entry in entries if entry]
    if named:
        os.environ["PYTHONPATH"] = os.pathsep.join(named)
    else:
        os.environ.pop("PYTHONPATH", None)
    if len(named) < len(entries) and len(entries) > 1:
        here = os.getcwd()
        if here not in named and not __file__.startswith(os.path.join(here, "")):
            sys.path[:] = [entry for entry in sys.path if entry != here]


forget_working_directory()
