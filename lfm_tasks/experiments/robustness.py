"""Robustness: one class moved away with its linear separability kept, one point put far out, by every measure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from lfm_tasks.catalog import Comparison
from lfm_tasks.config import EmbeddingsConfig, GraphConfig, NullConfig
from lfm_tasks.experiments.results import ExperimentResult
from lfm_tasks.experiments.robustness_tables import AS_MANY, SAME_SHARE, PerturbedRows, robustness_result
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
from lfm_tasks.stages.inventory.requests import CONVENTIONS, DISTANCES

NAME, TITLE = "robustness", "Robustness"
SEED = 0
MOST_NETWORKS, MOST_CLASSES, N_OUTLIERS = 3, 3, 3
# In mean radii: mean distances of the points from their mean.
SHIFTS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
PICTURED = 2.0
RADII = (50.0, 100.0, 150.0, 200.0)
# The paper's figure: far neighbors weighted up, 300 of them, the point itself among these, of 10,000 points.
PAPER_NEIGHBORS, PAPER_POINTS = 299, 10_000
PAPER_MEASURES = ("lfm_unsquared", "lfm_raw", "lfm", "overlap")
# Distances have no common scale but chance: so many permutations tell it.
N_PERMUTATIONS = 10


@dataclass(frozen=True)
class Subject:
    """A network's last hidden layer, and the class of each of its points."""

    network: str
    rows: SpaceRows
    classes: np.ndarray

    def inside(self, number: int) -> Bool[np.ndarray, " points"]:
        """Return which points are of a class."""
        return np.asarray(self.classes == number)


