"""The recommendation for stored vectors, in a sentence: carry all, carry some, or embed everything again."""

from dataclasses import dataclass
from typing import Literal

from lfm_tasks.upgrades.evidence import CHOSEN, QUERIES, STORED, Evidence

Decision = Literal["carry over", "carry over and re-embed some", "re-embed"]
# From this share of re-embedding's recall on, what is lost is small beside what re-embedding costs.
AT_LEAST = 0.95
# If more than this share has to be embedded again, all is.
_MOST_REEMBEDDED = 0.5


@dataclass(frozen=True)
class Verdict:
    """The decision and its sentence; ``reembed``: the share of the stored vectors to embed again, in [0, 1]."""

    decision: Decision
    sentence: str
    reembed: float


def judge(evidence: Evidence, at_least: float = AT_LEAST) -> Verdict:
    """Return the plan by which search keeps ``at_least`` of the quality of re-embedding (lower end of interval).

    Carried stored vectors count: they are searched by the new model's queries, whose recall among re-embedded vectors
    is 1. The sentence also states how well new queries search the old index.
    """
    size = evidence.sizes[-1]
    stored, queries = (evidence.cell(direction, size, CHOSEN) for direction in (STORED, QUERIES))
    if stored is None or queries is None:
        raise RuntimeError("got no map of all pairs, expected one in either direction")
    kept = f"{stored.recall:.3f} ± {stored.recall_reach:.3f} of re-embedding's recall@{evidence.k}"
    old_index = f"new queries in the old index keep {queries.recall:.3f} of its own"
    needed = f"{at_least:g} is wanted"
    if stored.recall - stored.recall_reach >= at_least:
        fewest = _fewest_pairs(evidence, at_least)
        sentence = f"carry over: {kept} survives, from {fewest:,} pairs on; {needed}; {old_index}"
        return Verdict("carry over", sentence, 0.0)
    for share, recall, reach in evidence.reembedded:
        if share and share <= _MOST_REEMBEDDED and recall - reach >= at_least:
            with_it = f"re-embed the {share:.0%} of least confidence, which keeps {recall:.3f} ± {reach:.3f}"
            sentence = f"carry over and {with_it}: carried alone, {kept} survives; {needed}; {old_index}"
            return Verdict("carry over and re-embed some", sentence, share)
    ceiling = f"the two models agree on {evidence.ceiling:.3f} of their first {evidence.k}"
    return Verdict("re-embed", f"re-embed: only {kept} survives; {needed}; {old_index}; {ceiling}", 1.0)


def _fewest_pairs(evidence: Evidence, at_least: float) -> int:
    """Return the number of pairs from which on the chosen map keeps enough, whatever more there are."""
    fewest = evidence.sizes[-1]
    for size in reversed(evidence.sizes):
        cell = evidence.cell(STORED, size, CHOSEN)
        if cell is None or cell.recall - cell.recall_reach < at_least:
            break
        fewest = size
    return fewest
