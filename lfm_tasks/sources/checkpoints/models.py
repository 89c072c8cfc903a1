"""Records activations of checkpoints; batches depend on the inputs alone, so that results do not vary."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from lfm_tasks.catalog.checkpoints import CheckpointModel
from lfm_tasks.catalog.names import did_you_mean
from lfm_tasks.errors import DataError
from lfm_tasks.sources.checkpoints.cost import RunCost, run_cost
from lfm_tasks.sources.checkpoints.devices import automatic_device
from lfm_tasks.sources.checkpoints.folder import Checkpoint, layer_names
from lfm_tasks.sources.checkpoints.loading import IMAGE_BACKEND, error_text
from lfm_tasks.sources.checkpoints.pooled_states import pool_states
from lfm_tasks.sources.checkpoints.requirements import installed_version, require_packages
from lfm_tasks.sources.checkpoints.running import (
    Batch,
    Layout,
    Network,
    RunOptions,
    exact,
    network_layout,
    open_network,
)
from lfm_tasks.sources.files.descriptions import check_max_tokens, check_tokenizer, cut_texts, read_json
from lfm_tasks.sources.files.digests import DigestMemory, file_digest
from lfm_tasks.sources.files.pooling import check_finite
from lfm_tasks.sources.networks.recording import gathered
from lfm_tasks.sources.networks.torch_networks import as_array, first_tensor, same_bits
from lfm_tasks.sources.raw_inputs import RawInputs

# Part of every identity. Raise it when the same checkpoint and inputs give other numbers.
_RECORDER_VERSION = "1"
_N_TOKENIZED = 1024

Rows = Int[np.ndarray, " selected"]
Values = Mapping[str, Float[np.ndarray, "batch features"]]


class CheckpointSource:
    """A `Source` of the hidden states of a checkpoint; nothing is loaded before the first batch.

    Parameters
    ----------
    model_name
        The model's name in the catalog.
    settings
        How the catalog says that it is run.
    checkpoint
        What its folder holds.
    inputs
        The texts or images of the dataset.
    ids
        Their ids.
    memory
        Digests of files, and layouts of networks, from earlier runs.

    Raises
    ------
    DataError
        ``missing_package`` without the libraries that run it; ``damaged_source`` for a tokenizer that cannot be read;
        ``bad_inputs`` for ``max_tokens`` that leave no room for words.
    """

    def __init__(
        self,
        model_name: str,
        settings: CheckpointModel,
        checkpoint: Checkpoint,
        inputs: RawInputs,
        ids: Shaped[np.ndarray, " points"],
        memory: DigestMemory | None = None,
    ) -> None:
        self.name = f"model {model_name}"
        require_packages(checkpoint.loader, self.name, adapter=checkpoint.adapter is not None)
        self._settings, self._checkpoint, self._inputs, self._ids = settings, checkpoint, inputs, ids
        self._memory = memory or DigestMemory()
        self._cut = 0, 0
        self._n_special = None
        if checkpoint.tokenizer is not None:
            label = f"{self.name}: {checkpoint.tokenizer.name}"
            self._n_special = check_tokenizer(checkpoint.tokenizer_files, label, self._memory)
        check_max_tokens(settings.max_tokens, self._n_special, self.name)

    @property
    def ids(self) -> Shaped[np.ndarray, " points"]:
        """Sample ids, one for each input."""
        return self._ids

    @property
    def checkpoint(self) -> Checkpoint:
        """The facts about the checkpoint's folder."""
        return self._checkpoint

    @property
    def batch_rows(self) -> int:
        """Rows that are computed together."""
        return self._settings.batch_size

    @cached_property
    def run_cost(self) -> RunCost:
        """The cost of one pass over the points, by the headers of the weights and the lengths of the texts."""
        cost = run_cost(self._checkpoint, self._settings, self._inputs.lengths())
        return replace(cost, peak_bytes=cost.peak_bytes + self._inputs.memory_bytes)

    def layer_names(self) -> tuple[str, ...]:
        """Return ``hidden.00`` and so on, first to last; then, with ``modules: true``, all modules of the network."""
        return (*self._hidden, *(self._layout.modules if self._settings.modules else ()))

    def layer_shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        """Return the shape of one point in each layer, before pooling; None where only a run can tell."""
        shapes: dict[str, tuple[int | None, ...]] = dict(zip(self._hidden, self._state_shapes, strict=True))
        if self._gives_sentences:
            shapes[self._hidden[-1]] = (_sentence_width(self._checkpoint),)
        return shapes | dict.fromkeys(self._layout.modules if self._settings.modules else (), (None,))

    def identity(self, layer: str) -> Mapping[str, str]:
        """Return the inputs of the key of ``layer``: files, inputs, options, and versions of the libraries that run."""
        self._check_layer(layer)
        return {"layer": layer, **self._identity}

    def batches(self, layers: Sequence[str], rows: Rows) -> Iterator[Values]:
        """Return an iterator of ``rows`` of each layer, pooled, in their order, all at once: for few rows.

        `scattered_batches` yields them as they are computed.
        """
        return gathered(self.scattered_batches(layers, rows), len(rows))

    def scattered_batches(
        self, layers: Sequence[str], rows: Rows, start: int = 0
    ) -> Iterator[tuple[Int[np.ndarray, " batch"], Values]]:
        """Yield batches as they are computed: which positions of ``rows`` they hold, and the values of each layer.

        Texts of one length stand together, so that little is padded: rows are ordered by their tokens and ids, and
        cut into batches of ``batch_rows``; the last one is filled up with rows that are not yielded again.

        Parameters
        ----------
        layers
            The layers to record.
        rows
            Rows of the dataset; the batches follow from all of them.
        start
            How many batches to leave out at the start.

        Raises
        ------
        DataError
            As loading does; ``bad_inputs`` for a text without a token; ``wrong_shape`` for a layer that gives no row a
            point; ``not_finite``; ``unsupported_model`` if the network stops.
        """
        names = list(dict.fromkeys(layers))
        for layer in names:
            self._check_layer(layer)
        network = self._network
        lengths = self._lengths(network, rows)
        order = np.lexsort((self._ids[rows], lengths))
        for first in range(start * self.batch_rows, len(rows), self.batch_rows):
            positions = order[first : first + self.batch_rows]
            values = self._run(network, names, rows[np.resize(positions, self.batch_rows)])
            yield positions, {layer: batch[: len(positions)] for layer, batch in values.items()}

    def notes(self) -> tuple[str, ...]:
        """Return sentences for people on what was recorded; more of them after the first batch."""
        notes = self._checkpoint.notes
        if "_network" in self.__dict__:
            notes += self._network.notes
            notes += cut_texts(*self._cut, self._network.max_tokens, self._n_special)
        return notes

    @property
    def device(self) -> str:
        """The device that runs: what ``auto`` stands for decides the bits, not the word."""
        return automatic_device() if self._settings.device == "auto" else self._settings.device

    @cached_property
    def _network(self) -> Network:
        settings = self._settings
        options = RunOptions(self.device, settings.dtype, settings.max_tokens, settings.prompt)
        return open_network(self._checkpoint, self.name, options)

    @cached_property
    def _hidden(self) -> tuple[str, ...]:
        return layer_names(len(self._state_shapes))

    @property
    def _state_shapes(self) -> tuple[tuple[int | None, ...], ...]:
        # Of timm's many architectures only the network itself knows its intermediates.
        return self._layout.shapes if self._checkpoint.loader == "timm" else self._checkpoint.shapes

    @cached_property
    def _layout(self) -> Layout:
        """States and modules as an empty network tells them; remembered, as building one imports whole libraries."""
        key = hashlib.sha256(repr(sorted(self._made_of.items())).encode()).hexdigest()
        known = self._memory.recall(f"layout {key}")
        if known is None:
            layout = network_layout(self._checkpoint, self.name)
            known = {"shapes": [list(shape) for shape in layout.shapes], "modules": list(layout.modules)}
            self._memory.remember(f"layout {key}", known)
        return Layout(tuple(tuple(shape) for shape in known["shapes"]), tuple(known["modules"]))

    @cached_property
    def _made_of(self) -> Mapping[str, str]:
        """The checkpoint's content, and the versions of what runs it."""
        checkpoint = self._checkpoint
        return {"kind": checkpoint.loader, "files": self._files_digest(), "versions": _versions(checkpoint)}

    def _files_digest(self) -> str:
        checkpoint = self._checkpoint
        lines = sorted(f"{_within(path, checkpoint)} {file_digest(path, self._memory)}" for path in checkpoint.files)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def check_unchanged(self) -> None:
        """Raise DataError ``missing_source`` if a file is another one than when `identity` was first requested."""
        if self._files_digest() != self._made_of["files"]:
            problem = "got files that changed while the network was run, expected them to stay"
            raise DataError("missing_source", f"{self.name}: {problem}. Run again.")

    @cached_property
    def _identity(self) -> Mapping[str, str]:
        settings, checkpoint = self._settings, self._checkpoint
        chosen = {
            "max_tokens": settings.max_tokens,
            "tower": checkpoint.tower,
            "prompt": settings.prompt,
            "processor": IMAGE_BACKEND if checkpoint.reads == "images" else None,
        }
        return {
            **self._made_of,
            "inputs": self._inputs.digest(),
            "pool": self.pool + ("+sentence" if self._gives_sentences else ""),
            "batch_size": str(settings.batch_size),
            "device": self.device.partition(":")[0],
            "dtype": settings.dtype,
            "recorder": _RECORDER_VERSION,
            **{name: str(value) for name, value in chosen.items() if value is not None},
        }

    @property
    def pool(self) -> str:
        """How a state becomes rows: as the catalog says, or as the family is used."""
        return self._checkpoint.default_pool if self._settings.pool == "auto" else self._settings.pool

    @property
    def _gives_sentences(self) -> bool:
        """Whether the last state is what sentence-transformers makes of it."""
        return self._checkpoint.loader == "sentence_transformers" and self._settings.pool == "auto"

    def _check_layer(self, layer: str) -> None:
        if layer not in self.layer_names():
            hint = did_you_mean(layer, self.layer_names())
            raise DataError("unknown_layer", f"{self.name}: got no layer {layer[:100]!r}{hint}")

    def _lengths(self, network: Network, rows: Rows) -> Int[np.ndarray, " selected"]:
        """Return how many tokens of each row are read; DataError for a text without any."""
        parts = [rows[start : start + _N_TOKENIZED] for start in range(0, len(rows), _N_TOKENIZED)]
        if self._checkpoint.reads == "images":
            return np.zeros(len(rows), dtype=np.int64)
        lengths = np.concatenate([network.lengths(self._inputs.read(part)) for part in parts])
        if not lengths.all():
            row = rows[lengths.argmin()]
            problem = f"got a text without a token, first in row {row} (id {self._ids[row]!s}), expected at least one"
            raise DataError("bad_inputs", f"{self.name}: {problem}. Leave empty texts out of the dataset.")
        if network.max_tokens is None:
            return lengths
        self._cut = int((lengths > network.max_tokens).sum()), len(rows)
        return np.minimum(lengths, network.max_tokens)

    def _run(self, network: Network, layers: Sequence[str], rows: Int[np.ndarray, " batch"]) -> Values:
        import torch

        inputs = self._inputs.read(rows)
        device = next(network.module.parameters()).device
        modules: dict[str, Any] = {}
        wanted = [layer for layer in layers if layer not in self._hidden]
        try:
            with same_bits(torch), exact(device), torch.inference_mode():
                with self._hooked(network, wanted, len(rows), modules):
                    batch = network.run(inputs)
                self._check_count(batch)
                pooled = {layer: self._pooled(layer, batch, modules) for layer in layers}
        except DataError:
            raise
        except torch.OutOfMemoryError as error:
            problem = f"got no more memory on {device} for a batch of {len(rows)}"
            raise DataError("too_large", f"{self.name}: {problem}. Lower batch_size or max_tokens.") from error
        except Exception as error:
            problem = f"the network stopped on a batch of {len(rows)} {self._inputs.kind} ({error_text(error)})"
            raise DataError(
                "unsupported_model", f"{self.name}: {problem}. Set dtype: float32, or leave it out."
            ) from error
        return {layer: self._checked(layer, values, rows) for layer, values in pooled.items()}

    def _check_count(self, batch: Batch) -> None:
        if len(batch.states) != len(self._hidden):
            problem = f"got {len(batch.states)} hidden states, expected {len(self._hidden)} by the configuration"
            raise DataError("unsupported_model", f"{self.name}: {problem}. Record it with a torch factory.")

    def _pooled(self, layer: str, batch: Batch, modules: Mapping[str, Any]) -> Any:
        if layer not in self._hidden:
            if layer not in modules:
                raise self._refused(layer, "is never called in the forward pass")
            return self._pooled_module(layer, modules[layer], batch)
        index = self._hidden.index(layer)
        if batch.sentence is not None and self._gives_sentences and index == len(self._hidden) - 1:
            return batch.sentence
        n_prefix = batch.n_prefix[index] if batch.n_prefix else 0
        return self._pool_state(layer, batch.states[index], batch.valid, n_prefix)

    def _pooled_module(self, layer: str, output: Any, batch: Batch) -> Any:
        """Pool what a module gave as a hidden state of its shape would be pooled."""
        tokens = output.shape[1] if output.ndim == 3 else None
        valid = batch.valid if batch.valid is not None and batch.valid.shape[1] == tokens else None
        alike = (
            n_prefix
            for state, n_prefix in zip(batch.states, batch.n_prefix, strict=False)
            if state.ndim == 3 and state.shape[1] == tokens
        )
        return self._pool_state(layer, output, valid, next(alike, 0))

    def _pool_state(self, layer: str, state: Any, valid: Any, n_prefix: int) -> Any:
        try:
            return pool_states(state, self.pool, valid=valid, n_prefix=n_prefix)
        except DataError as error:
            raise DataError(error.reason, f"{self.name}: {layer}: {error}") from error

    def _checked(self, layer: str, values: Any, rows: Int[np.ndarray, " batch"]) -> Float[np.ndarray, "batch features"]:
        array = np.ascontiguousarray(as_array(values))
        check_finite(array, rows, self._ids, name=f"{self.name}: {layer}", advice="Set dtype: float32")
        return array

    def _refused(self, layer: str, why: str) -> DataError:
        return DataError("wrong_shape", f"{self.name}: {layer} {why}. Leave it out: layers: ['!{layer}'].")

    @contextmanager
    def _hooked(self, network: Network, layers: Sequence[str], n_rows: int, outputs: dict[str, Any]) -> Iterator[None]:
        """Keep what the modules give while the block runs."""
        if not layers:
            yield
            return
        modules = dict(network.module.named_modules())

        def keep(layer: str, output: Any) -> None:
            if layer in outputs:
                raise self._refused(layer, "is called several times in one forward pass")
            tensor = first_tensor(output)
            if tensor is None or not tensor.is_floating_point() or tensor.ndim < 2 or len(tensor) != n_rows:
                given = "no tensor" if tensor is None else f"{tuple(tensor.shape)} of {tensor.dtype}"
                raise self._refused(layer, f"gives {given} for {n_rows} points")
            outputs[layer] = tensor.clone()  # the next module may overwrite it

        with ExitStack() as stack:
            for layer in layers:
                hook = lambda _module, _inputs, output, layer=layer: keep(layer, output)  # noqa: E731
                stack.callback(modules[layer].register_forward_hook(hook).remove)
            yield


