"""Robustness: perturb spaces, one class moved away or one point put far out, and score them by every measure.

A moved class stays linearly separable. `robustness_analysis` reads the atlases of the perturbed spaces.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from lfm_tasks.catalog import Comparison
from lfm_tasks.config import EmbeddingsConfig, GraphConfig, NullConfig
from lfm_tasks.experiments.results import ExperimentResult
from lfm_tasks.experiments.robustness_analysis import AS_MANY, SAME_SHARE, PerturbedSpace, robustness_result
from lfm_tasks.experiments.source_zoo import (
    DerivedModel,
    DerivedZoo,
    SourceZoo,
    SpaceRows,
    labeled_rows,
    scores_only,
    write_catalog,
    write_zoo,
)
from lfm_tasks.spectral.transfer.evaluation import (
    class_normal,
    is_separable,
    mean_radius,
    move_class,
    move_point,
    probe_accuracy,
    stratified_folds,
)
from lfm_tasks.stages.inventory.requests import known_measures

NAME, TITLE = "robustness", "Robustness"
SEED = 0
MOST_NETWORKS, MOST_CLASSES, N_OUTLIERS = 3, 3, 3
# In mean radii: mean distances of the points from their mean.
SHIFTS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
PICTURED = 2.0
RADII = (50.0, 100.0, 150.0, 200.0)
# The graph of the paper's figure weights far neighbors up: 300 of 10,000 points, the point itself among them.
PAPER_NEIGHBORS, PAPER_POINTS = 299, 10_000
PAPER_MEASURES = ("lfm_unsquared", "lfm_raw", "lfm", "overlap")
# Distances have no common scale but chance, which so many permutations estimate.
N_PERMUTATIONS = 10


@dataclass(frozen=True)
class Subject:
    """A network's last hidden layer, and the class of each of its points."""

    network: str
    rows: SpaceRows
    classes: np.ndarray

    def inside(self, index: int) -> Bool[np.ndarray, " points"]:
        """Return which points are of the class with this index."""
        return np.asarray(self.classes == index)


