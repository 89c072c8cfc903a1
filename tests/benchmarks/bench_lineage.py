"""Lineage on zoos whose truth is known: what is found, false alarms, calibration, beside other measures and weights.

Claims, of networks that no number was fitted on: false alarms in at most 5 % of audits; in mixed zoos at least 95 % of
strong relations found (`lineage_zoos.STRONG`, fixed before any result), and each kind that is not found named.

``python tests/benchmarks/bench_lineage.py FOLDER [--zoos 60] [--others] [--seed 0]``. FOLDER is what `lineage_zoos`
wrote; each universe becomes an atlas, once (vision 6 minutes, text 3). Zoos are drawn from it: what two models have in
common does not depend on the others, so a zoo is a part of the atlas. ``--others`` compares other measures and weights
on half of the models (2 minutes).
"""

import argparse
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from ruamel.yaml import YAML
from safetensors.numpy import load_file
from scipy.sparse import csr_array, vstack

from lfm_tasks.lineage.levels import Level
from lfm_tasks.lineage.relations import Relation, relations_of_atlas
from lfm_tasks.lineage.weights import matched_tensors, weight_agreement
from lfm_tasks.published.atlas import open_atlas
from lfm_tasks.statistics.model_pairs import area_under_curve, best_match, closeness, symmetrized

STRONG = ("permuted", "rotated", "half", "int8", "int4", "pruned30", "noise05", "tuned_weak", "tuned", "lora", "merged")
WEAK = ("pruned70", "noise30", "tuned_strong")
NAMES = ("vision", "text", "digits")
_CHANGED = (*STRONG[4:], *WEAK)
SIZES = (5, 20, 100)
# Share of a zoo's models that are variants of others, drawn for each zoo; of five models, up to two are.
_SHARES = (0.0, 0.1, 0.2, 0.4)


@dataclass(frozen=True)
class Universe:
    """Networks of one kind of data, the truth about them, and their atlas."""

    name: str
    folder: Path
    facts: Mapping[str, Mapping[str, Any]]
    atlas: xr.Dataset

    @cached_property
    def rows(self) -> dict[str, np.ndarray]:
        """The spaces of each model."""
        of_space = np.array([str(name) for name in self.atlas["source_model"].values])
        return {model: np.flatnonzero(of_space == model) for model in sorted(set(of_space))}

    def base(self, model: str) -> str:
        """Return the model that this one was made from, itself if it was trained from scratch."""
        return self.facts[model]["base"] or model

    def architecture(self, model: str) -> str:
        """Return the architecture, narrow ones not told apart."""
        return str(self.facts[model]["architecture"]).removesuffix("_narrow").removesuffix("_tanh")

    def kind(self, first: str, second: str) -> str:
        """Return what the two models are to each other: a relation, ``siblings``, ``same kind`` or ``unrelated``."""
        relations = [relation for model in (first, second) if (relation := self.facts[model]["relation"])]
        if self.base(first) != self.base(second):
            alike = self.architecture(first) == self.architecture(second)
            return "same kind" if alike and self.facts[first]["data"] == self.facts[second]["data"] else "unrelated"
        if "distilled" in relations:
            return "distilled"
        return relations[0] if len(relations) == 1 else "siblings"

    def zoo(self, models: Iterable[str], keep: Callable[[np.ndarray], np.ndarray] = lambda rows: rows) -> xr.Dataset:
        """Return the atlas of some models, of each the layers that ``keep`` chooses."""
        rows = np.concatenate([keep(self.rows[model]) for model in sorted(models)])
        return self.atlas.isel(source=rows, target=rows)


def open_universe(folder: Path, name: str) -> Universe:
    """Return a universe; its atlas is computed if it is not there."""
    facts = json.loads((folder / name / "models.json").read_text())
    place = folder / name / "run"
    if not (place / "atlas" / "manifest.json").exists():
        place.mkdir(exist_ok=True)
        source = {"activations": {"path": "../{model}.npz", "key": "{layer}", "dataset": "probe"}}
        catalog = {
            "version": 1,
            "datasets": {"probe": {"ids": {"path": "../ids.npy"}}},
            "models": dict.fromkeys(facts, source),
            "atlas": {
                "measures": ["overlap"], "intervals": {"n_splits": 0}, "collection": None, "keep_maps": "none",
                "null": {"n_permutations": 0},
            },
        }  # fmt: skip
        yaml = YAML()
        yaml.representer.ignore_aliases = lambda data: True
        with (place / "data_catalog.yaml").open("w") as file:
            yaml.dump(catalog, file)
        command = ["run", str(place / "data_catalog.yaml"), "--no-prefect", "--no-dask"]
        subprocess.run([sys.executable, "-m", "lfm_atlas", *command], check=True, stdout=subprocess.DEVNULL)
    scores = open_atlas(place / "atlas").scores
    kept = scores[["calibrated", "q_value", "score", "n_points", "depth"]].sel(dataset=["probe"]).load()
    return Universe(name, folder / name, facts, kept)


