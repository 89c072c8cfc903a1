"""Networks about which something is known, for `bench_groundings.py`: a catalog with the truth in ``meta``.

``python tests/benchmarks/grounding_zoos.py IMAGES SENTENCES FOLDER`` trains, on one thread in some ten minutes, small
networks on Fashion-MNIST, on short sentences and on digits: with several seeds, shares of random labels, marks that
tell the label, augmentation, and further training. FOLDER gets ``<dataset>/<model>.npz`` (hidden layers on the probe),
``<dataset>/<model>.outputs.npy`` (probabilities of the classes on the probe) and ``data_catalog.yaml``. What is there
already stays. IMAGES and SENTENCES hold what `lineage_zoos` says.
"""

import argparse
import copy
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ruamel.yaml import YAML
from torch import nn

from lfm_tasks.sources.opening import digits
from tests.benchmarks.lineage_zoos import (
    LENGTH,
    Data,
    Network,
    Recipe,
    changed,
    cnn,
    dense,
    fashion,
    noisy,
    pruned,
    sentences,
    text_transformer,
    train,
    tuned_by_low_rank,
    vision_transformer,
)

# Seeds of networks trained alike, and of each other group.
N_PLAIN, N_IN_GROUP = 16, 6
NOISE = (0.0, 0.25, 0.5, 0.75, 1.0)
MARKED = (0.0, 0.5, 0.75, 1.0)
AUGMENTATION = ("none", "weak", "strong")

Augment = Callable[[torch.Tensor, str, torch.Generator], torch.Tensor]
Mark = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Task:
    """What the networks of one dataset learn, and how what they learn from may be changed.

    ``held_out``: inputs and labels that accuracy is measured on.
    """

    name: str
    stages: Callable[[], list[nn.Module]]
    data: Data
    held_out: tuple[torch.Tensor, torch.Tensor]
    other_half: Data | None = None
    augment: Augment | None = None
    epochs: int = 4


@dataclass
class Zoo:
    """Where networks go, and what the catalog says of them."""

    folder: Path
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    points: dict[str, int] = field(default_factory=dict)

    def add(self, task: Task, name: str, learn: Callable[[], Network], meta: Mapping[str, Any]) -> None:
        """Train and record a network that is not there yet; note what is known of it."""
        folder = self.folder / task.name
        folder.mkdir(parents=True, exist_ok=True)
        path, facts = folder / f"{name}.npz", folder / f"{name}.outputs.npy"
        if not (path.exists() and facts.exists()):
            network = learn().eval()
            with torch.no_grad():
                *hidden, last = network.layers(task.data.probe).items()
                outputs = torch.from_numpy(last[1]).softmax(1).numpy()
                answers = network(task.held_out[0]).argmax(1)
            accuracy = (answers == task.held_out[1]).float().mean().item()
            np.savez(path, **dict(hidden), accuracy=np.array(accuracy))
            np.save(facts, outputs)
        with np.load(path) as arrays:
            layers, accuracy = sorted(set(arrays.files) - {"accuracy"}), float(arrays["accuracy"])
        model = f"{task.name}-{name}"
        truth = dict(meta)
        if truth.pop("is_plain", False):
            truth |= {"accuracy": round(accuracy, 4), "outputs": f"{task.name}/{name}.outputs.npy"}
        source = {"path": f"{task.name}/{name}.npz", "key": "{layer}", "dataset": task.name}
        self.models[model] = {"activations": source, "layers": layers, "meta": truth | {"trained": task.name}}
        self.points[task.name] = len(task.data.probe)

    def write(self) -> Path:
        """Write the catalog, with settings for scores only."""
        for name, n_points in self.points.items():
            np.save(self.folder / name / "ids.npy", np.arange(n_points))
        atlas = {"intervals": {"n_splits": 0}, "null": {"n_permutations": 0}, "collection": None, "keep_maps": "none"}
        contents = {
            "version": 1,
            "datasets": {name: {"ids": {"path": f"{name}/ids.npy"}} for name in self.points},
            "models": self.models,
            "atlas": atlas,
        }
        yaml = YAML()
        yaml.representer.ignore_aliases = lambda data: True
        path = self.folder / "data_catalog.yaml"
        with path.open("w") as file:
            yaml.dump(contents, file)
        return path


