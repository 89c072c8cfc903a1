"""What all recorders of networks share: inputs in batches, pooling and checks of what comes out, trusted factories."""

import hashlib
import importlib
import inspect
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, Shaped

from lfm_tasks.catalog.names import did_you_mean
from lfm_tasks.catalog.sections import TRUSTED_MODULES, Catalog
from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.pooling import check_finite, pool_rows, pooled_features
from lfm_tasks.sources.source import Source

# Part of every identity. Raise it when the same model and inputs give other numbers.
RECORDER_VERSION = "1"
_DIGEST_ROWS = 4096


@runtime_checkable
class RecordedSource(Source, Protocol):
    """A `Source` that runs a network: costly to start again, and it knows its shapes before pooling."""

    @property
    def batch_rows(self) -> int:
        """Rows that are computed together; a recording that goes on does so at a multiple of it, for the same bits."""
        ...

    def layer_shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        """Return the shape of one point in each layer, before pooling; None where only a run can tell."""
        ...


@dataclass(frozen=True)
class Recorder:
    """The inputs of a network, and what is recorded of it; ``name`` is how messages call the network."""

    name: str
    inputs: Shaped[np.ndarray, "points ..."]
    ids: Shaped[np.ndarray, " points"]
    pool: str
    batch_rows: int

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.ids):
            problem = f"found {len(self.inputs)} inputs and {len(self.ids)} ids, needs one id an input"
            raise DataError("bad_ids", f"{self.name}: {problem}: give the ids of these inputs")

    @cached_property
    def identity(self) -> Mapping[str, str]:
        """What decides the values beside the network and what runs it."""
        return {
            "inputs": self._inputs_digest(),
            "pool": self.pool,
            "batch_size": str(self.batch_rows),
            "recorder": RECORDER_VERSION,
        }

    def batches(self, rows: Int[np.ndarray, " selected"]) -> Iterator[Int[np.ndarray, " batch"]]:
        """Yield ``rows`` in their order, as many as are computed together; the last batch may be smaller."""
        return (rows[start : start + self.batch_rows] for start in range(0, len(rows), self.batch_rows))

    def input_batch(self, rows: Int[np.ndarray, " batch"], dtype: np.dtype[Any]) -> Shaped[np.ndarray, "batch ..."]:
        """Return a copy of these inputs as ``dtype``; DataError if they are not finite, or do not fit it."""
        values = self.inputs[rows]
        with np.errstate(over="ignore"):
            batch = np.ascontiguousarray(values, dtype=dtype)
        if batch.dtype.kind == "f" and not np.isfinite(batch).all():
            row = rows[np.flatnonzero(~np.isfinite(batch).reshape(len(batch), -1).all(axis=1))[0]]
            problem = f"found NaN or infinite inputs as {batch.dtype}, first in row {row} (id {self.ids[row]!s})"
            raise DataError("not_finite", f"{self.name}: {problem}, needs finite numbers: mend the dataset's inputs")
        if batch.dtype.kind in "iu" and not np.array_equal(batch, values):
            problem = f"found inputs of {values.dtype} beyond {batch.dtype}, needs numbers that fit"
            raise DataError("wrong_dtype", f"{self.name}: {problem}: check the dataset's inputs")
        return batch

    def check_pooling(self, layer: str, shape: Sequence[int | None]) -> None:
        """Raise DataError if the pooling does not fit a layer whose points have ``shape``."""
        if None in shape:
            return  # the first batch tells
        try:
            pooled_features([length or 0 for length in shape], self.pool)
        except DataError as error:
            raise DataError(error.reason, f"{self.name}: {layer}: {error}") from error

    def pooled(
        self, layer: str, values: Shaped[np.ndarray, "..."], rows: Int[np.ndarray, " batch"]
    ) -> Float[np.ndarray, "batch features"]:
        """Return what ``layer`` gave for ``rows``, pooled, in memory of its own; DataError if it cannot be used."""
        if values.ndim < 2 or len(values) != len(rows):
            problem = f"found {values.shape} for {len(rows)} points, needs a row a point"
            raise DataError("wrong_shape", f"{self.name}: {layer}: {problem}: leave it out with layers: ['!{layer}']")
        try:
            pooled = pool_rows(values, self.pool)
        except DataError as error:
            raise DataError(error.reason, f"{self.name}: {layer}: {error}") from error
        check_finite(pooled, rows, self.ids, name=f"{self.name}: {layer}", advice="leave the layer out")
        # A network may go on to overwrite what it gave.
        return pooled.copy() if np.may_share_memory(pooled, values) else pooled

    def _inputs_digest(self) -> str:
        dtype = self.inputs.dtype.newbyteorder("<")
        hasher = hashlib.sha256(f"{dtype.str}:{self.inputs.shape}".encode())
        for start in range(0, len(self.inputs), _DIGEST_ROWS):
            hasher.update(np.ascontiguousarray(self.inputs[start : start + _DIGEST_ROWS], dtype=dtype).tobytes())
        return hasher.hexdigest()


