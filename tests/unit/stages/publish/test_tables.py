"""Tables of models: those of a zoo whose answer is known, and the same as each pair of models alone."""

from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import xarray as xr

from lfm_tasks.stages.publish.tables import layer_rows, model_rows
from lfm_tasks.statistics.model_pairs import best_match, best_match_p_values, depth_aligned, match_layers, mean_match


def test_tables__tell_the_permuted_copy_layer_by_layer(zoo_folder_built: Path) -> None:
    read = pyarrow.parquet.read_table
    models = read(zoo_folder_built / "atlas" / "models.parquet").to_pylist()
    assert len(models) == 8 * 7 * 2
    copy = [row for row in models if (row["source"], row["target"]) == ("mlp_s0", "mlp_s0_permuted")]
    assert {row["measure"] for row in copy} == {"lfm", "overlap"}
    for row in copy:
        assert row["best_match"] == pytest.approx(1, abs=1e-6)
        assert row["depth_aligned"] == pytest.approx(1, abs=1e-6)
        assert row["mean"] < 0.97
    layers = read(zoo_folder_built / "atlas" / "layers.parquet").to_pylist()
    own = [r for r in layers if r["source"].startswith("mlp_s0/") and r["target_model"] == "mlp_s0_permuted"]
    for row in own:
        assert row["source"].split("/")[1] == row["target"].split("/")[1]
        assert row["margin"] > 0
        assert row["p_best"] < 0.05


def test_tables__are_those_of_each_pair_of_models_alone() -> None:
    atlas = small_atlas()
    values, p_values = atlas["score"].values[0, 0], atlas["p_value"].values[0, 0]
    models, layers = model_rows(atlas), layer_rows(atlas)
    assert len(models["source"]) == 4 * 3
    for row, (source, target) in enumerate(zip(models["source"], models["target"], strict=True)):
        ours, theirs = ROWS[source], ROWS[target]
        block = values[np.ix_(ours, theirs)]
        np.testing.assert_array_equal(models["best_match"][row], best_match(block))
        np.testing.assert_array_equal(models["mean"][row], mean_match(block))
        np.testing.assert_array_equal(models["depth_aligned"][row], depth_aligned(block, DEPTHS[ours], DEPTHS[theirs]))
        matching, chance = match_layers(block), best_match_p_values(p_values[np.ix_(ours, theirs)])
        for layer, space in enumerate(ours):
            own = np.flatnonzero((layers["source"] == f"s{space}") & (layers["target_model"] == target))
            if matching.matched[layer] < 0:
                assert not len(own)
                continue
            assert layers["target"][own] == [f"s{theirs[matching.matched[layer]]}"]
            np.testing.assert_array_equal(layers["margin"][own], matching.margin[[layer]])
            np.testing.assert_array_equal(layers["p_best"][own], chance[[layer]])
    assert not any(f"s{space}" in layers["target"] for space in ROWS["absent"])


def test_tables_of_an_atlas_without_spaces__have_no_rows() -> None:
    atlas = small_atlas().isel(dataset=[])
    assert {len(column) for column in (*model_rows(atlas).values(), *layer_rows(atlas).values())} == {0}


# Layers by depth, which is not the order of their names; a model that the dataset lacks, one without scores.
ROWS = {"a": [4, 0], "b": [1, 5, 2], "c": [3, 7], "d": [8], "absent": [6]}
DEPTHS = np.array([1.0, 0.0, 1.0, 0.0, 0.2, 0.5, 0.0, 1.0, 0.0])


def small_atlas() -> xr.Dataset:
    """Return noise as the atlas of four models of one to three layers, in one measure."""
    generator = np.random.default_rng(0)
    values, p_values = generator.random((2, 1, 1, 9, 9))
    values[0, 0, 8] = np.nan
    names = np.array([f"s{space}" for space in range(9)], dtype=object)
    models = np.array([next(name for name, rows in ROWS.items() if space in rows) for space in range(9)], dtype=object)
    n_points = np.array([[0 if model == "absent" else 5 for model in models]])
    dims = ("dataset", "measure", "source", "target")
    return xr.Dataset(
        {"score": (dims, values), "p_value": (dims, p_values), "n_points": (("dataset", "source"), n_points)}
        | {"depth": (("dataset", "source"), DEPTHS[None])},
        {"dataset": ["d"], "measure": ["overlap"], "source": names, "target": names}
        | {"source_model": ("source", models)},
        {"distances": []},
    )
