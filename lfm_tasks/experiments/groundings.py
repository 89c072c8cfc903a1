"""Agreement of every measure with the ground truth of the networks of a catalog: which score to trust.

The rules, fixed before any result, stand in docs/which_score.md. One half of the networks chooses between candidates
for a score of our own; all figures are of the other half.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from lfm_tasks.experiments.charts import dot_rows
from lfm_tasks.experiments.grounding_scores import (
    FUSED,
    Entry,
    Scored,
    parts_of,
    score_networks,
)
from lfm_tasks.experiments.grounding_truth import (
    KnownDataset,
    disagreement,
    divergence,
    groundings_of,
    known_datasets,
    usable_groundings,
)
from lfm_tasks.experiments.results import Claim, ClaimStatus, Estimate, ExperimentResult, ResultFigure, ResultTable
from lfm_tasks.experiments.source_zoo import SourceZoo
from lfm_tasks.statistics.groundings import (
    Counts,
    Draws,
    difference_correlation,
    group_separation,
    mean_of_networks,
    mean_of_pairs,
    mean_ranks,
    network_counts,
    order_of_layers,
)
from lfm_tasks.statistics.model_pairs import same_layer_share

NAME, TITLE = "groundings", "Which score to trust"
QUESTION = "Which measure agrees best with what is known of networks: groups, outputs, accuracy, layers, lineage?"
SEED, N_DRAWS = 0, 400
# The catalog's default, which has to stand beside the best.
DEFAULT = "overlap"

# Figures of one entry on one dataset, by name; the first one ranks.
Figures = Mapping[str, Draws]


def prepare(source: SourceZoo, folder: Path) -> tuple[Path, ...]:
    """Check that something is known of the networks; the experiment compares recorded spaces and derives none."""
    known_datasets(source)
    return ()


def analyze(source: SourceZoo, catalogs: tuple[Path, ...]) -> ExperimentResult:
    """Return how well each entry agrees with each grounding on the half that tells, and what it costs."""
    datasets = known_datasets(source)
    usable = usable_groundings(datasets)
    parts = [half for dataset in datasets for half in dataset.halves() if groundings_of([half])]
    scored = score_networks(source, parts)
    halves = [
        {part.name: _Half(part, own, n_draws) for part, own in zip(parts, scored, strict=True) if part.number == number}
        for number, n_draws in ((0, 0), (1, N_DRAWS))
    ]
    choosing = _Contest.of(halves[0], usable)
    candidates = [entry for entry in choosing.entries if entry.is_ours]
    others = [entry for entry in choosing.entries if not entry.is_ours]
    chosen_ranks = {entry: float(choosing.mean_ranks([*others, entry])[-1, 0]) for entry in candidates}
    ours = min(candidates, key=lambda entry: (chosen_ranks[entry], str(entry)))
    contest = _Contest.of(halves[1], usable)
    entries = [*others, ours]
    table = _Table(contest, entries, contest.mean_ranks(entries), ours, _costs(scored))
    return _result(source, datasets, usable, table, chosen_ranks)


@dataclass(frozen=True)
class _Half:
    """One half of a dataset's networks, scored; ``n_draws`` of the bootstrap follow the estimate."""

    part: KnownDataset
    scored: Scored
    n_draws: int

    @property
    def counts(self) -> Counts:
        """How often each network is in each draw."""
        return network_counts(*self.part.units(), self.n_draws, seed=SEED)

    def figures(self, grounding: str) -> Callable[[Entry], Figures]:
        """Return a function to the figures of an entry."""
        members = self.part.with_grounding(grounding)
        counts = self.counts[:, members]
        of_grounding: Mapping[str, Callable[[Entry], Figures]] = {
            "accuracy": lambda entry: {"Spearman": self._correlated(entry, members, self._accuracies(members), counts)},
            "outputs": lambda entry: self._of_outputs(entry, members, counts),
            "layer_order": lambda entry: self._of_layer_order(entry, members, counts),
            "layer_matching": lambda entry: self._of_matching(entry, members, counts),
        }
        return of_grounding.get(grounding, lambda entry: self._of_groups(entry, grounding, members, counts))

    def _correlated(self, entry: Entry, members: list[int], differences: np.ndarray, counts: Counts) -> Draws:
        values = self.scored.networks[entry][np.ix_(members, members)]
        return difference_correlation(values, differences, counts)

    def _accuracies(self, members: list[int]) -> np.ndarray:
        known = np.array([self.part.networks[place].accuracy for place in members], dtype=float)
        return np.abs(known[:, None] - known)

    def _of_outputs(self, entry: Entry, members: list[int], counts: Counts) -> Figures:
        known = [outputs for place in members if (outputs := self.part.networks[place].outputs) is not None]
        both = {
            name: self._correlated(entry, members, difference(known), counts)
            for name, difference in (("Jensen-Shannon", divergence), ("disagreement", disagreement))
        }
        return {"Spearman": np.mean(list(both.values()), axis=0)} | both

    def _of_groups(self, entry: Entry, grounding: str, members: list[int], counts: Counts) -> Figures:
        values = self.scored.networks[entry][np.ix_(members, members)]
        found = group_separation(values, self.part.group_numbers(grounding), counts)
        return {"AUPRC": found.auprc, "conformity": found.conformity}

    def _of_layer_order(self, entry: Entry, members: list[int], counts: Counts) -> Figures:
        values = self.scored.layers[entry.layer_score]
        rows = [self.scored.rows[place] for place in members]
        found = np.array([order_of_layers(values[np.ix_(own, own)]) for own in rows])
        return {
            name: mean_of_networks(found[:, column], counts) for column, name in enumerate(("conformity", "Spearman"))
        }

    def _of_matching(self, entry: Entry, members: list[int], counts: Counts) -> Figures:
        values = self.scored.layers[entry.layer_score]
        rows = [self.scored.rows[place] for place in members]
        found = {}
        for name, is_scaled in (("share", True), ("raw", False)):
            shares = np.full((len(rows),) * 2, np.nan)
            for first, own in enumerate(rows):
                for second, other in enumerate(rows):
                    if first != second:
                        shares[first, second] = same_layer_share(values[np.ix_(own, other)], is_scaled=is_scaled)
            found[name] = mean_of_pairs((shares + shares.T) / 2, counts)
        return found


