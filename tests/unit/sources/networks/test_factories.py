"""Factories: what decides their network is known before they run, and they run no code that nobody trusts."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm_tasks.catalog import Catalog, read_catalog
from lfm_tasks.errors import DataError, Stopped
from lfm_tasks.sources.files.digests import DigestMemory
from lfm_tasks.sources.networks.factories import check_trust, read_recipe, run_factory
from lfm_tasks.sources.opening import open_source, read_dataset
from lfm_tasks.sources.source import Source

ZOO = """
import os
from pathlib import Path

calls = Path(__file__).with_name("calls.txt")

def note(**args):
    with calls.open("a") as file:
        file.write(f"{args}\\n")

def returns(**args):
    return args

def network(scale=1.0, **args):
    from torch import nn

    note(**args)
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    with __import__("torch").no_grad():
        net[0].weight *= scale
    return net

def from_unnamed_file():
    return network(scale=float(calls.with_name("unnamed.txt").read_text()))

def stopped():
    from lfm_tasks.errors import Stopped
    raise Stopped(143)

def leaves():
    raise SystemExit(3)

def environment():
    return {name: os.environ.get(name) for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")}

def needs_a_package():
    import no_such_package
"""


def written(folder: Path, options: str, *, trust: bool = True, name: str = "net", **environment: str) -> Catalog:
    (folder / "factory_zoo.py").write_text(ZOO)
    np.save(folder / "inputs.npy", np.random.default_rng(0).standard_normal((10, 4)).astype(np.float32))
    (folder / "data_catalog.yaml").write_text(f"""
version: 1
datasets: {{probe: {{ids: positional, inputs: {{path: inputs.npy}}}}}}
models: {{{name}: {{torch: {{{options}, dataset: probe}}}}}}
""")
    return read_catalog(folder / "data_catalog.yaml", environment, trust_code=trust)


def recipe(catalog: Catalog, name: str = "net") -> Any:
    model = catalog.model_on(name).torch
    assert model is not None
    return read_recipe(name, model, catalog)


def args_of(catalog: Catalog, name: str = "net") -> Any:
    return run_factory(recipe(catalog, name), catalog).value


# --- arguments


def test_args__get_the_models_and_the_datasets_names_at_any_depth(tmp_path: Path) -> None:
    options = 'factory: "factory_zoo:returns", args: {a: "{model}-x", b: [{c: "{dataset}"}], d: "{other}", e: 3}'
    assert args_of(written(tmp_path, options)) == {"a": "net-x", "b": [{"c": "probe"}], "d": "{other}", "e": 3}


def test_args__that_name_files_are_those_of_the_catalogs_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "zoo/net").mkdir(parents=True)
    (tmp_path / "net").mkdir()
    (tmp_path / "weights.pt").write_text("w")
    arguments = (
        '{file: weights.pt, folder: "zoo/{model}", name: "{model}", path: "{model}", url: "hub://a/b", word: none}'
    )
    catalog = written(tmp_path, f'factory: "factory_zoo:returns", args: {arguments}')
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert args_of(catalog) == {
        "file": str(tmp_path / "weights.pt"),
        "folder": str(tmp_path / "zoo/net"),
        "name": "net",  # the name of an architecture, beside a folder that is called so
        "path": str(tmp_path / "net"),
        "url": "hub://a/b",
        "word": "none",
    }


def test_args__name_the_folders_that_discovery_finds(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / "zoo" / name).mkdir(parents=True)
    (tmp_path / "data_catalog.yaml").write_text("""
version: 1
datasets: {probe: {ids: positional, inputs: {path: inputs.npy}}}
discover:
  zoo: {torch: {factory: "factory_zoo:returns", args: {n: 3, path: "zoo/{model}", name: "{model}"}, dataset: probe}}
""")
    (tmp_path / "factory_zoo.py").write_text(ZOO)
    catalog = read_catalog(tmp_path / "data_catalog.yaml", {}, trust_code=True)
    assert list(catalog.models) == ["one", "two"]
    assert args_of(catalog, "two") == {"n": 3, "path": str(tmp_path / "zoo/two"), "name": "two"}


@pytest.mark.parametrize(
    ("options", "changed", "parts"),
    [
        ("args: {path: weights.bin}", "weights.bin", {"args"}),
        ('args: {deep: [{path: "zoo/{model}"}]}', "zoo/net/config.json", {"args"}),
        ('args: {path: "zoo/{model}"}', "zoo/net/deep/tokenizer.json", {"args"}),
        ('reads: ["zoo/{model}/*.json"]', "zoo/net/config.json", {"reads"}),
        ('reads: ["zoo/**/*.json"]', "zoo/net/deep/tokenizer.json", {"reads"}),
        ('args: {path: "zoo/{model}"}, reads: ["zoo/net/config.json"]', "zoo/net/config.json", {"reads"}),
        ("args: {}", "factory_zoo.py", {"module"}),
        ('weights: "{model}.safetensors"', "net.safetensors", {"weights"}),
    ],
)
def test_recipe__changes_with_each_file_that_decides_the_network(
    tmp_path: Path, options: str, changed: str, parts: set[str]
) -> None:
    (tmp_path / "zoo/net/deep").mkdir(parents=True)
    for name in ("weights.bin", "net.safetensors", "zoo/net/config.json", "zoo/net/deep/tokenizer.json"):
        (tmp_path / name).write_text("{}")
    catalog = written(tmp_path, f'factory: "factory_zoo:returns", {options}')
    before, again = recipe(catalog), recipe(catalog)
    (tmp_path / changed).write_text((tmp_path / changed).read_text() + " ")
    after = recipe(catalog)
    assert before.key == again.key != after.key
    assert {name for name in before.identity if before.identity[name] != after.identity[name]} == parts
    assert str(tmp_path) not in json.dumps(dict(before.identity))


@pytest.mark.parametrize("name", ["zoo/net/.git/x", "zoo/net/__pycache__/x.pyc", "zoo/net/.hidden"])
def test_recipe__of_a_folder_leaves_out_hidden_files(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / "zoo/net/config.json").write_text("{}")
    catalog = written(tmp_path, 'factory: "factory_zoo:returns", args: {path: "zoo/{model}"}')
    before = recipe(catalog)
    (tmp_path / name).write_text("x")
    assert recipe(catalog).key == before.key


def test_recipe__runs_and_imports_nothing(tmp_path: Path) -> None:
    catalog = written(tmp_path, 'factory: "no_such_package.models:net"')
    assert recipe(catalog).identity["module"] == "none"
    recipe(written(tmp_path, 'factory: "factory_zoo:network"'))
    assert "factory_zoo" not in sys.modules
    assert not (tmp_path / "calls.txt").exists()


def test_reads__that_match_nothing_are_told(tmp_path: Path) -> None:
    catalog = written(tmp_path, 'factory: "factory_zoo:returns", reads: ["zoo/{model}/*.json"]')
    with pytest.raises(DataError, match=r"got reads: 'zoo/net/\*\.json', which matches no file") as caught:
        recipe(catalog)
    assert caught.value.reason == "missing_source"


def test_args__with_a_folder_of_too_many_files_ask_for_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lfm_tasks.sources.networks.factories._MOST_FILES", 3)
    (tmp_path / "cache").mkdir()
    for index in range(5):
        (tmp_path / f"cache/{index}.json").write_text("{}")
    options = 'factory: "factory_zoo:returns", args: {cache_dir: cache}'
    with pytest.raises(
        DataError, match=r"got the folder 'cache' with over 3 files in args.*reads: \['cache/\*\.json'\]"
    ):
        recipe(written(tmp_path, options))
    recipe(written(tmp_path, f"{options}, reads: ['cache/0.json']"))


# --- trust


@pytest.mark.parametrize(
    "args",
    [
        {"trust_remote_code": True},
        {"trust_remote_code": "false"},
        {"options": [{"deep": {"trust_remote_code": 1}}]},
        {"allow_pickle": True},
        {"weights_only": False},
        {"trust_repo": "check"},
        {"custom_pipeline": "somebody/code"},
    ],
)
def test_args__that_run_a_checkpoints_code_need_the_users_word_even_for_trusted_modules(
    tmp_path: Path, args: dict[str, Any]
) -> None:
    trusted = written(tmp_path, 'factory: "json:loads"', trust=False, LFM_ATLAS_TRUSTED_MODULES="json,torch")
    with pytest.raises(DataError, match=r"got args\..*, which lets the factory run code .*--trust-code") as caught:
        check_trust("net", "json:loads", args, trusted)
    assert caught.value.reason == "untrusted_code"
    check_trust("net", "json:loads", args, written(tmp_path, 'factory: "json:loads"'))


@pytest.mark.parametrize(
    "args", [{"trust_remote_code": False}, {"trust_remote_code": None}, {"weights_only": True}, {"weights_only": None}]
)
def test_args__that_ask_for_no_code_are_left_to_trusted_modules(tmp_path: Path, args: dict[str, Any]) -> None:
    trusted = written(tmp_path, 'factory: "json:loads"', trust=False, LFM_ATLAS_TRUSTED_MODULES="json,torch")
    check_trust("net", "json:loads", args, trusted)


@pytest.mark.parametrize("factory", ["torch.hub:load", "torch:hub.load"])
def test_factory__that_runs_a_repositorys_file_needs_the_users_word(tmp_path: Path, factory: str) -> None:
    trusted = written(tmp_path, 'factory: "json:loads"', trust=False, LFM_ATLAS_TRUSTED_MODULES="torch")
    with pytest.raises(DataError, match=f"got the factory {factory}, which lets"):
        check_trust("net", factory, {}, trusted)


# --- running


def test_factory__is_kept_from_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "0")
    catalog = written(tmp_path, 'factory: "factory_zoo:environment"')
    assert args_of(catalog) == {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "0"}  # what somebody set stays
    assert "HF_HUB_OFFLINE" not in os.environ


def test_factory__that_is_stopped_by_a_signal_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        args_of(written(tmp_path, 'factory: "factory_zoo:stopped"'))


def test_factory__that_exits_by_itself_is_a_failure_of_its_model(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="factory_zoo:leaves raised SystemExit: 3") as caught:
        args_of(written(tmp_path, 'factory: "factory_zoo:leaves"'))
    assert caught.value.reason == "bad_factory"


def test_factory__that_lacks_a_package_names_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No module named 'no_such_package' .*\. Install the package no_such_package"):
        args_of(written(tmp_path, 'factory: "factory_zoo:needs_a_package"'))


def test_factory__of_an_optional_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Missing:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "timm":
                raise ModuleNotFoundError("No module named 'timm'", name="timm")

    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    with pytest.raises(DataError, match=r'timm:create_model cannot be imported .*. Run pip install "lfm-atlas\[hf\]"'):
        args_of(written(tmp_path, 'factory: "timm:create_model"'))


# --- what is remembered


def opened(folder: Path, memory: DigestMemory, options: str) -> Source:
    pytest.importorskip("torch", reason="needs the extra [torch]")
    catalog = written(folder, options)
    return open_source("net", catalog.model_on("net"), catalog, read_dataset("probe", catalog), memory)


def n_calls(folder: Path) -> int:
    calls = folder / "calls.txt"
    return len(calls.read_text().splitlines()) if calls.exists() else 0


def next_night(memory: DigestMemory) -> DigestMemory:
    return DigestMemory(json.loads(memory.as_json()))


def test_unchanged_network__is_not_built_again(tmp_path: Path) -> None:
    memory = DigestMemory()
    first = opened(tmp_path, memory, 'factory: "factory_zoo:network"')
    known = (first.layer_names(), first.identity("0"))
    assert n_calls(tmp_path) == 1

    second = opened(tmp_path, next_night(memory), 'factory: "factory_zoo:network"')
    assert (second.layer_names(), second.identity("0")) == known
    assert n_calls(tmp_path) == 1


def test_changed_network__is_built_again(tmp_path: Path) -> None:
    memory = DigestMemory()
    first = opened(tmp_path, memory, 'factory: "factory_zoo:network", args: {scale: 1.0}').identity("0")
    second = opened(tmp_path, next_night(memory), 'factory: "factory_zoo:network", args: {scale: 2.0}').identity("0")
    assert n_calls(tmp_path) == 2
    assert {name for name in first if first[name] != second[name]} == {"args", "state"}


def test_network__of_a_helper_module_that_changed_is_built_again(tmp_path: Path) -> None:
    (tmp_path / "factory_helper.py").write_text("width = 3\n")
    (tmp_path / "factory_user.py").write_text(
        "from factory_helper import width\nfrom torch import nn\n\nnet = lambda: nn.Sequential(nn.Linear(4, width))\n"
    )
    memory = DigestMemory()
    first = opened(tmp_path, memory, 'factory: "factory_user:net"').identity("0")
    (tmp_path / "factory_helper.py").write_text("width = 5\n")
    second = opened(tmp_path, next_night(memory), 'factory: "factory_user:net"')
    assert {name for name in first if first[name] != second.identity("0")[name]} == {"code", "state"}


def test_network__that_reads_what_the_catalog_does_not_name_is_told_when_it_runs(tmp_path: Path) -> None:
    (tmp_path / "unnamed.txt").write_text("1.0")
    memory = DigestMemory()
    opened(tmp_path, memory, 'factory: "factory_zoo:from_unnamed_file"').layer_names()
    (tmp_path / "unnamed.txt").write_text("2.0")
    source = opened(tmp_path, next_night(memory), 'factory: "factory_zoo:from_unnamed_file"')
    source.identity("0")
    with pytest.raises(DataError, match=r"built another network than in an earlier .*Name what else it reads under"):
        list(source.batches(["0"], np.arange(4)))


STOPS = """
from torch import nn

class Stops(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, x):
        raise RuntimeError("does not run")

class Mixes(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.first, self.last = nn.Linear(4, 3), nn.Identity()
        self.kind = kind
        self.norm = nn.BatchNorm1d(3, track_running_stats=kind != "no statistics")

    def train(self, mode=True):
        return super().train(True if self.kind == "norm" else mode)

    def forward(self, x):
        import torch

        x = self.first(x)
        if self.kind in ("norm", "no statistics"):
            x = self.norm(x)
        elif self.kind == "dropout":
            x = nn.functional.dropout(x, 0.5)
        elif self.kind == "noise":
            x = x + torch.randn_like(x)
        elif self.kind == "center":
            x = x - x.mean(dim=0)
        return self.last(x)
"""


def test_network_that_stops__is_one_failure_of_its_model(tmp_path: Path) -> None:
    from lfm_tasks.stages.inventory.stage import validate_catalog

    pytest.importorskip("torch", reason="needs the extra [torch]")
    (tmp_path / "stopping_zoo.py").write_text(STOPS)
    catalog = written(tmp_path, 'factory: "stopping_zoo:Stops"')
    small = catalog.atlas.graph.model_copy(update={"n_neighbors": 3})
    catalog = catalog.model_copy(update={"atlas": catalog.atlas.model_copy(update={"graph": small, "n_eigenpairs": 4})})
    (failure,) = validate_catalog(catalog, lambda *_: None).failures
    assert (failure.model, failure.layer, failure.reason) == ("net", "", "unsupported_model")
    assert "does not run" in failure.message


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("norm", r"got the BatchNorm1d 'norm' in training mode, expected rows that follow from their own inputs"),
        ("no statistics", "got the BatchNorm1d 'norm' without running statistics"),
        ("dropout", r"got other rows when 3 points were computed again .*\(1 of 2 layers\).*'!last'"),
        ("noise", r"got other rows when 3 points were computed again .*'!last'"),
        ("center", r"got other rows when 3 points were computed again .*'!last'"),
    ],
)
def test_network__whose_rows_depend_on_chance_or_their_batch_is_refused(
    tmp_path: Path, kind: str, message: str
) -> None:
    (tmp_path / "stopping_zoo.py").write_text(STOPS)
    source = opened(tmp_path, DigestMemory(), f'factory: "stopping_zoo:Mixes", args: {{kind: {kind}}}')
    with pytest.raises(DataError, match=message) as caught:
        list(source.batches(["first", "last"], np.arange(10)))
    assert caught.value.reason == "not_a_function"
