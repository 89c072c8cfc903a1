"""The control pair: one recorded space against itself and against chance, to see whether the pipeline itself drifts."""

from dataclasses import dataclass

import numpy as np

from lfm_tasks.audit.check import Check, Measured, judged
from lfm_tasks.audit.published import Published
from lfm_tasks.runtime.run import Run
from lfm_tasks.spaces import Space
from lfm_tasks.spectral.bases.full_map import full_map
from lfm_tasks.spectral.bases.map_scores import overlap
from lfm_tasks.stages.activations.rows import read_activations
from lfm_tasks.stages.activations.stage import RecordedSpace
from lfm_tasks.stages.bases.compute import find_basis
from lfm_tasks.stages.bases.stage import basis_job
from lfm_tasks.statistics.permutation_moments import permutation_moments, permutation_profile, upper_tail

# A space with its rows in another order is the same space: what is missing to 1 is rounding.
_SAME = 0.999
# Features drawn at random are as good as permuted rows; rarer than this, they are not.
_CHANCE = 1e-4
_SEED = 0


@dataclass(frozen=True)
class ControlLimit:
    """The control is always enforced: without it no other number means anything."""

    enforced: bool = True


def control(run: Run, now: Published) -> Check:
    """Return whether a space scores as itself with its rows in another order, and random features score as chance.

    The basis that the space has in the store may have been made long ago; the one of the reordered rows is made now.
    """
    recorded = _smallest(run, now)
    job = basis_job(run.store, run.catalog.atlas, recorded)
    with run.store.open("activations", recorded.key) as unit:
        activations, ids = read_activations(unit), unit.read("ids")
    with run.store.open("bases", job.key) as unit:
        stored = unit.read("eigenvectors")
    generator = np.random.default_rng(_SEED)
    order = generator.permutation(len(ids))
    # Joined on ids, as a source is that has them in any order.
    by_id = np.argsort(ids[order], kind="stable")
    rows, noise = activations[order][by_id], generator.standard_normal(activations.shape)
    again, chance = (find_basis(lambda: iter([own]), ids, job.way).eigenvectors for own in (rows, noise))  # noqa: B023
    itself = float(overlap(full_map(stored, again)))
    random = float(overlap(full_map(stored, chance)))
    moments = permutation_moments(permutation_profile(stored[:, 1:]), permutation_profile(chance[:, 1:]))
    n_modes = stored.shape[1] - 1
    p = upper_tail(moments, random * n_modes)
    message = f"{recorded.space.name} scores {itself:.6f} with itself, {random:.3f} with random features (p {p:.2g})"
    is_broken = itself < _SAME or p < _CHANCE
    if is_broken:
        message += ": the pipeline has changed; compare the versions in summary.json with the baseline's"
    found = [
        {"pair": "rows in another order", "overlap": round(itself, 6), "p_value": None, "limit": _SAME},
        {"pair": "random features", "overlap": round(random, 4), "p_value": float(f"{p:.3g}"), "limit": _CHANCE},
    ]
    null = {"of": "overlap of permuted rows, exact", "mean": round(moments.mean / n_modes, 4)}
    return judged("control", ControlLimit(), is_broken, Measured(round(itself, 6), _SAME, message, found, null))


def _smallest(run: Run, now: Published) -> RecordedSpace:
    """Return the space of the atlas with the fewest numbers in it."""
    sizes = (now.atlas["n_points"] * now.atlas["n_features"]).values
    dataset, row = np.unravel_index(int(np.where(sizes > 0, sizes, np.inf).argmin()), sizes.shape)
    content = str(now.atlas["content"].values[dataset, row])
    receipt = next(r for r in run.store.receipts("activations") if r.facts["content"] == content)
    cell = now.atlas.isel(dataset=dataset, source=row)
    space = Space(str(cell["dataset"].item()), str(cell["source_model"].item()), str(cell["source_layer"].item()))
    return RecordedSpace(space, receipt.key, float(cell["source_depth"]), **receipt.facts)