@dataclass(frozen=True)
class _Contest:
    """The figures of all entries on one half of the networks: means over datasets, and of each dataset."""

    entries: list[Entry]
    groundings: list[str]
    means: Mapping[tuple[str, str, Entry], Draws]
    by_dataset: Mapping[tuple[str, str, str, Entry], float]
    main: Mapping[str, str]

    @staticmethod
    def of(halves: Mapping[str, _Half], usable: Mapping[str, Sequence[KnownDataset]]) -> "_Contest":
        """Return all figures; an entry that some dataset lacks, since its networks differ in depth, takes no part."""
        everywhere = [set(half.scored.networks) for half in halves.values()]
        entries = sorted(set.intersection(*everywhere), key=str)
        means: dict[tuple[str, str, Entry], Draws] = {}
        by_dataset: dict[tuple[str, str, str, Entry], float] = {}
        main: dict[str, str] = {}
        for grounding, datasets in usable.items():
            functions = {dataset.name: halves[dataset.name].figures(grounding) for dataset in datasets}
            for entry in entries:
                found = {name: figures(entry) for name, figures in functions.items()}
                names = list(next(iter(found.values())))
                main[grounding] = names[0]
                for name in names:
                    stacked = np.array([figures[name] for figures in found.values()])
                    means[grounding, name, entry] = _mean_over_datasets(stacked)
                    by_dataset |= {
                        (grounding, name, dataset, entry): float(of[name][0]) for dataset, of in found.items()
                    }
        return _Contest(entries, list(usable), means, by_dataset, main)

    def figure(self, grounding: str, entry: Entry) -> Draws:
        """Return the figure that ranks."""
        return self.means[grounding, self.main[grounding], entry]

    def mean_ranks(self, entries: Sequence[Entry]) -> Float[np.ndarray, "entries draws"]:
        """Return the mean rank of each entry among these."""
        figures = [[self.figure(grounding, entry) for entry in entries] for grounding in self.groundings]
        return mean_ranks(np.array(figures))


def _mean_over_datasets(figures: Float[np.ndarray, "datasets draws"]) -> Draws:
    """Return the mean; of draws that leave a dataset without pairs, that of the others; none where one has no value."""
    if np.isnan(figures[:, 0]).any():
        return np.full(figures.shape[1], np.nan)
    present = np.isfinite(figures)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(present, figures, 0).sum(axis=0) / present.sum(axis=0))


@dataclass(frozen=True)
class _Table:
    """The entries that are reported, their mean ranks in all draws, and what they cost."""

    contest: _Contest
    entries: list[Entry]
    ranks: Float[np.ndarray, "entries draws"]
    ours: Entry
    costs: Mapping[str, tuple[float, float]]

    @property
    def order(self) -> list[int]:
        """The entries, the lowest mean rank first."""
        return sorted(range(len(self.entries)), key=lambda place: (self.ranks[place, 0], str(self.entries[place])))


