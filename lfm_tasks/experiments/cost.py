"""Cost: processor time and memory of every measure on the same spaces, in the same process, in turns."""

import time
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lfm_tasks.config import GraphConfig
from lfm_tasks.errors import DataError
from lfm_tasks.experiments.charts import dot_rows
from lfm_tasks.experiments.results import Estimate, ExperimentResult, ResultFigure, ResultTable
from lfm_tasks.experiments.source_zoo import SourceZoo, read_space_rows
from lfm_tasks.measures.registry import MEASURES
from lfm_tasks.spectral.bases.automatic import BasisNumbers
from lfm_tasks.spectral.bases.full_map import MAP_SCORES, MapScore, full_map
from lfm_tasks.spectral.bases.space import spectral_space
from lfm_tasks.stages.scores.row_measures import check_rows
from lfm_tasks.stages.transfers.job import common_points
from lfm_tasks.stores.units.store import UnitStore
from lfm_tasks.workers.pool import JobFailure

NAME, TITLE = "cost", "Cost"
QUESTION = "What does each measure cost: to prepare a space, once, and to compare two of them?"
N_ROUNDS = 3
# The hours that all pairs take on one core are stated for so many spaces.
N_SPACES = 1000
# Ends of the figure's axis, in powers of ten of a second.
_LOW, _HIGH = -6, 2


@dataclass(frozen=True)
class CostJob:
    """Pairs of recorded spaces, by their keys, and how maps are made."""

    store: UnitStore
    pairs: tuple[tuple[str, str], ...]
    graph: GraphConfig
    numbers: BasisNumbers


@dataclass(frozen=True)
class _Steps:
    """The two steps of a measure: ``prepare`` once for a space, ``compare`` once for a pair."""

    prepare: Callable[[np.ndarray], Any]
    compare: Callable[[Any, Any], Any]


def prepare(source: SourceZoo, folder: Path) -> tuple[Path, ...]:
    """Check that there is a network; the experiment times the spaces of the source and derives none."""
    _pairs(source)
    return ()


def analyze(source: SourceZoo, catalogs: tuple[Path, ...]) -> ExperimentResult:
    """Time all measures in one worker; return what each costs."""
    pairs = _pairs(source)
    keys = tuple((source.space(*one).key, source.space(*other).key) for one, other in pairs)
    numbers = source.numbers(source.networks().dataset)
    job = CostJob(source.run.store, keys, source.catalog.atlas.graph, numbers)
    source.run.report_progress("cost", 0, 1)
    ((_, result),) = source.run.workers.run(time_measures, [job])
    source.run.report_progress("cost", 1, 1)
    if isinstance(result, JobFailure):
        raise DataError(result.reason, result.message)
    rows = sorted(result, key=lambda row: (row["hours for all pairs"], row["measure"]))
    settings = {
        "pairs": [[f"{model}/{layer}" for model, layer in pair] for pair in pairs],
        "rounds": N_ROUNDS,
        "threads": 1,
        "graph": source.catalog.atlas.graph.model_dump(),
        **numbers._asdict(),
    }
    notes = [
        f"Processor seconds on one thread, the median of {N_ROUNDS} rounds in which every measure has its turn, after "
        f"one that is not counted; mean over {2 * len(pairs)} spaces and {len(pairs)} pairs. From one machine and run "
        "to the next they differ, unlike all other numbers here.",
        "Memory: the most that numpy held at a time beyond the activations, for the widest pair.",
        f"Hours: {N_SPACES:,} spaces like these, every pair once, on one core. Maps are scored by one matrix product "
        "a pair once the bases are there; measures of all pairs of points hold n² numbers a space.",
    ]
    figure = ResultFigure(
        "seconds",
        "Processor seconds, on a scale of powers of ten. Filled: to compare two spaces; open: to prepare one.",
        dot_rows(
            [
                (row["measure"], (Estimate(_placed(row["compare, s"])), Estimate(_placed(row["prepare, s"]))))
                for row in rows
            ],
            marked=set(MAP_SCORES),
            axis="seconds",
            ticks={_placed(10.0**power): f"1e{power}" for power in range(_LOW, _HIGH + 1, 2)},
            texts={row["measure"]: f"{row['hours for all pairs']:.3g} h" for row in rows},
        ),
    )
    tables = [ResultTable("measures", f"Cost of each measure, cheapest for {N_SPACES:,} spaces first", rows)]
    return ExperimentResult(NAME, TITLE, QUESTION, settings, (), [figure], tables, notes)


