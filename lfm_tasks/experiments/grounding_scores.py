"""Similarities of networks by every measure, by last layers, by all layers of the same number, by fused layers.

The atlas computes what it has measures for; from its bases follow candidates for a score of our own.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from jaxtyping import Float

from lfm_tasks.catalog import Comparison
from lfm_tasks.experiments.grounding_truth import KnownDataset, groundings_of
from lfm_tasks.experiments.source_zoo import (
    DerivedModel,
    DerivedZoo,
    SourceZoo,
    SpaceRows,
    read_space_rows,
    scores_only,
    write_catalog,
    write_zoo,
)
from lfm_tasks.measures.diffusion import centered_distances, centered_products, fused_operator
from lfm_tasks.spectral.bases.diffusion_overlap import diffusion_overlap
from lfm_tasks.spectral.bases.full_map import full_map
from lfm_tasks.spectral.bases.space import spectral_space
from lfm_tasks.stages.inventory.requests import known_measures
from lfm_tasks.stores.atlas.files import open_scores

Matrix = Float[np.ndarray, "rows columns"]
# How the layers of two networks become one number.
LAST, ALIGNED, FUSED = "last", "aligned", "fused"
# Steps of a walk on the graph of each space, for the candidates.
STEPS = (1, 2, 8, 32)
# What our own score may be the mean of, fixed beforehand: a name in the table, and the measure that the atlas has.
_PARTS: Mapping[str, str] = {
    "diffusion overlap": "",
    "mutual neighbors": "mutual_knn_10_cosine",
    "debiased radial CKA": "cka_rbf_debiased",
    "rotation": "procrustes_centered_unit_norm",
}
# Fused operators, and the measure of single layers that goes with each.
_FUSED = {
    ("multiscale_cka", 1): "cka_linear",
    ("multiscale_cka", 2): "multiscale_cka_t_2",
    ("multiscale_distance_correlation", 1): "distance_correlation",
    ("multiscale_distance_correlation", 2): "multiscale_distance_correlation_t_2",
}
OURS = "ours: "


@dataclass(frozen=True)
class Entry:
    """A competitor: a score, and how the layers of two networks become one number."""

    score: str
    way: str

    @property
    def is_ours(self) -> bool:
        """Whether it is a candidate for the score of our own."""
        return self.score.startswith(OURS)

    def __str__(self) -> str:
        """Return both in words."""
        return f"{self.score}, {self.way}"


@dataclass(frozen=True)
class Scored:
    """Similarities of the networks of one dataset: high is alike, the same both ways; NaN where there is none.

    Parameters
    ----------
    layers
        Of all spaces, by score.
    rows
        The spaces of each network, first layer first.
    networks
        Of all networks, by entry.
    seconds
        Processor time of a fused operator and of a pair of them, by score.
    """

    layers: Mapping[str, Matrix]
    rows: tuple[tuple[int, ...], ...]
    networks: Mapping[Entry, Matrix]
    seconds: Mapping[str, tuple[float, float]]

    def layer_score(self, entry: Entry) -> str:
        """Return the score of single layers that an entry has for what networks cannot be asked."""
        if entry.way != FUSED:
            return entry.score
        name, _, power = entry.score.rpartition("_t_")
        return _FUSED[name, int(power)]


def write_known_zoo(source: SourceZoo, part: KnownDataset, folder: Path) -> Path:
    """Write the networks of a dataset, to be compared where a grounding asks for it; return the catalog."""
    models, ids = {}, set[str]()
    for place, network in enumerate(part.networks):
        rows = [read_space_rows(source.run.store, one.key) for one in network.spaces]
        models[_model(place)] = DerivedModel({f"l{depth:02}": own for depth, own in enumerate(rows)})
        ids.update(map(str, np.concatenate([own.ids for own in rows])))
    zoo = DerivedZoo(models, np.array(sorted(ids)), None, dict(_comparisons(part)))
    atlas = scores_only(source, measures=tuple(known_measures()))
    return write_catalog(zoo, write_zoo(zoo, folder), atlas, folder / "data_catalog.yaml")


def _model(place: int) -> str:
    return f"n{place:04}"


def _comparisons(part: KnownDataset) -> Iterator[tuple[str, Comparison]]:
    """Yield the pairs to compare: layers of the same number within each grounding; all layers where layers count."""
    for grounding in groundings_of([part]):
        members = part.with_grounding(grounding)
        if not members:
            continue
        if grounding == "layer_matching":
            names = tuple(map(_model, members))
            yield "layers", Comparison(sources=names, targets=names)
            continue
        if grounding == "layer_order":
            for place in members:
                yield f"layers-{place}", Comparison(sources=(_model(place),), targets=(_model(place),))
            continue
        depths = range(len(part.networks[0].spaces)) if part.has_one_depth else (-1,)
        for depth in depths:
            own = [range(len(part.networks[place].spaces))[depth] for place in members]
            spaces = tuple(f"{_model(place)}/l{layer:02}" for place, layer in zip(members, own, strict=True))
            yield f"{grounding}-{depth}", Comparison(sources=spaces, targets=spaces)


def score_networks(source: SourceZoo, part: KnownDataset, catalog: Path) -> Scored:
    """Return the similarities of the networks of a dataset from its atlas, its rows and its bases."""
    names = [f"{_model(p)}/l{depth:02}" for p, one in enumerate(part.networks) for depth in range(len(one.spaces))]
    with open_scores(catalog.parent / "atlas") as atlas:
        distances = set(atlas.attrs["distances"])
        values = atlas["score"].sel(source=names, target=names).load().values[0]
        measures = [str(name) for name in atlas["measure"].values]
    layers = {
        name: (-of_measure if name in distances else of_measure)
        for name, of_measure in zip(measures, values.astype(np.float64), strict=True)
    }
    layers = {name: (of_measure + of_measure.T) / 2 for name, of_measure in layers.items()}
    spaces = [[read_space_rows(source.run.store, one.key) for one in network.spaces] for network in part.networks]
    layers |= _candidates(source, layers, [rows for of_network in spaces for rows in of_network])
    counts = np.cumsum([0, *(len(network.spaces) for network in part.networks)])
    rows = tuple(tuple(range(start, end)) for start, end in zip(counts[:-1].tolist(), counts[1:].tolist(), strict=True))
    networks = dict(_of_networks(layers, rows, is_aligned=part.has_one_depth))
    fused, seconds = _fused(spaces)
    return Scored(layers, rows, networks | fused, seconds)


def _of_networks(
    layers: Mapping[str, Matrix], rows: tuple[tuple[int, ...], ...], *, is_aligned: bool
) -> Iterator[tuple[Entry, Matrix]]:
    last = [own[-1] for own in rows]
    for name, values in layers.items():
        yield Entry(name, LAST), values[np.ix_(last, last)]
        if is_aligned:
            by_depth = [values[np.ix_(own, own)] for own in zip(*rows, strict=True)]
            yield Entry(name, ALIGNED), np.mean(by_depth, axis=0)


def _candidates(source: SourceZoo, layers: Mapping[str, Matrix], spaces: Sequence[SpaceRows]) -> dict[str, Matrix]:
    """Return the candidates for a score of our own, of all spaces."""
    walks = _diffusion_overlaps(source, spaces)
    parts = {"diffusion overlap": walks[8]}
    for name, measure in _PARTS.items():
        if measure == "procrustes_centered_unit_norm":
            parts[name] = 1 - np.square(layers[measure]) / 2
        elif measure:
            parts[name] = layers[measure]
    found = {
        f"{OURS}{' + '.join(chosen)}": np.mean([parts[name] for name in chosen], axis=0)
        for size in range(1, len(parts) + 1)
        for chosen in combinations(parts, size)
    }
    for steps, values in walks.items():
        if steps != 8:
            found[f"{OURS}diffusion overlap, {steps} step{'s' * (steps > 1)}"] = values
    found[f"{OURS}diffusion overlap, all scales"] = np.mean(list(walks.values()), axis=0)
    return found


def parts_of(score: str) -> list[str]:
    """Return the measures that a candidate is computed from: ``overlap`` for what needs bases."""
    names = score.removeprefix(OURS).split(", ")[0].split(" + ")
    return [_PARTS[name] or "overlap" for name in names]


def _diffusion_overlaps(source: SourceZoo, spaces: Sequence[SpaceRows]) -> dict[int, Matrix]:
    """Return diffusion overlap of all spaces after each number of steps; NaN where a space has no basis."""
    graph, atlas = source.catalog.atlas.graph, source.catalog.atlas
    bases = []
    for rows in spaces:
        numbers = atlas.numbers(len(rows.ids))
        try:
            space = spectral_space(
                rows.activations, **numbers._asdict(), metric=graph.metric, kernel=graph.kernel, center=graph.center
            )
        except ValueError:  # the atlas says what is wrong with it
            bases.append(None)
        else:
            bases.append(space.basis)
    found = {steps: np.full((len(spaces),) * 2, np.nan) for steps in STEPS}
    for first, source_basis in enumerate(bases):
        for second in range(first, len(bases)):
            target_basis = bases[second]
            if source_basis is None or target_basis is None:
                continue
            if not np.array_equal(spaces[first].ids, spaces[second].ids):
                continue
            functional_map = full_map(source_basis.eigenvectors, target_basis.eigenvectors)
            for steps, values in found.items():
                value = diffusion_overlap(functional_map, source_basis.eigenvalues, target_basis.eigenvalues, steps)
                values[first, second] = values[second, first] = float(value)
    return found


def _fused(spaces: Sequence[Sequence[SpaceRows]]) -> tuple[dict[Entry, Matrix], dict[str, tuple[float, float]]]:
    """Return similarities of networks by fused operators, and the processor time of an operator and of a pair."""
    found: dict[Entry, Matrix] = {}
    seconds: dict[str, tuple[float, float]] = {}
    is_alike = all(np.array_equal(rows.ids, spaces[0][0].ids) for own in spaces for rows in own)
    for name, power in _FUSED:
        matrix_of = centered_products if name == "multiscale_cka" else centered_distances
        score = f"{name}_t_{power}"
        if not is_alike:
            found[Entry(score, FUSED)] = np.full((len(spaces),) * 2, np.nan)
            continue
        start = time.process_time()
        operators = [
            fused_operator([rows.activations for rows in own], matrix_of, power=power).astype(np.float32).ravel()
            for own in spaces
        ]
        ready = time.process_time()
        found[Entry(score, FUSED)] = np.array(
            [[float(np.vdot(one, other)) for other in operators] for one in operators]
        )
        n = len(spaces)
        seconds[score] = ((ready - start) / n, (time.process_time() - ready) / n**2)
    return found, seconds