def estimate(draws: Draws) -> Estimate:
    """Return the estimate, the first of the draws, and the interval that holds 95 % of the others."""
    others = draws[1:][np.isfinite(draws[1:])]
    if not np.isfinite(draws[0]) or len(others) < 2:
        return Estimate(float(draws[0]))
    low, high = np.quantile(others, (0.025, 0.975))
    return Estimate(float(draws[0]), float(low), float(high))


def _costs(scored: Sequence[Scored]) -> dict[str, tuple[float, float]]:
    """Return processor seconds of a space and of a pair of spaces, by score; of networks, by fused entry."""
    costs = {}
    for name in scored[0].seconds:
        known = np.array([one.seconds[name] for one in scored])
        costs[name] = (float(known[:, 0].mean()), float(known[:, 1].mean()))
    return costs


def _cost(table: _Table, entry: Entry) -> tuple[float, float]:
    if entry.way == FUSED:
        return table.costs.get(str(entry), (float("nan"), float("nan")))
    names = list(parts_of(entry.score)) if entry.is_ours else [entry.score]
    known = np.array([table.costs.get(name, (np.nan, np.nan)) for name in names])
    return float(known[:, 0].sum()), float(known[:, 1].sum())


def _result(
    source: SourceZoo,
    datasets: Sequence[KnownDataset],
    usable: Mapping[str, Sequence[KnownDataset]],
    table: _Table,
    chosen_ranks: Mapping[Entry, float],
) -> ExperimentResult:
    contest = table.contest
    settings = {
        "datasets": {dataset.name: len(dataset) for dataset in datasets},
        "groundings": {name: [dataset.name for dataset in having] for name, having in usable.items()},
        "figure that ranks": dict(contest.main),
        "graph": source.catalog.atlas.graph.model_dump(),
        "bootstrap": {"draws": N_DRAWS, "over": "networks within groups, families as a whole", "seed": SEED},
    }
    missing = sorted({str(one) for one in table.entries if any(np.isnan(contest.figure(g, one)[0]) for g in usable)})
    notes = [
        "All figures are of one half of the networks; the other half chose the score of our own among "
        f"{len(chosen_ranks)} candidates.",
        "Intervals: 95 %, by the bootstrap over networks. Entries that are near each other cannot be distinguished by "
        "their own intervals: those of differences stand in the table of losses.",
        "Cost: processor seconds of one worker, to prepare a space and to compare two, one pair at a time and without "
        "chance; of fused operators, a network and two networks. They differ from run to run.",
    ]
    if missing:
        notes.append(f"Without a value for some grounding, and last there: {', '.join(missing)}.")
    tables = [
        ResultTable("entries", "Mean rank and the figure of each grounding, best first", _rows(table)),
        ResultTable("losses", f"What is ahead of {_shown(table)}, by grounding", _losses(table)),
        ResultTable("against", "Difference of mean rank to our score; below 0 is ahead of it", _against(table)),
        ResultTable("figures", "Every figure of every entry, with its interval", _figures(table), False),
        ResultTable("datasets", "Every figure on every dataset", _by_dataset(table), False),
        ResultTable(
            "choosing",
            "Mean rank of each candidate on the half that chose",
            [
                {"candidate": str(e), "mean rank": rank}
                for e, rank in sorted(chosen_ranks.items(), key=lambda one: one[1])
            ],
        ),
    ]
    return ExperimentResult(NAME, TITLE, QUESTION, settings, _claims(table), [_figure(table)], tables, notes)


def _shown(table: _Table) -> str:
    return f"{table.ours} and of {DEFAULT}"


def _rows(table: _Table) -> list[dict[str, Any]]:
    rows = []
    for place in table.order:
        entry = table.entries[place]
        row: dict[str, Any] = {"score": entry.score, "layers": entry.way, "mean rank": _text(table.ranks[place], 1)}
        for grounding in table.contest.groundings:
            row[grounding] = _text(table.contest.figure(grounding, entry), 3)
        prepare_seconds, compare_seconds = _cost(table, entry)
        rows.append(row | {"prepare, s": prepare_seconds, "compare, s": compare_seconds})
    return rows


def _text(draws: Draws, digits: int) -> str | None:
    one = estimate(draws)
    if not np.isfinite(one.value):
        return None
    texts = [f"{value:.{digits}f}" for value in (one.value, one.low, one.high)]
    return f"{texts[0]} ({texts[1]} to {texts[2]})" if np.isfinite(one.low) else texts[0]


def _figures(table: _Table) -> list[dict[str, Any]]:
    rows = []
    for (grounding, name, entry), draws in table.contest.means.items():
        if entry in table.entries:
            one = estimate(draws)
            row = {"grounding": grounding, "figure": name, "score": entry.score, "layers": entry.way}
            rows.append(row | {"value": one.value, "low": one.low, "high": one.high})
    return rows


