"""Points that are tokens: ``text#position``, whole texts as groups; for models that cut texts into the same tokens."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from lfm_tasks.catalog.checkpoints import CheckpointModel
from lfm_tasks.errors import DataError
from lfm_tasks.sources.checkpoints.cost import RunCost
from lfm_tasks.sources.checkpoints.folder import Checkpoint
from lfm_tasks.sources.checkpoints.loading import SAFELY, import_library, library_errors, quietly
from lfm_tasks.sources.checkpoints.models import CheckpointSource, Rows, Values
from lfm_tasks.sources.checkpoints.requirements import installed_version
from lfm_tasks.sources.files.digests import DigestMemory, file_digest
from lfm_tasks.sources.files.pooling import check_finite
from lfm_tasks.sources.networks.torch_networks import as_array
from lfm_tasks.sources.offline import offline
from lfm_tasks.sources.raw_inputs import RawInputs, TokenPoints

_N_TOKENIZED = 1024


def token_points(
    model: str,
    settings: CheckpointModel,
    checkpoint: Checkpoint,
    texts: RawInputs,
    text_ids: Shaped[np.ndarray, " texts"],
    memory: DigestMemory,
) -> TokenPoints:
    """Return the tokens into which a model cuts texts; remembered, so that no tokenizer is opened twice for the same.

    Raises
    ------
    DataError
        ``bad_inputs`` for images, a missing ``max_tokens``, another library than transformers, or a text without a
        token; ``missing_package``; ``no_processor`` without a tokenizer.
    """
    name = f"model {model}"
    if checkpoint.reads != "texts" or texts.kind != "texts" or checkpoint.loader != "transformers":
        problem = f"{name}: got points: tokens for {checkpoint.reads} by {checkpoint.loader}"
        raise DataError("bad_inputs", f"{problem}, expected texts by transformers. Leave points out.")
    if settings.max_tokens is None:
        problem = f"{name}: got points: tokens without max_tokens, expected where texts are cut"
        raise DataError("bad_inputs", f"{problem}. Set max_tokens, the same for all models of the dataset.")
    folder = checkpoint.tokenizer or checkpoint.folder
    files = [
        file_digest(path, memory)
        for path in checkpoint.files
        if path.parent == folder and path.suffix != ".safetensors"
    ]
    made_of = [texts.digest(), settings.max_tokens, settings.prompt, files, installed_version("tokenizers")]
    key = f"tokens {hashlib.sha256(repr(made_of).encode()).hexdigest()}"
    known = memory.recall(key)
    if known is None:
        n_tokens, digest = _tokenized(name, settings, folder, texts)
        known = {"n_tokens": n_tokens, "digest": digest}
        memory.remember(key, known)
    counts = np.array(known["n_tokens"], dtype=np.int64)
    if not counts.all():
        problem = f"{name}: got a text without a token (id {text_ids[counts.argmin()]!s}), expected at least one"
        raise DataError("bad_inputs", f"{problem}. Leave empty texts out of the dataset.")
    return TokenPoints(texts, text_ids, counts, known["digest"], model)


def _tokenized(name: str, settings: CheckpointModel, folder: Any, texts: RawInputs) -> tuple[list[int], str]:
    transformers = import_library("transformers", name)
    advice = "The tokenizer cannot be loaded. Save it again with save_pretrained, or name another, tokenizer:"
    with offline(), quietly(transformers), library_errors(name, advice):
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder.absolute()), **SAFELY)
    tokenizer.truncation_side = "right"
    hasher, n_tokens = hashlib.sha256(), list[int]()
    for start in range(0, len(texts), _N_TOKENIZED):
        rows = np.arange(start, min(start + _N_TOKENIZED, len(texts)))
        part = [(settings.prompt or "") + text for text in texts.read(rows)]
        for tokens in tokenizer(part, truncation=True, max_length=settings.max_tokens)["input_ids"]:
            n_tokens.append(len(tokens))
            hasher.update(np.array([len(tokens), *tokens], "<i8").tobytes())
    return n_tokens, hasher.hexdigest()


class TokenSource(CheckpointSource):
    """A `Source` of the hidden states of a checkpoint with a row a token.

    Parameters
    ----------
    model_name, settings, checkpoint, memory
        As of a `CheckpointSource`.
    points
        The tokens of the dataset.

    Raises
    ------
    DataError
        ``bad_inputs`` if the model cuts the texts into other tokens; and as `token_points` does.
    """

    def __init__(
        self,
        model_name: str,
        settings: CheckpointModel,
        checkpoint: Checkpoint,
        points: TokenPoints,
        memory: DigestMemory,
    ) -> None:
        super().__init__(model_name, settings, checkpoint, points.texts, points.text_ids, memory)
        self._points = points
        own = token_points(model_name, settings, checkpoint, points.texts, points.text_ids, memory)
        if own.tokens_digest != points.tokens_digest:
            problem = f"{self.name}: got other tokens than those of model {points.model}, expected the same"
            advice = "Compare models of one tokenizer and one max_tokens by tokens, others by texts: points: rows"
            raise DataError("bad_inputs", f"{problem}. {advice}.")

    @property
    def ids(self) -> Shaped[np.ndarray, " points"]:
        """An id for each token."""
        return self._points.ids

    @property
    def pool(self) -> str:
        """Tokens are not pooled."""
        return "none"

    @cached_property
    def run_cost(self) -> RunCost:
        """The cost of one pass over the points: the operations of a text are shared by its tokens."""
        cost = super().run_cost
        return replace(cost, flops=cost.flops / max(1.0, float(self._points.n_tokens.mean())))

    def layer_shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        """Return the shape of one token in each layer."""
        return {layer: shape[1:] or shape for layer, shape in super().layer_shapes().items()}

    def identity(self, layer: str) -> Mapping[str, str]:
        """Return the inputs of the key of ``layer``."""
        return {**super().identity(layer), "points": "tokens"}

    def scattered_batches(
        self, layers: Sequence[str], rows: Rows, start: int = 0
    ) -> Iterator[tuple[Int[np.ndarray, " batch"], Values]]:
        """Yield the tokens of one batch of texts after the other, as a `CheckpointSource` orders texts."""
        names = list(dict.fromkeys(layers))
        for layer in names:
            self._check_layer(layer)
        points, network = self._points, self._network
        longest = int(points.n_tokens.max())
        if network.max_tokens is not None and network.max_tokens < longest:
            problem = f"{self.name}: got texts of {longest} tokens and a network that reads {network.max_tokens}"
            raise DataError("bad_inputs", f"{problem}. Lower max_tokens of all models of the dataset.")
        place = np.full(len(points), -1, dtype=np.int64)
        place[rows] = np.arange(len(rows))
        texts = np.unique(points.text_of[rows])
        order = texts[np.lexsort((points.text_ids[texts], points.n_tokens[texts]))]
        for first in range(start * self.batch_rows, len(order), self.batch_rows):
            chosen = order[first : first + self.batch_rows]
            values = self._run(network, names, np.resize(chosen, self.batch_rows))
            positions = place[self._tokens_of(chosen)]
            is_wanted = positions >= 0
            yield (
                positions[is_wanted],
                {layer: batch[: len(positions)][is_wanted] for layer, batch in values.items()},
            )

    def _tokens_of(self, texts: Int[np.ndarray, " chosen"]) -> Int[np.ndarray, " tokens"]:
        points = self._points
        return np.concatenate([points.first_of[text] + np.arange(points.n_tokens[text]) for text in texts])

    def _pool_state(self, layer: str, state: Any, valid: Any, n_prefix: int) -> Any:
        if valid is None or state.ndim != 3:
            raise self._refused(layer, f"gives {tuple(state.shape)}, which holds no row a token")
        return state[valid]

    def _checked(self, layer: str, values: Any, rows: Int[np.ndarray, " batch"]) -> Any:
        array, tokens = np.ascontiguousarray(as_array(values)), self._tokens_of(rows)
        if len(array) != len(tokens) or array.dtype.kind != "f":
            raise self._refused(layer, f"gives {array.shape} of {array.dtype} for {len(tokens)} tokens")
        check_finite(array, tokens, self.ids, name=f"{self.name}: {layer}", advice="Set dtype: float32")
        return array
