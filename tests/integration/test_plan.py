"""The plan: tasks are counted exactly and bytes closely; what is there costs nothing."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lfm_atlas.cli.run import plan
from lfm_atlas.console import OK, USAGE
from lfm_tasks.catalog import cluster, read_catalog
from lfm_tasks.config import GraphConfig
from lfm_tasks.planning import (
    _WORDS,
    MORE_MEMORY,
    MissingWork,
    _Count,
    missing_work,
    plan_as_json,
    plan_run,
    predicted_seconds,
    worker_ceiling,
)
from lfm_tasks.runtime.load import WORKER_BYTES, Load, SpaceSize, total_load
from lfm_tasks.runtime.rates import RATES, load_seconds
from lfm_tasks.sources.checkpoints import requirements
from lfm_tasks.stages.bases.cost import basis_load
from lfm_tasks.stages.bases.job import BasisMethod
from lfm_tasks.stages.collection.cost import collection_load
from lfm_tasks.stages.inventory.stage import validate_catalog
from lfm_tasks.stores.units.store import UnitStore
from lfm_tasks.workers.resources import machine_bytes, memory_limit
from tests.conftest import Build, WriteZoo

SHIPPED = Path(__file__).parents[2] / "data_catalog.yaml"
KINDS = {
    "activations": ["activations"], "bases": ["bases", "halves"], "scores": ["scores"], "collection": ["collections"],
    "maps": ["kept_maps"], "embeddings": ["embeddings", "embedded_points", "probes"],
}  # fmt: skip
MORE = {"embeddings": {"spaces": ["model0"], "perplexity": 5}, "measures": ["lfm", "overlap", "cka_linear"]}


def planned(folder: Path) -> dict[str, MissingWork]:
    catalog = read_catalog(folder / "data_catalog.yaml")
    return {own.stage: own for own in missing_work(catalog, validate_catalog(catalog, lambda *_: None))}


def bytes_of(folder: Path, kinds: list[str]) -> int:
    store = folder / ".lfm-atlas"
    places = [store / part / kind for part in ("units", "receipts") for kind in kinds]
    return sum(path.stat().st_size for place in places for path in place.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def before_and_after(
    tmp_path_factory: pytest.TempPathFactory, write_zoo: WriteZoo, build: Build, related_spaces: Any
) -> tuple[dict[str, MissingWork], dict[str, MissingWork], Path]:
    folder = write_zoo(tmp_path_factory.mktemp("zoo"), related_spaces(4, n_points=150), **MORE)
    before = planned(folder)
    assert not (folder / ".lfm-atlas").exists()
    assert build(folder).failures == ()
    return before, planned(folder), folder


def test_tasks__are_as_many_as_the_run_has_units(before_and_after: Any) -> None:
    before, _, folder = before_and_after
    store = UnitStore(folder / ".lfm-atlas")
    assert before["activations"].load.tasks == 4
    assert before["activations"].n_missing == len(store.receipts("activations")) == 8
    for stage in ("bases", "scores", "collection", "maps"):
        assert before[stage].load.tasks == len(store.receipts(KINDS[stage][0])), stage
    assert before["scores"].n_missing == 36
    # At most: a pair with pictures may be the most alike one, too.
    n_kept = sum(len(receipt.facts["pairs"]) for receipt in store.receipts("kept_maps"))
    assert n_kept <= before["maps"].n_missing <= n_kept + 1


def test_copies__are_planned_and_recorded_once(
    tmp_path: Path, write_zoo: WriteZoo, build: Build, related_spaces: Any
) -> None:
    folder = write_zoo(tmp_path, related_spaces(2, n_points=60))
    for file in ("{}.npz", "{}_ids.npy"):
        (folder / file.format("model1")).write_bytes((folder / file.format("model0")).read_bytes())

    before = planned(folder)["activations"]
    outcome = build(folder)

    assert (before.n_missing, before.load.tasks) == (2, 1)
    assert outcome.failures == ()
    assert len(UnitStore(folder / ".lfm-atlas").receipts("activations")) == 2
    assert planned(folder)["activations"].n_there == 2


def test_bytes__are_those_of_the_units(before_and_after: Any) -> None:
    before, _, folder = before_and_after
    for stage, kinds in KINDS.items():
        assert before[stage].load.written_bytes == pytest.approx(bytes_of(folder, kinds), rel=0.25), stage
    published = sum(path.stat().st_size for path in (folder / "atlas").rglob("*") if path.is_file())
    assert 0.5 < before["atlas"].load.written_bytes / published < 2


def test_what_is_there__costs_nothing(before_and_after: Any) -> None:
    before, after, _ = before_and_after
    for stage, own in after.items():
        assert (own.n_missing, own.load) == (0, Load()), stage
        assert own.n_there == before[stage].n_missing, stage
    assert worker_ceiling(list(after.values())) == (WORKER_BYTES, "")


def test_plan__names_every_stage_and_the_ceiling(before_and_after: Any) -> None:
    folder = before_and_after[2]
    catalog = read_catalog(folder / "data_catalog.yaml")
    elsewhere = catalog.atlas.model_copy(update={"store": "elsewhere", "path": "new"})
    catalog = catalog.model_copy(update={"atlas": elsewhere})
    lines = plan_run(catalog, validate_catalog(catalog, lambda *_: None))
    for stage in (*KINDS, "atlas", "time", "memory", "written"):
        assert any(line.startswith(stage) for line in lines), stage


def test_plan_for_programs__has_the_numbers_of_the_plan(before_and_after: Any) -> None:
    before, _, folder = before_and_after
    catalog = read_catalog(folder / "data_catalog.yaml")
    elsewhere = catalog.atlas.model_copy(update={"store": "elsewhere", "path": "new"})
    catalog = catalog.model_copy(update={"atlas": elsewhere})

    told = plan_as_json(catalog, validate_catalog(catalog, lambda *_: None))

    assert {stage["stage"]: stage["missing"] for stage in told["stages"]} == {
        name: stage.n_missing for name, stage in before.items() if stage.n_missing or stage.n_there
    }
    assert told["written_bytes"] == sum(stage["written_bytes"] for stage in told["stages"])
    assert told["seconds"] > 0


def test_counts__are_in_the_singular_for_one() -> None:
    assert _WORDS["scores"].format(missing=_Count(1), there=0).startswith("1 pair to compute, 0 kept")
    assert _WORDS["scores"].format(missing=_Count(2), there=0).startswith("2 pairs to compute")
    assert _WORDS["bases"].format(missing=_Count(1), there=3) == "1 to compute, 3 kept"


def test_seconds__grow_with_the_work_and_fall_with_workers() -> None:
    size, way = SpaceSize("net/layer", 5000, 300), BasisMethod(_graph(), "exact", 50, 50)
    one = basis_load(size, way)
    stages = [MissingWork("bases", 4, 0, total_load([one] * 4))]
    assert stages[0].load.tasks == 4
    assert stages[0].load.peak_bytes == one.peak_bytes
    assert load_seconds(stages[0].load) == pytest.approx(4 * load_seconds(one))
    assert predicted_seconds(stages, 4) - predicted_seconds(stages, 1) == pytest.approx(-3 * load_seconds(one))
    twice = {kind: 2 * seconds for kind, seconds in RATES.items()}
    assert predicted_seconds(stages, 1, twice) == pytest.approx(2 * predicted_seconds(stages, 1))


def test_what_a_worker_does_once__is_counted_once_and_not_for_each_task() -> None:
    one = basis_load(SpaceSize("net/layer", 5000, 300), BasisMethod(_graph(), "pynndescent", 50, 50))
    assert one.starting_seconds > 5
    seconds = [predicted_seconds([MissingWork("bases", n, 0, total_load([one] * n))], 1) for n in (1, 11)]
    assert seconds[1] - seconds[0] == pytest.approx(10 * load_seconds(one))


def test_operations_of_every_stage__are_of_the_kinds_that_have_rates(before_and_after: Any) -> None:
    before, _, _ = before_and_after
    for name, stage in before.items():
        assert stage.load.work.keys() <= RATES.keys(), name
        assert not stage.load.tasks or load_seconds(stage.load) > 0, name


def test_cycles_of_many_spaces__are_tasks_of_their_own() -> None:
    sizes = [SpaceSize(f"m{number}/x", 100, 8) for number in range(2000)]
    assert collection_load(sizes[:1000], 20, 20, 64).tasks == 1
    # The collection, and each two of four groups.
    assert collection_load(sizes, 20, 20, 64).tasks == 1 + 10


def test_landmarks__take_no_memory_for_the_other_points_but_their_basis() -> None:
    size = SpaceSize("net/layer", 1_000_000, 4096)
    assert size.n_bytes > 15 << 30
    assert basis_load(size, BasisMethod(_graph(), "exact", 50, 10, n_landmarks=1000)).peak_bytes < 1 << 30
    assert basis_load(size, BasisMethod(_graph(), "exact", 50, 10)).peak_bytes > 15 << 30


@pytest.mark.parametrize(
    ("said", "n_bytes"),
    [("4GiB", 4 << 30), ("400MB", 400_000_000), ("1.5 GB", 1_500_000_000), ("512 KiB", 512 << 10), ("99B", 99)],
)
def test_memory_limit__is_what_the_catalog_says(said: str, n_bytes: int) -> None:
    catalog = read_catalog(SHIPPED)
    with_limit = catalog.model_copy(update={"cluster": catalog.cluster.model_copy(update={"memory_limit": said})})
    assert memory_limit(with_limit) == n_bytes


def test_memory_limit__is_else_the_machines_by_the_workers() -> None:
    catalog = read_catalog(SHIPPED)
    three = catalog.model_copy(update={"cluster": catalog.cluster.model_copy(update={"n_workers": 3})})
    assert memory_limit(three) == machine_bytes() // 3


def _graph() -> GraphConfig:

    return GraphConfig()


def test_every_kind_of_cluster__has_a_way_to_more_memory() -> None:
    assert MORE_MEMORY.keys() == cluster.KINDS.keys()


def sparse_checkpoint(folder: Path, n_layers: int) -> None:
    """Write a Llama whose weights are a header and a hole of 128 MiB for each layer."""
    config = {"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": n_layers, "vocab_size": 32000}
    shape, n_bytes = [4096, 8192], 4096 * 8192 * 4
    tensors = {
        f"model.layers.{layer}.weight": {"dtype": "F32", "shape": shape, "data_offsets": [at, at + n_bytes]}
        for layer in range(n_layers)
        for at in [layer * n_bytes]
    }
    header = json.dumps(tensors).encode()
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text("[PAD]\nsome\nwords\n")
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + n_layers * n_bytes)


def test_plan__refuses_a_checkpoint_larger_than_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(requirements, "_is_installed", lambda module: True)  # nothing of them is run
    sparse_checkpoint(tmp_path / "zoo" / "llama", n_layers=2)
    lines = [json.dumps({"id": row, "text": "some words " * 40}) for row in range(60)]
    (tmp_path / "texts.jsonl").write_text("\n".join(lines))
    catalog = """
version: 1
datasets: {docs: {texts: {path: texts.jsonl, id: id}}}
discover: {language: {transformers: {path: "zoo/{model}", dataset: docs, max_tokens: 64}}}
atlas: {graph: {n_neighbors: 5}, n_eigenpairs: 5}
cluster: {type: local, memory_limit: SIZE}
"""
    path = tmp_path / "data_catalog.yaml"
    path.write_text(catalog.replace("SIZE", "1GiB"))

    assert plan(path) == USAGE
    printed, refusal = capsys.readouterr()
    assert re.search(r"memory       at most 1\.\d GiB a worker \(activations: llama/hidden.00\), of 1.0 GiB", printed)
    assert "activations of llama/hidden.00 would take" in refusal
    assert "lower its batch_size or max_tokens, set dtype: bfloat16" in refusal
    assert "raise cluster.memory_limit" in refusal

    path.write_text(catalog.replace("SIZE", "4GiB"))

    assert plan(path) == OK
    work = missing_work(read_catalog(path), validate_catalog(read_catalog(path), lambda *_: None))[0].load.work
    # A multiply-add for each parameter, of 64 tokens of 60 texts.
    assert work["products"] == 2 * 4096 * 8192 * 64 * 60