def _by_dataset(table: _Table) -> list[dict[str, Any]]:
    return [
        {"dataset": dataset, "grounding": grounding, "figure": name, "score": entry.score, "layers": entry.way}
        | {"value": value}
        for (grounding, name, dataset, entry), value in table.contest.by_dataset.items()
        if entry in table.entries
    ]


def _defaults(table: _Table) -> list[Entry]:
    return [entry for entry in table.entries if entry.score == DEFAULT]


def _losses(table: _Table) -> list[dict[str, Any]]:
    """Return, for our score and the default, every entry with a better figure, and the interval of the difference."""
    rows = []
    for mine in [table.ours, *_defaults(table)]:
        for grounding in table.contest.groundings:
            own = table.contest.figure(grounding, mine)
            for entry in table.entries:
                ahead = table.contest.figure(grounding, entry) - own
                if entry != mine and np.isfinite(ahead[0]) and ahead[0] > 0:
                    one = estimate(ahead)
                    rows.append(
                        {"loser": str(mine), "grounding": grounding, "winner": str(entry), "by": one.value}
                        | {"low": one.low, "high": one.high, "is certain": bool(one.low > 0)}
                    )
    return sorted(rows, key=lambda row: (row["loser"], row["grounding"], -row["by"]))


def _against(table: _Table) -> list[dict[str, Any]]:
    place_of_ours = table.entries.index(table.ours)
    rows = []
    for place in table.order:
        entry = table.entries[place]
        if place == place_of_ours:
            continue
        one = estimate(table.ranks[place] - table.ranks[place_of_ours])
        pairs = [[table.contest.figure(g, side)[0] for side in (table.ours, entry)] for g in table.contest.groundings]
        wins = sum(bool(mine > theirs or np.isnan(theirs)) for mine, theirs in pairs)
        losses = sum(bool(theirs > mine or np.isnan(mine)) for mine, theirs in pairs)
        row: dict[str, Any] = {"against": str(entry), "groundings won": wins, "lost": losses}
        rows.append(row | {"difference of mean rank": one.value, "low": one.low, "high": one.high})
    return rows


def _figure(table: _Table) -> ResultFigure:
    n = len(table.entries)
    rows = []
    for place in table.order[:40]:
        one = estimate(table.ranks[place])
        # The best rank at the right, as in the other charts.
        rows.append(
            (str(table.entries[place]), (Estimate(*(1 - (v - 1) / (n - 1) for v in (one.value, one.high, one.low))),))
        )
    texts = {str(table.entries[place]): f"{table.ranks[place, 0]:.1f}" for place in table.order}
    ticks = {1 - (rank - 1) / (n - 1): str(rank) for rank in (1, *range(20, n, 20))}
    caption = f"Mean rank over {len(table.contest.groundings)} groundings, the best of {n} entries; bars: 95 %."
    marked = {str(entry) for entry in (table.ours, *_defaults(table))}
    return ResultFigure("ranks", caption, dot_rows(rows, marked=marked, axis="mean rank", ticks=ticks, texts=texts))


def _claims(table: _Table) -> list[Claim]:
    contest, best = table.contest, table.entries[table.order[0]]
    leaders = {
        grounding: max(table.entries, key=lambda entry: np.nan_to_num(contest.figure(grounding, entry)[0], nan=-np.inf))
        for grounding in contest.groundings
    }
    n_leaders = len(set(leaders.values()))
    ours = estimate(table.ranks[table.entries.index(table.ours)])
    runner_up = next(place for place in table.order if table.entries[place] != table.ours)
    lead = estimate(table.ranks[runner_up] - table.ranks[table.entries.index(table.ours)])
    status: ClaimStatus = "not supported" if best != table.ours else "supported" if lead.low > 0 else "partly"
    return [
        Claim(
            "no measure is best everywhere (Klabunde et al. 2025)",
            f"{n_leaders} different entries lead the {len(leaders)} groundings: "
            + "; ".join(f"{grounding}: {entry}" for grounding, entry in leaders.items()),
            "supported" if n_leaders > 1 else "not supported",
        ),
        Claim(
            "(ours) a score from the atlas's own bases and measures has the lowest mean rank",
            f"{table.ours}: {ours.value:.1f} ({ours.low:.1f} to {ours.high:.1f}) of {len(table.entries)}; best of the "
            f"others: {table.entries[runner_up]}, {table.ranks[runner_up, 0]:.1f}; difference {lead.value:+.1f} "
            f"({lead.low:+.1f} to {lead.high:+.1f})",
            status,
        ),
    ]
