"""Families: models that are related, directly or through others, with a tree and, if a model says so, the oldest."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # its parts are imported when they are first used
from jaxtyping import Float

from lfm_tasks.lineage.levels import Level
from lfm_tasks.lineage.relations import Relation
from lfm_tasks.statistics.model_pairs import base_models, closeness


@dataclass(frozen=True)
class Family:
    """Models that are related, directly or through one another.

    Attributes
    ----------
    members
        Their names, in order.
    oldest
        The model that `base_model` leads to, which need not be in the zoo; None where it leads to none, or several:
        likeness is the same both ways, and the most central model is the base in four of five families at best.
    links
        The tree: pairs (older, younger) where ``oldest`` is known, else pairs in the order of names; the closest first.
    """

    members: tuple[str, ...]
    oldest: str | None
    links: tuple[tuple[str, str], ...]

    def sentence(self) -> str:
        """Return the family in a line."""
        names = ", ".join(name for name in self.members if name != self.oldest)
        if self.oldest is None:
            return f"{names}: one family; which of them is older is unknown"
        return f"{names}: from {self.oldest}"


def families_of(relations: Sequence[Relation], meta: Mapping[str, Mapping[str, Any]]) -> tuple[Family, ...]:
    """Return the families of two or more models, the largest first.

    Models are linked that are copies or related by what activations say, or that declare a relation.
    """
    closest: dict[tuple[str, str], float] = {}
    for relation in relations:
        if relation.declared or relation.level.is_at_least(Level.RELATED):
            pair = relation.source, relation.target
            value = float(closeness(np.array([relation.similarity]))[0]) if np.isfinite(relation.similarity) else 0.0
            closest[pair] = max(closest.get(pair, 0.0), value)
    names = sorted({name for pair in closest for name in pair})
    if not names:
        return ()
    place = {name: index for index, name in enumerate(names)}
    near = np.zeros((len(names), len(names)))
    for (source, target), value in closest.items():
        near[place[source], place[target]] = near[place[target], place[source]] = max(value, 1e-6)
    _, group_of = scipy.sparse.csgraph.connected_components(scipy.sparse.coo_array(near), directed=False)
    groups = [np.flatnonzero(group_of == group) for group in range(group_of.max() + 1)]
    found = [_family([names[row] for row in rows], near[np.ix_(rows, rows)], meta) for rows in groups]
    return tuple(sorted(found, key=lambda family: (-len(family.members), family.members)))


def family_of(families: Iterable[Family], model: str) -> Family | None:
    """Return the family that a model is a member of, None if it has none."""
    return next((family for family in families if model in family.members), None)


def _family(members: list[str], near: Float[np.ndarray, "models models"], meta: Mapping[str, Any]) -> Family:
    oldest = _declared_oldest(members, meta)
    return Family(tuple(members), oldest, _tree(members, near, oldest))


def _declared_oldest(members: list[str], meta: Mapping[str, Any]) -> str | None:
    """Return the one model that ``base_model`` leads to from the members; None if it leads to none or several."""
    roots = set()
    for member in members:
        name, passed = member, set()
        while (bases := base_models(meta.get(name, {}))) and name not in passed:
            passed.add(name)
            name = bases[0]
        if passed:
            roots.add(name)
    return roots.pop() if len(roots) == 1 else None


def _tree(
    members: list[str], near: Float[np.ndarray, "models models"], oldest: str | None
) -> tuple[tuple[str, str], ...]:
    """Return the links of the tree of closest pairs, away from the oldest member."""
    farness = np.where(near > 0, 1 / np.where(near > 0, near, 1), 0)
    tree = scipy.sparse.csgraph.minimum_spanning_tree(scipy.sparse.coo_array(farness))
    start = members.index(oldest) if oldest in members else int(near.sum(axis=1).argmax())
    order, before = scipy.sparse.csgraph.breadth_first_order(tree, start, directed=False)
    pairs = [(int(before[row]), int(row)) for row in order[1:]]
    pairs.sort(key=lambda pair: -near[pair])
    return tuple((members[a], members[b]) for a, b in pairs)
