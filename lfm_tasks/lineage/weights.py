"""Weights as evidence of descent: cosines and norms of tensors of two networks, geometry of their embeddings.

Networks that were trained apart have no direction of weights in common, whatever they learned; a network that comes
from another keeps it, also after long training, pruning and quantization. Units in another order, or a rotation, hide
it; but not how alike the tokens of an embedding table are to each other.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

# Median cosine of matched tensors, on the networks of docs/lineage.md: of 5,178 pairs that were trained apart at most
# .08, of 1,386 related ones at least .78.
SHARED_AT_LEAST, APART_AT_MOST = 0.3, 0.15
# Correlation of the similarities of tokens above which two embedding tables have something in common: on the networks
# for text of docs/lineage.md it is at most .011 for 10,473 pairs that were trained apart, at least .70 for related
# ones. Tables that learned one language from very much text have common directions, and positions are smooth in every
# network: so it raises a doubt, and decides nothing.
OTHER_TABLES_AT_MOST = 0.3
# Fewer matched tensors, or a smaller share of the tensors of the network with fewer, say nothing.
_FEWEST_MATCHED, _LEAST_SHARE = 2, 0.5


@dataclass(frozen=True)
class WeightAgreement:
    """How two networks' weights agree.

    Attributes
    ----------
    cosine
        Median over matched tensors, in [-1, 1].
    norm_ratio
        Median of the ratio of their lengths, the smaller by the larger, in [0, 1].
    n_matched
        Tensors that have the same name, or else the same place among those of their shape; of ``n_tensors``, those of
        the network that has fewer.
    embeddings
        `embedding_agreement` of their embedding tables, in [-1, 1]; NaN unless both have one of as many tokens.
    """

    cosine: float
    norm_ratio: float
    n_matched: int
    n_tensors: int
    embeddings: float = float("nan")

    @property
    def are_shared(self) -> bool:
        """Whether one network's weights come from the other's, or both from a third's."""
        return self._is_matched and self.cosine >= SHARED_AT_LEAST

    @property
    def are_apart(self) -> bool:
        """Whether the weights have nothing in common: trained apart, or units in another order."""
        return self._is_matched and self.cosine <= APART_AT_MOST and not self.embeddings > OTHER_TABLES_AT_MOST

    @property
    def says_something(self) -> bool:
        """Whether enough of the two networks has the same shape, or both have an embedding table of the same tokens."""
        return self._is_matched or bool(np.isfinite(self.embeddings))

    @property
    def _is_matched(self) -> bool:
        return self.n_matched >= max(_FEWEST_MATCHED, _LEAST_SHARE * self.n_tensors)


def matched_tensors(
    first: Mapping[str, tuple[int, ...]], second: Mapping[str, tuple[int, ...]]
) -> list[tuple[str, str]]:
    """Return which tensors of two networks stand for each other, by their names and shapes.

    Those of one name and shape; of the others those that have the same place among the tensors of their shape.

    Examples
    --------
    >>> matched_tensors({"a": (2, 3), "x": (4, 4)}, {"b": (5, 5), "a": (2, 3), "y": (4, 4)})
    [('a', 'a'), ('x', 'y')]
    """
    same = [name for name, shape in first.items() if second.get(name) == shape]
    left: dict[tuple[int, ...], list[str]] = {}
    for name, shape in second.items():
        if name not in same:
            left.setdefault(shape, []).append(name)
    pairs = []
    for name, shape in first.items():
        if name in same:
            pairs.append((name, name))
        elif left.get(shape):
            pairs.append((name, left[shape].pop(0)))
    return pairs


def weight_agreement(
    pairs: Iterable[tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]], n_tensors: int
) -> WeightAgreement:
    """Return how the values of matched tensors agree; a tensor without a length counts for nothing.

    Examples
    --------
    >>> weight_agreement([(np.ones((2, 2)), 2 * np.ones((2, 2)))] * 3, 3)
    WeightAgreement(cosine=1.0, norm_ratio=0.5, n_matched=3, n_tensors=3, embeddings=nan)
    """
    cosines, ratios = [], []
    for first, second in pairs:
        lengths = float(np.linalg.norm(first)), float(np.linalg.norm(second))
        if min(lengths) > 0 and np.isfinite(lengths).all():
            cosines.append(float(np.vdot(first, second)) / (lengths[0] * lengths[1]))
            ratios.append(min(lengths) / max(lengths))
    if not cosines:
        return WeightAgreement(float("nan"), float("nan"), 0, n_tensors)
    return WeightAgreement(float(np.median(cosines)), float(np.median(ratios)), len(cosines), n_tensors)


# An embedding table has at least so many tokens, and so many times more tokens than features.
_FEWEST_TOKENS, _TOKENS_A_FEATURE = 1000, 4
# Fewer different rows say nothing: three rows correlate by themselves.
_FEWEST_DIFFERENT = 32


def embedding_tables(
    first: Mapping[str, tuple[int, ...]], second: Mapping[str, tuple[int, ...]]
) -> tuple[str, str] | None:
    """Return the names of the embedding tables of two networks, of as many tokens; None where they have none.

    A table of one name in both; else the one of most rows in each. Tables of positions are none.

    Examples
    --------
    >>> bert = {"embeddings.word": (30522, 384), "embeddings.position": (512, 384), "dense": (1536, 384)}
    >>> embedding_tables(bert, bert), embedding_tables(bert, {"dense": (10, 784)})
    (('embeddings.word', 'embeddings.word'), None)
    """
    sides = [
        {
            name: shape[0]
            for name, shape in of_network.items()
            if len(shape) == 2 and shape[0] >= max(_FEWEST_TOKENS, _TOKENS_A_FEATURE * shape[1])
            if not any(word in name.lower() for word in ("pos", "wpe", ".pe"))
        }
        for of_network in (first, second)
    ]
    same = [name for name, n_rows in sides[0].items() if sides[1].get(name) == n_rows]
    if same:
        longest = max(same, key=lambda name: sides[0][name])
        return longest, longest
    if not sides[0] or not sides[1]:
        return None
    one, other = (max(side, key=lambda name: side[name]) for side in sides)
    return (one, other) if sides[0][one] == sides[1][other] else None


def embedding_agreement(
    first: Float[np.ndarray, "tokens first_features"], second: Float[np.ndarray, "tokens second_features"]
) -> float:
    """Return the correlation, over pairs of tokens, of the cosines between their vectors in two tables.

    The same for rotated features, other orders and other scales of them; the tables may differ in width. Tokens with
    the same vector as one before, as unused ones have, count once. NaN for fewer than 32 different tokens.

    Examples
    --------
    >>> rows = np.random.default_rng(0).standard_normal((50, 8))
    >>> round(embedding_agreement(rows, 3 * rows[:, ::-1]), 6)
    1.0
    """
    different = [np.unique(rows, axis=0, return_index=True)[1] for rows in (first, second)]
    kept = np.intersect1d(different[0], different[1])
    if len(kept) < _FEWEST_DIFFERENT:
        return float("nan")
    sides = []
    for rows in (first[kept], second[kept]):
        centered = rows.astype(np.float64) - rows.mean(axis=0)
        unit = centered / np.maximum(np.linalg.norm(centered, axis=1, keepdims=True), np.finfo(np.float64).tiny)
        cosines = (unit @ unit.T)[np.triu_indices(len(unit), 1)]
        sides.append(cosines - cosines.mean())
    lengths = float(np.linalg.norm(sides[0]) * np.linalg.norm(sides[1]))
    return float(np.vdot(*sides)) / lengths if lengths > 0 else float("nan")