@dataclass(frozen=True)
class FactoryResult:
    """The value that a factory returned, and a digest of the files of code that made it."""

    value: Any
    code_digest: str


def run_factory(model_name: str, factory: str, args: Mapping[str, Any], catalog: Catalog) -> FactoryResult:
    """Return what ``factory`` (``package.module:callable``) returns for ``args``.

    The catalog's folder can be imported from while the factory runs, after everything that is installed, and only if
    everything is trusted: the names of single trusted modules mean installed ones. Modules of that folder are
    forgotten afterwards, so that another run sees them as they are then. Python's and numpy's random generators start
    from 0 and are put back.

    Raises
    ------
    DataError
        ``untrusted_code``; ``bad_factory`` if it cannot be imported, is no callable, or raises.
    """
    check_trust(model_name, factory, catalog)
    root = catalog.root if catalog.trust.everything else None
    with _importing_from(root), _fixed_randomness():
        function = _imported(model_name, factory)
        try:
            value = function(**args)
        except (Exception, SystemExit) as error:
            problem = f"the factory {factory} raised {_error_text(error)} for args: {dict(args)}"
            raise DataError("bad_factory", f"model {model_name}: {problem}: call it yourself to see where") from error
        return FactoryResult(value, _code_digest(function, root))


def check_trust(model_name: str, factory: str, catalog: Catalog) -> None:
    """Raise DataError ``untrusted_code`` unless the user said that ``factory`` may run."""
    if not catalog.trust.allows(factory):
        problem = f"found the factory {factory}, which is code and would run here, and nobody said that it may"
        advice = f"read it, then say --trust-code, or name its module in {TRUSTED_MODULES}"
        raise DataError("untrusted_code", f"model {model_name}: {problem}: {advice}")


def _imported(model_name: str, factory: str) -> Callable[..., Any]:
    module_name, _, path = factory.partition(":")
    try:
        target: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        message = f"the factory {factory} cannot be imported ({_error_text(error)})"
        advice = "install its package, or put its module beside the catalog and say --trust-code"
        raise DataError("bad_factory", f"model {model_name}: {message}: {advice}") from error
    for name in path.split("."):
        if not hasattr(target, name):
            near = did_you_mean(name, [known for known in dir(target) if not known.startswith("_")])
            raise DataError("bad_factory", f"model {model_name}: found no {name} in {module_name}{near}")
        target = getattr(target, name)
    if not callable(target):
        message = f"found a {type(target).__name__} at {factory}, needs something that can be called"
        raise DataError("bad_factory", f"model {model_name}: {message}: name a function or a class")
    function: Callable[..., Any] = target
    return function


def _error_text(error: BaseException) -> str:
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
def _fixed_randomness() -> Iterator[None]:
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
