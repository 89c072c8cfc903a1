"""Runs loaded checkpoints on raw inputs: each prepares them as it was trained to, and returns its hidden states.

`open_network` loads a checkpoint. A further library is a class beside the others and a line in `open_network`.
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int

from lfm_tasks.errors import DataError
from lfm_tasks.sources.checkpoints.agreement import check_built
from lfm_tasks.sources.checkpoints.devices import chosen_device
from lfm_tasks.sources.checkpoints.folder import Checkpoint
from lfm_tasks.sources.checkpoints.loading import (
    IMAGE_BACKEND,
    SAFELY,
    import_library,
    library_errors,
    load_transformers,
    on_meta,
    quietly,
    read_configuration,
)
from lfm_tasks.sources.checkpoints.weights import read_weights
from lfm_tasks.sources.offline import offline

# What tokenizers say of a length that nobody set.
_NO_LIMIT = 10**9
_N_TEXTS = 256


@dataclass(frozen=True)
class RunOptions:
    """How a checkpoint is run: ``max_tokens`` None for the model's own, ``dtype`` as in the catalog."""

    device: str = "cpu"
    dtype: str = "auto"
    max_tokens: int | None = None
    prompt: str | None = None


@dataclass(frozen=True)
class Batch:
    """The output of a network for a batch of inputs.

    ``states``: tensors (batch, tokens, features) or (batch, channels, height, width), first to last. ``valid``: which
    tokens are no padding, None for images. ``n_prefix``: leading tokens that are no patches, for each state.
    ``sentence``: (batch, features), what sentence-transformers returns.
    """

    states: Sequence[Any]
    valid: Any = None
    n_prefix: Sequence[int] = ()
    sentence: Any = None


class Network(Protocol):
    """A loaded checkpoint; ``module`` is the network that runs, ``max_tokens`` where texts are cut."""

    module: Any
    max_tokens: int | None
    notes: tuple[str, ...]

    def lengths(self, inputs: Sequence[Any]) -> Int[np.ndarray, " batch"]:
        """Return the tokens of each text before anything is cut; zeros for images."""
        ...

    def run(self, inputs: Sequence[Any]) -> Batch:
        """Return the hidden states of a batch."""
        ...


def open_network(checkpoint: Checkpoint, model: str, options: RunOptions) -> Network:
    """Return a checkpoint that is loaded and stands on its device; DataError if it cannot be."""
    device = chosen_device(options.device, model)
    if checkpoint.loader == "timm":
        return TimmNetwork(checkpoint, model, options, device)
    if checkpoint.loader == "sentence_transformers":
        return SentenceNetwork(checkpoint, model, options, device)
    return (TextNetwork if checkpoint.reads == "texts" else ImageNetwork)(checkpoint, model, options, device)


