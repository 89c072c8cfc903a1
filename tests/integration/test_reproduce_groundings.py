"""``lfm-atlas reproduce --experiment groundings`` on networks of two kinds that are easy to tell apart."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from lfm_atlas.cli.main import app

N_POINTS, N_IN_GROUP = 48, 4


def networks() -> tuple[dict[str, Any], dict[str, Any], dict[str, np.ndarray]]:
    """Return layers and ids, what is known, and outputs, of networks that see one of two structures, with noise."""
    generator = np.random.default_rng(0)
    ids = np.array([f"p{index:03}" for index in range(N_POINTS)])
    models, outputs = {}, {}
    meta: dict[str, dict[str, Any]] = {}
    for kind in ("first", "second"):
        latent = generator.standard_normal((N_POINTS, 3))
        for number in range(N_IN_GROUP + 2 * (kind == "first")):
            name, layers, rows = f"{kind}_{number}", {}, latent
            for depth, width in enumerate((9, 8, 7)):
                rows = np.tanh(rows @ generator.standard_normal((rows.shape[1], width)))
                rows = rows + 0.02 * (1 + number) * generator.standard_normal(rows.shape)
                layers[f"layer{depth}"] = rows.astype(np.float32)
            models[name], meta[name] = (layers, ids), {"groups": {"structure": kind}}
            if kind == "first":
                scores = np.exp(latent + 0.1 * number * generator.standard_normal(latent.shape))
                outputs[name] = scores / scores.sum(axis=1, keepdims=True)
                meta[name] |= {"accuracy": 0.9 - 0.05 * number, "outputs": f"{name}.outputs.npy"}
    return models, meta, outputs


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory, write_zoo: Callable[..., Path]) -> Path:
    """Give the folder of the evidence."""
    models, meta, outputs = networks()
    folder = write_zoo(tmp_path_factory.mktemp("groundings"), models)
    for name, values in outputs.items():
        np.save(folder / f"{name}.outputs.npy", values)
    path, yaml = folder / "data_catalog.yaml", YAML()
    catalog = yaml.load(path)
    for name, known in meta.items():
        catalog["models"][name]["meta"] = known
    yaml.dump(catalog, path)
    words = ["reproduce", str(path), "--experiment", "groundings", "--output", str(folder / "evidence")]
    assert app([*words, "--no-prefect", "--no-dask"], result_action="return_value") == 0
    return folder / "evidence"


def test_groundings__rank_every_measure_and_find_the_two_structures(evidence: Path) -> None:
    result = json.loads((evidence / "evidence.json").read_text())["experiments"]["groundings"]
    rows = {(row["score"], row["layers"]): row for row in result["tables"]["entries"]}

    expected = {"accuracy", "outputs", "structure", "layer_order", "layer_matching"}
    assert set(result["settings"]["groundings"]) == expected
    assert {way for _, way in rows} == {"last", "aligned", "fused"}
    assert rows["cka_linear", "aligned"]["structure"].startswith("1.000 (1.000 to 1.000)")
    assert rows["multiscale_cka_t_1", "fused"]["structure"].startswith("1.000")
    assert rows["multiscale_cka_t_1", "fused"]["layer_order"] == rows["cka_linear", "last"]["layer_order"]
    assert all(float(row["compare, s"]) > 0 for row in rows.values() if row["compare, s"] is not None)
    assert sum(score.startswith("ours: ") for score, _ in rows) == 1
    ranks = [float(row["mean rank"].split(" ")[0]) for row in result["tables"]["entries"]]
    assert ranks == sorted(ranks)
    assert sum(ranks) == pytest.approx(len(ranks) * (len(ranks) + 1) / 2, rel=0.01)


def test_groundings__state_every_loss_and_draw_a_figure(evidence: Path) -> None:
    figures = pq.read_table(evidence / "tables" / "groundings-figures.parquet").to_pandas()
    losses = pq.read_table(evidence / "tables" / "groundings-losses.parquet").to_pandas()
    figures["entry"] = figures["score"] + ", " + figures["layers"]
    main = {"accuracy": "Spearman", "outputs": "Spearman", "structure": "AUPRC"}
    main |= {"layer_order": "conformity", "layer_matching": "share"}
    for grounding, figure in main.items():
        values = figures[(figures["grounding"] == grounding) & (figures["figure"] == figure)].set_index("entry")[
            "value"
        ]
        own = values["overlap, last"]
        of_default = losses[(losses["loser"] == "overlap, last") & (losses["grounding"] == grounding)]
        assert set(of_default["winner"]) == set(values.index[values > own])
    assert (evidence / "figures" / "groundings-ranks.svg").read_text().startswith("<svg ")
    assert "Which score to trust" in (evidence / "evidence.html").read_text()
