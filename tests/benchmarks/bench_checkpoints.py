"""Recording a checkpoint costs at most 1.15 × a loop over the same batches, and 1.5 × one that pads as texts come.

    python -m tests.benchmarks.bench_checkpoints [FOLDER]

FOLDER holds a text encoder as ``save_pretrained`` writes it; without it a random one of MiniLM's size is built. Each
side runs in a process of its own, one thread, and prints CPU seconds from the first text to the last pooled row
(loading apart), and the peak of its memory beyond what the process had once its libraries were imported.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from lfm_tasks.workers.resources import peak_bytes

_N_TEXTS, _BATCH = 512, 32


def texts() -> list[str]:
    """Return texts of 3 to 60 words of the zoo's words, most of them short."""
    from tests.checkpoint_zoo import WORDS

    generator = np.random.default_rng(0)
    lengths = 3 + np.minimum(57, generator.exponential(18, _N_TEXTS)).astype(int)
    return [" ".join(generator.choice(WORDS, size=length)) for length in lengths]


def write_encoder(folder: Path) -> Path:
    """Write an encoder of MiniLM's size, with random weights."""
    import torch
    from transformers import BertConfig, BertModel

    from tests.checkpoint_zoo import _word_pieces

    torch.manual_seed(0)
    sizes = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    tokenizer = _word_pieces()
    tokenizer.model_max_length = 128
    tokenizer.save_pretrained(folder)
    BertModel(BertConfig(vocab_size=30522, **sizes)).save_pretrained(folder)
    return folder


def record(folder: Path) -> tuple[float, Any]:
    """Record all layers with a `CheckpointSource`."""
    from lfm_tasks.catalog.checkpoints import CheckpointModel
    from lfm_tasks.sources.checkpoints.folder import inspect_checkpoint
    from lfm_tasks.sources.checkpoints.models import CheckpointSource
    from lfm_tasks.sources.raw_inputs import TextBuilder

    builder = TextBuilder("texts")
    for number, text in enumerate(texts()):
        builder.add(text, f"row {number}")
    settings = CheckpointModel(path=str(folder), dataset="d", batch_size=_BATCH, max_tokens=128, dtype="float32")
    ids = np.array([f"{number:05}" for number in range(_N_TEXTS)])
    source = CheckpointSource("m", settings, inspect_checkpoint(folder), builder.rows(), ids)
    _ = source._network
    rows, layers = np.arange(_N_TEXTS), source.layer_names()
    start = time.process_time()
    gathered = np.empty((len(layers), _N_TEXTS, 384), np.float32)
    for positions, values in source.scattered_batches(layers, rows):
        for index, layer in enumerate(layers):
            gathered[index, positions] = values[layer]
    return time.process_time() - start, gathered


def loop(folder: Path, *, is_sorted: bool) -> tuple[float, Any]:
    """Run the encoder as people write it: batches in the order of lengths, or as the texts come."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    start = time.process_time()
    given = texts()
    order = np.arange(_N_TEXTS)
    if is_sorted:
        lengths = [len(ids) for ids in tokenizer(given, truncation=True, max_length=128)["input_ids"]]
        order = np.lexsort((order, lengths))
    gathered = np.empty((model.config.num_hidden_layers + 1, _N_TEXTS, 384), np.float32)
    for first in range(0, _N_TEXTS, _BATCH):
        rows = order[first : first + _BATCH]
        inputs = tokenizer(
            [given[row] for row in rows], padding=True, truncation=True, max_length=128, return_tensors="pt"
        )
        with torch.inference_mode():
            states = model(**inputs, output_hidden_states=True).hidden_states
        mask = inputs["attention_mask"][:, :, None].float()
        for index, state in enumerate(states):
            gathered[index, rows] = ((state * mask).sum(1) / mask.sum(1)).numpy()
    return time.process_time() - start, gathered


SIDES = {
    "recorded": record,
    "loop, same batches": lambda folder: loop(folder, is_sorted=True),
    "loop, padded as they come": lambda folder: loop(folder, is_sorted=False),
}


def one_side(name: str, folder: Path, result: Path) -> None:
    """Run one side and write what it took."""
    from transformers import AutoModel, AutoTokenizer  # noqa: F401 - imports take memory on all sides

    from tests.torchvision_operators import define_missing_operators

    define_missing_operators()
    import lfm_tasks.sources.checkpoints.models  # noqa: F401

    before = peak_bytes()
    seconds, gathered = SIDES[name](folder)
    np.save(result.with_suffix(".npy"), gathered)
    result.write_text(json.dumps({"seconds": seconds, "bytes": peak_bytes() - before}), encoding="utf-8")


def main(folder: Path, n_rounds: int = 2) -> None:
    """Print the best of some rounds of each side, and the ratios."""
    best: dict[str, dict[str, float]] = {}
    rows = {}
    with tempfile.TemporaryDirectory() as scratch:
        for _ in range(n_rounds):
            for name in SIDES:
                result = Path(scratch) / f"{name}.json"
                command = [sys.executable, "-m", "tests.benchmarks.bench_checkpoints", str(folder), name, str(result)]
                subprocess.run(command, check=True, env=_ONE_THREAD)
                found = json.loads(result.read_text())
                best[name] = {key: min(value, best.get(name, found)[key]) for key, value in found.items()}
                rows[name] = np.load(result.with_suffix(".npy"))
    for name, found in best.items():
        ratio, memory = (best["recorded"][key] / found[key] for key in ("seconds", "bytes"))
        apart = np.abs(rows[name] - rows["recorded"]).max()
        print(  # noqa: T201
            f"{name:<26} {found['seconds']:7.2f} s  {found['bytes'] / 2**20:7.0f} MiB  "
            f"recorded is {ratio:.2f} × its CPU, {memory:.2f} × its memory, largest difference {apart:.1e}"
        )


if __name__ == "__main__":
    import os

    _ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    if len(sys.argv) == 4:
        one_side(sys.argv[2], Path(sys.argv[1]), Path(sys.argv[3]))
    elif len(sys.argv) == 2:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as built:
            main(write_encoder(Path(built)))