class TextNetwork:
    """A transformers model of texts, with its own tokenizer."""

    def __init__(self, checkpoint: Checkpoint, model: str, options: RunOptions, device: Any) -> None:
        transformers = import_library("transformers", model)
        self.notes: tuple[str, ...] = ()
        self._device, self._prompt = device, options.prompt or ""
        read_configuration(checkpoint.base or checkpoint.folder, model)
        self._tokenizer = self._own_tokenizer(transformers, checkpoint, model)
        self.module = load_transformers(checkpoint, model, options.dtype).to(device)
        self._model, self._n_known = model, self.module.get_input_embeddings().num_embeddings
        self._fill_with(self._tokenizer)
        self._tower, self._has_sound = checkpoint.tower, checkpoint.family == "whisper"
        self._run = self.module.decoder if self._reads_late and self._has_sound else self.module
        self._accepts = set(inspect.signature(self._run.forward).parameters)
        self.max_tokens = _limit(options.max_tokens, self._tokenizer, self.module)

    @property
    def _reads_late(self) -> bool:
        return self._tower == "decoder"

    def _own_tokenizer(self, transformers: Any, checkpoint: Checkpoint, model: str) -> Any:
        folder = checkpoint.tokenizer or checkpoint.folder
        advice = "The tokenizer cannot be loaded. Save it again with save_pretrained, or name another, tokenizer:"
        with offline(), quietly(transformers), library_errors(model, advice):
            tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder.absolute()), **SAFELY)
        # Padding before a text would move its tokens to other positions.
        tokenizer.padding_side, tokenizer.truncation_side = "right", "right"
        return tokenizer

    def _fill_with(self, tokenizer: Any) -> None:
        """Give the tokenizer a pad token that the network knows; it is masked, whichever it is."""
        pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
        if pad is not None and pad < self._n_known:
            return
        if end is None or end >= self._n_known:
            problem = "got a tokenizer without a pad and an end token, expected one of them to fill batches up"
            raise DataError("no_processor", f"{self._model}: {problem}. Set pad_token in tokenizer_config.json.")
        tokenizer.pad_token = tokenizer.eos_token
        end_token = ascii(tokenizer.eos_token)[1:-1]
        self.notes += (f"the tokenizer has no pad token: {end_token} fills batches up, and is masked",)

    def lengths(self, inputs: Sequence[str]) -> Int[np.ndarray, " batch"]:
        """Return the tokens of each text, special ones included."""
        texts = [self._prompt + text for text in inputs]
        encoded = self._tokenizer(texts, return_attention_mask=False, return_token_type_ids=False, verbose=False)
        return np.array([len(ids) for ids in encoded["input_ids"]], dtype=np.int64)

    def run(self, inputs: Sequence[str]) -> Batch:
        """Return the hidden states of texts, padded to the longest of them."""
        cut = {} if self.max_tokens is None else {"truncation": True, "max_length": self.max_tokens}
        texts = [self._prompt + text for text in inputs]
        encoded = self._tokenizer(texts, padding=True, return_attention_mask=True, return_tensors="pt", **cut)
        if (largest := int(encoded["input_ids"].max())) >= self._n_known:
            problem = f"got the token {largest} of the tokenizer and a network that knows {self._n_known}"
            raise DataError("no_processor", f"{self._model}: {problem}. Name the tokenizer that it has: tokenizer:.")
        encoded = {name: values.to(self._device) for name, values in encoded.items()}
        valid = encoded["attention_mask"].bool()
        arguments = {name: values for name, values in encoded.items() if name in self._accepts}
        arguments["output_hidden_states"] = True
        if "use_cache" in self._accepts:
            arguments["use_cache"] = False
        if self._reads_late and not self._has_sound:
            late = _one_token_late(self.module.config, encoded["input_ids"])
            arguments |= {"decoder_input_ids": late, "decoder_attention_mask": encoded["attention_mask"]}
            return Batch(self._run(**arguments).decoder_hidden_states, valid)
        return Batch(self._run(**arguments).hidden_states, valid)


def _limit(wanted: int | None, tokenizer: Any, network: Any) -> int | None:
    """Return where texts are cut: what the catalog says, unless the tokenizer or the positions end before."""
    own = getattr(tokenizer, "model_max_length", None)
    limits = [wanted, own if own is not None and own < _NO_LIMIT else None, _n_positions(network)]
    return min((limit for limit in limits if limit is not None), default=None)


def _n_positions(network: Any) -> int | None:
    """Return how many tokens a network has positions for; None if it knows only distances."""
    for module in network.modules():
        table: Any = getattr(module, "position_embeddings", None)
        if hasattr(table, "num_embeddings"):
            # RoBERTa and its kin number positions from behind the padding.
            first = 0 if table.padding_idx is None else table.padding_idx + 1
            return int(table.num_embeddings) - first
    config = getattr(network.config, "text_config", network.config)
    count = getattr(config, "max_position_embeddings", None)
    return count if isinstance(count, int) and count > 0 else None


def _one_token_late(config: Any, ids: Any) -> Any:
    """Return the input of a decoder: the text after its start token and without its last token, as in training."""
    import torch

    candidates = (getattr(config, f"{name}_token_id", None) for name in ("decoder_start", "bos", "pad"))
    start = next((one for one in candidates if one is not None), 0)
    return torch.cat([torch.full_like(ids[:, :1], start), ids[:, :-1]], dim=1)


