"""The control of an audit: one space against itself and against noise, through the pipeline as it is now.

It is no plug-in: it needs the store of the run, and it is always enforced, since without it no other number means
anything.
"""

from functools import partial

import numpy as np

from lfm_tasks.checks import Measurement, PublishedAtlas, Skipped
from lfm_tasks.runtime.run import Run
from lfm_tasks.spaces import Space
from lfm_tasks.spectral.bases.automatic import BasisNumbers
from lfm_tasks.spectral.bases.full_map import full_map, overlap
from lfm_tasks.stages.activations.job import read_activations
from lfm_tasks.stages.activations.stage import RecordedSpace
from lfm_tasks.stages.bases.job import compute_basis
from lfm_tasks.stages.bases.stage import basis_job
from lfm_tasks.statistics.permutation_moments import permutation_moments, permutation_profile, upper_tail

# A space with its rows in another order is the same space: what is missing to 1 is rounding.
_SAME = 0.999
# Features drawn at random are as good as permuted rows; rarer than this, they are not.
_CHANCE = 1e-4
_SEED = 0


def control(run: Run, current: PublishedAtlas) -> Measurement | Skipped:
    """Return how a space scores with its rows in another order, and with random features: as itself, and as chance.

    The stored basis of the space may have been computed long ago; that of the reordered rows is computed now.
    """
    if not (current.atlas["n_points"].values > 0).any():
        return Skipped("the atlas has no spaces")
    recorded, numbers = _smallest_space(run, current)
    job = basis_job(run.store, run.catalog.atlas, recorded, numbers)
    with run.store.open("activations", recorded.key) as unit:
        activations, ids = read_activations(unit), unit.read("ids")
    with run.store.open("bases", job.key) as unit:
        stored = unit.read("eigenvectors")
    generator = np.random.default_rng(_SEED)
    order = generator.permutation(len(ids))
    # Joined on ids, as a source is that has them in any order.
    by_id = np.argsort(ids[order], kind="stable")
    rows, noise = activations[order][by_id], generator.standard_normal(activations.shape)
    again, chance = (
        compute_basis(partial(iter, [features]), ids, job.method).eigenvectors for features in (rows, noise)
    )
    itself = float(overlap(full_map(stored, again)))
    random = float(overlap(full_map(stored, chance)))
    moments = permutation_moments(permutation_profile(stored[:, 1:]), permutation_profile(chance[:, 1:]))
    n_modes = stored.shape[1] - 1
    p = upper_tail(moments, random * n_modes)
    message = f"{recorded.space.name} scores {itself:.6f} with itself, {random:.3f} with random features (p {p:.2g})"
    is_broken = itself < _SAME or p < _CHANCE
    if is_broken:
        message += ": the pipeline has changed; compare the versions in summary.json with the baseline's"
    findings = [
        {"pair": "rows in another order", "overlap": round(itself, 6), "p_value": None, "limit": _SAME},
        {"pair": "random features", "overlap": round(random, 4), "p_value": float(f"{p:.3g}"), "limit": _CHANCE},
    ]
    null = {"of": "overlap of permuted rows, exact", "mean": round(moments.mean / n_modes, 4)}
    return Measurement(is_broken, round(itself, 6), _SAME, message, findings, null)


def _smallest_space(run: Run, current: PublishedAtlas) -> tuple[RecordedSpace, BasisNumbers]:
    """Return the space of the atlas with the fewest numbers in it, and those of its basis."""
    sizes = (current.atlas["n_points"] * current.atlas["n_features"]).values
    dataset, row = np.unravel_index(int(np.where(sizes > 0, sizes, np.inf).argmin()), sizes.shape)
    content = str(current.atlas["content"].values[dataset, row])
    receipt = next(r for r in run.store.receipts("activations") if r.facts["content"] == content)
    cell = current.atlas.isel(dataset=dataset, source=row)
    space = Space(str(cell["dataset"].item()), str(cell["source_model"].item()), str(cell["source_layer"].item()))
    numbers = BasisNumbers(*(int(cell[name]) for name in BasisNumbers._fields))
    return RecordedSpace(space, receipt.key, float(cell["source_depth"]), **receipt.facts), numbers