def prepare(source: SourceZoo, folder: Path) -> tuple[Path, ...]:
    """Write the perturbed spaces of some networks; every measure compares them with the original."""
    subjects = _subjects(source)
    layer = source.last_hidden(source.networks())
    models, comparisons = {}, {}
    for subject in subjects:
        perturbed = {space.name: rows for space, rows in _perturbed_rows(source, subject)}
        models[subject.network] = DerivedModel({layer: subject.rows})
        models |= {name: DerivedModel({layer: SpaceRows(subject.rows.ids, rows)}) for name, rows in perturbed.items()}
        comparisons[subject.network] = Comparison(sources=(subject.network,), targets=tuple(perturbed))
    labels = source.classes(source.networks().dataset)
    first = subjects[0]
    zoo = DerivedZoo(models, first.rows.ids, labels.names[labels.of(first.rows.ids)], comparisons)
    written = write_zoo(zoo, folder)
    pictured = (first.network, _name(first.network, _classes(source)[0], PICTURED))
    n_points = len(first.rows.ids)
    paper = GraphConfig(kernel="distance", center=False)
    as_many = paper.model_copy(update={"n_neighbors": min(PAPER_NEIGHBORS, n_points // 2)})
    share = round(n_points * PAPER_NEIGHBORS / PAPER_POINTS)
    same_share = paper.model_copy(update={"n_neighbors": max(5, share)})
    settings = {
        "similarities": {
            "measures": tuple(name for name, facts in known_measures().items() if not facts.is_distance),
            "keep_maps": "best",
            "embeddings": EmbeddingsConfig(spaces=pictured, seed=SEED),
        },
        "distances": {
            "measures": tuple(name for name, facts in known_measures().items() if facts.is_distance),
            "null": NullConfig(n_permutations=N_PERMUTATIONS, seed=SEED),
        },
        AS_MANY: {"measures": PAPER_MEASURES, "graph": as_many},
        SAME_SHARE: {"measures": PAPER_MEASURES, "graph": same_share},
    }
    return tuple(
        write_catalog(zoo, written, scores_only(source, path=f"atlas-{name}", **changes), folder / f"{name}.yaml")
        for name, changes in settings.items()
    )


def analyze(source: SourceZoo, catalogs: tuple[Path, ...]) -> ExperimentResult:
    """Return how every measure, a linear probe and the distortions react to the perturbations."""
    perturbed = [one for subject in _subjects(source) for one in _perturbed_spaces(source, subject)]
    settings = {
        "networks": sorted({one.network for one in perturbed}),
        "layer": source.last_hidden(source.networks()),
        "classes": sorted({one.label for one in perturbed if one.label}),
        "shifts, in mean radii": list(SHIFTS),
        "outliers, in mean radii": list(RADII),
        "outliers a network": N_OUTLIERS,
        "graph": source.catalog.atlas.graph.model_dump(),
        **source.numbers(source.networks().dataset)._asdict(),
        "paper's graph": f"kernel distance, angles from the origin, {PAPER_NEIGHBORS} neighbors (at most half of the "
        f"points), and as large a share of the points as these are of {PAPER_POINTS:,}, which was added after the "
        "first had been seen",
        "permutations for distances": N_PERMUTATIONS,
        "seed": SEED,
    }
    folders = {path.stem: path.with_name(f"atlas-{path.stem}") for path in catalogs}
    pictured = _name(perturbed[0].network, _classes(source)[0], PICTURED)
    return robustness_result((NAME, TITLE), settings, perturbed, folders, pictured)


def _subjects(source: SourceZoo) -> list[Subject]:
    networks = source.networks()
    labels = source.classes(networks.dataset)
    layer = source.last_hidden(networks)
    subjects = []
    for model in networks.models[:MOST_NETWORKS]:
        rows, classes = labeled_rows(source.read(model, layer), labels)
        subjects.append(Subject(model, rows, classes))
    return subjects


def _classes(source: SourceZoo) -> list[int]:
    """Return the indices of the classes that are moved: spread evenly over all."""
    n_classes = len(source.classes(source.networks().dataset).names)
    return sorted({int(index) for index in np.linspace(0, n_classes - 1, min(MOST_CLASSES, n_classes))})


def _name(network: str, class_index: int, shift: float) -> str:
    return f"{network}.class{class_index}.moved{shift:.2f}"


def _perturbed_rows(
    source: SourceZoo, subject: Subject
) -> Iterator[tuple[PerturbedSpace, Float[np.ndarray, "points features"]]]:
    """Yield every perturbation of a subject's space and the rows after it."""
    rows, names = subject.rows.activations, source.classes(source.networks().dataset).names
    radius = mean_radius(rows)
    for index in _classes(source):
        inside = subject.inside(index)
        normal = class_normal(rows, inside)
        for shift in SHIFTS:
            name = _name(subject.network, index, shift)
            space = PerturbedSpace(name, subject.network, shift, label=str(names[index]))
            yield space, move_class(rows, inside, normal, shift * radius)
    for place, point in enumerate(np.random.default_rng(SEED).choice(len(rows), N_OUTLIERS, replace=False)):
        for radii in RADII:
            name = f"{subject.network}.point{place}.at{radii:.0f}"
            yield (
                PerturbedSpace(name, subject.network, radii, point=f"point {place}"),
                move_point(rows, int(point), radii),
            )


def _perturbed_spaces(source: SourceZoo, subject: Subject) -> Iterator[PerturbedSpace]:
    """Yield every perturbed space, the original first for each class, with its probe accuracy and separability."""
    rows = subject.rows.activations
    names = source.classes(source.networks().dataset).names
    folds = stratified_folds(subject.classes, seed=SEED)
    members = {str(names[index]): subject.inside(index) for index in _classes(source)}
    normals = {label: class_normal(rows, inside) for label, inside in members.items()}
    originals = [(PerturbedSpace(subject.network, subject.network, 0.0, label=label), rows) for label in members]
    for space, derived in chain(originals, _perturbed_rows(source, subject)):
        if not space.label:
            yield space
            continue
        inside = members[space.label]
        yield replace(
            space,
            probe_accuracy=probe_accuracy(derived, subject.classes, folds),
            is_separable=is_separable(derived, inside, normals[space.label]),
            inside=_inside(subject, inside),
        )


def _inside(subject: Subject, inside: Bool[np.ndarray, " points"]) -> Mapping[str, bool]:
    """Return for each id whether its point is in the class."""
    return dict(zip(subject.rows.ids.tolist(), inside.tolist(), strict=True))