def _number(model: str) -> int:
    return int("".join(character for character in model.partition("_m")[0] if character.isdigit()) or 0)


@dataclass(frozen=True)
class Drawn:
    """A zoo, and how its models are related, by what is told and in truth."""

    universe: Universe
    models: tuple[str, ...]
    atlas: xr.Dataset

    @cached_property
    def pairs(self) -> list[tuple[Relation, str]]:
        """Every pair of models, and what the two are in truth."""
        found = relations_of_atlas(self.atlas, {model: {} for model in self.models})
        return [(one, self.universe.kind(one.source, one.target)) for one in found]

    @property
    def has_false_alarm(self) -> bool:
        """Whether two models that have nothing to do with one another are called related."""
        return any(
            one.level.is_at_least(Level.RELATED) for one, kind in self.pairs if kind in ("same kind", "unrelated")
        )


def draw_zoo(
    universe: Universe, size: int, is_mixed: bool, generator: np.random.Generator, layers: str = "all"
) -> Drawn:
    """Return a zoo of ``size`` models, fewer where the universe has fewer of one architecture.

    ``layers``: ``all``, ``half`` of them drawn by architecture, or the ``last`` hidden one.
    """
    pool = [model for model in universe.facts if model in universe.rows]
    if not is_mixed:
        kinds = sorted({universe.architecture(model) for model in pool if universe.facts[model]["base"]})
        chosen = kinds[generator.integers(len(kinds))]
        pool = [model for model in pool if universe.architecture(model) == chosen]
    alone = [model for model in pool if universe.facts[model]["base"] is None]
    n_variants = int(generator.integers(3)) if size == 5 else round(float(generator.choice(_SHARES)) * size)
    models = list(generator.choice(alone, min(size - n_variants, len(alone)), replace=False))
    variants = [model for model in pool if universe.facts[model]["base"]]
    of_present = [model for model in variants if universe.base(model) in models]
    source = of_present if len(of_present) >= n_variants else variants
    models += list(generator.choice(source, min(size - len(models), len(source)), replace=False)) if n_variants else []
    kept: dict[tuple[str, int], np.ndarray] = {}

    def keep(rows: np.ndarray) -> np.ndarray:
        if layers == "all":
            return rows
        if layers == "last":
            return rows[-2:-1]
        shape = ("layers", len(rows))
        kept.setdefault(shape, np.sort(generator.choice(len(rows), max(2, len(rows) // 2), replace=False)))
        return rows[kept[shape]]

    names = tuple(sorted(map(str, models)))
    return Drawn(universe, names, universe.zoo(names, keep))


def draw(
    universe: Universe, size: int, is_mixed: bool, options: argparse.Namespace, layers: str = "all"
) -> list[Drawn]:
    """Return zoos of one kind, always the same."""
    generator = np.random.default_rng([options.seed, size, is_mixed, NAMES.index(universe.name)])
    return [draw_zoo(universe, size, is_mixed, generator, layers) for _ in range(options.zoos)]


def share(flags: Iterable[bool]) -> str:
    flags = list(flags)
    return f"{np.mean(flags):.3f}".lstrip("0") if flags and np.mean(flags) < 1 else "1.000" if flags else "–"


def false_alarms(universes: list[Universe], options: argparse.Namespace) -> Iterator[str]:
    yield "| audits with a false alarm; zoos | layers | " + " | ".join(f"of {size}" for size in SIZES) + " |"
    yield "|---|---|" + "---|" * len(SIZES)
    total: dict[str, list[bool]] = defaultdict(list)
    for universe in universes:
        for is_mixed in (True, False):
            for layers in ("all", "half", "last"):
                cells = []
                for size in SIZES:
                    alarms = [zoo.has_false_alarm for zoo in draw(universe, size, is_mixed, options, layers)]
                    total[layers] += alarms
                    cells.append(share(alarms))
                kind = "mixed" if is_mixed else "one architecture"
                yield f"| {universe.name}, {kind} | {layers} | {' | '.join(cells)} |"
    for layers, alarms in total.items():
        yield f"| together, {len(alarms):,} audits | {layers} | {share(alarms)} | | |"


def found(universes: list[Universe], options: argparse.Namespace) -> Iterator[str]:
    """Yield the share of each relation, to the base itself, that is called related or a copy."""
    yield "| found; mixed zoos of 20 and 100 | " + " | ".join(universe.name for universe in universes) + " |"
    yield "|---|" + "---|" * len(universes)
    told: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for universe in universes:
        for size in (20, 100):
            for zoo in draw(universe, size, True, options):
                for one, kind in zoo.pairs:
                    told[kind, universe.name].append(one.level.is_at_least(Level.RELATED))
    for kind in (*STRONG, *WEAK, "siblings", "distilled", "same kind", "unrelated"):
        yield f"| {kind} | " + " | ".join(share(told[kind, universe.name]) for universe in universes) + " |"
    for name, kinds in (("strong", STRONG), ("weak", WEAK)):
        of_each = [[flag for kind in kinds for flag in told[kind, universe.name]] for universe in universes]
        yield f"| **{name}** | " + " | ".join(f"**{share(flags)}**" for flags in of_each) + " |"
        yield f"| **{name}, together** | **{share(flag for flags in of_each for flag in flags)}** |" + " |" * (
            len(universes) - 1
        )


def calibration(universes: list[Universe], options: argparse.Namespace) -> Iterator[str]:
    """Yield how often pairs of each probability are related, distilled ones left out."""
    edges = np.array([0, 0.01, 0.05, 0.2, 0.5, 0.8, 0.98, 1.0000001])
    yield "| probability | pairs | mean probability | related |"
    yield "|---|---|---|---|"
    told = [
        (one.probability, kind not in ("same kind", "unrelated"))
        for universe in universes
        for is_mixed in (True, False)
        for size in SIZES
        for zoo in draw(universe, size, is_mixed, options)
        for one, kind in zoo.pairs
        if kind != "distilled" and np.isfinite(one.probability)
    ]
    values, related = np.array(told).T
    for low, high in pairwise(edges):
        chosen = (low <= values) & (values < high)
        mean, observed = (f"{side[chosen].mean():.3f}" if chosen.any() else "–" for side in (values, related))
        yield f"| {low:.2f} to {min(high, 1):.2f} | {chosen.sum():,} | {mean} | {observed} |"


def levels(universes: list[Universe], options: argparse.Namespace) -> Iterator[str]:
    """Yield which level networks get that were trained apart, in mixed zoos of 20."""
    yield "| trained apart; mixed zoos of 20 | " + " | ".join(str(level) for level in Level) + " |"
    yield "|---|" + "---|" * len(Level)
    for universe in universes:
        of_kind: dict[str, list[Level]] = defaultdict(list)
        for zoo in draw(universe, 20, True, options):
            for one, kind in zoo.pairs:
                of_kind[kind].append(one.level)
        for kind in ("same kind", "unrelated"):
            cells = [share(told == level for told in of_kind[kind]) for level in Level]
            yield f"| {universe.name}, {kind} | {' | '.join(cells)} |"


def directions(universes: list[Universe]) -> Iterator[str]:
    """Yield how often the base of a family is its most central member: what likeness could say of who is older."""
    yield "| families of a base and some changed variants; the most central is | the base | another | tied |"
    yield "|---|---|---|---|"
    generator = np.random.default_rng(0)
    for universe in universes:
        told = []
        for base in sorted({universe.base(model) for model in universe.facts}):
            changed = [model for model in universe.facts if universe.kind(base, model) in _CHANGED]
            for size in [size for size in (2, 3, 4, 6) if size <= len(changed)]:
                models = sorted({base, *map(str, generator.choice(changed, size, replace=False))})
                mean: dict[str, list[float]] = defaultdict(list)
                for one in relations_of_atlas(universe.zoo(models), {}):
                    for model in (one.source, one.target):
                        mean[model].append(float(closeness(np.array(one.similarity))))
                falling = sorted(((float(np.mean(values)), model) for model, values in mean.items()), reverse=True)
                is_tied = falling[0][0] - falling[1][0] < 0.02
                told.append("tied" if is_tied else "right" if falling[0][1] == base else "wrong")
        if told:
            cells = [share(one == word for one in told) for word in ("right", "wrong", "tied")]
            yield f"| {universe.name}, {len(told)} | {' | '.join(cells)} |"


def beside_others(folder: Path, options: argparse.Namespace) -> Iterator[str]:
    """Yield the area under the ROC curve of every statistic, over all pairs of mixed zoos of 20."""
    statistics = ("probability", "overlap", *OTHERS, "weights")
    yield "| AUC; universe, relation | pairs | " + " | ".join(statistics) + " |"
    yield "|---|---|" + "---|" * len(statistics)
    highest: dict[str, list[float]] = defaultdict(list)
    of_strong: dict[tuple[str, str], list[float]] = defaultdict(list)
    for name in NAMES:
        whole = open_universe(folder, name)
        half = {model: facts for model, facts in whole.facts.items() if _number(facts["base"] or model) % 2}
        ours = replace(whole, facts=half)
        overlap = ours.atlas["score"].sel(dataset="probe", measure="overlap").values
        spaces = _activations(ours)
        values = {"overlap": overlap} | {measure: compared(spaces) for measure, compared in OTHERS.items()}
        tables = {measure: _best_matches(ours, of_measure) for measure, of_measure in values.items()}
        cosines = _cosines(ours)
        rows: dict[str, list[dict[str, float]]] = defaultdict(list)
        for zoo in draw(ours, 20, True, options):
            of_zoo: dict[str, list[dict[str, float]]] = defaultdict(list)
            for one, kind in zoo.pairs:
                pair = one.source, one.target
                values = {measure: table[pair] for measure, table in tables.items()}
                values |= {"probability": one.probability, "weights": cosines.get(pair, np.nan)}
                of_zoo[kind].append(values)
            for kind, found_pairs in of_zoo.items():
                rows[kind] += found_pairs
            for statistic in statistics:
                strangers = [row[statistic] for kind in ("same kind", "unrelated") for row in of_zoo[kind]]
                highest[statistic].append(float(np.nanmax([*strangers, -1.0])))
                of_strong[statistic, name] += [row[statistic] for kind in STRONG for row in of_zoo[kind]]
        apart = rows["same kind"] + rows["unrelated"]
        groups = {"strong": STRONG, "weak": WEAK, "siblings": ("siblings",), "distilled": ("distilled",)}
        groups |= {kind: (kind,) for kind in ("half", "lora", "merged", "pruned70", "tuned_strong")}
        for group, kinds in groups.items():
            related = [row for kind in kinds for row in rows[kind]]
            if related:
                cells = [_area(related, apart, statistic) for statistic in statistics]
                yield f"| {name}, {group} | {len(related)} | {' | '.join(cells)} |"
    yield ""
    yield (
        "| strong relations found by one limit for all, false alarms in 5 % of audits | "
        + " | ".join(statistics)
        + " |"
    )
    yield "|---|" + "---|" * len(statistics)
    limits = {statistic: float(np.quantile(values, 0.95)) for statistic, values in highest.items()}
    for name in NAMES:
        cells = [share(value > limits[one] for value in of_strong[one, name]) for one in statistics]
        yield f"| {name} | {' | '.join(cells)} |"


def _area(related: list[dict[str, float]], apart: list[dict[str, float]], statistic: str) -> str:
    values = np.array([row[statistic] for row in related + apart])
    inside = np.arange(len(values)) < len(related)
    known = np.isfinite(values)
    # Where weights are not at hand, or of other shapes, nothing is said.
    if known[inside].mean() < 0.5:
        return "–"
    return f"{area_under_curve(values[known], inside[known]):.4f}"


def _activations(universe: Universe) -> list[np.ndarray | None]:
    """Return the centered activations of every space of the atlas; None where the model is left out."""
    found: list[np.ndarray | None] = []
    for model, layer in zip(universe.atlas["source_model"].values, universe.atlas["source_layer"].values, strict=True):
        if str(model) not in universe.facts:
            found.append(None)
            continue
        with np.load(universe.folder / f"{model}.npz") as file:
            rows = file[str(layer)].astype(np.float64)
        found.append(rows - rows.mean(axis=0))
    return found


def _filled(spaces: list[np.ndarray | None], products: np.ndarray, present: np.ndarray) -> np.ndarray:
    values = np.full((len(spaces), len(spaces)), np.nan)
    values[np.ix_(present, present)] = products
    return values


def debiased_cka(spaces: list[np.ndarray | None]) -> np.ndarray:
    """Return linear CKA by HSIC_1 of Song et al. (2012) of all spaces: kernels centered without their diagonal."""
    present = [row for row, space in enumerate(spaces) if space is not None]
    kernels = []
    for row in present:
        kernel = spaces[row] @ spaces[row].T
        n = len(kernel)
        np.fill_diagonal(kernel, 0)
        sums = kernel.sum(axis=0) / (n - 2)
        kernel += sums.sum() / (n - 1) - sums - sums[:, None]
        np.fill_diagonal(kernel, 0)
        kernels.append((kernel / np.linalg.norm(kernel)).astype(np.float32).ravel())
    stacked = np.stack(kernels)
    return _filled(spaces, stacked @ stacked.T, np.array(present))


def mutual_neighbors(spaces: list[np.ndarray | None], n_neighbors: int = 10) -> np.ndarray:
    """Return the share of the ten nearest by cosine that two spaces have in common, of all spaces."""
    present = [row for row, space in enumerate(spaces) if space is not None]
    graphs = []
    for row in present:
        lengths = np.linalg.norm(spaces[row], axis=1, keepdims=True)
        alike = spaces[row] @ spaces[row].T / np.maximum(lengths * lengths.T, 1e-12)
        np.fill_diagonal(alike, -np.inf)
        nearest = np.argpartition(-alike, n_neighbors, axis=1)[:, :n_neighbors]
        graph = np.zeros(alike.shape, dtype=np.float32)
        np.put_along_axis(graph, nearest, 1, axis=1)
        graphs.append(csr_array(graph.reshape(1, -1)))
    stacked = vstack(graphs)
    n_edges = n_neighbors * len(spaces[present[0]])
    return _filled(spaces, (stacked @ stacked.T).toarray() / n_edges, np.array(present))


def procrustes(spaces: list[np.ndarray | None]) -> np.ndarray:
    """Return the nuclear norm of ZᵧᵀZₓ of unit norm: 1 less half the squared Procrustes distance, of all spaces."""
    present = [row for row, space in enumerate(spaces) if space is not None]
    unit = [spaces[row] / np.linalg.norm(spaces[row]) for row in present]
    values = np.eye(len(unit))
    for first, second in combinations(range(len(unit)), 2):
        norm = np.linalg.svd(unit[first].T @ unit[second], compute_uv=False).sum()
        values[first, second] = values[second, first] = norm
    return _filled(spaces, values, np.array(present))


OTHERS: dict[str, Callable[[list[np.ndarray | None]], np.ndarray]] = {
    "debiased CKA": debiased_cka,
    "mutual neighbors": mutual_neighbors,
    "Procrustes": procrustes,
}


def _best_matches(universe: Universe, values: np.ndarray) -> dict[tuple[str, str], float]:
    """Return the best match of every pair of models, the mean of both directions."""
    models = [model for model in universe.rows if model in universe.facts]
    directed = np.array(
        [[best_match(values[np.ix_(universe.rows[a], universe.rows[b])]) for b in models] for a in models]
    )
    similarity = symmetrized(directed)
    return {(a, b): float(similarity[i, j]) for (i, a), (j, b) in combinations(enumerate(models), 2)}


def _cosines(universe: Universe) -> dict[tuple[str, str], float]:
    """Return the median cosine of matched tensors of pairs of one architecture."""
    weights = {}
    for model in universe.facts:
        path = universe.folder / f"{model}.safetensors"
        if path.exists():
            weights[model] = {name: values for name, values in load_file(path).items() if values.ndim > 1}
    found = {}
    for first, second in combinations(sorted(weights), 2):
        shapes = [{name: values.shape for name, values in weights[model].items()} for model in (first, second)]
        pairs = [(weights[first][a], weights[second][b]) for a, b in matched_tensors(*shapes)]
        agreement = weight_agreement(pairs, min(map(len, shapes)))
        found[first, second] = agreement.cosine if agreement.says_something else np.nan
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--zoos", type=int, default=60, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--others", action="store_true", help="compare other measures and weights, too")
    parser.add_argument("--only-others", action="store_true", help="nothing but that")
    options = parser.parse_args()
    folder = options.folder.absolute()
    universes = [open_universe(folder, name) for name in NAMES]
    if options.only_others:
        print("\n".join(beside_others(folder, options)))  # noqa: T201
        return
    for table in (false_alarms, found, calibration, levels):
        print("\n".join(table(universes, options)), "\n", flush=True)  # noqa: T201
    print("\n".join(directions(universes)), "\n", flush=True)  # noqa: T201
    zoo = draw_zoo(universes[0], 100, True, np.random.default_rng(0))
    start = time.perf_counter()
    relations = relations_of_atlas(zoo.atlas, {})
    seconds, n_spaces = time.perf_counter() - start, zoo.atlas.sizes["source"]
    print(f"{len(relations):,} pairs of {len(zoo.models)} models, {n_spaces} spaces: {seconds:.2f} s\n")  # noqa: T201
    if options.others:
        print("\n".join(beside_others(folder, options)))  # noqa: T201


if __name__ == "__main__":
    main()
