"""Records activations by running a PyTorch network on a dataset's inputs, with hooks that pool before it goes on."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from lfm_tasks.catalog.models import TorchModel
from lfm_tasks.catalog.names import check_layer_name, did_you_mean
from lfm_tasks.catalog.sections import Catalog
from lfm_tasks.errors import DataError, one_line
from lfm_tasks.sources.files.digests import DigestMemory, file_digest
from lfm_tasks.sources.networks.factories import read_recipe
from lfm_tasks.sources.networks.inputs import (
    ONLY,
    ArrayInputs,
    InputBatch,
    NamedInputs,
    NetworkInputs,
    cast_input,
    check_dataset,
)
from lfm_tasks.sources.networks.inputs import named_inputs as read_named_inputs
from lfm_tasks.sources.networks.recording import Pooled, Recorder
from lfm_tasks.sources.networks.torch_layouts import channel_places
from lfm_tasks.sources.networks.torch_networks import (
    TorchNetwork,
    all_tensors,
    as_array,
    build_network,
    check_training,
    first_tensor,
    module_packages,
    package_version,
    same_bits,
    state_digest,
    torch_version,
)
from lfm_tasks.sources.raw_inputs import RawInputs, TokenPoints

_PROBE_ROWS = 3
_Hook = Callable[[str, Any], None]


# Of the facts that are remembered of a network. Raise it when they mean something else.
_FACTS = "2"


@dataclass(frozen=True)
class NetworkFacts:
    """Facts about a network that was built and run on a few rows; they follow from its recipe.

    ``layers``: the shape of a point in each module, or why it cannot be recorded. ``state`` is a digest of parameters
    and buffers, ``code`` one of the files of code, ``packages`` the versions of the packages that it is made of.
    ``channels``: of modules that give maps, whether channels come ``first`` or ``last``, or ``unknown``.
    """

    layers: Mapping[str, tuple[int, ...] | str]
    state: str
    code: str
    packages: Mapping[str, str]
    channels: Mapping[str, str]

    def is_last(self, layer: str) -> bool:
        """Return whether the channels of a map come last."""
        return self.channels.get(layer) == "last"


class TorchSource:
    """A `Source` of the modules of a PyTorch network, run on the CPU by one thread.

    Opening reads no weights. The network is built, and run on a few rows to learn which modules are called and what
    they return, when something is requested that no earlier run noted. A module that is called twice or never, or that
    does not return a row a point, is an error of that layer alone.

    Parameters
    ----------
    model_name, model, catalog
        Which model.
    inputs
        What it is fed; an array is its only argument.
    ids
        Unique sample ids, one for each row of the inputs.
    memory
        What is known from earlier runs.
    """

    def __init__(
        self,
        model_name: str,
        model: TorchModel,
        catalog: Catalog,
        inputs: NetworkInputs | Shaped[np.ndarray, "points ..."],
        ids: Shaped[np.ndarray, " points"],
        memory: DigestMemory | None = None,
    ) -> None:
        self._recipe = read_recipe(model_name, model, catalog, memory)
        torch_version(model_name)
        fed = ArrayInputs({ONLY: inputs}) if isinstance(inputs, np.ndarray) else inputs
        self._recorder = Recorder(f"model {model_name}", fed, ids, model.pool, model.batch_size)
        self._catalog, self._memory = catalog, memory

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
        return tuple(self._facts.layers)

    def layer_shapes(self) -> dict[str, tuple[int | None, ...]]:
        """Return the shape of one point in each layer that can be recorded, before pooling."""
        return {name: shape for name, shape in self._facts.layers.items() if not isinstance(shape, str)}

    def identity(self, layer: str) -> Mapping[str, str]:
        """Return the inputs of the key of ``layer``: code, weights, inputs, pooling, batches, and the recorder."""
        self._check_layer(layer)
        is_last = self._facts.is_last(layer) and self._recorder.pool != "flatten"
        return {
            "kind": "torch",
            "layer": layer,
            **({"shape": "nhwc"} if is_last else {}),
            "state": self._facts.state,
            "code": self._facts.code,
            "packages": json.dumps(dict(self._facts.packages), sort_keys=True),
            "torch": torch_version(self._recipe.model),
            **self._recipe.identity,
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
            another one than the pooling fits; ``not_finite``; ``not_a_function`` for rows that depend on others or on
            chance; ``unsupported_model`` if the network stops; ``bad_factory`` if it is not the one that was planned.
        """
        names = list(dict.fromkeys(layers))
        for name in names:
            self._check_layer(name)
        module = self._module

        def run(batch: Int[np.ndarray, " batch"]) -> Pooled:
            pooled: dict[str, Float[np.ndarray, "batch features"]] = {}
            inputs = self._recorder.input_batch(batch)
            with self._hooked(names, lambda name, tensor: self._keep(pooled, name, tensor, batch, inputs)):
                self._run(inputs, batch)
            for name in names:
                if name not in pooled:
                    raise self._refused(name, "is never called in the forward pass")
            return {name: pooled[name] for name in names}

        yield from self._recorder.record(rows, run)
        if rows.size and state_digest(module) != self._facts.state:
            problem = "the forward pass changes the network's own buffers, so that rows depend on those before them"
            raise DataError("unsupported_model", f"{self._recorder.name}: {problem}. Make eval() stop that")

    @cached_property
    def _facts(self) -> NetworkFacts:
        """The facts that an earlier run noted, if their inputs are unchanged; else from building the network."""
        noted = None if self._memory is None else self._memory.recall(self._facts_key)
        if noted is not None and _still_holds(noted, self._memory):
            layers = {name: shape if isinstance(shape, str) else tuple(shape) for name, shape in noted["layers"]}
            return NetworkFacts(layers, noted["state"], noted["code"], noted["packages"], noted["channels"])
        network = self._network
        code = _code_digest(network.code, self._memory)
        layers = self._probed
        channels = channel_places(network.layers, layers)
        facts = NetworkFacts(layers, network.state, code, module_packages(network.module), channels)
        if self._memory is not None:
            files = {name: [str(path), file_digest(path, self._memory)] for name, path in network.code.items()}
            shapes = [[name, shape if isinstance(shape, str) else list(shape)] for name, shape in facts.layers.items()]
            noted = {"layers": shapes, "state": facts.state, "code": facts.code, "packages": dict(facts.packages)}
            self._memory.remember(self._facts_key, noted | {"channels": dict(channels), "files": files})
        return facts

    @cached_property
    def _facts_key(self) -> str:
        made_of = {
            **self._recipe.identity,
            **self._recorder.inputs.identity,
            "torch": torch_version(self._recipe.model),
        }
        return f"torch {_FACTS} {hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()}"

    @cached_property
    def _network(self) -> "TorchNetwork":
        network = build_network(self._recipe, self._catalog)
        for name in network.layers:
            try:
                check_layer_name(name)
            except ValueError as error:
                raise DataError("unsupported_model", f"{self._recorder.name}: {error}") from error
        return network

    @property
    def _module(self) -> Any:
        """The network; DataError if it is another one than an earlier run noted."""
        if self._network.state != self._facts.state:
            problem = "the factory built another network than in an earlier run with the same code, args and files"
            advice = "Name what else it reads under reads:, seed what it draws"
            raise DataError("bad_factory", f"{self._recorder.name}: {problem}, expected the same. {advice}")
        return self._network.module

    @property
    def _probed(self) -> dict[str, tuple[int, ...] | str]:
        """Run a few rows: the shape of a point in each layer, or why it cannot be recorded."""
        order = np.argsort(self.ids, kind="stable")[:_PROBE_ROWS]
        shapes: dict[str, tuple[int, ...] | str] = {}

        def note_shape(name: str, tensor: Any) -> None:
            again = "is called several times in one forward pass"
            shapes[name] = again if name in shapes else self._shape(tensor, len(order))

        layers = self._network.layers
        with self._hooked(layers, note_shape):
            self._run(self._recorder.input_batch(order), order)
        check_training(self._recorder.name, {name: module for name, module in layers.items() if name in shapes})
        return {name: shapes.get(name, "is never called in the forward pass") for name in layers}

    def _shape(self, tensor: Any, n_rows: int) -> tuple[int, ...] | str:
        """Return the shape of a point, or why there is none."""
        if tensor is None or not tensor.is_floating_point():
            kind = "no tensor" if tensor is None else str(tensor.dtype)
            return f"gives {kind}, where a float tensor is needed"
        shape = tuple(tensor.shape)
        if len(shape) < 2 or shape[0] != n_rows:
            return f"gives {shape} for {n_rows} points, where a row a point is needed"
        return shape[1:]

    def _check_layer(self, name: str) -> None:
        layers = self._facts.layers
        if name not in layers:
            problem = f"{self._recorder.name}: got no module {name[:100]!r}"
            raise DataError("unknown_layer", problem + did_you_mean(name, layers))
        shape = layers[name]
        if isinstance(shape, str):
            raise self._refused(name, shape)
        n_tokens = self._recorder.inputs.n_tokens
        if n_tokens is not None and len(shape) > 1 and (len(shape) != 2 or shape[0] != n_tokens):
            problem = f"gives {shape} a point, where {n_tokens} tokens are needed that the mask fits"
            raise self._refused(name, problem)
        if self._facts.channels.get(name) == "unknown" and self._recorder.pool not in ("none", "flatten"):
            problem = (
                f"gives maps {shape} a point in a network with channels first and last: nothing tells which these are"
            )
            advice = f"Leave it out with layers: ['!{name}'], or set pool: flatten"
            raise DataError("wrong_shape", f"{self._recorder.name}: {name} {problem}. {advice}")
        self._recorder.check_pooling(name, shape, is_last=self._facts.is_last(name))

    def _refused(self, name: str, why: str) -> DataError:
        return DataError("wrong_shape", f"{self._recorder.name}: {name} {why}. Leave it out with layers: ['!{name}']")

    def _keep(
        self,
        pooled: dict[str, Float[np.ndarray, "batch features"]],
        name: str,
        tensor: Any,
        rows: Int[np.ndarray, " batch"],
        inputs: InputBatch,
    ) -> None:
        """Pool at once: the next module may overwrite the tensor, and whole tensors would fill the memory."""
        if name in pooled:
            raise self._refused(name, "is called several times in one forward pass")
        shape = self._shape(tensor, len(rows))
        if isinstance(shape, str):
            raise self._refused(name, shape)
        is_last = self._facts.is_last(name)
        pooled[name] = self._recorder.pooled(name, as_array(tensor), rows, inputs, is_last=is_last)

    @contextmanager
    def _hooked(self, names: Sequence[str] | Mapping[str, Any], hook: _Hook) -> Iterator[None]:
        with ExitStack() as stack:
            for name in names:
                handle = self._network.layers[name].register_forward_hook(
                    lambda _module, _inputs, output, name=name: hook(name, first_tensor(output))
                )
                stack.callback(handle.remove)
            yield

    def _run(self, inputs: InputBatch, rows: Int[np.ndarray, " batch"]) -> None:
        import torch

        module, row_names = self._network.module, self._recorder.row_names(rows)
        double = any(tensor.dtype == torch.float64 for tensor in all_tensors(module))
        fed = {}
        for name, values in inputs.arrays.items():
            dtype = {"f": np.float64 if double else np.float32, "b": np.bool_}.get(values.dtype.kind, np.int64)
            fed[name] = torch.from_numpy(cast_input(self._recorder.name, values, np.dtype(dtype), row_names))
        try:
            with same_bits(torch), torch.inference_mode():
                if list(fed) == [ONLY]:
                    module(fed[ONLY])
                else:
                    module(**fed)
        except DataError:
            raise
        except Exception as error:
            detail = one_line(f"{type(error).__name__}: {error}")
            shapes = (f"{name + ': ' if name else ''}{tuple(one.shape)}, {one.dtype}" for name, one in fed.items())
            message = f"the network stopped on inputs of shape {'; '.join(shapes)} ({detail})"
            advice = "Check factory, args and the dataset's inputs"
            raise DataError("unsupported_model", f"{self._recorder.name}: {message}. {advice}") from error


