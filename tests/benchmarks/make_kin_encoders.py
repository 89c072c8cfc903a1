"""Makes kin of a sentence encoder, for bench_upgrade.py: one that is fine-tuned, and one of half the layers, distilled.

``python tests/benchmarks/make_kin_encoders.py MODEL_FOLDER SENTENCES.jsonl KIN.npz`` reads a BERT-like encoder with
mean pooling and the key ``eng`` of each line. Fine-tuned: a few rounds in which a sentence has to find its own second
reading, under other dropout (SimCSE). Distilled: every second layer, trained to give what all of them give.
"""

import argparse
import copy
import json
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, PreTrainedTokenizerFast

_BATCH = 32


def main() -> None:
    """Write unit rows of the encoder, of the fine-tuned and of the distilled one, and the ids."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("sentences")
    parser.add_argument("output")
    parser.add_argument("--steps", type=int, default=150)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    lines = [json.loads(line) for line in Path(arguments.sentences).read_text(encoding="utf-8").splitlines()]
    texts = [line["eng"] for line in lines]
    words = str(Path(arguments.model) / "tokenizer.json")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=words, pad_token="[PAD]")  # noqa: S106 - no password
    teacher = AutoModel.from_pretrained(arguments.model)
    tuned, student = copy.deepcopy(teacher), copy.deepcopy(teacher)
    student.encoder.layer = student.encoder.layer[::2]

    def embed(model: torch.nn.Module, some: list[str]) -> torch.Tensor:
        tokens = tokenizer(some, padding=True, truncation=True, max_length=64, return_tensors="pt")
        states = model(**tokens).last_hidden_state
        mask = tokens["attention_mask"][..., None]
        return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)

    order = np.random.default_rng(0)
    for model, rate in ((tuned, 3e-5), (student, 3e-4)):
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
        for _ in range(arguments.steps):
            some = [texts[row] for row in order.choice(len(texts), _BATCH, replace=False)]
            if model is tuned:
                scores = embed(model, some) @ embed(model, some).T / 0.05
                loss = torch.nn.functional.cross_entropy(scores, torch.arange(_BATCH))
            else:
                with torch.no_grad():
                    wanted = embed(teacher, some)
                loss = (1 - (embed(model, some) * wanted).sum(1)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"last loss {float(loss.detach()):.4f}")  # noqa: T201
    rows = {}
    with torch.no_grad():
        for name, model in (("teacher", teacher), ("tuned", tuned), ("distilled", student)):
            model.eval()
            parts = [embed(model, texts[start : start + 256]) for start in range(0, len(texts), 256)]
            rows[name] = torch.cat(parts).numpy().astype(np.float16)
    np.savez(arguments.output, ids=np.array([line["id"] for line in lines]), **rows)


if __name__ == "__main__":
    main()
