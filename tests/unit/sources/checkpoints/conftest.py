"""A folder of checkpoints of all families, with texts and images, built once for the tests that run them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm_tasks.catalog.checkpoints import CheckpointModel
from lfm_tasks.sources.checkpoints.folder import inspect_checkpoint
from lfm_tasks.sources.checkpoints.models import CheckpointSource
from lfm_tasks.sources.files.digests import DigestMemory
from lfm_tasks.sources.raw_inputs import TextBuilder, TextRows
from tests.torchvision_operators import define_missing_operators


class Images:
    """Images in files, as a dataset holds them."""

    kind = "images"

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*/*.png"))

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, rows: np.ndarray) -> list[Any]:
        from PIL import Image

        return [Image.open(self.paths[row]).convert("RGB") for row in rows]

    def digest(self) -> str:
        return "images"

    def lengths(self) -> np.ndarray:
        return np.zeros(len(self), dtype=np.int64)


def text_rows(texts: list[str]) -> TextRows:
    builder = TextBuilder("texts")
    for number, text in enumerate(texts):
        builder.add(text, f"row {number}")
    return builder.rows()


@dataclass(frozen=True)
class CheckpointZoo:
    """Where the checkpoints lie, and what they are run on."""

    folder: Path
    texts: list[str]
    images: Images

    def path(self, name: str) -> Path:
        return self.folder / "zoo" / name

    def source(
        self, name: str, *, memory: DigestMemory | None = None, texts: list[str] | None = None, **settings: Any
    ) -> CheckpointSource:
        path = Path(settings.pop("path", self.path(name)))
        chosen = CheckpointModel(path=str(path), dataset="probe", **{"batch_size": 8, **settings})
        checkpoint = inspect_checkpoint(path, tower=chosen.tower)
        inputs = text_rows(texts or self.texts) if checkpoint.reads == "texts" else self.images
        ids = np.array([f"p{number:03}" for number in range(len(inputs))])
        return CheckpointSource(name, chosen, checkpoint, inputs, ids, memory)


Build = Callable[..., CheckpointZoo]


@pytest.fixture(scope="session")
def working_transformers() -> Any:
    """Give the library, whichever torchvision lies beside torch."""
    transformers = pytest.importorskip("transformers", reason="needs the extra [hf]")
    define_missing_operators()
    return transformers


@pytest.fixture(scope="session")
def checkpoint_zoo(tmp_path_factory: pytest.TempPathFactory, working_transformers: Any) -> CheckpointZoo:
    from tests.checkpoint_zoo import MODELS, write_checkpoint_zoo

    folder = write_checkpoint_zoo(tmp_path_factory.mktemp("checkpoints"), MODELS)
    lines = [json.loads(line) for line in (folder / "texts.jsonl").read_text().splitlines()]
    return CheckpointZoo(folder, [line["text"] for line in lines][:30], Images(folder / "images"))
