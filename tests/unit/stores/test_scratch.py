"""Arrays before they are published: the same in memory and in a file without a name."""

from pathlib import Path

import numpy as np
import pytest

from lfm_tasks.stores import scratch
from lfm_tasks.stores.scratch import filled_array


@pytest.mark.parametrize("value", [np.nan, 0.0, 3.0])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_large_array__is_like_a_small_one_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float, dtype: type
) -> None:
    small = filled_array((3, 5), value, dtype, tmp_path / "small")
    monkeypatch.setattr(scratch, "LARGE_BYTES", 8)
    large = filled_array((3, 5), value, dtype, tmp_path / "large")

    np.testing.assert_array_equal(large, small)
    assert large.dtype == small.dtype == dtype
    assert isinstance(large.base, np.memmap)
    assert not (tmp_path / "small").exists()
    assert list((tmp_path / "large").iterdir()) == []
    large[1:] = 7
    assert large[1:].sum() == 70


def test_array_that_no_disk_holds__is_refused_before_it_is_filled(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No space left|File too large"):
        filled_array((1 << 50,), np.nan, np.float64, tmp_path)
