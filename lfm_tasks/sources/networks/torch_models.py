"""Records activations by running a PyTorch network on a dataset's inputs, with hooks that pool before it goes on."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from lfm_tasks.catalog.models import TorchModel
from lfm_tasks.catalog.names import check_layer_name, did_you_mean, fill_pattern
from lfm_tasks.catalog.sections import Catalog
from lfm_tasks.errors import DataError
from lfm_tasks.sources.networks.recording import Recorder, check_trust, run_factory


def load_weights(module: Any, path: Path, name: str) -> str:
    """Put the tensors of the file at ``path`` into ``module``, all of them; return the file's SHA-256.

    Raises
    ------
    DataError
        ``bad_weights`` for another kind of file, missing or unexpected tensors, other shapes, or higher precision than
        the network has; ``missing_source`` if there is no such file, or it cannot be read.
    """
    import safetensors.torch
    from safetensors import SafetensorError

    _check_file(path, name)
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        stored = safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError("missing_source", f"{name}: cannot be read ({str(error)[:200]}): save it again") from error
    wanted = module.state_dict()
    for key in sorted(stored.keys() & wanted.keys()):
        _check_tensor(f"{name}#{key}", stored[key], wanted[key])
    # safetensors knows which names are tied to one another: its files hold such a tensor once.
    try:
        missing, unexpected = safetensors.torch.load_model(module, path, strict=False)
    except Exception as error:
        detail = ascii(" ".join(str(error).split())[:200])[1:-1]
        problem = f"cannot be put into the network ({detail}), needs one tensor for each of its own"
        raise DataError("bad_weights", f"{name}: {problem}: load them in the factory instead") from error
    if missing or unexpected:
        raise DataError("bad_weights", f"{name}: {_mismatch(sorted(missing), sorted(unexpected))}")
    return sha256


def state_digest(module: Any) -> str:
    """Return the SHA-256 of all parameters and stored buffers, names, types and shapes included."""
    hasher = hashlib.sha256()
    for key, tensor in sorted(module.state_dict().items()):
        if not hasattr(tensor, "shape"):
            continue  # extra state of any kind
        hasher.update(f"{key}:{tensor.dtype}:{tuple(tensor.shape)}\n".encode())
        values = tensor.detach().cpu().contiguous()
        hasher.update(values.reshape(-1).view(_bytes()).numpy().data if values.numel() else b"")
    return hasher.hexdigest()


def _bytes() -> Any:
    import torch

    return torch.uint8


def _check_file(path: Path, name: str) -> None:
    if path.suffix != ".safetensors":
        problem = f"found a {path.suffix or 'nameless'} file, needs .safetensors, which cannot hold code"
        advice = "safetensors.torch.save_model(model, 'model.safetensors') writes one"
        raise DataError("bad_weights", f"{name}: {problem}: {advice}")
    if not path.is_file():
        present = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError("missing_source", f"{name}: no such file{did_you_mean(path.name, present)}")


def _check_tensor(name: str, stored: Any, wanted: Any) -> None:
    if stored.shape != wanted.shape:
        shapes = f"found the shape {tuple(stored.shape)}, needs {tuple(wanted.shape)}"
        raise DataError("bad_weights", f"{name}: {shapes}: check the factory's args")
    # Integers in place of floats are quantized: numbers of another scale.
    same_kind = stored.dtype.is_floating_point == wanted.dtype.is_floating_point
    if not same_kind or _promoted(stored.dtype, wanted.dtype) != wanted.dtype:
        types = f"found {stored.dtype}, needs {wanted.dtype} or what it holds without loss"
        raise DataError("bad_weights", f"{name}: {types}: save it so, or let the factory build in {stored.dtype}")


def _promoted(stored: Any, wanted: Any) -> Any:
    import torch

    return torch.promote_types(stored, wanted)


def _mismatch(missing: list[str], unexpected: list[str]) -> str:
    parts = []
    if missing:
        parts.append(f"found nothing for {len(missing)} tensors, {missing[0]!r} first")
    if unexpected:
        hint = did_you_mean(unexpected[0], missing) if missing else ""
        parts.append(f"found {len(unexpected)} tensors that the network has not, {unexpected[0]!r} first{hint}")
    return f"{'; '.join(parts)}; needs exactly the network's own: check factory, args and weights"


def as_array(tensor: Any) -> np.ndarray:
    """Return a tensor's values as a numpy array; bfloat16, which numpy does not have, as float32."""
    import torch

    values = tensor.detach().cpu()
    array: np.ndarray = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return array


_PROBE_ROWS = 3
_Hook = Callable[[str, Any], None]


