"""Levels of pairs of models, families and outliers, of atlases made up to have them."""

from typing import Any

import numpy as np
import pytest
import xarray as xr

from lfm_tasks.lineage.families import Family, families_of, family_of
from lfm_tasks.lineage.levels import MEANINGS, Level
from lfm_tasks.lineage.relations import Relation, outliers, relations_of_atlas


def relation(source: str, target: str, level: Level, similarity: float = 0.9, declared: bool = False) -> Relation:
    return Relation("probe", source, target, level, 0.99, similarity, similarity, 0, 3, declared)


def levels(atlas: Any) -> dict[tuple[str, str], str]:
    return {(one.source, one.target): str(one.level) for one in atlas.relations}


def test_levels__have_a_meaning_each_and_fall() -> None:
    assert list(MEANINGS) == list(Level)
    assert Level.COPY.is_at_least(Level.RELATED)
    assert not Level.CANNOT_TELL.is_at_least(Level.UNRELATED)


@pytest.mark.parametrize(
    ("similarity", "level"), [(0.97, "copy"), (0.9, "related"), (0.72, "same family"), (0.55, "beyond chance")]
)
def test_level__of_a_pair_is_by_how_it_stands_out(
    publish_atlas: Any, similarities: Any, similarity: float, level: str
) -> None:
    found = levels(publish_atlas(similarities(12, pairs={(0, 1): similarity})))

    assert found["m0", "m1"] == level
    assert {value for pair, value in found.items() if pair != ("m0", "m1")} == {"beyond chance"}


def test_pairs_that_are_not_above_chance__are_unrelated(publish_atlas: Any, similarities: Any) -> None:
    assert set(levels(publish_atlas(similarities() / 50, q_value=0.4)).values()) == {"unrelated"}


@pytest.mark.parametrize(("n_models", "level"), [(2, "cannot tell"), (3, "beyond chance")])
def test_pair_without_a_background__cannot_be_told(
    publish_atlas: Any, similarities: Any, n_models: int, level: str
) -> None:
    assert set(levels(publish_atlas(similarities(n_models))).values()) == {level}


def test_copy__is_told_without_a_background(publish_atlas: Any, similarities: Any) -> None:
    assert levels(publish_atlas(similarities(2, pairs={(0, 1): 0.99}))) == {("m0", "m1"): "copy"}


def test_pair_without_similarity__cannot_be_told_and_stands_last(publish_atlas: Any, similarities: Any) -> None:
    relations = publish_atlas(similarities(5, pairs={(0, 1): np.nan})).relations

    assert (relations[-1].source, relations[-1].target, relations[-1].level) == ("m0", "m1", Level.CANNOT_TELL)
    assert relations[-1].finding()["probability"] is None


def test_declared_relation__starts_from_even_odds(publish_atlas: Any, similarities: Any) -> None:
    values = similarities(12, pairs={(0, 1): 0.7})

    open_pair, declared = (publish_atlas(values, meta).relations[0] for meta in ({}, {"m1": {"base_model": "m0"}}))

    assert (open_pair.declared, declared.declared) == (False, True)
    assert declared.probability > open_pair.probability


def test_family__has_a_tree_from_the_model_that_meta_names() -> None:
    relations = [relation("a", "b", Level.RELATED, 0.8), relation("b", "c", Level.BEYOND_CHANCE, 0.5, declared=True)]

    [family] = families_of(relations, {"a": {}, "b": {"base_model": "c"}, "c": {}})

    assert family == Family(("a", "b", "c"), "c", (("b", "a"), ("c", "b")))
    assert family.sentence() == "a, b: from c"
    assert family_of([family], "b") is family
    assert family_of([family], "z") is None


def test_family_of_three__is_a_tree_of_the_closest_pairs() -> None:
    pairs = [("a", "b", 0.95), ("b", "c", 0.95), ("a", "c", 0.8)]

    [family] = families_of([relation(a, b, Level.RELATED, value) for a, b, value in pairs], {})

    assert family.oldest is None
    assert set(family.links) == {("b", "a"), ("b", "c")}


def test_family_of_two__does_not_tell_who_is_older() -> None:
    [family] = families_of([relation("a", "b", Level.RELATED), relation("a", "c", Level.SAME_FAMILY)], {})

    assert family.sentence() == "a, b: one family; which of them is older is unknown"


def test_siblings_of_a_base_that_is_not_in_the_zoo__come_from_it() -> None:
    meta = {"a": {"base_model": "hub/base"}, "b": {"base_model": "hub/base"}}

    [family] = families_of([relation("a", "b", Level.BEYOND_CHANCE, declared=True)], meta)

    assert family.sentence() == "a, b: from hub/base"


def test_model_that_is_unlike_all_others__stands_apart(publish_atlas: Any, similarities: Any) -> None:
    low = {(3, other): 0.2 for other in range(8) if other != 3}

    [outlier] = outliers(publish_atlas(similarities(8, pairs=low)).relations)

    assert (outlier.model, round(outlier.similarity, 3)) == ("m3", 0.2)
    assert "stands apart: its similarity to other models is 0.20 in the median" in outlier.sentence()
    assert outliers(publish_atlas(similarities()).relations) == ()


def test_first_changed__is_the_first_layer_by_depth_that_the_other_model_has_not() -> None:
    # Layers are in the order of their names, which is not that of their depth: out, l1, l2 of a and of b.
    depths, names = [1.0, 0.0, 0.5], ["out", "l1", "l2"]
    values = np.full((6, 6), 0.5)
    for layer, same in enumerate((0.99, 0.98, 0.9)):
        values[layer, 3 + layer] = values[3 + layer, layer] = same
    np.fill_diagonal(values, 1)
    dims, of_layers = ("dataset", "measure", "source", "target"), ("dataset", "source")
    atlas = xr.Dataset(
        {"calibrated": (dims, values[None, None]), "q_value": (dims, np.zeros((1, 1, 6, 6)))},
        {
            "dataset": ["probe"], "measure": ["overlap"],
            "n_points": (of_layers, np.full((1, 6), 50)), "depth": (of_layers, np.array([depths * 2])),
            "source_model": ("source", ["a"] * 3 + ["b"] * 3), "source_layer": ("source", names * 2),
        },
    )  # fmt: skip

    [one] = relations_of_atlas(atlas, {})
    assert (one.layers_kept, one.n_layers, one.first_changed) == (2, 3, "l2")

    values[2, 5] = values[5, 2] = 0.98
    [one] = relations_of_atlas(atlas.assign(calibrated=(dims, values[None, None])), {})
    assert (one.layers_kept, one.first_changed) == (3, "")