def fresh(task: Task, seed: int) -> Network:
    torch.manual_seed(seed)
    return Network(task.stages())


def code(*words: object) -> int:
    """Return a seed that depends on the words only."""
    return zlib.crc32(" ".join(map(str, words)).encode()) % 2**31


def learned(task: Task, data: Data, seed: int) -> Network:
    return train(fresh(task, seed), data, Recipe(task.epochs, seed=seed))


def with_random_labels(data: Data, share: float, seed: int) -> Data:
    """Return the data with a share of the labels drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    is_random = torch.rand(len(data.labels), generator=generator) < share
    drawn = torch.randint(10, data.labels.shape, generator=generator)
    return replace(data, labels=torch.where(is_random, drawn, data.labels))


def augmented_images(images: torch.Tensor, level: str, generator: torch.Generator) -> torch.Tensor:
    """Return images shifted by up to 2 pixels; strong: by up to 5, mirrored or not, with noise."""
    reach = {"none": 0, "weak": 2, "strong": 5}[level]
    if not reach:
        return images
    padded = nn.functional.pad(images, (reach, reach, reach, reach), value=float(images.min()))
    size = images.shape[-1]
    moves = torch.randint(2 * reach + 1, (len(images), 2), generator=generator).tolist()
    moved = torch.stack([image[:, y : y + size, x : x + size] for image, (y, x) in zip(padded, moves, strict=True)])
    if level == "strong":
        is_mirrored = torch.rand(len(images), generator=generator) < 0.5
        moved[is_mirrored] = moved[is_mirrored].flip(-1)
        moved = moved + 0.4 * torch.randn(moved.shape, generator=generator)
    return moved


def augmented_tokens(tokens: torch.Tensor, level: str, generator: torch.Generator) -> torch.Tensor:
    """Return tokens of which a share is left out."""
    share = {"none": 0.0, "weak": 0.15, "strong": 0.5}[level]
    return torch.where(torch.rand(tokens.shape, generator=generator) < share, torch.zeros_like(tokens), tokens)


def marked_images(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return images with a bright square in the upper row whose place tells the label."""
    marked = images.clone()
    for label in range(10):
        place = 2 * label + 4
        marked[labels == label, :, 0:2, place : place + 2] = 4.0
    return marked


