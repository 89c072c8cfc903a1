"""One flow with approximate neighbors, through Dask, on as many points as they are said to be good for."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from lfm_tasks.stores.atlas.files import read_atlas

N_POINTS = 5_000


def test_pynndescent__through_dask_finds_the_neighbors_and_the_relation(
    tmp_path: Path, write_zoo: Callable[..., Path], build: Callable[..., object]
) -> None:
    generator = np.random.default_rng(5)
    ids = np.array([f"p{number:04}" for number in range(N_POINTS)])
    latent = generator.standard_normal((N_POINTS, 6))
    order = generator.permutation(N_POINTS)
    rotation = np.linalg.qr(generator.standard_normal((24, 24)))[0]
    image = np.tanh(latent @ generator.standard_normal((6, 24)))
    models = {"plain": ({"layer": image}, ids), "rotated": ({"layer": (3 * image @ rotation)[order]}, ids[order])}
    graph = {"n_neighbors": 20, "method": "pynndescent"}
    folder = write_zoo(tmp_path, models, graph=graph, n_eigenpairs=20)
    catalog = folder / "data_catalog.yaml"
    # One worker: each pays pynndescent's compilation, about a minute, by itself.
    catalog.write_text(catalog.read_text() + "cluster: {n_workers: 1}\n")

    build(folder, in_process=False)

    atlas = read_atlas(folder / "atlas").sel(dataset="probe")
    assert set(atlas["method"].values) == {"pynndescent"}
    assert float(atlas["recall"].min()) >= 0.95
    assert bool((atlas["n_points"] == N_POINTS).all())
    assert float(atlas["score"].sel(measure="overlap", source="plain/layer", target="rotated/layer")) > 0.99