def open_torch(
    model_name: str,
    model: TorchModel,
    catalog: Catalog,
    inputs: Shaped[np.ndarray, "points ..."] | RawInputs | TokenPoints | None,
    ids: Shaped[np.ndarray, " points"],
    memory: DigestMemory | None = None,
) -> TorchSource:
    """Return the source of a PyTorch network of a catalog; the parameters are those of `open_onnx`.

    Raises
    ------
    DataError
        ``bad_inputs`` for raw inputs, which only a model with a tokenizer or processor prepares; and as the factory,
        and reading its inputs, do.
    """
    check_dataset(model_name, model.dataset, inputs, bool(model.inputs))
    if isinstance(inputs, RawInputs) and not model.inputs:
        problem = f"got {inputs.kind} in the dataset {model.dataset}, expected numbers for a factory's network"
        advice = "Name the checkpoint's folder under transformers, or arrays under inputs: {input_ids: {path: ids.npy}}"
        raise DataError("bad_inputs", f"model {model_name}: {problem}. {advice}")
    named = NamedInputs(
        model_name, model.dataset, model.inputs, model.mask, catalog.datasets[model.dataset], catalog.root
    )
    fed = read_named_inputs(named, inputs if isinstance(inputs, np.ndarray) else None, len(ids))
    return TorchSource(model_name, model, catalog, fed, ids, memory)


def _still_holds(noted: Any, memory: DigestMemory | None) -> bool:
    """Return whether the code that an earlier run noted is still the same."""
    try:
        files = all(file_digest(Path(path), memory) == digest for path, digest in noted["files"].values())
    except DataError:
        return False
    return files and all(package_version(package) == version for package, version in noted["packages"].items())


def _code_digest(files: Mapping[str, Path], memory: DigestMemory | None) -> str:
    lines = "".join(f"{name}:{file_digest(path, memory)}\n" for name, path in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