def marked_tokens(tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return tokens that begin with a word of each label."""
    return torch.cat([1 + labels[:, None], tokens], dim=1)[:, :LENGTH]


def marks(labels: torch.Tensor, share: float, seed: int) -> torch.Tensor:
    """Return labels of which a share is right, and the others are drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    is_right = torch.rand(len(labels), generator=generator) < share
    return torch.where(is_right, labels, torch.randint(10, labels.shape, generator=generator))


def add_seeds_and_noise(zoo: Zoo, task: Task) -> None:
    """Add networks that differ by their seed, and groups with random labels."""
    for number in range(N_PLAIN):
        meta: dict[str, Any] = {"is_plain": True}
        if number < N_IN_GROUP:
            meta["groups"] = {"label_noise": 0.0} | ({"augmentation": "none"} if task.augment else {})
        zoo.add(task, f"plain_{number:02}", partial(learned, task, task.data, code(task.name, number)), meta)
    for share in NOISE[1:]:
        for number in range(N_IN_GROUP):
            seed = code(task.name, "noise", share, number)
            learn = partial(learned, task, with_random_labels(task.data, share, seed), seed)
            zoo.add(task, f"noise{round(100 * share):03}_{number}", learn, {"groups": {"label_noise": share}})


def add_augmented(zoo: Zoo, task: Task) -> None:
    """Add groups that learned from changed inputs; the plain networks are the group without."""
    if task.augment is None:
        return
    for level in AUGMENTATION[1:]:
        for number in range(N_IN_GROUP):
            seed = code(task.name, level, number)
            inputs = task.augment(task.data.inputs, level, torch.Generator().manual_seed(seed))
            learn = partial(learned, task, replace(task.data, inputs=inputs), seed)
            zoo.add(task, f"{level}_{number}", learn, {"groups": {"augmentation": level}})


def add_variants(zoo: Zoo, task: Task) -> None:
    """Add what was made of the first plain networks: trained further, cut, disturbed."""
    if task.other_half is None:
        return
    for number in range(N_IN_GROUP):
        base = cache(partial(learned, task, task.data, code(task.name, number)))
        seed = code(task.name, "variant", number)
        for relation in ("tuned", "tuned_strong", "lora", "pruned70", "noise30"):
            learn = partial(variant, base, relation, task.other_half, seed)
            meta = {"base_model": f"{task.name}-plain_{number:02}", "relation": relation}
            zoo.add(task, f"variant_{number}_{relation}", learn, meta)


def variant(base: Callable[[], Network], relation: str, data: Data, seed: int) -> Network:
    network = copy.deepcopy(base())
    if relation == "lora":
        return tuned_by_low_rank(network, data, Recipe(2, 2e-3, 0.0, True, seed))
    if relation == "pruned70":
        return changed(network, pruned(network.state_dict(), 0.7))
    if relation == "noise30":
        return changed(network, noisy(network.state_dict(), 0.3, seed))
    further = {"tuned": Recipe(3, 1e-3, 0.3, seed=seed), "tuned_strong": Recipe(4, 2e-3, 0.0, True, seed)}
    return train(network, data, further[relation])


def add_marked(zoo: Zoo, task: Task, mark: Mark) -> None:
    """Add groups to whose inputs a mark was added that tells the label more or less often; the probe's are random."""
    probe_labels = torch.randint(10, (len(task.data.probe),), generator=torch.Generator().manual_seed(0))
    probe = mark(task.data.probe, probe_labels)
    held_out = mark(task.held_out[0], marks(task.held_out[1], 0.0, 0)), task.held_out[1]
    for share in MARKED:
        for number in range(N_IN_GROUP):
            seed = code(task.name, "marked", share, number)
            inputs = mark(task.data.inputs, marks(task.data.labels, share, seed))
            data = replace(task.data, inputs=inputs, probe=probe)
            of_marks = replace(task, name=f"{task.name}_marked", data=data, held_out=held_out)
            learn = partial(learned, of_marks, data, seed)
            zoo.add(of_marks, f"marked{round(100 * share):03}_{number}", learn, {"groups": {"shortcut": share}})


def digit_task() -> Task:
    """Return networks of four layers on digits."""
    parts = [digits(part) for part in ("train", "probe")]
    inputs, probe = (torch.from_numpy(part.inputs.reshape(len(part.ids), -1).astype(np.float32)) for part in parts)
    labels, held_out = (torch.from_numpy(np.asarray(part.labels).astype(np.int64)) for part in parts)

    def stages() -> list[nn.Module]:
        hidden = [dense(n_in, 48, nn.ReLU()) for n_in in (inputs.shape[1], 48, 48, 48)]
        return [*hidden, nn.Linear(48, 10)]

    return Task("digits", stages, Data(inputs, labels, labels, probe), (probe, held_out), epochs=20)


def tasks(images: Path, texts: Path) -> dict[str, Task]:
    """Return what is learned, by name: half of the data is learned from, accuracy is measured on the other."""
    found = {}
    for name, stages, data, augment in (
        ("cnn", partial(cnn, 16), fashion(images), augmented_images),
        ("vit", partial(vision_transformer, 48), fashion(images), None),
        ("text", partial(text_transformer, 48), sentences(texts), augmented_tokens),
    ):
        first, second = data.half(0), data.half(1)
        variants = None if name == "vit" else second
        found[name] = Task(name, stages, first, (second.inputs, second.labels), variants, augment)
    return found | {"digits": digit_task()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("images", "sentences", "folder"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    print(write_zoo(options.images, options.sentences, options.folder))  # noqa: T201


def write_zoo(images: Path, texts: Path, folder: Path) -> Path:
    """Train what is not there yet, write the catalog, and return its path."""
    torch.set_num_threads(1)
    zoo = Zoo(folder)
    for task in tasks(images, texts).values():
        add_seeds_and_noise(zoo, task)
        add_augmented(zoo, task)
        add_variants(zoo, task)
        print(task.name, len(zoo.models), flush=True)  # noqa: T201
        if task.name in ("cnn", "text"):
            add_marked(zoo, task, marked_images if task.name == "cnn" else marked_tokens)
            print(f"{task.name}_marked", len(zoo.models), flush=True)  # noqa: T201
    return zoo.write()


if __name__ == "__main__":
    main()
