"""Linear probes of chosen spaces, before and after transfer: a task a target, for the sources that are missing."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from lfm_tasks.runtime.run import Run
from lfm_tasks.spectral.transfer.probe import probe_accuracy, transferred_probe_accuracy
from lfm_tasks.stages.activations.rows import read_rows
from lfm_tasks.stages.bases.stage import BasedSpace
from lfm_tasks.stages.embeddings.points import EmbeddedPoints, read_points
from lfm_tasks.stores.units.digests import digest
from lfm_tasks.stores.units.store import Receipt, UnitStore
from lfm_tasks.workers.pool import Trouble

# Key of the points, which also decide the folds; content of source and target. Equal ones: the target's own probe.
ProbedPair = tuple[str, str, str]


@dataclass(frozen=True)
class ProbeJob:
    """One target, and the sources that are carried into it; content → unit of the activations."""

    store: UnitStore
    key: str
    points: str
    target: str
    sources: tuple[str, ...]
    activations: Mapping[str, str]


def probe_pairs(
    run: Run, wanted: list[tuple[BasedSpace, BasedSpace, EmbeddedPoints]]
) -> tuple[dict[ProbedPair, float], dict[ProbedPair, Trouble]]:
    """Return the accuracy of each (source, target), computed where it is missing, and why some have none."""
    pairs = {probed_pair(source, target, own) for source, target, own in wanted}
    activations = {based.content: based.activations for *both, _ in wanted for based in both}
    known = {pair: where for pair, where in _stored(run.store.receipts("probes")) if pair in pairs}
    jobs = list(_jobs(run.store, sorted(pairs - known.keys()), activations))
    troubles: dict[ProbedPair, Trouble] = {}
    run.announce("probes", 0, len(jobs))
    for done, (number, result) in enumerate(run.workers.run(store_probes, jobs), start=1):
        job = jobs[number]
        if isinstance(result, Trouble):
            troubles |= {(job.points, source, job.target): result for source in job.sources}
        else:
            known |= dict(_stored([run.store.receipt("probes", job.key)]))
        run.announce("probes", done, len(jobs))
    n_new = sum(len(job.sources) for job in jobs) - len(troubles)
    run.tally.count("probes", n_new, len(known) - n_new)
    blocks = {}
    for block in {block for block, _ in known.values()}:
        with run.store.open("probes", block) as unit:
            blocks[block] = unit.read("accuracies")
    return {pair: float(blocks[block][row]) for pair, (block, row) in known.items()}, troubles


def probed_pair(source: BasedSpace, target: BasedSpace, points: EmbeddedPoints) -> ProbedPair:
    """Return how units name a pair."""
    return points.key, source.content, target.content


def store_probes(job: ProbeJob) -> None:
    """Train the probe of a target, test it on its own rows or on those of the sources carried over; commit."""
    points = read_points(job.store, job.points)
    tested = np.flatnonzero(points.folds >= 0)

    def rows_of(content: str) -> tuple[np.ndarray, np.ndarray]:
        with job.store.open("activations", job.activations[content]) as unit:
            ids = unit.read("ids")
            _, here, there = np.intersect1d(ids, points.ids[tested], assume_unique=True, return_indices=True)
            return read_rows(unit, here), tested[there]

    target, target_points = rows_of(job.target)
    accuracies = []
    for content in job.sources:
        if content == job.target:
            accuracies.append(probe_accuracy(target, points.labels[target_points], points.folds[target_points]))
            continue
        source, source_points = rows_of(content)
        common, ours, theirs = np.intersect1d(source_points, target_points, return_indices=True)
        classes, folds = points.labels[common], points.folds[common]
        accuracies.append(transferred_probe_accuracy(source[ours], target[theirs], classes, folds))
    with job.store.commit("probes", job.key) as unit_writer:
        unit_writer.arrays.write("accuracies", np.array(accuracies))
        unit_writer.facts |= {"points": job.points, "target": job.target, "sources": list(job.sources)}


def _jobs(store: UnitStore, missing: list[ProbedPair], activations: Mapping[str, str]) -> Iterator[ProbeJob]:
    by_target: dict[tuple[str, str], list[str]] = {}
    for points, source, target in missing:
        by_target.setdefault((points, target), []).append(source)
    for (points, target), sources in sorted(by_target.items()):
        key = digest({"kind": "probes", "points": points, "target": target, "sources": sources})
        own = {content: activations[content] for content in (target, *sources)}
        yield ProbeJob(store, key, points, target, tuple(sources), own)


def _stored(receipts: Iterable[Receipt]) -> Iterator[tuple[ProbedPair, tuple[str, int]]]:
    for receipt in receipts:
        for row, source in enumerate(receipt.facts["sources"]):
            yield (receipt.facts["points"], source, receipt.facts["target"]), (receipt.key, row)
