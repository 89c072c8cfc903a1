"""Arrays that are packed by the CF conventions give the numbers that xarray reads, in Zarr 2 and 3, HDF5 and NetCDF."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr
import zarr

from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.formats import Reading, open_array
from lfm_tasks.sources.files.packed_values import find_packing

ROWS = np.random.default_rng(0).standard_normal((20, 6)).astype(np.float32)
HOLES = np.where(ROWS > 1.2, np.nan, ROWS)

PACKED: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
    "scale": (ROWS, {"dtype": "int16", "scale_factor": 0.001}),
    "offset": (ROWS, {"dtype": "int16", "add_offset": 3.0}),
    "scale and offset": (ROWS, {"dtype": "int16", "scale_factor": 0.001, "add_offset": 1.5}),
    "scale and offset in single precision": (
        ROWS,
        {"dtype": "int16", "scale_factor": np.float32(0.001), "add_offset": np.float32(1.5)},
    ),
    "four bytes": (ROWS, {"dtype": "int32", "scale_factor": 1e-7, "add_offset": 0.5}),
    "a mark": (HOLES, {"dtype": "int16", "scale_factor": 0.001, "_FillValue": -32768}),
    "unsigned": (np.abs(ROWS), {"dtype": "uint8", "scale_factor": 0.02, "_FillValue": 255}),
    "said to be unsigned": (
        np.abs(HOLES),
        {"dtype": "int8", "_Unsigned": "true", "scale_factor": 0.02, "_FillValue": np.int8(-1)},
    ),
    "whole numbers with a mark": (np.where(np.isnan(HOLES), np.nan, HOLES // 1), {"dtype": "int32", "_FillValue": -9}),
    "floats with a mark": (HOLES, {"dtype": "float32", "_FillValue": np.float32(1e20)}),
    "another mark": (HOLES, {"dtype": "float32", "missing_value": np.float32(-999)}),
    "nothing": (ROWS, {}),
}


def write(kind: str, folder: Path, values: np.ndarray, encoding: dict[str, Any]) -> tuple[str, np.ndarray]:
    """Write packed values; return the file's name and what xarray reads back."""
    data = xr.Dataset({"acts": (("point", "feature"), values)})
    own = {"acts": encoding}
    if kind.startswith("zarr"):
        data.to_zarr(folder / "a.zarr", zarr_format=int(kind[-1]), encoding=own, consolidated=False)
        return "a.zarr", xr.open_zarr(folder / "a.zarr", consolidated=False)["acts"].values
    data.to_netcdf(folder / "classic.nc", engine="scipy", encoding=own)
    with xr.open_dataset(folder / "classic.nc", engine="scipy") as read:
        decoded = read["acts"].values
    if kind == "netcdf classic":
        return "classic.nc", decoded
    with (
        xr.open_dataset(folder / "classic.nc", engine="scipy", mask_and_scale=False) as raw,
        h5py.File(folder / "a.h5", "w") as file,
    ):
        file["acts"] = raw["acts"].values
        for name, value in raw["acts"].attrs.items():
            file["acts"].attrs[name] = value
    return "a.h5", decoded


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", PACKED)
@pytest.mark.parametrize("kind", ["zarr 2", "zarr 3", "netcdf classic", "hdf5"])
def test_packed_arrays__give_the_numbers_that_xarray_reads(kind: str, case: str, tmp_path: Path) -> None:
    values, encoding = PACKED[case]
    if kind in ("netcdf classic", "hdf5") and encoding.get("dtype") == "uint8":
        pytest.skip("the classic format has no unsigned bytes")
    name, expected = write(kind, tmp_path, values, encoding)
    array = open_array(tmp_path / name, name, "acts")

    whole = array.load()

    np.testing.assert_array_equal(whole, expected)
    assert whole.dtype == array.dtype == expected.dtype.newbyteorder(array.dtype.byteorder)
    assert np.isnan(whole).any() == np.isnan(values).any()
    with array.rows() as read:
        np.testing.assert_array_equal(read(np.array([7, 3, 12])), expected[[7, 3, 12]])