class ImageNetwork:
    """A transformers model of images, with its own processor."""

    max_tokens: int | None = None

    def __init__(self, checkpoint: Checkpoint, model: str, options: RunOptions, device: Any) -> None:
        transformers = import_library("transformers", model)
        self.notes: tuple[str, ...] = ()
        self._device = device
        read_configuration(checkpoint.base or checkpoint.folder, model)
        advice = "The image processor cannot be loaded. Copy its preprocessor_config.json again"
        with offline(), quietly(transformers), library_errors(model, advice):
            self._processor = transformers.AutoImageProcessor.from_pretrained(
                str((checkpoint.base or checkpoint.folder).absolute()), backend=IMAGE_BACKEND, **SAFELY
            )
        self.module = load_transformers(checkpoint, model, options.dtype).to(device)
        self._accepts = set(inspect.signature(self.module.forward).parameters)
        patch = getattr(self.module.config, "patch_size", None)
        self._patch = patch if isinstance(patch, int) else None

    def lengths(self, inputs: Sequence[Any]) -> Int[np.ndarray, " batch"]:
        """Return zeros: images of one model have one size."""
        return np.zeros(len(inputs), dtype=np.int64)

    def run(self, inputs: Sequence[Any]) -> Batch:
        """Return the hidden states of images."""
        encoded = self._processor(list(inputs), return_tensors="pt")
        pixels = encoded["pixel_values"].to(self._device, self.module.dtype)
        arguments = {"output_hidden_states": True} | ({"use_cache": False} if "use_cache" in self._accepts else {})
        states = self.module(pixel_values=pixels, **arguments).hidden_states
        return Batch(states, n_prefix=[_n_prefix(state, pixels, self._patch) for state in states])


