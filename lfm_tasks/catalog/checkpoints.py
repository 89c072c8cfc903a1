"""Settings of a checkpoint that is run: ``transformers``, ``timm`` and ``sentence_transformers`` of a model."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from lfm_tasks.catalog.datasets import ModelText, PlainText, SourceDataset
from lfm_tasks.catalog.names import pattern_fields, shorten
from lfm_tasks.config import FROM_ENVIRONMENT, Settings

# The kinds of section, which are the libraries that load a checkpoint.
Loader = Literal["transformers", "timm", "sentence_transformers"]
LOADERS: tuple[Loader, ...] = ("sentence_transformers", "timm", "transformers")

CheckpointPooling = Literal["auto", "none", "flatten", "mean", "max", "cls", "last", "cls+mean"]
_Folder = Annotated[ModelText, FROM_ENVIRONMENT]


def _check_device(device: str) -> str:
    if re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,2})?", device) is None:
        raise ValueError(f"got the device {shorten(device)}, expected auto, cpu, cuda, cuda:0 or mps")
    return device


class CheckpointModel(Settings):
    """A folder with a checkpoint, run on the raw inputs of a dataset; the model prepares them as it was trained to."""

    path: Annotated[ModelText, FROM_ENVIRONMENT]
    dataset: SourceDataset
    max_tokens: int | None = Field(default=None, ge=1, description="longer texts are cut; by default the model's own")
    pool: CheckpointPooling = Field(default="auto", description="auto: what the family is used with, see recording.md")
    batch_size: int = Field(default=32, ge=1, description="rows that are computed together; part of the identity")
    device: Annotated[str, AfterValidator(_check_device)] = Field(
        default="auto", description="auto, cpu, cuda, cuda:N or mps"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    tower: PlainText | None = Field(default=None, description="which part of a model with several, such as text")
    base: _Folder | None = Field(default=None, description="the folder of an adapter's base, where it names another")
    tokenizer: _Folder | None = Field(default=None, description="a folder with a tokenizer, where the model has none")
    prompt: str | None = Field(default=None, max_length=4096, description="text before each input, or a prompt's name")
    modules: bool = Field(default=False, description="also every module, as named_modules() calls it, by hooks")
    points: Literal["rows", "tokens"] = Field(default="rows", description="tokens: a point a token, not a text")

    @model_validator(mode="after")
    def _local(self) -> "CheckpointModel":
        for key in ("path", "base", "tokenizer"):
            value = getattr(self, key)
            if value is not None and "://" in value:
                raise ValueError(f"got a remote {key}, expected a folder of this machine. Copy the checkpoint")
            if value is not None:
                pattern_fields(value)
        if self.points == "tokens" and self.pool not in ("auto", "none"):
            raise ValueError(f"got pool: {self.pool} beside points: tokens, expected none. Tokens are not pooled")
        return self
