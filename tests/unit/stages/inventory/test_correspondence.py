"""Correspondence and labels of the points of datasets."""

import numpy as np
import pytest

from lfm_tasks.config import AtlasConfig, IntervalsConfig
from lfm_tasks.errors import DataError
from lfm_tasks.sources.opening import DatasetRows
from lfm_tasks.stages.inventory.correspondence import (
    Correspondence,
    ExchangeabilityGroups,
    Labels,
    anchors_of_pair,
    common_ids,
    dataset_exchangeability,
    read_exchangeability,
    read_labels,
    resampling,
    store_exchangeability,
    store_labels,
)
from lfm_tasks.stores.units.store import UnitStore


def ids(n: int) -> np.ndarray:
    return np.array([f"point-{index:04d}" for index in range(n)])


def test_drawn_anchors__are_the_same_for_spaces_that_lack_other_points() -> None:
    drawn = Correspondence(regime="anchors", n_anchors=5, seed=2)
    everything = ids(50)
    anchors = anchors_of_pair(drawn, everything, everything)
    fewer = np.setdiff1d(everything, everything[[3, 8, 20]])
    names = set(everything[anchors.source])

    again = anchors_of_pair(drawn, everything, fewer)
    assert names - {everything[3], everything[8], everything[20]} <= set(everything[again.source])
    np.testing.assert_array_equal(everything[again.source], fewer[again.target])
    other_seed = anchors_of_pair(Correspondence(regime="anchors", n_anchors=5, seed=3), everything, everything)
    assert names != set(everything[other_seed.source])


def test_common_ids__of_long_strings_of_variable_width() -> None:
    text = np.array(
        [f"a long name of a point, number {number:05}" for number in range(800)], dtype=np.dtypes.StringDType()
    )

    common, first, second = common_ids(text[::2], text)

    np.testing.assert_array_equal(first, np.arange(400))
    np.testing.assert_array_equal(second, np.arange(0, 800, 2))
    np.testing.assert_array_equal(common, text[::2])


def test_labels__refuse_ids_that_have_none() -> None:
    with pytest.raises(DataError, match=r"got 1 ids without a label, first 'point-0003'. Label every id"):
        Labels(ids(3), np.arange(3, dtype=np.int32)).of(ids(4))


def test_groups__are_read_by_id_and_refused_where_none_can_change_places() -> None:
    order = np.array([2, 0, 3, 1])
    groups = dataset_exchangeability(DatasetRows(ids(4)[order], None, groups=np.array(["b", "a", "b", "a"])))
    assert groups is not None
    assert groups.kind == "groups"
    np.testing.assert_array_equal(groups.of(ids(4)), [0, 0, 1, 1])
    with pytest.raises(DataError, match=r"got 1 ids without groups, first 'point-0004'") as error:
        groups.of(ids(5))
    assert error.value.reason == "bad_groups"
    assert dataset_exchangeability(DatasetRows(ids(4), None)) is None
    with pytest.raises(DataError, match="Give other groups, or none"):
        dataset_exchangeability(DatasetRows(ids(4), None, groups=np.zeros(4, dtype=int)))


def test_halves__keep_groups_together_and_need_ten_units_each() -> None:
    groups = ExchangeabilityGroups("groups", ids(80), np.repeat(np.arange(40), 2))
    atlas = AtlasConfig()
    halves = resampling(ids(80), groups, atlas).halves
    assert halves is not None
    np.testing.assert_array_equal(halves[:, ::2], halves[:, 1::2])
    alone = resampling(ids(80), None, atlas).halves
    assert alone is not None
    assert (alone[:, ::2] != alone[:, 1::2]).any()
    # Two spaces that share some points have these in the same halves.
    some = resampling(ids(80)[::2], groups, atlas).halves
    np.testing.assert_array_equal(some, halves[:, ::2])
    assert resampling(ids(24), groups, atlas).halves is None
    assert resampling(ids(18), None, atlas).halves is None
    assert resampling(ids(80), None, AtlasConfig(intervals=IntervalsConfig(n_splits=0))).halves is None


def test_labels_and_groups__come_back_from_the_store_as_they_were(tmp_path: object) -> None:
    store = UnitStore(tmp_path)  # type: ignore[arg-type]
    labels = Labels(ids(3), np.array([1, 0, 1], dtype=np.int32))
    groups = ExchangeabilityGroups("strata", ids(3), np.array([0, 0, 1], dtype=np.int32))
    for _ in range(2):
        assert store_labels(store, {"d": labels}) == {"d": labels.key}
        assert store_exchangeability(store, {"d": groups}) == {"d": groups.key}
    stored, again = read_labels(store, labels.key), read_exchangeability(store, groups.key)
    assert stored is not None
    assert again is not None
    assert (stored.key, again.key, again.kind) == (labels.key, groups.key, "strata")
    assert read_labels(store, "") is None
    assert read_exchangeability(store, "") is None
