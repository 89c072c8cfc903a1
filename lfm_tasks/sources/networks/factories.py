"""Runs the factories that a catalog names: code, so only with its user's word."""

import hashlib
import importlib
import inspect
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from lfm_tasks.catalog.model import Catalog
from lfm_tasks.catalog.problems import did_you_mean
from lfm_tasks.catalog.trust import TRUSTED_MODULES
from lfm_tasks.reasons import ReasonError


@dataclass(frozen=True)
class Built:
    """What a factory returned, and a digest of the code that made it, as far as it has files."""

    value: Any
    code: str


def build(model_name: str, factory: str, args: Mapping[str, Any], catalog: Catalog) -> Built:
    """Return what ``factory`` (``package.module:callable``) returns for ``args``.

    The catalog's folder can be imported from while the factory runs, after everything that is installed, and only if
    everything is trusted: the names of single trusted modules mean installed ones. Modules of that folder are
    forgotten afterwards, so that another run sees them as they are then. Python's and numpy's random generators start
    from 0 and are put back.

    Raises
    ------
    ReasonError
        ``untrusted_code``; ``bad_factory`` if it cannot be imported, is no callable, or raises.
    """
    check_trust(model_name, factory, catalog)
    root = catalog.root if catalog.trust.everything else None
    with _importing_from(root), _own_randomness():
        function = _imported(model_name, factory)
        try:
            value = function(**args)
        except (Exception, SystemExit) as error:
            found = f"the factory {factory} raised {_said(error)} for args: {dict(args)}"
            raise ReasonError("bad_factory", f"model {model_name}: {found}: call it yourself to see where") from error
        return Built(value, _code_digest(function, root))


def check_trust(model_name: str, factory: str, catalog: Catalog) -> None:
    """Raise ReasonError ``untrusted_code`` unless the user said that ``factory`` may run."""
    if not catalog.trust.covers(factory):
        found = f"found the factory {factory}, which is code and would run here, and nobody said that it may"
        advice = f"read it, then say --trust-code, or name its module in {TRUSTED_MODULES}"
        raise ReasonError("untrusted_code", f"model {model_name}: {found}: {advice}")


def _imported(model_name: str, factory: str) -> Callable[..., Any]:
    module_name, _, path = factory.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        message = f"the factory {factory} cannot be imported ({_said(error)})"
        advice = "install its package, or put its module beside the catalog and say --trust-code"
        raise ReasonError("bad_factory", f"model {model_name}: {message}: {advice}") from error
    for name in path.split("."):
        if not hasattr(found, name):
            near = did_you_mean(name, [known for known in dir(found) if not known.startswith("_")])
            raise ReasonError("bad_factory", f"model {model_name}: found no {name} in {module_name}{near}")
        found = getattr(found, name)
    if not callable(found):
        message = f"found a {type(found).__name__} at {factory}, needs something that can be called"
        raise ReasonError("bad_factory", f"model {model_name}: {message}: name a function or a class")
    function: Callable[..., Any] = found
    return function


def _said(error: BaseException) -> str:
    return ascii(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")[1:-1]


@contextmanager
def _importing_from(root: Path | None) -> Iterator[None]:
    """Let modules be imported from ``root`` while the block runs, from their source, and forget them afterwards."""
    if root is None:
        yield
        return
    path, writes_bytecode, known = list(sys.path), sys.dont_write_bytecode, set(sys.modules)
    sys.path.append(str(root))
    # Bytecode is told from stale by whole seconds: an edit within one would run as it was before.
    sys.dont_write_bytecode = True
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:], sys.dont_write_bytecode = path, writes_bytecode
        for name in set(sys.modules) - known:
            if _file_below(sys.modules[name], root):
                del sys.modules[name]


@contextmanager
def _own_randomness() -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - what a factory may draw from
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def _code_digest(function: Callable[..., Any], root: Path | None) -> str:
    """Return a digest of the file that defines ``function``, and of all modules imported from ``root``."""
    files = {name: module.__file__ for name, module in list(sys.modules.items()) if root and _file_below(module, root)}
    try:
        files["factory"] = inspect.getsourcefile(inspect.unwrap(function))
    except TypeError:
        files["factory"] = None  # built in, or a callable object
    hasher = hashlib.sha256()
    for name, file in sorted(files.items()):
        content = Path(file).read_bytes() if file and Path(file).is_file() else b""
        hasher.update(f"{name}:{hashlib.sha256(content).hexdigest()}\n".encode())
    return hasher.hexdigest()


def _file_below(module: ModuleType, root: Path) -> bool:
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and Path(file).is_relative_to(root)
