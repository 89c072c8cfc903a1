"""The commands of ``lfm-atlas``, one module for each topic; ``main`` registers them.

Importing this package takes the working directory off the path, before anything that is not Python's own is imported,
and has libraries that read settings where they are imported do so in an empty folder.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import chdir
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


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


class SettingsFinder(MetaPathFinder):
    """Finds the libraries that read settings from the working directory while they are imported.

    Prefect and Dask's workers start in an empty folder; these are imported wherever a command first needs them.
    """

    LIBRARIES = ("matplotlib", "numba")
    _EMPTY = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "empty")

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where one of `LIBRARIES` is, to be imported in an empty folder; None for all others."""
        spec = PathFinder.find_spec(fullname, path, target) if fullname in self.LIBRARIES else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_elsewhere(module: ModuleType) -> None:
            with chdir(self._EMPTY):
                execute(module)

        spec.loader.exec_module = execute_elsewhere  # type: ignore[method-assign]
        return spec


forget_working_directory()
sys.meta_path.insert(0, SettingsFinder())
if "--multiprocessing-fork" in sys.orig_argv:
    # This is a worker, which imports the program of its run first, and Dask after it.
    from lfm_tasks.workers.dask_config import import_dask

    import_dask()
