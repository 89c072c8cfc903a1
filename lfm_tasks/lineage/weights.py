"""Weights as a second witness: the cosine of tensors that two networks have in common.

Networks that were trained apart have nothing in common here, whatever they learned; a network that comes from another
keeps its weights' direction, also after long training, pruning and quantization. Units in another order hide it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

# Median cosine of matched tensors, on the networks of docs/lineage.md: of 5,178 pairs that were trained apart at most
# .08, of 1,386 related ones at least .78.
SHARED_AT_LEAST, APART_AT_MOST = 0.3, 0.15
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
    """

    cosine: float
    norm_ratio: float
    n_matched: int
    n_tensors: int

    @property
    def are_shared(self) -> bool:
        """Whether one network's weights come from the other's, or both from a third's."""
        return self.says_something and self.cosine >= SHARED_AT_LEAST

    @property
    def are_apart(self) -> bool:
        """Whether the weights have nothing in common: trained apart, or units in another order."""
        return self.says_something and self.cosine <= APART_AT_MOST

    @property
    def says_something(self) -> bool:
        """Whether enough of the two networks has the same shape."""
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
    WeightAgreement(cosine=1.0, norm_ratio=0.5, n_matched=3, n_tensors=3)
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