def test_packed_values__stay_as_they_are_where_the_catalog_says_so(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.arange(12, dtype=np.int16).reshape(6, 2)
        file["x"].attrs["scale_factor"] = 0.5

    assert open_array(tmp_path / "a.h5", "a.h5", "x").load()[3].tolist() == [3.0, 3.5]
    raw = open_array(tmp_path / "a.h5", "a.h5", "x", Reading(unpack=False))
    assert (raw.dtype, raw.load()[3].tolist()) == (np.int16, [6, 7])


def test_fill_values_of_arrays_without_conventions__mark_nothing(tmp_path: Path) -> None:
    rows = np.maximum(ROWS, 0)  # half of them are the fill value
    for version in (2, 3):
        group = zarr.create_group(tmp_path / f"{version}.zarr", zarr_format=version)  # type: ignore[arg-type]
        group.create_array("x", data=rows, fill_value=0.0, config={"write_empty_chunks": True})
        np.testing.assert_array_equal(open_array(tmp_path / f"{version}.zarr", "a.zarr", "x").load(), rows)


def test_values_that_nobody_wrote__are_no_numbers_in_netcdf(tmp_path: Path) -> None:
    never = np.float32(9.9692099683868690e36)
    rows = ROWS.copy()
    rows[12:] = never
    with h5py.File(tmp_path / "a.nc", "w") as file:
        file.attrs["_NCProperties"] = "version=2,netcdf=4.9.2,hdf5=1.14.2"
        file["x"] = rows
    xr.Dataset({"x": (("point", "feature"), rows)}).to_netcdf(
        tmp_path / "b.nc", engine="scipy", encoding={"x": {"_FillValue": None}}
    )
    with h5py.File(tmp_path / "c.nc", "w") as file:
        file.attrs["_NCProperties"] = "version=2,netcdf=4.9.2,hdf5=1.14.2"
        file["x"] = np.where(rows == never, -32767, ROWS * 1024).astype(np.int16)
        file["x"].attrs["scale_factor"] = np.float32(1 / 1024)
    packed = open_array(tmp_path / "c.nc", "c.nc", "x").load()
    assert np.isnan(packed[12:]).all()
    np.testing.assert_allclose(packed[:12], ROWS[:12], atol=1e-3)
    for name in ("a.nc", "b.nc"):
        read = open_array(tmp_path / name, name, "x").load()
        assert np.isnan(read[12:]).all(), name
        np.testing.assert_array_equal(read[:12], ROWS[:12])


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"scale_factor": "half"}, r"got scale_factor 'half', expected one finite number"),
        ({"scale_factor": [0.1, 0.2]}, r"got scale_factor .*, expected one finite number"),
        ({"add_offset": float("nan")}, r"got add_offset 'nan', expected one finite number"),
        ({"_FillValue": "none"}, r"got _FillValue 'none', expected a number"),
        ({"missing_value": [None]}, r"got missing_value .*, expected numbers"),
    ],
)
def test_attributes__that_are_no_numbers_are_refused(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"a#x: {message}.*unpack: false") as caught:
        find_packing(attributes, np.dtype(np.int16), "a#x")
    assert caught.value.reason == "wrong_dtype"


def test_marks__are_understood_as_stored_and_as_read() -> None:
    for mark in (-1, 255):
        packing = find_packing({"_Unsigned": "true", "_FillValue": mark}, np.dtype(np.int8), "x")
        assert packing is not None
        read = packing.unpack(np.array([-1, 0, 127, -128], dtype=np.int8))
        np.testing.assert_array_equal(read, [np.nan, 0, 127, 128])
    assert find_packing({"units": "V"}, np.dtype(np.float32), "x") is None
    assert find_packing({"_FillValue": float("nan")}, np.dtype(np.float32), "x") is None
    assert find_packing({"scale_factor": 2.0}, np.dtype("U3"), "x") is None


def test_attribute_text_of_variable_length__is_read_in_another_process(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.array([[-1, 2], [3, -4]], dtype=np.int8)
        file["x"].attrs["_Unsigned"] = "true"  # h5py writes it with variable length, into a heap

    assert open_array(tmp_path / "a.h5", "a.h5", "x").load().tolist() == [[255, 2], [3, 252]]
