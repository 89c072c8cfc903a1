"""An unchanged audit of 21 checkpoints costs at most 1.1 × the CPU of the same activations as .npz files.

    python -m tests.benchmarks.bench_unchanged_audit [--repeats 5] [FOLDER]

FOLDER holds what ``python -m tests.checkpoint_zoo FOLDER --all`` writes; without it that is written first. One side
records, the other has the same rows in files. Once both are audited, they are audited again in turn, nothing changed:
CPU seconds of the whole command in one process; and those of ``run``, too.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from lfm_atlas.console import LIMIT_BROKEN, OK

_CATALOG = """
version: 1
datasets:
  docs: {texts: {path: texts.jsonl, text: text, id: id, label: label}}
  photos: {images: {path: "images/*/*.png", label: folder}}
discover:
  language: {transformers: {path: "zoo/{model}", dataset: docs, max_tokens: 24}}
  sentences: {sentence_transformers: {path: "zoo/{model}", dataset: docs, max_tokens: 24}}
  vision: {transformers: {path: "zoo/{model}", dataset: photos}}
  timm: {timm: {path: "zoo/{model}", dataset: photos}}
models:
  clip-text: {transformers: {path: zoo/clip, dataset: docs, tower: text, max_tokens: 24}}
  clip-vision: {transformers: {path: zoo/clip, dataset: photos, tower: vision}}
  t5-encoder: {transformers: {path: zoo/t5, dataset: docs, tower: encoder, max_tokens: 24}}
  t5-decoder: {transformers: {path: zoo/t5, dataset: docs, tower: decoder, max_tokens: 24}}
  whisper-decoder: {transformers: {path: zoo/whisper, dataset: docs, tower: decoder, max_tokens: 24}}
"""
_ATLAS = "atlas: {graph: {n_neighbors: 10}, n_eigenpairs: 8, null: {n_permutations: 19}}\n"
_ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("folder", type=Path, nargs="?")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        written = arguments.folder or write_zoo(Path(scratch) / "written")
        sides = {"checkpoints": Path(scratch) / "checkpoints", ".npz": Path(scratch) / "npz"}
        shutil.copytree(written, sides["checkpoints"], ignore=shutil.ignore_patterns("atlas", "audits", ".lfm-atlas"))
        (sides["checkpoints"] / "data_catalog.yaml").write_text(_CATALOG + _ATLAS, encoding="utf-8")
        command(sides["checkpoints"], "audit")
        copy_activations(sides["checkpoints"], sides[".npz"])
        for folder in (sides[".npz"], *sides.values()):  # files of a moment ago are not remembered yet
            command(folder, "audit")
        for name in ("audit", "run"):
            seconds: dict[str, list[float]] = {side: [] for side in sides}
            for _ in range(arguments.repeats):
                for side, folder in sides.items():
                    seconds[side].append(command(folder, name))
            best = {side: min(of_side) for side, of_side in seconds.items()}
            ratio = best["checkpoints"] / best[".npz"]
            middle = ", ".join(f"{side} {statistics.median(of_side):.2f}" for side, of_side in seconds.items())
            print(  # noqa: T201
                f"unchanged {name}: checkpoints {best['checkpoints']:.2f} s, .npz {best['.npz']:.2f} s: {ratio:.2f} ×"
                f" (medians: {middle})"
            )


def write_zoo(folder: Path) -> Path:
    """Write all checkpoints of the tests, in a process of its own: it imports whole libraries."""
    arguments = [sys.executable, "-m", "tests.checkpoint_zoo", str(folder), "--all"]
    subprocess.run(arguments, check=True, env=_ONE_THREAD)
    return folder


def copy_activations(recorded: Path, folder: Path) -> None:
    """Write a zoo of the same rows: a .npz of its layers for each model."""
    from lfm_tasks.catalog import read_catalog
    from lfm_tasks.sources.opening import read_dataset
    from lfm_tasks.stages.inventory.stage import validate_catalog
    from lfm_tasks.stores.units.store import UnitStore

    folder.mkdir()
    catalog = read_catalog(recorded / "data_catalog.yaml")
    zoo = validate_catalog(catalog, lambda *_: None)
    store = UnitStore(recorded / ".lfm-atlas")
    layers: dict[str, dict[str, np.ndarray]] = {}
    ids: dict[str, np.ndarray] = {}
    for planned in zoo.spaces:
        with store.open("activations", planned.key) as unit:
            layers.setdefault(planned.space.model, {})[planned.space.layer] = unit.read("activations")
            ids[planned.space.model] = np.array(unit.read("ids").tolist())
    lines = ["version: 1", "datasets:"]
    for name in catalog.datasets:
        rows = read_dataset(name, catalog)
        np.save(folder / f"{name}_ids.npy", rows.ids)
        np.save(folder / f"{name}_labels.npy", rows.labels)
        lines.append(f"  {name}: {{ids: {{path: {name}_ids.npy}}, labels: {{path: {name}_labels.npy}}}}")
    lines.append("models:")
    for model, of_model in layers.items():
        np.savez(folder / f"{model}.npz", **of_model)
        np.save(folder / f"{model}_ids.npy", ids[model])
        source = f'path: "{{model}}.npz", key: "{{layer}}", dataset: {catalog.model_on(model).dataset}'
        # What their folders say of the checkpoints, so that both sides have the same to check.
        meta = json.dumps(dict(catalog.models[model].meta))
        lines.append(f'  {model}: {{activations: {{{source}, ids: {{path: "{{model}}_ids.npy"}}}}, meta: {meta}}}')
    (folder / "data_catalog.yaml").write_text("\n".join(lines) + "\n" + _ATLAS, encoding="utf-8")


def command(folder: Path, name: str) -> float:
    """Return the CPU seconds of a command in one process; an audit may find that the zoo breaks the usual limits."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    arguments = [sys.executable, "-m", "lfm_atlas", name, "--no-prefect", "--no-dask"]
    done = subprocess.run(arguments, cwd=folder, env=_ONE_THREAD, capture_output=True, text=True, check=False)
    if done.returncode not in (OK, LIMIT_BROKEN):
        raise SystemExit(f"{name} in {folder} ended with {done.returncode}: {done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
