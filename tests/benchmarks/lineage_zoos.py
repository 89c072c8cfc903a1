"""Networks whose relations are known, for `bench_lineage.py`: three universes, of which zoos are drawn.

``python tests/benchmarks/lineage_zoos.py IMAGES SENTENCES FOLDER [--first-seed 0]`` trains, on one thread in some four
minutes, networks of five architectures on Fashion-MNIST, of four on short sentences and of one on digits, and makes
variants of some of them, `VARIANTS`. FOLDER gets for each universe ``<model>.npz`` (activations by layer),
``<model>.safetensors`` (weights; not of digits) and ``models.json``: architecture, data, base and relation of each
model. What is there already stays.

IMAGES holds ``train.npz`` and ``test.npz`` (``images``, ``labels``), or a folder of image files for each class: the ten
largest count, cut to 28 × 28 gray pixels (needs Pillow). SENTENCES holds ``sentences.jsonl`` (``id``, ``eng``) and
``embeddings.npz`` (two encoders' vectors of the same sentences, whose clusters are the labels).
"""

import argparse
import copy
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sklearn.cluster import KMeans
from torch import nn
from torch.nn import functional

from lfm_tasks.sources.opening import digits
from tests.digits_zoo import draw_zoo

N_PROBE = 800
# Fixed before any result was looked at. Strong: what a zoo must find. Weak: much of the network was changed.
# Distilled: other weights that learned the same answers, which need not be found.
STRONG = ("permuted", "rotated", "half", "int8", "int4", "pruned30", "noise05", "tuned_weak", "tuned", "lora", "merged")
WEAK = ("pruned70", "noise30", "tuned_strong")
OTHER = ("distilled",)
VARIANTS = (*STRONG, *WEAK, *OTHER)