def _within(path: Path, checkpoint: Checkpoint) -> str:
    """Return where a file lies in its folder, and in which of the checkpoint's folders: the same wherever they lie."""
    folders = {"": checkpoint.folder, "base/": checkpoint.base, "tokenizer/": checkpoint.tokenizer}
    for role, folder in folders.items():
        if folder is not None and path.is_relative_to(folder):
            return role + path.relative_to(folder).as_posix()
    return path.name


def _versions(checkpoint: Checkpoint) -> str:
    packages = ["torch", "tokenizers" if checkpoint.reads == "texts" else "pillow"]
    packages += {"timm": ["timm", "torchvision"]}.get(checkpoint.loader, ["transformers"])
    packages += ["sentence-transformers"] if checkpoint.loader == "sentence_transformers" else []
    packages += ["peft"] if checkpoint.adapter is not None else []
    return ", ".join(f"{package} {installed_version(package)}" for package in sorted(packages))


def _sentence_width(checkpoint: Checkpoint) -> int | None:
    """Return how many features a sentence has, by the configurations of the modules behind the transformer."""
    width: int | None = None
    for path in sorted(checkpoint.files):
        folder = path.parent.name
        if path.name != "config.json" or path.parent == checkpoint.folder or not folder[:1].isdigit():
            continue
        settings = read_json(path, f"{checkpoint.folder.name}/{folder}/{path.name}")
        if folder.endswith("_Dense"):
            width = settings.get("out_features", width)
        elif folder.endswith("_Pooling"):
            n_modes = sum(value is True for key, value in settings.items() if key.startswith("pooling_mode_"))
            size = settings.get("word_embedding_dimension", settings.get("embedding_dimension"))
            width = size * max(1, n_modes) if isinstance(size, int) else width
    return width
