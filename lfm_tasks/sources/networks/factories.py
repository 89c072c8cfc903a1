"""Factories: functions of the user that build a network, and the digest of everything they depend on.

A `Recipe` holds the factory, its arguments, and digests of the files that they name: its key is the network's, so that
an unchanged one need not be built to know that nothing is to be done.
"""

import glob
import hashlib
import importlib
import importlib.machinery
import importlib.util
import inspect
import json
import os
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any

import numpy as np

from lfm_tasks.catalog.models import TorchModel
from lfm_tasks.catalog.names import did_you_mean, fill_pattern, shorten
from lfm_tasks.catalog.sections import TRUSTED_MODULES, Catalog
from lfm_tasks.errors import DataError, Stopped, one_line
from lfm_tasks.sources.files.digests import DigestMemory, file_digest
from lfm_tasks.sources.offline import offline

# A folder named in args is digested whole; with more files somebody has to say which of them count.
_MOST_FILES = 2000
# A folder's bare name under such a key is a path; elsewhere it may be the name of an architecture.
_PATH_WORDS = ("path", "dir", "folder", "file", "checkpoint", "weights", "root")
# Arguments with which libraries run code that a checkpoint, a repository or a pickle brings: with any value but false,
# and, of `torch.load`, with false.
_CODE_ARGUMENTS = ("trust_remote_code", "trust_repo", "allow_pickle", "custom_pipeline")
_SAFETY_ARGUMENTS = ("weights_only",)
# Its functions run the Python file of a repository.
_CODE_MODULE = "torch.hub"


@dataclass(frozen=True)
class Recipe:
    """A factory with its arguments, and what decides the network that it builds.

    ``args`` are what it is called with: ``{model}`` and ``{dataset}`` filled in, paths absolute. ``identity`` says the
    same without a path: a digest in the place of each file.
    """

    model: str
    factory: str
    args: Mapping[str, Any]
    weights: Path | None
    weights_name: str
    identity: Mapping[str, str]

    @property
    def key(self) -> str:
        """The SHA-256 of the identity."""
        return hashlib.sha256(json.dumps(dict(self.identity), sort_keys=True).encode()).hexdigest()


def read_recipe(model_name: str, model: TorchModel, catalog: Catalog, memory: DigestMemory | None = None) -> Recipe:
    """Return the arguments of a model's factory and the inputs of its key; nothing is imported or run.

    Parameters
    ----------
    model_name, model, catalog
        Which model.
    memory
        What is known of files: those that did not change are not read again.

    Raises
    ------
    DataError
        ``untrusted_code`` unless the user allowed the factory to run; ``missing_source`` for a pattern of ``reads``
        that matches nothing, for missing weights, and for a folder in ``args`` with too many files.
    """
    check_trust(model_name, model.factory, model.args, catalog)
    named = _NamedFiles(model_name, model, catalog.root, memory)
    args, digested = named.resolved(dict(model.args), "args")
    weights_name = "" if model.weights is None else named.filled(model.weights)
    weights = catalog.root / weights_name if weights_name else None
    identity = {
        "factory": model.factory,
        "args": json.dumps(digested, sort_keys=True),
        "module": _module_digest(model.factory.partition(":")[0], catalog, memory),
        "weights": "none" if weights is None or not weights.is_file() else file_digest(weights, memory),
        "device": model.device,
        "reads": named.reads_digest(),
    }
    return Recipe(model_name, model.factory, args, weights, weights_name, identity)


def check_trust(model_name: str, factory: str, args: Mapping[str, Any], catalog: Catalog) -> None:
    """Raise DataError ``untrusted_code`` unless the user allowed ``factory``, and what ``args`` load, to run."""
    if not catalog.trust.allows(factory):
        problem = f"got the factory {factory}, which is code and would run here, and you did not allow it"
        advice = f"Read it, then use --trust-code, or name its module in {TRUSTED_MODULES}"
        raise DataError("untrusted_code", f"model {model_name}: {problem}. {advice}")
    if catalog.trust.everything:
        return
    module = factory.partition(":")[0]
    found = [where for where, key, value in _arguments(args, "args") if _asks_for_code(key, value)]
    if f"{module}.{factory.partition(':')[2]}".startswith(f"{_CODE_MODULE}."):
        found = [f"the factory {factory}", *found]
    if found:
        problem = f"got {found[0]}, which lets the factory run code that {TRUSTED_MODULES} does not name"
        advice = "Read that code, then use --trust-code; or remove the argument"
        raise DataError("untrusted_code", f"model {model_name}: {problem}, expected installed code alone. {advice}")


def _asks_for_code(key: str, value: Any) -> bool:
    return (key in _CODE_ARGUMENTS and bool(value)) or (key in _SAFETY_ARGUMENTS and value is not None and not value)


