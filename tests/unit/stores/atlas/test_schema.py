"""Atlases of other schema versions: older ones are filled in, others say what to do."""

import numpy as np
import pytest
import xarray as xr

from lfm_tasks.stores.atlas import schema
from lfm_tasks.stores.atlas.schema import (
    SCHEMA_VERSION,
    AtlasError,
    Column,
    check_version,
    filled,
    meta_coordinates,
)


def test_meta__becomes_text_by_safe_names() -> None:
    meta = {
        "a": {"family": "mlp", "seed": 0, "untrained": True, "tags": ["x"], "rate": 0.5, "nothing": None},
        "b": {"family": "cnn"},
    }

    found = meta_coordinates("source", ["a", "b", "a"], meta)

    assert {name: list(values) for name, (_, values, _) in found.items()} == {
        "source_meta_family": ["mlp", "cnn", "mlp"],
        "source_meta_rate": ["0.5", "", "0.5"],
        "source_meta_seed": ["0", "", "0"],
        "source_meta_untrained": ["true", "", "true"],
    }


def test_meta__keys_that_give_one_name_are_told_apart() -> None:
    meta = {"a": {"../x": "1", "../X": "2", "é" * 300: "3", "ok": "4", "è" * 300: "5"}}

    found = meta_coordinates("target", ["a"], meta)

    names = list(found)
    assert len({name.casefold() for name in names}) == 5
    assert all(name.isascii() and name.replace("_", "a").isalnum() and len(name) < 90 for name in names)
    assert {attributes["long_name"] for _, _, attributes in found.values()} == set(meta["a"])


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (1, r"got an atlas of schema version 1, expected 2 to \d+. Run lfm-atlas run"),
        (None, "got an atlas of schema version None, expected"),
        (SCHEMA_VERSION + 1, "Install the later lfm-atlas that wrote it"),
    ],
)
def test_version_that_cannot_be_read__says_what_to_do(version: object, message: str) -> None:
    with pytest.raises(AtlasError, match=message):
        check_version(version)
    with pytest.raises(AtlasError, match=message):
        filled(xr.Dataset(attrs={"schema_version": version}), {})


def test_atlas_of_version_2__gets_what_it_lacks() -> None:
    old = xr.Dataset(
        {"n_points": (("dataset", "source"), [[3, 0]])},
        {side: [f"{m}/x" for m in "ab"] for side in ("source", "target")}
        | {f"{side}_model": (side, ["a", "b"]) for side in ("source", "target")}
        | {"source_depth": ("source", [0.5, 1.0])},
        {"schema_version": 2},
    )

    new = filled(old, {"models": [{"name": "a", "meta": {"family": "mlp"}}, {"name": "b", "meta": {}}]})

    assert new.attrs["schema_version"] == SCHEMA_VERSION
    assert new["source_meta_family"].values.tolist() == new["target_meta_family"].values.tolist() == ["mlp", ""]
    assert new["content"].values.tolist() == new["basis"].values.tolist() == [["", ""]]
    np.testing.assert_array_equal(new["depth"].values, [[0.5, np.nan]])


def test_atlas_of_version_3__has_the_depth_of_each_space_on_the_only_dataset_of_its_model() -> None:
    old = xr.Dataset(
        {"n_points": (("dataset", "source"), [[3, 3, 0], [0, 0, 5]])},
        {"source_depth": ("source", [0.0, 1.0, 0.25])},
        {"schema_version": 3},
    )

    new = filled(old, {"models": []})

    assert new.attrs["schema_version"] == SCHEMA_VERSION
    np.testing.assert_array_equal(new["depth"].values, [[0.0, 1.0, np.nan], [np.nan, np.nan, 0.25]])


def test_atlas_of_a_later_version_than_2__keeps_what_it_has_and_gets_new_columns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    former = xr.Dataset(
        {
            "score": (("dataset", "measure", "source", "target"), np.full((1, 1, 2, 2), 0.5)),
            "n_points": (("dataset", "source"), [[3, 3]]),
            "basis": (("dataset", "source"), [["k0", "k1"]]),
        },
        {"source_meta_family": ("source", ["mlp", "cnn"])},
        {"schema_version": SCHEMA_VERSION},
    )
    twice = Column(
        "twice",
        "float64",
        "two times the score",
        ("edges",),
        dims=former["score"].dims,
        derive=lambda a: 2 * a["score"],
    )
    monkeypatch.setattr(schema, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
    monkeypatch.setattr(schema, "COLUMNS", (*schema.COLUMNS, twice))

    new = filled(former, {"models": []})

    assert new["basis"].values.tolist() == [["k0", "k1"]]
    assert new["source_meta_family"].values.tolist() == ["mlp", "cnn"]
    assert new["twice"].values.tolist() == [[[[1.0, 1.0], [1.0, 1.0]]]]
