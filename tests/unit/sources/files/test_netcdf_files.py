"""NetCDF of every version: variables that lie together, that grow row by row, text, and what is damaged."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.formats import matching_keys, open_array

ROWS = np.random.default_rng(0).standard_normal((12, 5)).astype(np.float32)
NAMES = [f"é{row:02}" for row in range(12)]


def dataset() -> xr.Dataset:
    return xr.Dataset(
        {
            "acts": (("point", "feature"), ROWS),
            "doubles": (("point", "feature"), ROWS.astype(np.float64) / 3),
            "bytes": (("point",), np.arange(12, dtype=np.int8)),
        },
        coords={"point": NAMES},
    )


@pytest.mark.parametrize("version", ["NETCDF3_CLASSIC", "NETCDF3_64BIT"])
@pytest.mark.parametrize("grows", [False, True])
def test_variables__come_back_as_written(version: str, grows: bool, tmp_path: Path) -> None:
    dims = ["point"] if grows else []
    dataset().to_netcdf(tmp_path / "a.nc", engine="scipy", format=version, unlimited_dims=dims)  # type: ignore[call-overload]

    assert set(matching_keys(tmp_path / "a.nc", "a.nc", "{layer}") or ()) == {"acts", "doubles", "bytes", "point"}
    for key, expected in (("acts", ROWS), ("doubles", ROWS.astype(np.float64) / 3), ("bytes", np.arange(12))):
        array = open_array(tmp_path / "a.nc", "a.nc", key)
        np.testing.assert_array_equal(array.load(), expected)
        with array.rows() as read:
            np.testing.assert_array_equal(read(np.array([9, 2, 3])), expected[[9, 2, 3]])
    assert open_array(tmp_path / "a.nc", "a.nc", "point").load().tolist() == NAMES


def test_one_growing_variable__is_not_filled_up(tmp_path: Path) -> None:
    odd = np.arange(9, dtype=np.int8).reshape(3, 3)
    xr.Dataset({"x": (("point", "feature"), odd)}).to_netcdf(
        tmp_path / "a.nc", engine="scipy", unlimited_dims=["point"]
    )
    np.testing.assert_array_equal(open_array(tmp_path / "a.nc", "a.nc", "x").load(), odd)


def test_version_4__is_hdf5(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.nc", "w") as file:
        file["group/acts"] = ROWS
    assert matching_keys(tmp_path / "a.nc", "a.nc", "{layer}") == ("group/acts",)
    np.testing.assert_array_equal(open_array(tmp_path / "a.nc", "a.nc", "group/acts").load(), ROWS)


def test_what_is_cut_off_or_absent__is_told(tmp_path: Path) -> None:
    dataset().to_netcdf(tmp_path / "a.nc", engine="scipy")
    content = (tmp_path / "a.nc").read_bytes()
    with pytest.raises(DataError, match=r"a\.nc: got no key, expected key: with the name of a variable; there is acts"):
        open_array(tmp_path / "a.nc", "a.nc")
    with pytest.raises(DataError, match=r"got no variable 'act'; did you mean 'acts'"):
        open_array(tmp_path / "a.nc", "a.nc", "act")
    (tmp_path / "b.nc").write_bytes(content[:-300])
    keys = matching_keys(tmp_path / "b.nc", "b.nc", "{layer}") or ()
    with pytest.raises(DataError, match="the file is cut off, copy it again") as caught:
        open_array(tmp_path / "b.nc", "b.nc", keys[-1])
    assert caught.value.reason == "damaged_source"


def test_headers_with_any_damage__are_read_or_refused(tmp_path: Path) -> None:
    xr.Dataset({"x": (("point", "feature"), ROWS)}, attrs={"title": "t"}).to_netcdf(tmp_path / "a.nc", engine="scipy")
    content = (tmp_path / "a.nc").read_bytes()
    n_header = len(content) - ROWS.nbytes
    told = set()
    for place in range(n_header):
        for byte in (0, content[place] ^ 0x80, content[place] ^ 1):
            (tmp_path / "b.nc").write_bytes(content[:place] + bytes([byte]) + content[place + 1 :])
            try:
                open_array(tmp_path / "b.nc", "b.nc", "x").load()
            except DataError as error:
                told.add(str(error))
    assert any("a header with the tag" in message for message in told)
    assert any("a header that ends too early" in message for message in told)
    assert any("a header with the type" in message for message in told)