class Network(nn.Module):
    """Stages in a row; the output of each, pooled, is a layer."""

    def __init__(self, stages: list[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        for stage in self.stages:
            inputs = stage(inputs)
        return inputs

    def layers(self, inputs: torch.Tensor) -> dict[str, np.ndarray]:
        """Return the pooled output of each stage: feature maps to 2 by 2, tokens to their mean."""
        found = {}
        for number, stage in enumerate(self.stages):
            inputs = stage(inputs)
            pooled = inputs
            if inputs.ndim == 4:
                pooled = functional.adaptive_avg_pool2d(inputs, 2).flatten(1)
            elif inputs.ndim == 3:
                pooled = inputs.mean(1)
            found[f"stage{number}"] = pooled.detach().numpy().astype(np.float32)
        return found


class Apply(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.function(inputs)


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return functional.relu(inputs + self.second(functional.relu(self.first(inputs))))


class Block(nn.Module):
    """A transformer block, normed before: attention of two heads, then a network of two layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.other_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        n, length, width = tokens.shape
        heads = self.mixed(self.norm(tokens)).reshape(n, length, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(*heads).transpose(1, 2).reshape(n, length, width)
        tokens = tokens + self.out(attended)
        return tokens + self.down(functional.gelu(self.up(self.other_norm(tokens))))


class Embedded(nn.Module):
    """Tokens, or flat patches, to vectors, with a vector for each place."""

    def __init__(self, encoder: nn.Module, length: int, width: int) -> None:
        super().__init__()
        self.encoder, self.places = encoder, nn.Parameter(0.02 * torch.randn(length, width))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.encoder(inputs) + self.places


class Recurrent(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.network = nn.GRU(width, width, batch_first=True)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.network(tokens)[0]


def dense(n_in: int, n_out: int, act: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(n_in, n_out), act)


def convolution(n_in: int, n_out: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(n_in, n_out, 3, stride, 1), nn.ReLU())


def small(images: torch.Tensor) -> torch.Tensor:
    return functional.avg_pool2d(images, 2)


def patches(images: torch.Tensor) -> torch.Tensor:
    return functional.unfold(images, 7, stride=7).transpose(1, 2)


def token_mean(tokens: torch.Tensor) -> torch.Tensor:
    return tokens.mean(1)


def mlp(width: int, act: type[nn.Module] = nn.ReLU) -> list[nn.Module]:
    first = nn.Sequential(Apply(small), nn.Flatten(), dense(196, width, act()))
    return [first, *(dense(width, width, act()) for _ in range(3)), nn.Linear(width, 10)]


def cnn(width: int) -> list[nn.Module]:
    first = nn.Sequential(Apply(small), convolution(1, width, 1))
    last = nn.Sequential(nn.Flatten(), dense(2 * width * 16, 64, nn.ReLU()))
    return [first, convolution(width, 2 * width, 2), convolution(2 * width, 2 * width, 2), last, nn.Linear(64, 10)]


def residual(width: int) -> list[nn.Module]:
    first = nn.Sequential(Apply(small), convolution(1, width, 2))
    last = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, 10))
    return [first, *(Residual(width) for _ in range(3)), last]


def vision_transformer(width: int) -> list[nn.Module]:
    first = nn.Sequential(Apply(patches), Embedded(nn.Linear(49, width), 16, width))
    last = nn.Sequential(Apply(token_mean), nn.LayerNorm(width), nn.Linear(width, 10))
    return [first, *(Block(width) for _ in range(4)), last]


VOCABULARY, LENGTH = 2_000, 12


def text_transformer(width: int) -> list[nn.Module]:
    first = Embedded(nn.Embedding(VOCABULARY, width), LENGTH, width)
    return [first, *(Block(width) for _ in range(4)), nn.Sequential(Apply(token_mean), nn.Linear(width, 10))]


def text_recurrent(width: int) -> list[nn.Module]:
    last = nn.Sequential(Apply(token_mean), nn.Linear(width, 10))
    return [nn.Embedding(VOCABULARY, width), Recurrent(width), Recurrent(width), last]


def text_bag(width: int) -> list[nn.Module]:
    first = nn.Sequential(nn.Embedding(VOCABULARY, width), Apply(token_mean))
    return [first, *(dense(width, width, nn.ReLU()) for _ in range(3)), nn.Linear(width, 10)]


def text_mixer(width: int) -> list[nn.Module]:
    """Return a network that mixes places by convolutions."""

    def turned(n_in: int, n_out: int) -> nn.Module:
        swap = Apply(partial(torch.transpose, dim0=1, dim1=2))
        return nn.Sequential(swap, nn.Conv1d(n_in, n_out, 3, padding=1), nn.ReLU(), copy.deepcopy(swap))

    last = nn.Sequential(Apply(token_mean), nn.Linear(width, 10))
    return [nn.Embedding(VOCABULARY, width), *(turned(width, width) for _ in range(3)), last]


@dataclass(frozen=True)
class Data:
    """Inputs with two kinds of labels, in two halves, and the points that all are compared on."""

    inputs: torch.Tensor
    labels: torch.Tensor
    other_labels: torch.Tensor
    probe: torch.Tensor

    def half(self, which: int) -> "Data":
        chosen = slice(which, None, 2)
        return Data(self.inputs[chosen], self.labels[chosen], self.other_labels[chosen], self.probe)


def class_folders(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the images of a folder of classes, and their labels, to train with and to probe: every sixth for these."""
    from PIL import Image, ImageOps

    found = {
        place.name: sorted(file for file in place.iterdir() if file.suffix.lower() in Image.registered_extensions())
        for place in sorted(folder.iterdir())
        if place.is_dir()
    }
    largest = sorted(found, key=lambda name: (-len(found[name]), name))[:10]
    files = [(file, label) for label, name in enumerate(sorted(largest)) for file in found[name]]
    if len(largest) < 2 or len(files) < 6 * N_PROBE:
        message = f"got {len(files)} images of {len(largest)} classes in {folder}"
        raise SystemExit(f"{message}, expected train.npz and test.npz, or at least {6 * N_PROBE} images in folders")
    order = np.random.default_rng(0).permutation(len(files))
    pixels = np.empty((len(files), 28, 28), dtype=np.uint8)
    for row, place in enumerate(order):
        with Image.open(files[place][0]) as image:
            pixels[row] = ImageOps.fit(image.convert("L"), (28, 28))
    labels = np.array([files[place][1] for place in order])
    probed = np.arange(len(files)) % 6 == 0
    train, test = ({"images": pixels[rows], "labels": labels[rows]} for rows in (~probed, probed))
    return train, test


def fashion(folder: Path, n_train: int = 12_000) -> Data:
    if (folder / "train.npz").is_file():
        train, test = (np.load(folder / f"{part}.npz") for part in ("train", "test"))
    else:
        train, test = class_folders(folder)
    n_train = min(n_train, len(train["labels"]))

    def images(rows: np.ndarray) -> torch.Tensor:
        return torch.from_numpy((rows.astype(np.float32) / 255 - 0.29) / 0.35)[:, None]

    labels = torch.from_numpy(train["labels"][:n_train].astype(np.int64))
    # Another task on the same images: where the brightest half lies and how bright it is.
    pixels = train["images"][:n_train].astype(np.float64)
    other = KMeans(10, n_init=1, random_state=0).fit_predict(pixels[:, ::2, ::2].reshape(n_train, -1)[:, ::-3])
    return Data(
        images(train["images"][:n_train]),
        labels,
        torch.from_numpy(other.astype(np.int64)),
        images(test["images"][:N_PROBE]),
    )


def sentences(folder: Path) -> Data:
    with (folder / "sentences.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    vectors = np.load(folder / "embeddings.npz")
    order = {str(name): row for row, name in enumerate(vectors["ids"])}
    tokens = np.zeros((len(rows), LENGTH), dtype=np.int64)
    for row, sentence in enumerate(rows):
        words = sentence["eng"].lower().replace(".", " .").replace("?", " ?").split()[:LENGTH]
        tokens[row, : len(words)] = [1 + zlib.crc32(word.encode()) % (VOCABULARY - 1) for word in words]
    place = [order[row["id"]] for row in rows]
    labels, other = (
        torch.from_numpy(KMeans(10, n_init=1, random_state=0).fit_predict(vectors[name][place].astype(np.float32)))
        for name in ("minilm_l6_v2", "wordllama_256")
    )
    inputs = torch.from_numpy(tokens)
    kept = slice(N_PROBE, None)
    return Data(inputs[kept], labels[kept].long(), other[kept].long(), inputs[:N_PROBE])


@dataclass(frozen=True)
class Recipe:
    """How a network is trained."""

    epochs: int
    rate: float = 2e-3
    noise: float = 0.0
    other_task: bool = False
    seed: int = 0


def train(network: Network, data: Data, recipe: Recipe, teacher: Network | None = None) -> Network:
    """Train in place and return the network; with a teacher, on its answers."""
    generator = torch.Generator().manual_seed(recipe.seed)
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], recipe.rate)
    labels = data.other_labels if recipe.other_task else data.labels
    n_steps = recipe.epochs * (len(labels) // 128 + 1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=n_steps)
    for _ in range(recipe.epochs):
        for rows in torch.randperm(len(labels), generator=generator).split(128):
            inputs = data.inputs[rows]
            if recipe.noise and inputs.is_floating_point():
                inputs = inputs + recipe.noise * torch.randn(inputs.shape, generator=generator)
            answers = network(inputs)
            if teacher is None:
                loss = functional.cross_entropy(answers, labels[rows])
            else:
                with torch.no_grad():
                    wanted = teacher(inputs).softmax(1)
                loss = functional.cross_entropy(answers, wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network


class LowRank(nn.Module):
    """An addition of rank 4 to a matrix of weights."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        rows, columns = shape[0], int(np.prod(shape[1:]))
        self.down = nn.Parameter(torch.randn(4, columns) / columns**0.5)
        self.up = nn.Parameter(torch.zeros(rows, 4))

    def forward(self, weights: torch.Tensor) -> torch.Tensor:
        return weights + (self.up @ self.down).reshape(weights.shape)


def tuned_by_low_rank(network: Network, data: Data, recipe: Recipe) -> Network:
    """Return a network whose matrices have learned an addition of rank 4, all else kept; merged into the weights."""
    from torch.nn.utils import parametrize

    for parameter in network.parameters():
        parameter.requires_grad_(False)
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv1d):
            parametrize.register_parametrization(module, "weight", LowRank(module.weight.shape))
    train(network, data, recipe)
    for module in network.modules():
        if parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    return network


Weights = dict[str, torch.Tensor]


def quantized(weights: Weights, bits: int) -> Weights:
    def rounded(values: torch.Tensor) -> torch.Tensor:
        if values.ndim < 2:
            return values
        step = values.flatten(1).abs().amax(1).clamp(min=1e-9) / (2 ** (bits - 1) - 1)
        step = step.reshape(-1, *[1] * (values.ndim - 1))
        return (values / step).round() * step

    return {name: rounded(values) for name, values in weights.items()}


def pruned(weights: Weights, share: float) -> Weights:
    def cut(values: torch.Tensor) -> torch.Tensor:
        return values if values.ndim < 2 else values * (values.abs() > values.abs().flatten().quantile(share))

    return {name: cut(values) for name, values in weights.items()}


def noisy(weights: Weights, share: float, seed: int) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: values + share * values.std() * torch.randn(values.shape, generator=generator)
        if values.ndim > 1
        else values
        for name, values in weights.items()
    }


def changed(network: Network, weights: Weights) -> Network:
    other = copy.deepcopy(network)
    other.load_state_dict(weights)
    return other


def changed_activations(layers: Mapping[str, np.ndarray], kind: str, seed: int) -> dict[str, np.ndarray]:
    """Return activations with units in another order and scaled, turned and centered, or without half of the units."""
    generator = np.random.default_rng(seed)
    found = {}
    for name, rows in layers.items():
        n_units = rows.shape[1]
        order = generator.permutation(n_units)
        if kind == "permuted":
            found[name] = rows[:, order] * generator.uniform(0.3, 3)
        elif kind == "half":
            found[name] = rows[:, order[: max(n_units // 2, 2)]]
        else:
            turn = np.linalg.qr(generator.standard_normal((n_units, n_units)))[0]
            found[name] = ((rows - rows.mean(axis=0)) @ turn).astype(np.float32)
    return found


@dataclass(frozen=True)
class Kind:
    """An architecture: how its stages are made, how many seeds are trained, and how many of them get variants."""

    stages: Callable[[], list[nn.Module]]
    n_seeds: int
    n_with_variants: int


UNIVERSES: dict[str, dict[str, Kind]] = {
    "vision": {
        "mlp": Kind(partial(mlp, 96), 6, 2),
        "mlp_narrow": Kind(partial(mlp, 48), 3, 1),
        "mlp_tanh": Kind(partial(mlp, 64, nn.Tanh), 3, 1),
        "cnn": Kind(partial(cnn, 16), 6, 2),
        "cnn_narrow": Kind(partial(cnn, 8), 3, 1),
        "residual": Kind(partial(residual, 16), 5, 2),
        "vit": Kind(partial(vision_transformer, 48), 5, 2),
        "vit_narrow": Kind(partial(vision_transformer, 24), 3, 1),
    },
    "text": {
        "transformer": Kind(partial(text_transformer, 64), 6, 3),
        "transformer_narrow": Kind(partial(text_transformer, 32), 4, 1),
        "recurrent": Kind(partial(text_recurrent, 48), 4, 2),
        "bag": Kind(partial(text_bag, 64), 4, 1),
        "mixer": Kind(partial(text_mixer, 48), 4, 2),
    },
}


@dataclass(frozen=True)
class Universe:
    """Where networks go, and what they learn from."""

    folder: Path
    data: Data
    facts: dict[str, dict[str, Any]]
    first_seed: int

    def put(self, name: str, network: Network, facts: dict[str, Any]) -> None:
        """Write activations and weights; None is trained again that is there."""
        self.facts[name] = facts
        with torch.no_grad():
            np.savez(self.folder / f"{name}.npz", **network.layers(self.data.probe))
        save_file({k: v.contiguous() for k, v in network.state_dict().items()}, self.folder / f"{name}.safetensors")

    def network(self, name: str, kind: Kind, seed: int, learn: Callable[[Network], Network], **facts: Any) -> Network:
        """Return the network of this name, trained if it is not there yet."""
        torch.manual_seed(seed)
        network = Network(kind.stages())
        path = self.folder / f"{name}.safetensors"
        if path.exists():
            network.load_state_dict(load_file(path))
            self.facts[name] = facts
            return network.eval()
        network = learn(network).eval()
        self.put(name, network, facts)
        return network


def build(universe: Universe, kinds: Mapping[str, Kind]) -> None:
    first, second = (universe.data.half(which) for which in (0, 1))
    for architecture, kind in kinds.items():
        code = zlib.crc32(architecture.encode()) % 10_000 + universe.first_seed
        alone = {"architecture": architecture, "base": None, "relation": None}
        for seed in range(kind.n_seeds):
            name = f"{architecture}_s{seed}"
            recipe = Recipe(4, seed=code + seed)
            base = universe.network(
                name, kind, code + seed, partial(train, data=first, recipe=recipe), **alone, data="first"
            )
            if seed < kind.n_with_variants:
                make_variants(universe, name, base, kind, code + 100 * (seed + 1), first, second)
        for number in range(2):
            recipe = Recipe(4, other_task=True, seed=code + 50 + number)
            learn = partial(train, data=second, recipe=recipe)
            universe.network(
                f"{architecture}_task{number}", kind, code + 50 + number, learn, **alone, data="other task"
            )
            name = f"{architecture}_untrained{number}"
            universe.network(name, kind, code + 60 + number, lambda network: network, **alone, data="none")
        print(architecture, len(universe.facts), flush=True)  # noqa: T201
        (universe.folder / "models.json").write_text(json.dumps(universe.facts, indent=1))


def make_variants(
    universe: Universe, base_name: str, base: Network, kind: Kind, seed: int, first: Data, second: Data
) -> None:
    facts = {"architecture": universe.facts[base_name]["architecture"], "base": base_name, "data": "first"}
    weights = base.state_dict()

    def further(recipe: Recipe, data: Data) -> Callable[[Network], Network]:
        return lambda _: train(copy.deepcopy(base), data, recipe)

    learned: dict[str, Callable[[Network], Network]] = {
        "tuned_weak": further(Recipe(1, 3e-4, seed=seed), second),
        "tuned": further(Recipe(3, 1e-3, 0.3, seed=seed), second),
        "tuned_strong": further(Recipe(4, 2e-3, 0.0, True, seed), second),
        "lora": lambda _: tuned_by_low_rank(copy.deepcopy(base), second, Recipe(2, 2e-3, 0.0, True, seed)),
        "distilled": lambda fresh: train(fresh, second, Recipe(4, seed=seed), base),
    }
    made = {
        relation: universe.network(f"{base_name}_{relation}", kind, seed, learn, **facts, relation=relation)
        for relation, learn in learned.items()
    }
    averaged = {
        name: (values + made["lora"].state_dict()[name]) / 2 for name, values in made["tuned"].state_dict().items()
    }
    for relation, other in {
        "merged": averaged,
        "int8": quantized(weights, 8),
        "int4": quantized(weights, 4),
        "pruned30": pruned(weights, 0.3),
        "pruned70": pruned(weights, 0.7),
        "noise05": noisy(weights, 0.05, seed),
        "noise30": noisy(weights, 0.3, seed),
    }.items():
        universe.put(f"{base_name}_{relation}", changed(base, other), facts | {"relation": relation})
    layers = dict(np.load(universe.folder / f"{base_name}.npz"))
    for relation in ("permuted", "rotated", "half"):
        name = f"{base_name}_{relation}"
        universe.facts[name] = facts | {"relation": relation}
        np.savez(universe.folder / f"{name}.npz", **changed_activations(layers, relation, seed))


N_DIGIT_ZOOS = 14


def write_digits(folder: Path, seeds: range) -> None:
    """Write the networks of some zoos of digits as one universe."""
    folder.mkdir(parents=True, exist_ok=True)
    facts: dict[str, dict[str, Any]] = {}
    for seed in seeds:
        models, *planted = draw_zoo(seed)
        base_of = {name: next(iter(pair - {name})) for name, pair in zip(("copy", "finetune"), planted, strict=True)}
        for name, layers in models.items():
            np.savez(folder / f"z{seed}_{name}.npz", **layers)
            base = f"z{seed}_{base_of[name]}" if name in base_of else None
            relation = {"copy": "permuted", "finetune": "tuned"}.get(name)
            facts[f"z{seed}_{name}"] = {"architecture": "mlp", "base": base, "relation": relation, "data": "first"}
    np.save(folder / "ids.npy", np.arange(len(digits("probe").ids)))
    (folder / "models.json").write_text(json.dumps(facts, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("images", "sentences", "folder"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--first-seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name, data in (("text", sentences(options.sentences)), ("vision", fashion(options.images))):
        folder = options.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        build(Universe(folder, data, {}, options.first_seed), UNIVERSES[name])
        np.save(folder / "ids.npy", np.arange(N_PROBE))
    write_digits(options.folder / "digits", range(options.first_seed, options.first_seed + N_DIGIT_ZOOS))


if __name__ == "__main__":
    main()
