"""Spaces of one dataset on different numbers of points: each has the graph and basis of its own number."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm_tasks.published.atlas import open_atlas

AUTO = {"graph": {"n_neighbors": "auto"}, "n_eigenpairs": "auto", "collection": {"n_modes": 20, "n_eigenpairs": 40}}


def some_points(models: dict[str, Any], name: str, n_points: int) -> dict[str, Any]:
    """Return the models, one of them on its first points only."""
    layers, ids = models[name]
    kept = np.flatnonzero(np.isin(ids, np.sort(ids)[:n_points]))
    return models | {name: ({layer: rows[kept] for layer, rows in layers.items()}, ids[kept])}


def score(folder: Path, source: str, target: str, measure: str = "overlap") -> float:
    place = {"dataset": "probe", "measure": measure, "source": f"{source}/layer0", "target": f"{target}/layer0"}
    with open_atlas(folder / "atlas") as atlas:
        return float(atlas.scores["calibrated"].sel(place))


def test_score__of_many_and_few_points_is_that_of_few(
    tmp_path: Path, related_spaces: Any, write_zoo: Callable[..., Path], build: Callable[..., Any]
) -> None:
    models = related_spaces(3, n_points=800, n_layers=1)
    few = models
    for name in models:
        few = some_points(few, name, 200)
    for name, zoo in (("many", models), ("few", few), ("unlike", some_points(models, "model2", 200))):
        build(write_zoo(tmp_path / name, zoo, **AUTO))
    unlike, many = (score(tmp_path / name, "model0", "model2") for name in ("unlike", "many"))
    assert unlike == pytest.approx(many, abs=0.06)
    assert unlike == pytest.approx(score(tmp_path / "few", "model0", "model2"), abs=0.06)
    # The others are as they are without it.
    assert score(tmp_path / "unlike", "model0", "model1") == score(tmp_path / "many", "model0", "model1")
    with open_atlas(tmp_path / "unlike" / "atlas") as atlas:
        counts = atlas.scores["n_eigenpairs"].sel(dataset="probe").values
        assert counts.tolist() == [33, 33, 25]
        assert atlas.map("model0/layer0", "model1/layer0").shape == (33, 33)
        # As many eigenpairs of both.
        kept = atlas.map("model0/layer0", "model2/layer0")
        assert (kept.shape, kept.attrs["origin"]) == ((25, 25), "kept in the atlas")
        assert np.isfinite(kept.values).all()
        assert np.isfinite(atlas.scores["ci_low"].sel(measure="overlap")).all()
        assert np.isfinite(atlas.scores["shared_distance"]).all()


@pytest.mark.parametrize(
    "maps", [{"regime": "anchors", "anchors": {"count": 40}}, {"regime": "unsupervised", "refine": "none"}]
)
def test_fitted_maps__of_unlike_bases_are_kept(
    tmp_path: Path,
    related_spaces: Any,
    write_zoo: Callable[..., Path],
    build: Callable[..., Any],
    maps: dict[str, Any],
) -> None:
    zoo = some_points(related_spaces(3, n_points=240, n_layers=1), "model1", 120)
    outcome = build(write_zoo(tmp_path, zoo, **AUTO, maps=maps, keep_maps="all"))
    assert outcome.failures == ()
    with open_atlas(tmp_path / "atlas") as atlas:
        assert np.isfinite(atlas.scores["score"]).all()
        if maps["regime"] == "anchors":
            # At least 50 eigenpairs where maps are fitted, at most a third of the points. One direction is kept.
            kept = atlas.section("maps/probe")
            assert kept is not None
            pairs = zip(kept["source"].values.tolist(), kept["target"].values.tolist(), strict=True)
            sizes = {"model0": 50, "model1": 40, "model2": 50}
            for source, target in pairs:
                expected = sizes[target.split("/")[0]], sizes[source.split("/")[0]]
                assert atlas.map(source, target).shape == expected
