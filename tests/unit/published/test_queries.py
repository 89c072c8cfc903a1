"""Queries where names or numbers are not as usual: models that failed, neighbors that are equally near."""

import pytest

from lfm_atlas import AtlasError
from lfm_tasks.published.atlas import Atlas
from lfm_tasks.published.queries import Names, nearest_spaces


@pytest.mark.parametrize("name", ["gone", "gone/layer0"])
def test_names__of_a_model_that_failed_as_a_whole_say_why(name: str) -> None:
    failure = {"model": "gone", "layer": "", "reason": "missing_source", "message": "no such file"}

    with pytest.raises(AtlasError, match=rf"got '{name}', which failed: no such file \[missing_source\]"):
        Names("probe", {"there/layer0": "there"}, [failure]).spaces_of(name)


def test_nearest__of_equals_none_is_ahead(small: Atlas) -> None:
    scores = small.scores.load().copy(deep=True)
    space, *others = small.spaces
    scores["calibrated"].loc[{"source": space}] = 0.5
    scores["calibrated"].loc[{"source": space, "target": min(others)}] -= 1e-12

    rows = list(nearest_spaces(scores, small.names(), space, "overlap"))

    assert [row["name"] for row in rows] == sorted(others)
    assert {row["margin"] for row in rows} == {0.0, None}
