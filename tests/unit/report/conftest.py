"""Atlases made up for the page: any number of models, and every group that can lie beside the scores."""

import base64
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

MadeAtlas = tuple[xr.Dataset, dict[str, Any]]
_SPACE_FACTS = {"n_components": 1.0, "n_zero_eigenvalues": 1.0, "recall": 1.0, "residual": 1e-9}


def texts(values: list[str]) -> np.ndarray:
    return np.array(values, dtype=object)


@pytest.fixture(scope="session")
def made_atlas() -> Callable[..., MadeAtlas]:
    """Make an atlas and its summary: models of two families on a line, layers of like depth alike."""

    def make(
        n_models: int, n_layers: int, *, datasets: tuple[str, ...] = ("probe",), prefix: str = "model", seed: int = 0
    ) -> MadeAtlas:
        generator = np.random.default_rng(seed)
        models = [f"{prefix}{number:03}" for number in range(n_models)]
        layers = [f"{prefix}layer{number:02}" for number in range(n_layers)]
        names = texts([f"{model}/{layer}" for model in models for layer in layers])
        latent = np.repeat(generator.random((n_models, 3)), n_layers, axis=0)
        depth = np.tile(np.linspace(0, 1, n_layers), n_models)
        n = len(names)
        apart = np.sqrt(((latent[:, None] - latent) ** 2).sum(axis=2)) + 0.7 * np.abs(depth[:, None] - depth)
        scores = np.exp(-apart)[None, None] * np.ones((len(datasets), 2, 1, 1))
        noise = generator.normal(0, 0.02, scores.shape)
        noise[:, 1] = (noise[:, 1] + noise[:, 1].swapaxes(1, 2)) / 2  # the second measure is symmetric
        scores = np.clip(scores + noise, 0, 1)
        chance = 0.06 + 0.01 * generator.random(scores.shape)
        reach = 0.01 + 0.02 * generator.random(scores.shape)
        scores[..., np.arange(n), np.arange(n)] = 1
        cells = {
            "score": scores,
            "null_mean": chance,
            "null_q95": chance + 0.01,
            "calibrated": (scores - chance) / (1 - chance),
            "p_value": np.full(scores.shape, 1 / 101),
            "ci_low": np.clip(scores - reach, 0, 1),
            "ci_high": np.clip(scores + reach, 0, 1),
            "q_value": np.full(scores.shape, 1 / 101),
            "unrelated_rank": np.full(scores.shape, np.nan),
        }
        dims = ("dataset", "measure", "source", "target")
        shape = (len(datasets), n)
        variables: dict[str, Any] = {name: (dims, values) for name, values in cells.items()}
        variables |= {name: (("dataset", "source"), np.full(shape, value)) for name, value in _SPACE_FACTS.items()}
        variables |= {name: (("dataset", "source"), np.full(shape, 1e-3)) for name in ("orthonormality", "eigengap")}
        variables |= {name: (("dataset", "source"), np.full(shape, 100)) for name in ("n_points", "n_features")}
        variables["method"] = (("dataset", "source"), np.full(shape, "exact", dtype=object))
        variables["depth"] = (("dataset", "source"), np.tile(depth, (len(datasets), 1)))
        halves = scores[..., None] + reach[..., None] / 4 * np.array([1, -1, 1, -1])
        variables["half_scores"] = ((*dims, "half"), halves.astype(np.float32))
        variables["split_half_reliability"] = (("dataset", "measure"), np.full((len(datasets), 2), 0.93))
        coordinates: dict[str, Any] = {"dataset": texts(list(datasets)), "measure": texts(["lfm", "overlap"])}
        for side in ("source", "target"):
            coordinates[side] = names
            coordinates[f"{side}_model"] = (side, texts([model for model in models for _ in layers]))
            coordinates[f"{side}_layer"] = (side, texts(layers * n_models))
            coordinates[f"{side}_depth"] = (side, depth)
        attributes = {
            "measures": {"lfm": "first convention", "overlap": "second convention"},
            "distances": [],
            "comparisons": {},
        }
        meta = [{"family": f"{prefix}family{number % 2}", "seed": number} for number in range(n_models)]
        summary = {
            "title": "Similarity atlas",
            "key": "0" * 64,
            "counts": {
                "models": n_models, "spaces": n * len(datasets), "directed_pairs": n * (n - 1) * len(datasets),
                "failures": 0, "directed_pairs_without_score": 0,
            },
            "failures": [],
            "pairs_without_score": [],
            "models": [{"name": name, "meta": facts} for name, facts in zip(models, meta, strict=True)],
            "settings": {},
            "versions": {},
        }  # fmt: skip
        return xr.Dataset(variables, coordinates, attributes), summary

    return make