def prepare(given: SourceZoo, folder: Path) -> tuple[Path, ...]:
    """Write the moved spaces of some networks, to be compared with the original by every measure."""
    subjects = _subjects(given)
    layer = given.last_hidden(given.networks())
    models, comparisons = {}, {}
    for subject in subjects:
        own = {name: rows for name, _, rows in _moved_rows(given, subject)}
        models[subject.network] = DerivedModel({layer: subject.rows})
        models |= {name: DerivedModel({layer: SpaceRows(subject.rows.ids, rows)}) for name, rows in own.items()}
        comparisons[subject.network] = Comparison(sources=(subject.network,), targets=tuple(own))
    labels = given.classes(given.networks().dataset)
    first = subjects[0]
    zoo = DerivedZoo(models, first.rows.ids, labels.names[labels.of(first.rows.ids)], comparisons)
    written = write_zoo(zoo, folder)
    pictured = (first.network, _name(first.network, _classes(given)[0], PICTURED))
    n_points = len(first.rows.ids)
    as_many = GraphConfig(kernel="distance", n_neighbors=min(PAPER_NEIGHBORS, n_points // 2))
    same_share = GraphConfig(kernel="distance", n_neighbors=max(5, round(n_points * PAPER_NEIGHBORS / PAPER_POINTS)))
    settings = {
        "similarities": {
            "measures": tuple(name for name in CONVENTIONS if name not in DISTANCES),
            "keep_maps": "best",
            "embeddings": EmbeddingsConfig(spaces=pictured, seed=SEED),
        },
        "distances": {
            "measures": tuple(name for name in CONVENTIONS if name in DISTANCES),
            "null": NullConfig(n_permutations=N_PERMUTATIONS, seed=SEED),
        },
        AS_MANY: {"measures": PAPER_MEASURES, "graph": as_many},
        SAME_SHARE: {"measures": PAPER_MEASURES, "graph": same_share},
    }
    return tuple(
        write_catalog(zoo, written, scores_only(given, path=f"atlas-{name}", **changes), folder / f"{name}.yaml")
        for name, changes in settings.items()
    )


def analyze(given: SourceZoo, catalogs: tuple[Path, ...]) -> ExperimentResult:
    """Return what every measure, a linear probe, and the distortions make of the moved spaces."""
    moved = [one for subject in _subjects(given) for one in _checked(given, subject)]
    settings = {
        "networks": sorted({one.network for one in moved}),
        "layer": given.last_hidden(given.networks()),
        "classes": sorted({one.label for one in moved if one.label}),
        "shifts, in mean radii": list(SHIFTS),
        "outliers, in mean radii": list(RADII),
        "outliers a network": N_OUTLIERS,
        "graph": given.catalog.atlas.graph.model_dump(),
        "n_eigenpairs": given.catalog.atlas.n_eigenpairs,
        "paper's graph": f"kernel distance, {PAPER_NEIGHBORS} neighbors (at most half of the points), and as large a "
        f"share of the points as these are of {PAPER_POINTS:,}, which was added after the first had been seen",
        "permutations for distances": N_PERMUTATIONS,
        "seed": SEED,
    }
    folders = {path.stem: path.with_name(f"atlas-{path.stem}") for path in catalogs}
    pictured = _name(moved[0].network, _classes(given)[0], PICTURED)
    return robustness_result((NAME, TITLE), settings, moved, folders, pictured)


def _subjects(given: SourceZoo) -> list[Subject]:
    networks = given.networks()
    labels = given.classes(networks.dataset)
    layer = given.last_hidden(networks)
    subjects = []
    for model in networks.models[:MOST_NETWORKS]:
        rows, classes = labeled_rows(given.read(model, layer), labels)
        subjects.append(Subject(model, rows, classes))
    return subjects


def _classes(given: SourceZoo) -> list[int]:
    """Return the numbers of the classes that are moved: spread evenly over all."""
    n_classes = len(given.classes(given.networks().dataset).names)
    return sorted({int(number) for number in np.linspace(0, n_classes - 1, min(MOST_CLASSES, n_classes))})


def _name(network: str, number: int, shift: float) -> str:
    return f"{network}.class{number}.moved{shift:.2f}"


def _moved_rows(
    given: SourceZoo, subject: Subject
) -> Iterator[tuple[str, PerturbedRows, Float[np.ndarray, "points features"]]]:
    """Yield (name, what was done, rows) of every space that is made of a subject's."""
    rows, names = subject.rows.activations, given.classes(given.networks().dataset).names
    radius = mean_radius(rows)
    for number in _classes(given):
        inside = subject.inside(number)
        normal = class_normal(rows, inside)
        for shift in SHIFTS:
            moved = PerturbedRows(subject.network, str(names[number]), shift)
            yield _name(subject.network, number, shift), moved, move_class(rows, inside, normal, shift * radius)
    for place, point in enumerate(np.random.default_rng(SEED).choice(len(rows), N_OUTLIERS, replace=False)):
        for radii in RADII:
            name = f"{subject.network}.point{place}.at{radii:.0f}"
            yield (
                name,
                PerturbedRows(subject.network, "", radii, unit=f"point {place}"),
                move_point(rows, int(point), radii),
            )


def _checked(given: SourceZoo, subject: Subject) -> Iterator[PerturbedRows]:
    """Yield every moved space with what a linear classifier makes of it; the original first for each class."""
    rows = subject.rows.activations
    names = given.classes(given.networks().dataset).names
    folds = stratified_folds(subject.classes, seed=SEED)
    members = {str(names[number]): subject.inside(number) for number in _classes(given)}
    normals = {label: class_normal(rows, inside) for label, inside in members.items()}
    own = probe_accuracy(rows, subject.classes, folds)
    for label, inside in members.items():
        separable = is_separable(rows, inside, normals[label])
        yield PerturbedRows(subject.network, label, 0.0, subject.network, own, separable, _inside(subject, inside))
    for name, moved, derived in _moved_rows(given, subject):
        if not moved.label:
            yield PerturbedRows(moved.network, "", moved.shift, name, unit=moved.unit)
            continue
        inside = members[moved.label]
        accuracy = probe_accuracy(derived, subject.classes, folds)
        separable = is_separable(derived, inside, normals[moved.label])
        yield PerturbedRows(
            moved.network, moved.label, moved.shift, name, accuracy, separable, _inside(subject, inside)
        )


def _inside(subject: Subject, inside: Bool[np.ndarray, " points"]) -> Mapping[str, bool]:
    return dict(zip(subject.rows.ids.tolist(), inside.tolist(), strict=True))