class TorchSource:
    """A `Source` of the modules of a PyTorch network, run on the CPU by one thread.

    Opening builds the network. The first question about a layer runs it on a few rows, to learn which modules are
    called and what they return. A module that is called twice or never, or that does not return a row a point, is an
    error of that layer alone.
    """

    def __init__(
        self,
        model_name: str,
        model: TorchModel,
        catalog: Catalog,
        inputs: Shaped[np.ndarray, "points ..."],
        ids: Shaped[np.ndarray, " points"],
    ) -> None:
        self._recorder = Recorder(f"model {model_name}", inputs, ids, model.pool, model.batch_size)
        self._module, self._made_of = _network(model_name, model, catalog)
        # Before anything ran: what the network is, and must be still when it has run.
        self._state_digest = state_digest(self._module)
        self._layers = {name: module for name, module in self._module.named_modules() if name}
        for name in self._layers:
            try:
                check_layer_name(name)
            except ValueError as error:
                raise DataError("unsupported_model", f"{self._recorder.name}: {error}") from error

    @property
    def ids(self) -> Shaped[np.ndarray, " points"]:
        """Sample ids, one for each input."""
        return self._recorder.ids

    @property
    def batch_rows(self) -> int:
        """Rows that are computed together."""
        return self._recorder.batch_rows

    def layer_names(self) -> tuple[str, ...]:
        """All modules inside the network, as ``named_modules()`` calls and orders them."""
        return tuple(self._layers)

    def layer_shapes(self) -> dict[str, tuple[int | None, ...]]:
        """Return the shape of one point in each layer that can be recorded, before pooling."""
        return {name: shape for name, shape in self._probed.items() if not isinstance(shape, DataError)}

    def identity(self, layer: str) -> Mapping[str, str]:
        """Return what decides the values of ``layer``: code, weights, inputs, pooling, batches, and what records it."""
        import torch

        self._check_layer(layer)
        return {
            "kind": "torch",
            "layer": layer,
            "state": self._state_digest,
            "torch": torch.__version__,
            **self._made_of,
            **self._recorder.identity,
        }

    def batches(
        self, layers: Sequence[str], rows: Int[np.ndarray, " selected"]
    ) -> Iterator[Mapping[str, Float[np.ndarray, "batch features"]]]:
        """Yield ``rows`` of each layer, pooled; float32, or float64 if the network computes in it.

        Raises
        ------
        DataError
            ``unknown_layer``; ``wrong_shape`` for a module that is not called once, or gives no row a point, or
            another one than the pooling fits; ``not_finite``; ``unsupported_model`` if the network stops.
        """
        names = list(dict.fromkeys(layers))
        for name in names:
            self._check_layer(name)
        for batch in self._recorder.batches(rows):
            pooled: dict[str, Float[np.ndarray, "batch features"]] = {}
            with self._hooked(names, lambda name, tensor: self._keep(pooled, name, tensor, batch)):  # noqa: B023
                self._run(batch)
            for name in names:
                if name not in pooled:
                    raise self._refused(name, "is never called in the forward pass")
            yield {name: pooled[name] for name in names}
        if rows.size and state_digest(self._module) != self._state_digest:
            problem = "the forward pass changes the network's own buffers, so that rows depend on those before them"
            raise DataError("unsupported_model", f"{self._recorder.name}: {problem}: make eval() stop that")

    @cached_property
    def _probed(self) -> dict[str, tuple[int, ...] | DataError]:
        """Run a few rows: the shape of a point in each layer, or why it cannot be recorded."""
        order = np.argsort(self.ids, kind="stable")[:_PROBE_ROWS]
        shapes: dict[str, Any] = {}

        def note_shape(name: str, tensor: Any) -> None:
            again = self._refused(name, "is called several times in one forward pass")
            shapes[name] = again if name in shapes else self._shape(name, tensor, len(order))

        with self._hooked(self._layers, note_shape):
            self._run(order)
        return {
            name: shapes.get(name, self._refused(name, "is never called in the forward pass")) for name in self._layers
        }

    def _shape(self, name: str, tensor: Any, n_rows: int) -> tuple[int, ...] | DataError:
        if tensor is None or not tensor.is_floating_point():
            kind = "no tensor" if tensor is None else str(tensor.dtype)
            return self._refused(name, f"gives {kind}, where a float tensor is needed")
        shape = tuple(tensor.shape)
        if len(shape) < 2 or shape[0] != n_rows:
            return self._refused(name, f"gives {shape} for {n_rows} points, where a row a point is needed")
        return shape[1:]

    def _check_layer(self, name: str) -> None:
        if name not in self._layers:
            problem = f"{self._recorder.name}: found no module {name[:100]!r}"
            raise DataError("unknown_layer", problem + did_you_mean(name, self._layers))
        shape = self._probed[name]
        if isinstance(shape, DataError):
            raise shape
        self._recorder.check_pooling(name, shape)

    def _refused(self, name: str, why: str) -> DataError:
        return DataError("wrong_shape", f"{self._recorder.name}: {name} {why}: leave it out with layers: ['!{name}']")

    def _keep(
        self, pooled: dict[str, Float[np.ndarray, "batch features"]], name: str, tensor: Any, rows: np.ndarray
    ) -> None:
        """Pool at once: the next module may overwrite the tensor, and whole tensors would fill the memory."""
        if name in pooled:
            raise self._refused(name, "is called several times in one forward pass")
        shape = self._shape(name, tensor, len(rows))
        if isinstance(shape, DataError):
            raise shape
        pooled[name] = self._recorder.pooled(name, as_array(tensor), rows)

    @contextmanager
    def _hooked(self, names: Sequence[str] | Mapping[str, Any], hook: _Hook) -> Iterator[None]:
        with ExitStack() as stack:
            for name in names:
                handle = self._layers[name].register_forward_hook(
                    lambda _module, _inputs, output, name=name: hook(name, _first_tensor(output))
                )
                stack.callback(handle.remove)
            yield

    def _run(self, rows: Int[np.ndarray, " batch"]) -> None:
        import torch

        inputs = self._recorder.inputs
        kind = inputs.dtype.kind
        double = any(tensor.dtype == torch.float64 for tensor in _tensors(self._module))
        dtype = {"f": np.float64 if double else np.float32, "b": np.bool_}.get(kind, np.int64)
        batch = torch.from_numpy(self._recorder.input_batch(rows, np.dtype(dtype)))
        try:
            with _same_bits(torch), torch.inference_mode():
                self._module(batch)
        except DataError:
            raise
        except Exception as error:
            detail = ascii(" ".join(f"{type(error).__name__}: {error}".split())[:200])[1:-1]
            shape = f"inputs of shape {tuple(batch.shape)}, {batch.dtype}"
            message = f"the network stopped on {shape} ({detail}): check factory, args and the dataset's inputs"
            raise DataError("unsupported_model", f"{self._recorder.name}: {message}") from error


