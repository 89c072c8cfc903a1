"""The words for how two models are related, from the strongest to the weakest, and where each begins."""

from enum import StrEnum


class Level(StrEnum):
    """How two models are related, as far as their activations say.

    Levels are ordered: a copy is related, too.

    Examples
    --------
    >>> Level.COPY.is_at_least(Level.RELATED), Level.SAME_FAMILY.is_at_least(Level.RELATED)
    (True, False)
    """

    COPY = "copy"
    RELATED = "related"
    SAME_FAMILY = "same family"
    BEYOND_CHANCE = "beyond chance"
    UNRELATED = "unrelated"
    CANNOT_TELL = "cannot tell"

    def is_at_least(self, other: "Level") -> bool:
        """Return whether this level is ``other`` or a stronger one; an unknown level is below all others."""
        order = list(Level)
        return order.index(self) <= order.index(other)


# Calibrated similarity of two models, each layer with its best match, from which on they are almost the same model. Of
# the networks of docs/lineage.md that were trained apart no two are above .89.
COPY_AT_LEAST = 0.97
# Probability of a common origin from which on two models are called related.
RELATED_AT_LEAST = 0.98
# Deviations above what is usual for the two models: 1 in 100 pairs of other architecture or data has as many.
FAMILY_AT_LEAST = 2.5
# False discovery rate of the pairs of layers that are called beyond chance.
CHANCE_AT_MOST = 0.05

MEANINGS = {
    Level.COPY: (
        f"almost the same model: similarity {COPY_AT_LEAST} or more, so the two differ by rotation, scale, order of "
        "units, rounding or a little training at most"
    ),
    Level.RELATED: (
        f"one comes from the other, or both from a third: probability {RELATED_AT_LEAST} or more, judged by how alike "
        "each of the two is to all other models and by how alike its own layers are"
    ),
    Level.SAME_FAMILY: (
        "more alike than either is to others, as networks of one architecture and data are; so is a distant relative: "
        "activations do not tell them apart"
    ),
    Level.BEYOND_CHANCE: "more alike than permuted rows, no more than these two models are to others",
    Level.UNRELATED: "no two layers are more alike than permuted rows",
    Level.CANNOT_TELL: "there is no calibrated similarity, or no other model and no other layer to judge it by",
}
