"""Zoos to look at the page with: made-up activations, a catalog, and an atlas of each in seconds to a minute.

    python -m tests.browser.zoos FOLDER [NAME ...]

writes and runs each zoo of `ZOOS` in a folder of its own below ``FOLDER``; without a name, all of them. An atlas that
is there already is kept, and only its page is drawn again.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from lfm_atlas.pipeline import build_atlas
from lfm_tasks.catalog import read_catalog
from lfm_tasks.report import render_report
from lfm_tasks.runtime.session import open_run
from lfm_tasks.stores.atlas.files import read_atlas, read_groups, read_json
from lfm_tasks.zoo import write_start

N_CLASSES, N_LATENT, WIDTH = 8, 10, 24
Layers = dict[str, np.ndarray]


@dataclass(frozen=True)
class Inputs:
    """Points of a dataset: what networks make their layers of."""

    ids: np.ndarray
    labels: np.ndarray
    latent: np.ndarray

    @classmethod
    def drawn(cls, n_points: int, seed: int = 0) -> "Inputs":
        """Return points around a center for each class."""
        generator = np.random.default_rng(seed)
        labels = generator.integers(N_CLASSES, size=n_points)
        centers = 1.5 * generator.standard_normal((N_CLASSES, N_LATENT))
        ids = np.array([f"point-{number:04}" for number in range(n_points)])
        return cls(ids, labels, centers[labels] + generator.standard_normal((n_points, N_LATENT)))


def as_images(inputs: Inputs) -> np.ndarray:
    """Return a color picture of 24 × 24 pixels for each point: stripes by class, tinted by what networks see of it."""
    stripes = (
        np.arange(24)[:, None] * (1 + inputs.labels[:, None, None] % 4)
        + np.arange(24) * (inputs.labels // 4)[:, None, None]
    )
    tint = 1 / (1 + np.exp(-inputs.latent[:, :3]))
    return (255 * (stripes % 8 < 4)[..., None] * tint[:, None, None]).astype(np.uint8)


def as_texts(inputs: Inputs) -> np.ndarray:
    """Return a prompt for each point."""
    asked = ("translate", "summarize", "explain", "rhyme", "count", "sort", "name", "draw")
    seen = inputs.latent[:, 0].round(2)
    return np.array([f"Please {asked[n]} this, <b>{x}</b>" for n, x in zip(inputs.labels, seen, strict=True)])


def network(inputs: Inputs, names: list[str], seed: int, family: int = 0, likeness: float = 0.7) -> Layers:
    """Return the layers of a random network; the lower ``likeness``, the less it has in common with its family."""
    shared, own = np.random.default_rng([family, 1]), np.random.default_rng([seed, 2])
    hidden, layers = inputs.latent, {}
    for name in names:
        size = hidden.shape[1], WIDTH
        weights = likeness * shared.standard_normal(size) + (1 - likeness) * own.standard_normal(size)
        hidden = np.tanh(1.3 * hidden @ weights / np.sqrt(size[0]) + 0.2 * own.standard_normal(WIDTH))
        layers[name] = hidden.astype(np.float32)
    return layers


def copied(layers: Layers, seed: int) -> Layers:
    """Return a copy that hides: units in another order, another scale, a little noise."""
    generator = np.random.default_rng([seed, 3])
    return {
        name: (2.5 * layer[:, generator.permutation(layer.shape[1])]).astype(np.float32)
        + 0.003 * generator.standard_normal(layer.shape, dtype=np.float32)
        for name, layer in layers.items()
    }


def tuned(layers: Layers, seed: int, amount: float = 0.08) -> Layers:
    """Return a fine-tuned network: the deeper the layer, the more it moved."""
    generator = np.random.default_rng([seed, 4])
    return {
        name: layer + amount * (place + 1) / len(layers) * generator.standard_normal(layer.shape, dtype=np.float32)
        for place, (name, layer) in enumerate(layers.items())
    }


FAMILIES = ("vision-transformer", "residual", "mixer", "convolution", "recurrent")
_OWNERS, _LICENSES = ("team-search", "team-ads", "team-maps"), ("apache-2.0", "mit")


def hundred(folder: Path) -> dict[str, Any]:
    """100 models of 6 layers in five families; three copies that nobody declared, some declared fine-tunes."""
    inputs, names = Inputs.drawn(240), [f"block{number}" for number in range(5)] + ["head"]
    zoo: dict[str, Layers] = {}
    meta: dict[str, dict[str, Any]] = {}
    for number in range(100):
        family, place = divmod(number, 20)
        name = f"{FAMILIES[family]}-{place:02}"
        meta[name] = {"family": FAMILIES[family], "owner": _OWNERS[number % 3], "license": _LICENSES[number % 2]}
        first = f"{FAMILIES[family]}-00"
        if place in (3, 4):
            zoo[name] = tuned(zoo[first], number)
            meta[name] |= {"base_model": first, "license": meta[first]["license"] if place == 3 else "unknown"}
        elif (family, place) in ((0, 19), (2, 19), (4, 19)):
            zoo[name] = copied(zoo[f"{FAMILIES[family]}-10"], number)
        else:
            zoo[name] = network(inputs, names, number, family)
    return _catalog(folder, {"probe": inputs}, {"probe": zoo}, meta)


def deep(folder: Path) -> dict[str, Any]:
    """Three models of 40 layers with the names that transformers give: long, and alike but for a number."""
    inputs = Inputs.drawn(240, seed=1)
    names = [f"model.language_model.layers.{number}.post_attention_layernorm" for number in range(40)]
    first = network(inputs, names, 1, likeness=0.6)
    zoo = {"acme/decoder-7b-base": first, "acme/decoder-7b-instruct-preview-2026-10": tuned(first, 2)}
    zoo["elsewhere/encoder-large-multilingual"] = network(inputs, names, 3, family=1)
    meta = {"acme/decoder-7b-instruct-preview-2026-10": {"family": "decoder", "base_model": "acme/decoder-7b-base"}}
    renamed = {name.replace("/", "--"): layers for name, layers in zoo.items()}
    facts = {name.replace("/", "--"): {k: v.replace("/", "--") for k, v in of.items()} for name, of in meta.items()}
    return _catalog(folder, {"prompts": inputs}, {"prompts": renamed}, facts, as_texts)


def datasets(folder: Path) -> dict[str, Any]:
    """Five models on two datasets; one has a layer that is not finite, of one a file is missing."""
    names = ["early", "middle", "late"]
    on = {name: Inputs.drawn(220, seed=seed) for name, seed in (("photos", 5), ("sketches", 6))}
    zoo = {dataset: {f"model-{n}": network(inputs, names, n) for n in range(5)} for dataset, inputs in on.items()}
    zoo["photos"]["model-3"]["late"][7, 3] = np.nan
    meta = {f"model-{number}": {"family": "even" if number % 2 == 0 else "odd"} for number in range(5)}
    catalog = _catalog(folder, on, zoo, meta, as_images)
    (folder / "sketches" / "model-4.npz").unlink()
    return catalog


def single(folder: Path) -> dict[str, Any]:
    """One model: nothing to compare it with."""
    inputs = Inputs.drawn(120)
    return _catalog(folder, {"probe": inputs}, {"probe": {"only": network(inputs, ["a", "b", "c"], 1)}}, {})


def bare(folder: Path) -> dict[str, Any]:
    """Six models of which the catalog says nothing, and no chance, no intervals, no maps."""
    inputs = Inputs.drawn(200, seed=2)
    zoo = {f"net{number}": network(inputs, ["a", "b", "c"], number) for number in range(6)}
    nothing = {"null": {"n_permutations": 0}, "intervals": {"n_splits": 0}, "keep_maps": "none"}
    return _catalog(folder, {"probe": inputs}, {"probe": zoo}, {}, **nothing, measures=["linear_regression_r2"])


def shallow(folder: Path) -> dict[str, Any]:
    """Eight models of one layer each."""
    inputs = Inputs.drawn(200, seed=3)
    zoo = {f"encoder{number}": network(inputs, ["embedding"], number, number % 2, 0.8) for number in range(8)}
    meta = {name: {"family": ("text", "image")[number % 2]} for number, name in enumerate(zoo)}
    return _catalog(folder, {"probe": inputs}, {"probe": zoo}, meta)


ZOOS: Mapping[str, Callable[[Path], dict[str, Any]] | None] = {
    "shipped": None,
    "hundred": hundred,
    "deep": deep,
    "datasets": datasets,
    "single": single,
    "bare": bare,
    "shallow": shallow,
}


def _catalog(
    folder: Path,
    on: Mapping[str, Inputs],
    zoo: Mapping[str, Mapping[str, Layers]],
    meta: Mapping[str, Mapping[str, Any]],
    look: Callable[["Inputs"], np.ndarray] | None = None,
    **atlas: Any,
) -> dict[str, Any]:
    """Write the files of a zoo, and return its catalog; ``look``: what the points are on the page."""
    for dataset, inputs in on.items():
        (folder / dataset).mkdir(parents=True, exist_ok=True)
        np.save(folder / dataset / "ids.npy", inputs.ids)
        np.save(folder / dataset / "labels.npy", np.array([f"class {label}" for label in inputs.labels]))
        if look is not None:
            np.save(folder / dataset / "previews.npy", look(inputs))
        for model, layers in zoo[dataset].items():
            np.savez(folder / dataset / f"{model}.npz", **layers)
    models = {}
    for model in sorted({model for of_dataset in zoo.values() for model in of_dataset}):
        sources = [
            {"path": "{dataset}/{model}.npz", "key": "{layer}", "dataset": dataset}
            for dataset in on
            if model in zoo[dataset]
        ]
        models[model] = {"activations": sources if len(sources) > 1 else sources[0], "meta": dict(meta.get(model, {}))}
    parts = ("ids", "labels") + (("previews",) if look is not None else ())
    files = {name: {part: {"path": f"{name}/{part}.npy"} for part in parts} for name in on}
    settings = {"graph": {"n_neighbors": 15}, "n_eigenpairs": 16, "measures": ["overlap"], "collection": None, **atlas}
    return {"version": 1, "datasets": files, "models": models, "atlas": settings}


def write_zoo(folder: Path, name: str) -> None:
    """Write the files and the catalog of a zoo."""
    folder.mkdir(parents=True, exist_ok=True)
    make = ZOOS[name]
    if make is None:
        write_start(folder)
        return
    with (folder / "data_catalog.yaml").open("w") as file:
        YAML().dump(make(folder), file)


def draw_page(folder: Path) -> Path:
    """Draw the page of a zoo's atlas, built first where there is none, and return its file."""
    if not (folder / "atlas" / "manifest.json").is_file():
        catalog = read_catalog(folder / "data_catalog.yaml")
        with open_run(catalog, lambda stage, done, total: None, in_process=True) as run:
            build_atlas(run)
    place = folder / "atlas"
    page = render_report(read_atlas(place), read_json(place / "summary.json"), read_groups(place))
    (folder / "page.html").write_text(page, encoding="utf-8")
    return folder / "page.html"


if __name__ == "__main__":
    root, *names = sys.argv[1:]
    for name in names or ZOOS:
        if not (Path(root) / name / "data_catalog.yaml").is_file():
            write_zoo(Path(root) / name, name)
        print(draw_page(Path(root) / name))  # noqa: T201 - a program for people