def _network(model_name: str, model: TorchModel, catalog: Catalog) -> tuple[Any, dict[str, str]]:
    """Return the network, ready to run, and what it was made of."""
    check_trust(model_name, model.factory, catalog)
    torch = _torch(model_name)
    with _seeded_generator(torch):
        built = run_factory(model_name, model.factory, model.args, catalog)
    if not isinstance(built.value, torch.nn.Module):
        problem = f"found a {type(built.value).__name__} from the factory {model.factory}, needs a torch.nn.Module"
        raise DataError("bad_factory", f"model {model_name}: {problem}: return the network")
    module, weights = built.value, "none"
    if model.weights is not None:
        name = fill_pattern(model.weights, model=model_name, dataset=model.dataset)
        weights = load_weights(module, catalog.root / name, name)
    floats = {tensor.dtype for tensor in _tensors(module) if tensor.is_floating_point()}
    # Half precision has no kernels for everything, and sums lose their digits.
    module = module if floats == {torch.float64} else module.float()
    made_of = {
        "factory": model.factory,
        "args": json.dumps(model.args, sort_keys=True),
        "code": built.code_digest,
        "weights": weights,
        "device": model.device,
    }
    return module.eval().requires_grad_(False), made_of


def _tensors(module: Any) -> list[Any]:
    return [*module.parameters(), *module.buffers()]


def _torch(model_name: str) -> Any:
    try:
        import safetensors.torch  # noqa: F401 - the other half of the extra
        import torch
    except ImportError as error:
        problem = f"found no PyTorch ({error}), needs it to run this network"
        message = f'{problem}: pip install "lfm-atlas[torch]"'
        raise DataError("bad_factory", f"model {model_name}: {message}") from error
    return torch


@contextmanager
def _seeded_generator(torch: Any) -> Iterator[None]:
    """Seed the global generator with 0, and put it back as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@contextmanager
def _same_bits(torch: Any) -> Iterator[None]:
    """Compute on one thread, deterministically, module by module; put everything back as it was."""
    n_threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warns, fast = torch.is_deterministic_algorithms_warn_only_enabled(), torch.backends.mha.get_fastpath_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    # The fast path of transformers passes its inner modules by: their hooks would never run.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with _seeded_generator(torch):
            yield
    finally:
        torch.set_num_threads(n_threads)
        torch.use_deterministic_algorithms(strict, warn_only=warns)
        torch.backends.mha.set_fastpath_enabled(fast)


def _first_tensor(output: Any) -> Any:
    """Return the first tensor in what a module gave: itself, or inside tuples, lists, dicts and model outputs."""
    import torch

    if isinstance(output, torch.Tensor):
        return output
    values = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple | list) else ()
    return next((tensor for value in values if (tensor := _first_tensor(value)) is not None), None)
