"""Rows told apart by their values."""

import numpy as np
import pytest

from lfm_tasks.statistics.permutation_null import rows_by_value


@pytest.mark.parametrize("values", [[3, 1, 3, 2, 1], [7], ["b", "a", "b"], [False, True, False]])
def test_rows_by_value__are_all_rows_by_ascending_value_in_their_order(values: list[object]) -> None:
    found = rows_by_value(np.array(values))
    expected = [[row for row, own in enumerate(values) if own == value] for value in sorted(set(values))]  # type: ignore[type-var]
    assert [rows.tolist() for rows in found] == expected


def test_rows_by_value__of_nothing_are_none() -> None:
    assert rows_by_value(np.array([], dtype=int)) == ()
