"""Similarities of networks: on which points, by which layers, and of what our own score is made."""

import numpy as np
import pytest

from lfm_tasks.errors import DataError
from lfm_tasks.experiments.grounding_scores import Entry, on_common_points, parts_of
from lfm_tasks.experiments.source_zoo import SpaceRows


def rows(names: str, width: int) -> SpaceRows:
    """Return a space whose rows hold the place of their id in the alphabet."""
    places = np.array([ord(name) - ord("a") for name in names], dtype=float)
    return SpaceRows(np.array(list(names), dtype=np.dtypes.StringDType()), np.repeat(places[:, None], width, axis=1))


def test_rows__are_those_of_the_points_that_all_spaces_have() -> None:
    networks = [[rows("abdef", 2), rows("abdef", 3)], [rows("abcdf", 2)], [rows("bdfg", 1)]]
    found = on_common_points(networks)
    assert [[layer[:, 0].tolist() for layer in own] for own in found] == [[[1, 3, 5]] * 2, [[1, 3, 5]], [[1, 3, 5]]]
    assert [layer.shape[1] for own in found for layer in own] == [2, 3, 2, 1]
    with pytest.raises(DataError, match="got 2 spaces of 2 networks that share no id, expected points that all have"):
        on_common_points([[rows("abc", 2)], [rows("de", 2)]])


def test_entries__name_the_layer_score_that_answers_for_layers() -> None:
    assert Entry("multiscale_cka_t_1", "fused").layer_score == "cka_linear"
    assert Entry("overlap", "last").layer_score == "overlap"
    assert str(Entry("overlap", "aligned")) == "overlap, aligned"


def test_candidates__take_the_time_of_their_parts() -> None:
    assert list(parts_of("ours: diffusion overlap + rotation")) == ["overlap", "procrustes_centered_unit_norm"]
    assert list(parts_of("ours: diffusion overlap, 32 steps")) == ["overlap"]