def _arguments(value: Any, where: str) -> Iterator[tuple[str, str, Any]]:
    """Yield the place, the key and the value of all arguments, at any depth."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield f"{where}.{key}", str(key), part
            yield from _arguments(part, f"{where}.{key}")
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for index, part in enumerate(value):
            yield from _arguments(part, f"{where}[{index}]")


# --- files that decide the network


@dataclass(frozen=True)
class _NamedFiles:
    """The files that ``args`` and ``reads`` of a model name."""

    name: str
    model: TorchModel
    root: Path
    memory: DigestMemory | None

    def filled(self, text: str) -> str:
        return fill_pattern(text, model=self.name, dataset=self.model.dataset)

    def resolved(self, value: Any, key: str) -> tuple[Any, Any]:
        """Return an argument as the factory gets it, and as it stands in an identity."""
        if isinstance(value, Mapping):
            parts = {name: self.resolved(part, str(name)) for name, part in value.items()}
            return {name: part[0] for name, part in parts.items()}, {name: part[1] for name, part in parts.items()}
        if isinstance(value, list | tuple):
            items = [self.resolved(part, key) for part in value]
            return [item[0] for item in items], [item[1] for item in items]
        if not isinstance(value, str):
            return value, value
        text = self.filled(value)
        path = self._path(text, key)
        return (text, text) if path is None else (str(path), f"sha256:{self._digest(path, text)}")

    def reads_digest(self) -> str:
        """Return one digest of all files that ``reads`` names; DataError if a pattern matches none."""
        digests: dict[str, str] = {}
        for pattern in self.model.reads:
            filled = self.filled(pattern)
            found = sorted(glob.glob(filled, root_dir=self.root, recursive=True))
            files = [self.root / file for file in found if (self.root / file).is_file()]
            if not files:
                problem = f"got reads: {shorten(filled)}, which matches no file, expected files that the factory reads"
                raise DataError("missing_source", f"model {self.name}: {problem}. Paths are relative to the catalog")
            fixed = _fixed_folder(self.root / filled)
            digests |= {file.relative_to(fixed).as_posix(): file_digest(file, self.memory) for file in files}
        return _digest_of(digests) if self.model.reads else "none"

    def _path(self, text: str, key: str) -> Path | None:
        """Return the file or folder that an argument names; None if it is a word."""
        path = self.root / text
        try:
            if not text or "://" in text or not path.exists():
                return None
        except (OSError, ValueError):  # too long, or with a NUL
            return None
        is_path = path.is_file() or "/" in text or os.sep in text or any(one in key.lower() for one in _PATH_WORDS)
        return Path(os.path.abspath(path)) if is_path else None

    def _digest(self, path: Path, text: str) -> str:
        if path.is_file():
            return file_digest(path, self.memory)
        if self.model.reads:
            return "a folder, see reads"
        digests: dict[str, str] = {}
        for folder, folders, names in os.walk(path):
            folders[:] = sorted(one for one in folders if not one.startswith(".") and one != "__pycache__")
            for name in sorted(one for one in names if not one.startswith(".")):
                file = Path(folder, name)
                if file.is_file():
                    digests[file.relative_to(path).as_posix()] = file_digest(file, self.memory)
            if len(digests) > _MOST_FILES:
                problem = f"got the folder {shorten(text)} with over {_MOST_FILES} files in args, expected fewer"
                advice = f"Name those that the factory reads: reads: ['{text.rstrip('/')}/*.json']"
                raise DataError("missing_source", f"model {self.name}: {problem}. {advice}")
        return _digest_of(digests)


def _fixed_folder(pattern: Path) -> Path:
    """Return the folder above the first wildcard of a pattern."""
    parts = pattern.parts
    first = next((index for index, part in enumerate(parts) if any(one in part for one in "*?[")), len(parts) - 1)
    return Path(*parts[:first])


def _digest_of(digests: Mapping[str, str]) -> str:
    return hashlib.sha256(
        "".join(f"{name}:{digest}\n" for name, digest in sorted(digests.items())).encode()
    ).hexdigest()


# --- code


def _module_digest(module_name: str, catalog: Catalog, memory: DigestMemory | None) -> str:
    """Return the digest of the file that a factory's module lies in; "none" for one that is built in or not found."""
    root = catalog.root if catalog.trust.everything else None
    with _importing_from(root):
        file = _module_file(module_name)
    return "none" if file is None else file_digest(file, memory)