def _n_prefix(state: Any, pixels: Any, patch: int | None) -> int:
    """Return how many tokens stand before the patches: class, distillation and register tokens."""
    if state.ndim != 3 or patch is None:
        return 0
    height, width = pixels.shape[-2:]
    # Later stages of hierarchical models hold fewer patches, and no other tokens.
    return max(0, state.shape[1] - (height // patch) * (width // patch))


class TimmNetwork:
    """A timm model, with its own transform."""

    max_tokens: int | None = None

    def __init__(self, checkpoint: Checkpoint, model: str, options: RunOptions, device: Any) -> None:
        timm, data = import_library("timm", model), import_library("timm.data", model)
        self.notes: tuple[str, ...] = ()
        self._device = device
        advice = "timm cannot load this checkpoint. Save it again with timm.models.save_for_hf"
        with offline(), library_errors(model, advice):
            self.module = timm.create_model(f"local-dir:{checkpoint.folder.absolute()}", pretrained=True)
            self._transform = data.create_transform(**data.resolve_model_data_config(self.module), is_training=False)
        _check_intermediates(self.module, model)
        self.module = _typed(self.module, options.dtype).to(device).eval().requires_grad_(False)

    def lengths(self, inputs: Sequence[Any]) -> Int[np.ndarray, " batch"]:
        """Return zeros: images of one model have one size."""
        return np.zeros(len(inputs), dtype=np.int64)

    def run(self, inputs: Sequence[Any]) -> Batch:
        """Return the maps that ``forward_intermediates`` gives for images."""
        import torch

        dtype = next(self.module.parameters()).dtype
        pixels = torch.stack([self._transform(image) for image in inputs]).to(self._device, dtype)
        return Batch(self.module.forward_intermediates(pixels, intermediates_only=True))


def _typed(module: Any, dtype: str) -> Any:
    import torch

    return module.to(torch.float32 if dtype == "auto" else getattr(torch, dtype))


def _check_intermediates(module: Any, model: str) -> None:
    if not hasattr(module, "forward_intermediates"):
        problem = f"got a {type(module).__name__}, which has no forward_intermediates, expected a model that has"
        raise DataError("unsupported_model", f"{model}: {problem}. Record it with a torch factory.")


class SentenceNetwork:
    """A sentence-transformers model: its own prompts, pooling, dense layers and normalization."""

    def __init__(self, checkpoint: Checkpoint, model: str, options: RunOptions, device: Any) -> None:
        library = import_library("sentence_transformers", model)
        transformers = import_library("transformers", model)
        self.notes: tuple[str, ...] = ()
        _check_modules(checkpoint, model)
        advice = "sentence-transformers cannot load this checkpoint. Save it again, or use a section transformers"
        with offline(), quietly(transformers), library_errors(model, advice):
            self._whole = library.SentenceTransformer(
                str(checkpoint.folder.absolute()),
                device=str(device),
                model_kwargs={"dtype": options.dtype, "use_safetensors": True},
                **SAFELY,
            )
        self._whole.eval().requires_grad_(False)
        self.module = self._whole[0].auto_model
        self.module.config.output_hidden_states = True
        self._device = device
        prompts = self._whole.prompts
        named = options.prompt if options.prompt is not None else self._whole.default_prompt_name
        self._prompt = prompts.get(named, options.prompt) if named is not None else None
        own = self._whole.max_seq_length
        limits = [limit for limit in (options.max_tokens, own) if limit is not None and limit < _NO_LIMIT]
        self.max_tokens = min(limits, default=None)
        if self.max_tokens is not None:
            self._whole.max_seq_length = self.max_tokens

    def lengths(self, inputs: Sequence[str]) -> Int[np.ndarray, " batch"]:
        """Return the tokens of each text, the prompt's and special ones included."""
        texts = [(self._prompt or "") + text for text in inputs]
        encoded = self._whole.tokenizer(texts, return_attention_mask=False, verbose=False)
        return np.array([len(ids) for ids in encoded["input_ids"]], dtype=np.int64)

    def run(self, inputs: Sequence[str]) -> Batch:
        """Return the hidden states of texts, and what ``encode`` would return for them."""
        features = self._whole.preprocess(list(inputs), prompt=self._prompt)
        moved = {name: _moved(value, self._device) for name, value in features.items()}
        given = self._whole(moved)
        states = given["all_layer_embeddings"]
        return Batch(states, moved["attention_mask"].bool(), sentence=given["sentence_embedding"])


def _check_modules(checkpoint: Checkpoint, model: str) -> None:
    """Raise DataError ``bad_weights`` for a module whose weights lie in a format that can hold code only."""
    for file in checkpoint.files:
        if file.suffix == ".bin" and not file.with_name("model.safetensors").exists():
            problem = f"got {file.relative_to(checkpoint.folder)}, expected model.safetensors"
            advice = "This format can hold code: if you trust its author, load the model yourself and save it again"
            raise DataError("bad_weights", f"{model}: {problem}. {advice}.")


def _moved(value: Any, device: Any) -> Any:
    return value.to(device) if hasattr(value, "to") else value


@contextmanager
def exact(device: Any) -> Iterator[None]:
    """Keep a GPU from computing in fewer digits or by whichever kernel is fastest today; put all back afterwards."""
    import torch

    if device.type != "cuda":
        yield
        return
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, cudnn.benchmark, matmul.allow_tf32
    cudnn.allow_tf32, cudnn.benchmark, matmul.allow_tf32 = False, False, False
    try:
        yield
    finally:
        cudnn.allow_tf32, cudnn.benchmark, matmul.allow_tf32 = before


@dataclass(frozen=True)
class Layout:
    """The layout of a network without weights: the shape of a point in each state, and the names of its modules."""

    shapes: tuple[tuple[int | None, ...], ...]
    modules: tuple[str, ...]


def network_layout(checkpoint: Checkpoint, model: str) -> Layout:
    """Return states and modules of a checkpoint, by its configuration; of its weights only the headers are read."""
    advice = "The library cannot build this network. Save it again, or install the version that wrote it"
    if checkpoint.loader == "timm":
        timm = import_library("timm", model)
        with offline(), library_errors(model, advice):
            module = on_meta(partial(timm.create_model, f"local-dir:{checkpoint.folder.absolute()}"))
            _check_intermediates(module, model)
            built = {key: tuple(values.shape) for key, values in module.state_dict().items()}
            check_built(read_weights(checkpoint.folder, model).tensors, built, model)
            return Layout(_timm_shapes(module), _named_modules(module))
    transformers = import_library("transformers", model)
    config = read_configuration(checkpoint.base or checkpoint.folder, model)
    with offline(), quietly(transformers), library_errors(model, advice):
        module = on_meta(partial(transformers.AutoModel.from_config, config, trust_remote_code=False))
    return Layout(checkpoint.shapes, _named_modules(module))


def _timm_shapes(module: Any) -> tuple[tuple[int | None, ...], ...]:
    import torch

    size = (module.pretrained_cfg or {}).get("input_size") or (3, 224, 224)
    with torch.inference_mode():
        maps = module.forward_intermediates(torch.empty((1, *size), device="meta"), intermediates_only=True)
    return tuple(tuple(one.shape[1:]) for one in maps)


def _named_modules(module: Any) -> tuple[str, ...]:
    return tuple(name for name, _ in module.named_modules() if name)