@pytest.fixture(scope="session")
def with_sections() -> Callable[..., tuple[xr.Dataset, dict[str, xr.Dataset]]]:
    """Add every section to an atlas: what joins the scores, and the groups of its first dataset."""

    def add(
        atlas: xr.Dataset,
        *,
        n_pairs: int = 12,
        n_eigenpairs: int = 30,
        n_points: int = 60,
        prefix: str = "",
        seed: int = 1,
    ) -> tuple[xr.Dataset, dict[str, xr.Dataset]]:
        generator = np.random.default_rng(seed)
        names, dataset = atlas["source"].values, str(atlas["dataset"].values[0])
        shape = (atlas.sizes["dataset"], len(names), len(names))
        joined = {
            name: (("dataset", "source", "target"), generator.random(shape))
            for name in ("cycle_residual", "map_residual", "orthogonality_error", "commutativity_error")
        }
        joined["points_found"] = (("dataset", "source", "target"), generator.integers(50, 100, shape))
        likeness = atlas["score"].values[:, 1]
        joined["shared_distance"] = (("dataset", "source", "target"), 1 - (likeness + likeness.swapaxes(1, 2)) / 2)
        ends = [(s, t) for s in range(len(names)) for t in range(len(names)) if s != t]
        chosen = [ends[place] for place in np.linspace(0, len(ends) - 1, n_pairs).astype(int)]
        sources, targets = (names[[pair[side] for pair in chosen]] for side in (0, 1))
        points = texts([f"{prefix}p{number:04}" for number in range(n_points)])
        labels = texts([f"{prefix}class{number % 5}" if number % 7 else "" for number in range(n_points)])
        maps = 0.3 * generator.standard_normal((n_pairs, n_eigenpairs, n_eigenpairs)) + np.eye(n_eigenpairs)
        distortion = generator.random((2, n_pairs, n_points)).astype(np.float32)
        distortion[0, :, 3] = np.nan
        return atlas.assign(joined), {
            f"maps/{dataset}": xr.Dataset(
                {
                    "functional_map": (("pair", "target_eigenpair", "source_eigenpair"), maps.astype(np.float32)),
                    "target_distortion": (("pair", "point"), distortion[0]),
                    "source_distortion": (("pair", "point"), distortion[1]),
                },
                {"source": ("pair", sources), "target": ("pair", targets), "point": points, "label": ("point", labels)},
            ),
            f"transfers/{dataset}": _transfers(sources[:2], targets[:2], prefix, generator),
            f"embeddings/{dataset}": _embeddings(names[:4], points, labels, generator),
        }

    return add


def _transfers(sources: np.ndarray, targets: np.ndarray, prefix: str, generator: np.random.Generator) -> xr.Dataset:
    candidates = texts([f"{prefix}{name}" for name in ("functional_map", "procrustes", "affine")])
    of_candidate = {
        name: (("pair", "candidate"), generator.random((len(sources), 3)))
        for name in ("held_out", "accuracy", "mrr", "stitched_accuracy")
    }
    of_candidate["accuracy"][1][0, 2] = np.nan
    of_pair = {name: ("pair", generator.random(len(sources))) for name in ("own_accuracy", "all_pairs_accuracy")}
    return xr.Dataset(
        {**of_candidate, **of_pair, "n_anchors": ("pair", np.array([10, 20])[: len(sources)])},
        {
            "source": ("pair", sources), "target": ("pair", targets), "candidate": candidates,
            "chosen": ("pair", candidates[[1, 0]][: len(sources)]),
        },
    )  # fmt: skip


def _embeddings(
    names: np.ndarray, points: np.ndarray, labels: np.ndarray, generator: np.random.Generator
) -> xr.Dataset:
    tsne = (30 * generator.standard_normal((len(names), len(points), 2))).astype(np.float32)
    tsne[0, 5] = np.nan
    return xr.Dataset(
        {
            "tsne": (("space", "point", "axis"), tsne),
            "probe_accuracy": ("space", generator.random(len(names))),
            "probe_after_transfer": (("source", "target"), generator.random((len(names), len(names)))),
        },
        {"space": names, "source": names, "target": names, "point": points, "label": ("point", labels)},
    )


@pytest.fixture(scope="session")
def unpacked() -> Callable[[dict[str, Any]], np.ndarray]:
    """Unpack what the page unpacks."""

    def unpack(stored: dict[str, Any]) -> np.ndarray:
        planes = np.frombuffer(zlib.decompress(base64.b64decode(stored["steps"])), dtype=np.uint8).reshape(2, -1)
        steps = np.ascontiguousarray(planes.T).view("<i2").ravel()
        values = np.where(steps == -32768, np.nan, steps * stored["unit"])
        if not stored["symmetric"]:
            return values.reshape(-1, stored["columns"])
        whole = np.zeros((stored["columns"], stored["columns"]))
        whole[np.tril_indices(len(whole))] = values
        return np.where(np.tri(len(whole), dtype=bool), whole, whole.T)

    return unpack
