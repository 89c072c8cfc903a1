"""One block of pairs of spaces of two datasets on a worker: a map in each direction, its scores; no id is looked at."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.config import AtlasConfig
from lfm_tasks.errors import DataError
from lfm_tasks.spectral.bases.full_map import DIAGNOSTICS, MAP_SCORES, commutativity_error, orthogonality_error
from lfm_tasks.spectral.maps.closed_form import DescriptorCoefficients, fit_closed_form, project_descriptors
from lfm_tasks.spectral.maps.descriptors import heat_signatures, label_descriptors, unit_descriptors
from lfm_tasks.stages.inventory.correspondence import Correspondence, read_labels
from lfm_tasks.stages.scores.block import STATISTICS, against_chance
from lfm_tasks.stages.scores.zoomout_maps import LoadedSpace, ScoredMap, ZoomOutScores, load_space
from lfm_tasks.statistics.resampling import Exchange
from lfm_tasks.stores.units.store import Receipt, UnitStore

# Of `STATISTICS`: intervals come from halves by ids, which do not correspond here.
ACROSS_STATISTICS = ("score", "null_mean", "null_q95", "calibrated", "p_value")


class AcrossSettings(NamedTuple):
    """Everything but the two bases that decides scores: the measures, in order, and a digest of all the rest."""

    rest: str
    measures: tuple[str, ...]

    @classmethod
    def of(cls, receipt: Receipt) -> "AcrossSettings":
        """Return the settings of a stored block."""
        rest, measures = receipt.facts["scored_by"]
        return cls(rest, tuple(measures))


@dataclass(frozen=True)
class AcrossJob:
    """Pairs of bases, (source, target), to score together, and the activations of each basis.

    ``labels``: the keys of the stored labels of both datasets, classes numbered alike, or "".
    """

    store: UnitStore
    key: str
    settings: AcrossSettings
    pairs: tuple[tuple[str, str], ...]
    activations: Mapping[str, str]
    atlas: AtlasConfig
    correspondence: Correspondence
    labels: tuple[str, str] = ("", "")


def store_across(job: AcrossJob) -> None:
    """Fit the maps of a block of pairs both ways, score and commit them."""
    spaces = dict(_loaded(job))
    measures = list(job.settings.measures)
    values = np.full((len(job.pairs), 2, len(measures), len(ACROSS_STATISTICS)), np.nan)
    diagnostics = np.full((len(job.pairs), 2, len(DIAGNOSTICS)), np.nan)
    refusals = []
    grown = ZoomOutScores(job.correspondence, job.atlas, spaces)
    for row, (source, target) in enumerate(job.pairs):
        sides = f"source {source}", f"target {target}"
        try:
            for direction, (first, second) in enumerate((sides, sides[::-1])):
                if job.correspondence.uses_zoomout:
                    scored = grown.score(first, second, measures)
                else:
                    scored = _closed_form(job, spaces[first], spaces[second], measures)
                values[row, direction] = scored.values[:, [STATISTICS.index(name) for name in ACROSS_STATISTICS]]
                diagnostics[row, direction] = scored.diagnostics
        except DataError as error:
            values[row], diagnostics[row] = np.nan, np.nan
            refusals.append([row, error.reason, str(error)])
    # Two datasets have no point in common, whatever their ids are called.
    diagnostics[..., list(DIAGNOSTICS).index("points_found")] = np.nan
    with job.store.commit("across_datasets", job.key) as unit_writer:
        unit_writer.arrays.write("values", values)
        unit_writer.arrays.write("diagnostics", diagnostics)
        unit_writer.facts |= {
            "scored_by": list(job.settings),
            "pairs": [list(pair) for pair in job.pairs],
            "refusals": refusals,
        }


def _loaded(job: AcrossJob) -> Iterator[tuple[str, LoadedSpace]]:
    """Yield the spaces by side and key: both datasets may hold the same numbers, with other labels."""
    for side, name in enumerate(("source", "target")):
        labels = read_labels(job.store, job.labels[side])
        for key in sorted({pair[side] for pair in job.pairs}):
            yield f"{name} {key}", load_space(job.store, key, job.activations[key], job.atlas, labels)


def _closed_form(job: AcrossJob, source: LoadedSpace, target: LoadedSpace, measures: list[str]) -> ScoredMap:
    """Return the map in closed form with its scores; chance: classes paired at random."""
    known = _classes(job, source, target)
    first, second = (_described(job, space, known) for space in (source, target))
    mask = job.correspondence.mask
    functional_map = fit_closed_form(first, second, mask=mask)
    drawn = []
    for draw in range(job.atlas.null.n_permutations if len(known) else 0):
        order = np.random.default_rng((job.atlas.null.seed, draw)).permutation(len(known))
        # Several descriptors belong to one class: they stay together.
        columns = np.arange(0, second.coefficients.shape[1], len(known))[:, None] + order
        permuted = DescriptorCoefficients(second.eigenvalues, second.coefficients[:, columns.ravel()])
        drawn.append(fit_closed_form(first, permuted, mask=mask))
    chance = np.array(drawn).reshape(len(drawn), *functional_map.shape)
    values = np.full((len(measures), len(STATISTICS)), np.nan)
    for column, name in enumerate(measures):
        values[column, 0] = MAP_SCORES[name].of_fitted(functional_map)
        if len(chance) and MAP_SCORES[name].has_null:
            of_chance, least_p = MAP_SCORES[name].of_fitted(chance), Exchange(len(known)).least_p
            values[column, 1:5] = against_chance(float(values[column, 0]), of_chance, least_p=least_p)
    diagnostics = np.full(len(DIAGNOSTICS), np.nan)
    diagnostics[0] = orthogonality_error(functional_map)
    diagnostics[1] = commutativity_error(functional_map, first.eigenvalues, second.eigenvalues)
    return ScoredMap(functional_map, values, diagnostics)


def _classes(job: AcrossJob, source: LoadedSpace, target: LoadedSpace) -> Int[np.ndarray, " classes"]:
    """Return the classes of both spaces; none where maps are fitted without."""
    if job.correspondence.regime != "labels":
        return np.empty(0, dtype=np.int32)
    return np.intersect1d(source.classes, target.classes)


def _described(job: AcrossJob, space: LoadedSpace, known: Int[np.ndarray, " classes"]) -> DescriptorCoefficients:
    basis = space.space.basis
    functions: Float[np.ndarray, "points descriptors"]
    if job.correspondence.regime == "labels":
        functions = label_descriptors(space.space.graph, space.classes, classes=known)
    else:
        functions = heat_signatures(basis)
    return project_descriptors(basis, unit_descriptors(basis, functions))