def time_measures(job: CostJob) -> list[dict[str, Any]]:
    """Return the costs of each measure that has a value on these spaces, a row each."""
    pairs = [_common(job.store, *pair) for pair in job.pairs]
    measures = {name: steps for name, steps in _measures(job).items() if _applies(name, pairs)}
    widest = max(pairs, key=lambda pair: pair[0].shape[1] + pair[1].shape[1])
    rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in measures}
    memory = {name: _peak(steps, *widest) for name, steps in measures.items()}
    for steps in measures.values():
        _seconds(steps, pairs[:1])
    for _ in range(N_ROUNDS):
        for name, steps in measures.items():
            rounds[name].append(_seconds(steps, pairs))
    rows = []
    for name, seconds in rounds.items():
        of_space, of_pair = np.median(np.array(seconds), axis=0)
        spread = np.ptp(np.array(seconds).sum(axis=1)) / np.array(seconds).sum(axis=1).mean()
        hours = (N_SPACES * of_space + N_SPACES * (N_SPACES - 1) / 2 * of_pair) / 3600
        rows.append(
            {
                "measure": name, "prepare, s": float(of_space), "compare, s": float(of_pair),
                "spread of rounds": float(spread), "memory, MiB": memory[name] / 2**20,
                "hours for all pairs": float(hours),
            }
        )  # fmt: skip
    return rows


def _pairs(source: SourceZoo) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """Return pairs of equal layers of two networks of one architecture; of a single network, neighboring layers."""
    networks = source.networks()
    if len(networks.models) > 1:
        first, second = networks.models[:2]
        return [((first, layer), (second, layer)) for layer in networks.layers]
    (model,) = networks.models
    if len(networks.layers) < 2:
        raise DataError(
            "missing_source", f"got one space, {model}/{networks.layers[0]}, expected two to compare. Add one"
        )
    return [((model, one), (model, other)) for one, other in zip(networks.layers, networks.layers[1:], strict=False)]


def _common(store: UnitStore, first: str, second: str) -> tuple[np.ndarray, np.ndarray]:
    source, target = read_space_rows(store, first), read_space_rows(store, second)
    common = common_points(source.ids, target.ids)
    return source.activations[common.source], target.activations[common.target]


def _measures(job: CostJob) -> Mapping[str, _Steps]:
    graph = job.graph

    def basis(rows: np.ndarray) -> np.ndarray:
        space = spectral_space(
            rows, **job.numbers._asdict(), metric=graph.metric, kernel=graph.kernel, center=graph.center
        )
        return space.basis.eigenvectors

    def comparison(score: MapScore) -> Callable[[Any, Any], Any]:
        return lambda source, target: float(score.function(full_map(source, target)))

    maps = {name: _Steps(basis, comparison(score)) for name, score in MAP_SCORES.items()}
    return maps | {name: _Steps(measure.prepare, measure.compare) for name, measure in MEASURES.items()}


def _applies(name: str, pairs: list[tuple[np.ndarray, np.ndarray]]) -> bool:
    if name in MAP_SCORES:
        return True
    try:
        for pair in pairs:
            check_rows(name, *pair)
    except DataError:
        return False
    return True


def _seconds(steps: _Steps, pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """Return the mean processor time of one space and of one pair, in seconds."""
    preparing = comparing = 0.0
    for source, target in pairs:
        start = time.process_time()
        ours, theirs = steps.prepare(source), steps.prepare(target)
        ready = time.process_time()
        steps.compare(ours, theirs)
        preparing, comparing = preparing + ready - start, comparing + time.process_time() - ready
    return preparing / (2 * len(pairs)), comparing / len(pairs)


def _peak(steps: _Steps, source: np.ndarray, target: np.ndarray) -> int:
    """Return the most bytes that Python holds at a time while a measure compares two spaces."""
    tracemalloc.start()
    try:
        steps.compare(steps.prepare(source), steps.prepare(target))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _placed(seconds: float) -> float:
    """Return the place of a time on the logarithmic axis, in [0, 1]."""
    return float((np.log10(max(seconds, 10.0**_LOW)) - _LOW) / (_HIGH - _LOW))
