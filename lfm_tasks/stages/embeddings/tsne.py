"""Pictures of chosen spaces: the t-SNE of each, a task a space."""

from dataclasses import dataclass
from importlib.metadata import version

import numpy as np

from lfm_tasks.config import EmbeddingsConfig
from lfm_tasks.runtime.run import Run
from lfm_tasks.spectral.neighbors.metric import Metric
from lfm_tasks.spectral.transfer.tsne import tsne
from lfm_tasks.stages.activations.rows import read_rows
from lfm_tasks.stages.bases.stage import BasedSpace
from lfm_tasks.stages.embeddings.points import EmbeddedPoints, read_points
from lfm_tasks.stores.units.digests import digest
from lfm_tasks.stores.units.store import UnitStore
from lfm_tasks.workers.pool import Trouble


@dataclass(frozen=True)
class PictureJob:
    """One space to draw, on the points of its dataset."""

    store: UnitStore
    key: str
    activations: str
    points: str
    metric: Metric
    settings: EmbeddingsConfig


def draw_spaces(
    run: Run, settings: EmbeddingsConfig, wanted: list[tuple[BasedSpace, EmbeddedPoints]]
) -> tuple[list[str], dict[str, Trouble]]:
    """Return the key of each picture, and why some could not be made; spaces of the same content share one."""
    metric = run.catalog.atlas.graph.metric
    planned = [
        PictureJob(run.store, _key(based, points, metric, settings), based.activations, points.key, metric, settings)
        for based, points in wanted
    ]
    jobs = list({job.key: job for job in planned if run.store.find("embeddings", job.key) is None}.values())
    troubles = {}
    run.announce("embeddings", 0, len(jobs))
    for done, (number, result) in enumerate(run.workers.run(store_picture, jobs), start=1):
        if isinstance(result, Trouble):
            troubles[jobs[number].key] = result
        run.announce("embeddings", done, len(jobs))
    run.tally.count("embeddings", len(jobs) - len(troubles), len({job.key for job in planned}) - len(jobs))
    return [job.key for job in planned], troubles


def store_picture(job: PictureJob) -> None:
    """Read the points of a space, draw them, commit the drawing."""
    points = read_points(job.store, job.points)
    with job.store.open("activations", job.activations) as unit:
        common, here, _ = np.intersect1d(unit.read("ids"), points.ids, assume_unique=True, return_indices=True)
        rows = read_rows(unit, here)
    drawn = tsne(rows, perplexity=job.settings.perplexity, seed=job.settings.seed, metric=job.metric)
    with job.store.commit("embeddings", job.key) as unit_writer:
        unit_writer.arrays.write("coordinates", drawn)
        unit_writer.arrays.write("ids", common)


def _key(based: BasedSpace, points: EmbeddedPoints, metric: str, settings: EmbeddingsConfig) -> str:
    return digest(
        {
            "kind": "embeddings",
            "content": based.content,
            "points": points.ids_key,
            "metric": metric,
            "perplexity": settings.perplexity,
            "seed": settings.seed,
            "version": version("scikit-learn"),
        }
    )
