"""Makes kin of a sentence encoder, for bench_upgrade.py: one that is fine-tuned, and one of half the layers, distilled.

``python tests/benchmarks/make_kin_encoders.py MODEL_FOLDER SENTENCES.jsonl KIN.npz`` reads a BERT-like encoder with
mean pooling; each line has ``id``, ``eng``, and translations under the codes of other languages. Fine-tuned: a sentence
has to find its translation among those of a batch. Distilled: every second layer, trained to give what all of them
give. Tables of words stay as they are. Some minutes on one core.
"""

import argparse
import copy
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, PreTrainedTokenizerFast

_BATCH = 32
_ROWS_AT_ONCE = 128


def main() -> None:
    """Write unit rows of the encoder, of the fine-tuned and of the distilled one, and the ids."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("sentences", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--steps", type=int, default=120)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    lines = [json.loads(line) for line in arguments.sentences.read_text(encoding="utf-8").splitlines()]
    texts = [line["eng"] for line in lines]
    words = str(arguments.model / "tokenizer.json")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=words, pad_token="[PAD]")  # noqa: S106 - no password
    teacher = AutoModel.from_pretrained(arguments.model)
    tuned, student = copy.deepcopy(teacher), copy.deepcopy(teacher)
    student.encoder.layer = student.encoder.layer[::2]

    def embed(model: torch.nn.Module, some: list[str]) -> torch.Tensor:
        tokens = tokenizer(some, padding=True, truncation=True, max_length=32, return_tensors="pt")
        states = model(**tokens).last_hidden_state
        mask = tokens["attention_mask"][..., None]
        return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)

    def translation_loss(some: list[tuple[str, str]]) -> torch.Tensor:
        scores = embed(tuned, [text for text, _ in some]) @ embed(tuned, [other for _, other in some]).T / 0.05
        return torch.nn.functional.cross_entropy(scores, torch.arange(len(some)))

    def distillation_loss(some: list[str]) -> torch.Tensor:
        with torch.no_grad():
            wanted = embed(teacher, some)
        return (1 - (embed(student, some) * wanted).sum(1)).mean()

    translated = [(line["eng"], other) for line in lines for code, other in line.items() if code not in ("id", "eng")]
    _train(tuned, translation_loss, _batches(translated, arguments.steps), 5e-5)
    _train(student, distillation_loss, _batches(texts, arguments.steps), 3e-4)
    rows = {}
    with torch.no_grad():
        for name, model in (("teacher", teacher), ("tuned", tuned), ("distilled", student)):
            model.eval()
            # Sentences of one length together: no time goes into padding.
            order = np.argsort([len(text) for text in texts], kind="stable")
            parts = [
                embed(model, [texts[row] for row in order[start : start + _ROWS_AT_ONCE]])
                for start in range(0, len(texts), _ROWS_AT_ONCE)
            ]
            rows[name] = torch.cat(parts).numpy()[np.argsort(order)].astype(np.float16)
    np.savez(arguments.output, ids=np.array([line["id"] for line in lines]), **rows)


def _train(model, loss_of, batches: Iterator[list], rate: float) -> None:  # type: ignore[no-untyped-def, type-arg]
    model.train()
    model.embeddings.requires_grad_(False)
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=rate)
    for step, some in enumerate(batches):
        loss = loss_of(some)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            print(f"step {step}: loss {float(loss.detach()):.4f}", flush=True)  # noqa: T201


def _batches(values: list, n_steps: int) -> Iterator[list]:  # type: ignore[type-arg]
    generator = np.random.default_rng(0)
    for _ in range(n_steps):
        yield [values[row] for row in generator.choice(len(values), _BATCH, replace=False)]


if __name__ == "__main__":
    main()
