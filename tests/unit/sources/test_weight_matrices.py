"""Weight matrices of ONNX files and of .safetensors, without torch; of a model without any there are none."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from lfm_tasks.audit import weights as audit_weights
from lfm_tasks.audit.weights import weight_agreements
from lfm_tasks.catalog import read_catalog
from lfm_tasks.lineage.levels import Level
from lfm_tasks.lineage.relations import Relation
from lfm_tasks.lineage.weights import embedding_agreement
from lfm_tasks.sources.weight_matrices import weight_matrices
from lfm_tasks.zoo import write_start

CATALOG = """\
version: 1
datasets: {{probe: {{texts: {{path: texts.txt}}}}, numbers: {{ids: positional, inputs: {{path: inputs.npy}}}}}}
models:
  a: {source}
  b: {source}
"""


@pytest.fixture
def catalog(tmp_path: Path) -> Callable[[str], Any]:
    def read(source: str) -> Any:
        (tmp_path / "data_catalog.yaml").write_text(CATALOG.format(source=source))
        return read_catalog(tmp_path / "data_catalog.yaml", {})

    return read


def write_checkpoint(folder: Path, weights: dict[str, np.ndarray]) -> None:
    folder.mkdir()
    save_file(weights, folder / "model.safetensors")


def weights(seed: int, n_layers: int = 3) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    matrices = {f"layer{n:02}.weight": generator.normal(size=(300, 400)).astype(np.float32) for n in range(n_layers)}
    return matrices | {f"layer{n:02}.bias": np.ones(300, dtype=np.float32) for n in range(n_layers)}


CHECKPOINT = '{transformers: {path: "{model}", dataset: probe}}'


def test_checkpoint__gives_the_first_values_of_its_matrices(catalog: Any, tmp_path: Path) -> None:
    for name in "ab":
        write_checkpoint(tmp_path / name, weights(0))
    read = catalog(CHECKPOINT)

    found = weight_matrices("a", read.models["a"].on_datasets[0], read)

    assert found is not None
    assert list(found) == ["layer00.weight", "layer01.weight", "layer02.weight"]
    assert found["layer01.weight"].shape == (300, 400)
    expected = weights(0)["layer01.weight"].ravel()[: 65_536 // 400 * 400]
    np.testing.assert_array_equal(found["layer01.weight"].read(), expected)


def test_large_checkpoint__gives_16_matrices_over_its_depth(catalog: Any, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "a", weights(0, 70))
    read = catalog(CHECKPOINT)

    found = list(weight_matrices("a", read.models["a"].on_datasets[0], read) or {})

    assert (len(found), found[0], found[-1]) == (16, "layer00.weight", "layer69.weight")


@pytest.mark.parametrize(
    "source",
    [
        '{activations: {path: "{model}.npy", dataset: numbers}}',
        CHECKPOINT,
        '{torch: {factory: "a:b", dataset: numbers}}',
    ],
)
def test_model_without_readable_weights__has_none(catalog: Any, source: str) -> None:
    read = catalog(source)

    assert weight_matrices("a", read.models["a"].on_datasets[0], read) is None


def pair(level: Level) -> Relation:
    return Relation("probe", "a", "b", level, 0.5, 0.8, 0.9, 0, 3, False)


@pytest.mark.parametrize(("seed", "are_shared"), [(0, True), (1, False)])
def test_audit__compares_the_weights_of_all_pairs_of_few_models(
    catalog: Any, tmp_path: Path, seed: int, are_shared: bool
) -> None:
    write_checkpoint(tmp_path / "a", weights(0))
    write_checkpoint(tmp_path / "b", weights(seed))
    read = catalog(CHECKPOINT)

    [(names, agreement)] = weight_agreements(read, [pair(Level.BEYOND_CHANCE)]).items()

    assert names == {"a", "b"}
    assert (agreement.are_shared, agreement.are_apart) == (are_shared, not are_shared)


@pytest.mark.parametrize(("level", "n_compared"), [(Level.SAME_FAMILY, 1), (Level.BEYOND_CHANCE, 0)])
def test_audit__of_many_models_compares_the_weights_of_pairs_that_may_be_related(
    catalog: Any, tmp_path: Path, level: Level, n_compared: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(tmp_path / "a", weights(0))
    write_checkpoint(tmp_path / "b", weights(1))
    monkeypatch.setattr(audit_weights, "N_COMPARED_ALL", 1)

    assert len(weight_agreements(catalog(CHECKPOINT), [pair(level)])) == n_compared


def test_damaged_weights__are_told_and_are_no_evidence(
    catalog: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_checkpoint(tmp_path / "a", weights(0))
    write_checkpoint(tmp_path / "b", weights(0))
    (tmp_path / "b" / "model.safetensors").write_bytes(b"\xff" * 40)

    assert weight_agreements(catalog(CHECKPOINT), [pair(Level.RELATED)]) == {}
    assert "weights of b could not be read" in caplog.text


def test_shipped_zoo__has_shared_weights_where_one_was_trained_further(tmp_path: Path) -> None:
    write_start(tmp_path)
    read = read_catalog(tmp_path / "data_catalog.yaml", {})
    pairs = [
        Relation("digits", "mlp_s0", other, Level.RELATED, 1.0, 0.9, 0.9, 0, 5, False)
        for other in ("mlp_s0_finetuned", "mlp_s0_permuted", "mlp_s1", "cnn_s0")
    ]

    found = weight_agreements(read, pairs)

    words = {
        next(iter(names - {"mlp_s0"})): (one.says_something, one.are_shared, one.are_apart)
        for names, one in found.items()
    }
    assert words == {
        "mlp_s0_finetuned": (True, True, False),
        "mlp_s0_permuted": (True, False, True),
        "mlp_s1": (True, False, True),
        "cnn_s0": (False, False, False),
    }


@pytest.mark.parametrize(("seed", "is_related"), [(0, True), (1, False)])
def test_units_in_another_order__leave_a_doubt_where_the_embedding_tables_agree(
    catalog: Any, tmp_path: Path, seed: int, is_related: bool
) -> None:
    # The table lies between other tensors, of which 16 are read, and its first tokens are unused, as BERT's are.
    def with_table(seed: int) -> dict[str, np.ndarray]:
        table = np.random.default_rng(9 + seed).normal(size=(1500, 30)).astype(np.float32)
        table[:100] = table[0]
        return weights(seed, 40) | {"layer07.words": table}

    order = np.random.default_rng(5).permutation(30)
    other = with_table(seed)
    other |= {name: values[..., ::-1].copy() for name, values in other.items() if name.endswith(".weight")}
    other["layer07.words"] = np.ascontiguousarray(other["layer07.words"][:, order])
    write_checkpoint(tmp_path / "a", with_table(0))
    write_checkpoint(tmp_path / "b", other)

    [agreement] = weight_agreements(catalog(CHECKPOINT), [pair(Level.BEYOND_CHANCE)]).values()

    assert abs(agreement.cosine) < 0.1
    assert (agreement.are_shared, agreement.are_apart) == (False, not is_related)
    assert agreement.embeddings == pytest.approx(1 if is_related else 0, abs=0.1)


def test_tables_of_positions__are_no_embeddings(catalog: Any, tmp_path: Path) -> None:
    angles = np.arange(5000)[:, None] / 10_000 ** (np.arange(64) / 64)
    for seed, name in enumerate("ab"):
        table = {"encoder.pos_table": np.hstack([np.sin(angles), np.cos(angles)]).astype(np.float32)}
        write_checkpoint(tmp_path / name, weights(seed) | table)

    [agreement] = weight_agreements(catalog(CHECKPOINT), [pair(Level.BEYOND_CHANCE)]).values()

    assert np.isnan(agreement.embeddings)
    assert agreement.are_apart


def test_rows_of_onnx_files__are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    write_start(tmp_path)
    read = read_catalog(tmp_path / "data_catalog.yaml", {})
    found = weight_matrices("mlp_s0", read.models["mlp_s0"].on_datasets[0], read) or {}
    matrix = next(iter(found.values()))

    assert matrix.read_rows().shape == (min(matrix.shape[0], 256), int(np.prod(matrix.shape[1:])))
    np.testing.assert_array_equal(matrix.read_rows()[0], matrix.read()[: matrix.read_rows().shape[1]])


def test_few_different_rows__say_nothing() -> None:
    table = np.zeros((1500, 8))
    table[:3] = np.random.default_rng(0).standard_normal((3, 8))
    assert np.isnan(embedding_agreement(table, table))
    assert np.isnan(embedding_agreement(np.ones((1500, 8)), np.ones((1500, 8))))
