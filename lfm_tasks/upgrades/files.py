"""Output of an upgrade's evidence: lines for people, JSON for programs."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from lfm_tasks.upgrades.evidence import CHOSEN, DIRECTIONS, QUERIES, Evidence
from lfm_tasks.upgrades.verdict import Verdict

_TITLES = {
    QUERIES: "new queries, carried into the old index: recall of what the old model's own queries find there",
    "stored": "stored vectors, carried into the new space: recall of what new queries find among re-embedded vectors",
}
_WORST_LABELS = 5


def evidence_as_lines(evidence: Evidence, verdict: Verdict, notes: Sequence[str] = ()) -> Iterator[str]:
    """Yield the report: the verdict, a curve for each direction, where it fails, and what re-embedding some brings."""
    yield verdict.sentence
    yield ""
    yield f"{evidence.n_common:,} common inputs, {evidence.n_queries:,} of them held out as queries"
    yield from (f"note: {note}" for note in notes)
    ceiling = f"{evidence.ceiling:.3f} ± {evidence.ceiling_reach:.3f}"
    yield f"ceiling: the two models' own first {evidence.k} agree by {ceiling} without any map"
    names = list(dict.fromkeys(cell.adapter for cell in evidence.cells if cell.adapter != CHOSEN))
    width = max(map(len, names)) + 2
    for direction in DIRECTIONS:
        yield ""
        yield f"{_TITLES[direction]} (recall@{evidence.k} ± 95 %, MRR)"
        yield f"{'pairs':<{width}}" + "".join(f"{size:>18,}" for size in evidence.sizes)
        for name in [*names, CHOSEN]:
            yield f"{name:<{width}}" + "".join(
                f"{_cell(evidence, direction, size, name):>18}" for size in evidence.sizes
            )
        taken = (_most_taken(evidence.chosen[direction, size]) for size in evidence.sizes)
        yield "taken: " + ", ".join(f"{size:,}: {name}" for size, name in zip(evidence.sizes, taken, strict=True))
    yield ""
    yield "stored vectors of least confidence embedded again, the others carried (at random in parentheses):"
    yield ", ".join(
        f"{share:.0%}: {recall:.3f} ± {reach:.3f} ({random:.3f})"
        for (share, recall, reach), random in zip(evidence.reembedded, evidence.at_random, strict=True)
    )
    for direction in DIRECTIONS:
        rows = [row for row in evidence.groups if row[0] == direction]
        if rows:
            shown = ", ".join(f"{label} {recall:.3f} ± {reach:.3f} ({n:,} queries)"
                              for _, label, n, recall, reach in rows[:_WORST_LABELS])  # fmt: skip
            yield f"{direction}, worst groups of {len(rows)}: {shown}"


def _cell(evidence: Evidence, direction: str, size: int, name: str) -> str:
    cell = evidence.cell(direction, size, name)
    return "-" if cell is None else f"{cell.recall:.3f} ±{cell.recall_reach:.3f} {cell.mrr:.2f}"


def _most_taken(names: Sequence[str]) -> str:
    distinct, counts = np.unique(list(names), return_counts=True)
    return str(distinct[counts.argmax()])


def evidence_as_dict(evidence: Evidence, verdict: Verdict, notes: Sequence[str] = ()) -> dict[str, Any]:
    """Return evidence and verdict as JSON takes them."""
    content = asdict(evidence)
    content["chosen"] = [
        {"direction": direction, "n_pairs": size, "taken": list(names)}
        for (direction, size), names in evidence.chosen.items()
    ]
    content["groups"] = [
        dict(zip(("direction", "label", "n_queries", "recall", "reach"), row, strict=True)) for row in evidence.groups
    ]
    content["reembedded"] = [
        {"share": share, "recall": recall, "reach": reach, "at_random": random}
        for (share, recall, reach), random in zip(evidence.reembedded, evidence.at_random, strict=True)
    ]
    del content["at_random"]
    return {"verdict": asdict(verdict), "notes": list(notes), **content}