def _module_file(name: str) -> Path | None:
    """Return the file of a module; neither it nor the packages that it lies in are imported."""
    first, *others = name.split(".")
    try:
        spec = importlib.util.find_spec(first)
        for part in others:
            if spec is None or spec.submodule_search_locations is None:
                return None
            spec = importlib.machinery.PathFinder.find_spec(
                f"{spec.name}.{part}", list(spec.submodule_search_locations)
            )
    except (ImportError, ValueError, AttributeError):
        return None
    origin = None if spec is None else spec.origin
    return Path(origin) if origin is not None and Path(origin).is_file() else None


@dataclass(frozen=True)
class FactoryResult:
    """The value that a factory returned, and the files of code that made it, by the names of their modules."""

    value: Any
    code: Mapping[str, Path]


def run_factory(recipe: Recipe, catalog: Catalog) -> FactoryResult:
    """Return the result of the factory (``package.module:callable``) for its arguments.

    The catalog's folder can be imported from while the factory runs, after everything that is installed, and only if
    everything is trusted: the names of single trusted modules mean installed ones. Modules of that folder are
    forgotten afterwards, so that another run sees them as they are then. Python's and numpy's random generators start
    from 0 and are put back. Libraries that know the Hugging Face hub are kept from asking it.

    Raises
    ------
    DataError
        ``untrusted_code``; ``bad_factory`` if it cannot be imported, is no callable, or raises.
    """
    check_trust(recipe.model, recipe.factory, recipe.args, catalog)
    root = catalog.root if catalog.trust.everything else None
    with _importing_from(root), _fixed_randomness(), offline(is_forced=False):
        function = _imported(recipe.model, recipe.factory)
        try:
            value = function(**recipe.args)
        except Stopped:
            raise  # somebody ends the run
        except (Exception, SystemExit) as error:
            problem = f"the factory {recipe.factory} raised {_error_text(error)} for args: {dict(recipe.args)}"
            raise DataError("bad_factory", f"model {recipe.model}: {problem}. {_advice(error)}") from error
        return FactoryResult(value, _code_files(function, root))


def _advice(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"Install the package {error.name}"
    if "offline" in str(error).lower():
        return "Download it first, and name its folder in args; nothing is downloaded here"
    return "Call it yourself to see where"


def _imported(model_name: str, factory: str) -> Callable[..., Any]:
    module_name, _, path = factory.partition(":")
    try:
        target: Any = importlib.import_module(module_name)
    except Stopped:
        raise
    except (Exception, SystemExit) as error:
        message = f"the factory {factory} cannot be imported ({_error_text(error)})"
        advice = "Install its package, or put its module beside the catalog and use --trust-code"
        extra = {"transformers", "timm", "tokenizers", "peft", "sentence_transformers"}
        if isinstance(error, ModuleNotFoundError) and error.name in extra:
            advice = 'Run pip install "lfm-atlas[hf]"'
        raise DataError("bad_factory", f"model {model_name}: {message}. {advice}") from error
    for name in path.split("."):
        try:
            found = hasattr(target, name)
        except Exception as error:  # packages that import their parts on demand
            message = f"the factory {factory} cannot be imported ({_error_text(error)})"
            raise DataError("bad_factory", f"model {model_name}: {message}. Install what it needs") from error
        if not found:
            near = did_you_mean(name, [known for known in dir(target) if not known.startswith("_")])
            raise DataError("bad_factory", f"model {model_name}: got no {name} in {module_name}{near}")
        target = getattr(target, name)
    if not callable(target):
        message = f"got a {type(target).__name__} at {factory}, expected something that can be called"
        raise DataError("bad_factory", f"model {model_name}: {message}. Name a function or a class")
    function: Callable[..., Any] = target
    return function


def _error_text(error: BaseException) -> str:
    return f"{type(error).__name__}: {one_line(str(error))}"


@contextmanager
def _importing_from(root: Path | None) -> Iterator[None]:
    """Let modules be imported from ``root`` while the block runs, from their source, and forget them afterwards."""
    if root is None:
        yield
        return
    path, writes_bytecode, known = list(sys.path), sys.dont_write_bytecode, set(sys.modules)
    sys.path.append(str(root))
    # Stale bytecode is recognized by whole seconds: an edit within one would run as it was before.
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
def _fixed_randomness() -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - what a factory may draw from
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def _code_files(function: Callable[..., Any], root: Path | None) -> dict[str, Path]:
    """Return the file that defines ``function``, and those of all modules imported from ``root``."""
    files = {
        name: Path(str(module.__file__))
        for name, module in list(sys.modules.items())
        if root is not None and _file_below(module, root)
    }
    try:
        defined = inspect.getsourcefile(inspect.unwrap(function))
    except TypeError:
        defined = None  # built in, or a callable object
    return files | ({"factory": Path(defined)} if defined and Path(defined).is_file() else {})


def _file_below(module: ModuleType, root: Path) -> bool:
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and PurePath(file).is_relative_to(root)
