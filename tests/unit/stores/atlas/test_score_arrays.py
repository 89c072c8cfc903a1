"""The scores of an atlas in NumPy: what xarray reads of the same files, label by label."""

import hashlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from lfm_tasks.stores.atlas.schema import SCHEMA_VERSION, ZARR, AtlasError, Manifest
from lfm_tasks.stores.atlas.score_arrays import ScoreArrays, read_score_arrays

SPACES = ["a/x", "b/ü", "c/", "d/long name of a layer"]


def atlas() -> xr.Dataset:
    generator = np.random.default_rng(0)
    score = generator.normal(size=(1, 2, 4, 4))
    score[0, 1, 2, 2:] = np.nan
    cells, flags = ("dataset", "measure", "source", "target"), {"flag_meanings": "ok not_computed"}
    return xr.Dataset(
        {
            "score": (cells, score),
            "status": (cells, np.arange(32, dtype=np.int8).reshape(1, 2, 4, 4), flags),
            "half_scores": (("source", "target", "half"), generator.normal(size=(4, 4, 4)).astype(np.float32)),
            "n_points": (("dataset", "source"), np.array([[5, 0, 7, 1 << 30]], dtype=np.int32)),
            "nothing": (("source",), np.zeros(4)),
        },
        {
            dim: np.array(labels, dtype=object)
            for dim, labels in {
                "dataset": ["d"],
                "measure": ["overlap", "lfm"],
                "source": SPACES,
                "target": SPACES,
            }.items()
        },
        {"schema_version": SCHEMA_VERSION, "distances": []},
    )


def written(folder: Path, dataset: xr.Dataset, **encoding: Any) -> Manifest:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options: Any = {"score": {"chunks": (1, 1, 3, 3)}, "source": {"chunks": (3,)}, **encoding}
        dataset.to_zarr(folder / ZARR, zarr_format=3, consolidated=True, encoding=options)
    files = {
        path.relative_to(folder).as_posix(): {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in folder.rglob("*")
        if path.is_file()
    }
    return Manifest("key", files)


def read(folder: Path, dataset: xr.Dataset | None = None) -> ScoreArrays:
    arrays = read_score_arrays(folder, written(folder, atlas() if dataset is None else dataset))
    assert arrays is not None
    return arrays


def test_arrays__are_those_of_xarray(tmp_path: Path) -> None:
    arrays, expected = read(tmp_path), atlas()

    assert set(arrays) == set(expected.variables)
    assert (arrays.sizes, arrays.attrs["distances"]) == ({"dataset": 1, "measure": 2, "source": 4, "target": 4}, [])
    for name, values in expected.variables.items():
        assert arrays[str(name)].dims == values.dims
        np.testing.assert_array_equal(arrays[str(name)].values, values.values)
    assert arrays["status"].attrs["flag_meanings"] == "ok not_computed"


@pytest.mark.parametrize(
    "labels",
    [
        {"dataset": "d", "measure": "lfm"},
        {"measure": ["lfm"], "source": SPACES[::-1]},
        {"source": "b/ü", "target": ["d/long name of a layer", "a/x"]},
        {"source": "b/ü", "target": "c/", "dataset": "d", "measure": "lfm"},
    ],
)
def test_selection__is_that_of_xarray(tmp_path: Path, labels: dict[str, Any]) -> None:
    arrays, expected = read(tmp_path), atlas()

    for name in ("score", "status", "source"):
        known = {dim: label for dim, label in labels.items() if dim in expected[name].dims}
        assert arrays.sel(labels)[name].dims == expected[name].sel(known).dims
        np.testing.assert_array_equal(arrays.sel(**labels)[name].values, expected[name].sel(known).values)
    twice = arrays.sel(source=SPACES[:0:-1]).isel(source=[2, 0]).sel(target="a/x")
    np.testing.assert_array_equal(
        twice["half_scores"].values, expected["half_scores"].sel(source=["b/ü", SPACES[3]], target="a/x").values
    )
    with pytest.raises(KeyError, match="nobody"):
        arrays.sel(source="nobody")


def test_file_that_is_not_as_published__is_an_error_when_it_is_read(tmp_path: Path) -> None:
    arrays = read(tmp_path)
    (tmp_path / ZARR / "score/c/0/0/0/0").write_bytes(b"other")

    assert arrays["n_points"].values.sum() > 0
    with pytest.raises(AtlasError, match=r"got another file atlas\.zarr/score/c/0/0/0/0 than when .* Open it again"):
        arrays["score"]


def test_other_layouts_and_schemas__are_left_to_xarray(tmp_path: Path) -> None:
    former = atlas().assign_attrs(schema_version=SCHEMA_VERSION - 1)
    layouts = [(former, {}), (atlas(), {"nothing": {"compressors": None}}), (atlas(), {"n_points": {"_FillValue": 0}})]
    layouts.append((atlas().assign_coords(source=SPACES), {}))  # texts of one length

    for number, (dataset, encoding) in enumerate(layouts):
        folder = tmp_path / str(number)
        assert read_score_arrays(folder, written(folder, dataset, **encoding)) is None


def test_large_scores__are_left_to_xarray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lfm_tasks.stores.atlas.score_arrays._MOST_BYTES", 600)

    assert read_score_arrays(tmp_path, written(tmp_path, atlas())) is None
