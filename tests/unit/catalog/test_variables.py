"""Values of the environment stand where nobody publishes them, and are nowhere shown: a secret stays one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from lfm_tasks.catalog import Catalog, CatalogError, read_catalog
from lfm_tasks.catalog.sections import CatalogText, _allows_variables, _models, kinds_of
from lfm_tasks.variables import hidden_values

SECRET = "hunter2-of-the-zoo"  # noqa: S105 - nobody's
ADVICE = "Write it out; variables are for paths, storage and places of the cluster"
REFUSED = f"got the variable KEY, expected plain text: what stands here is published, stored or logged. {ADVICE}"
MODEL = "models: {small: {activations: {path: '{layer}.npy', dataset: probe}, %s}}\n"
START = "version: 1\ndatasets: {probe: {ids: positional}}\n"
GOOD = START + MODEL % "layers: [a]"

# Of each kind of value that is published, stored or logged: text, list, mapping, number, word, name, unknown key.
REFUSED_AT = {
    "models.small.meta.note": START + MODEL % "meta: {note: 'x ${KEY}'}",
    "models.small.meta.notes[1]": START + MODEL % "meta: {notes: [a, '${KEY}']}",
    "models.small.meta.deep.note": START + MODEL % "meta: {deep: {note: '${KEY:-none}'}}",
    "models.small.meta": START + MODEL % "meta: '${KEY}'",
    "models.small.layers[0]": START + MODEL % "layers: ['${KEY}']",
    "models.small.activations.key": START
    + "models: {small: {activations: {path: 'a.npz', key: '${KEY}', dataset: probe}}}\n",
    "models.small.activations.dataset": START
    + "models: {small: {activations: {path: '{layer}', dataset: '${KEY}'}}}\n",
    "models.small.torch.factory": START + "models: {small: {torch: {factory: '${KEY}', dataset: probe}}}\n",
    "models.small.torch.args.token": START
    + "models: {small: {torch: {factory: 'a:b', dataset: probe, args: {token: '${KEY}'}}}}\n",
    "datasets.probe.ids": GOOD.replace("ids: positional", "ids: '${KEY}'"),
    "datasets.probe.labels.key": GOOD.replace("ids: positional", "ids: positional, labels: {path: a, key: '${KEY}'}"),
    "atlas.n_eigenpairs": GOOD + "atlas: {n_eigenpairs: '${KEY}'}\n",
    "atlas.graph.metric": GOOD + "atlas: {graph: {metric: '${KEY}'}}\n",
    "atlas.measures[0]": GOOD + "atlas: {measures: ['${KEY}']}\n",
    "comparisons.a.sources": GOOD + "comparisons: {a: {sources: '${KEY}', targets: '*'}}\n",
    "comparisons.a.sources.meta.family": GOOD
    + "comparisons: {a: {sources: {meta: {family: '${KEY}'}}, targets: '*'}}\n",
    "audit.promote": GOOD + "audit: {promote: '${KEY}'}\n",
    "audit.checks.quality.enforced": GOOD + "audit: {checks: {quality: {enforced: '${KEY}'}}}\n",
    "cluster.options.token": GOOD
    + "cluster: {type: gateway, n_workers: 1, address: 'http://x', options: {token: '${KEY}'}}\n",
    "cluster.directives[0]": GOOD + "cluster: {type: slurm, n_workers: 1, interface: lo, directives: ['${KEY}']}\n",
    "unknown": GOOD + "unknown: '${KEY}'\n",
    "defaults.meta.note": GOOD + "defaults: {meta: {note: '${KEY}'}}\n",
}


def read(folder: Path, text: str) -> Catalog:
    path = folder / "data_catalog.yaml"
    path.write_text(text)
    return read_catalog(path, {"KEY": SECRET, "DATA": "/scratch/zoo"})


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(CatalogError) as refused:
        read(folder, text)
    return str(refused.value)


@pytest.mark.parametrize("key", REFUSED_AT)
def test_value_of_the_environment__is_refused_where_it_would_be_published(key: str, tmp_path: Path) -> None:
    text = REFUSED_AT[key]

    message = refusal(tmp_path, text)

    line = text[: text.index("${KEY")].count("\n") + 1
    assert f"{tmp_path}/data_catalog.yaml:{line}: {key}: {REFUSED}" in message.splitlines()
    assert SECRET not in message


def test_values_of_the_environment__are_taken_for_paths_storage_and_places(tmp_path: Path) -> None:
    catalog = read(
        tmp_path,
        "version: 1\ndatasets: {probe: {ids: {path: '${DATA}/ids.npy', storage: '${LAB:-lab}'}}}\n"
        "defaults: {activations: {path: '${DATA}/{model}.npz', key: '{layer}', dataset: probe}}\n"
        "models: {small: {layers: [a]}}\natlas: {path: '${OUT:-atlas}'}\n"
        "cluster: {type: address, scheduler: 'tls://${HOST:-here}:8786', tls: {key: '${DATA}/key.pem'}}\n",
    )

    assert catalog.model_on("small").activations is not None
    assert catalog.model_on("small").activations.path == "/scratch/zoo/{model}.npz"
    assert catalog.hidden("/scratch/zoo/a.npz") == "${DATA}/a.npz"
    assert "/scratch" not in repr(catalog)
    assert "hidden" not in catalog.model_dump()


def marked(model: type[BaseModel], where: str = "") -> Iterator[str]:
    """Yield the keys that take values of the environment, in all classes of the catalog."""
    for name, key in model.model_fields.items():
        place = f"{where}.{name}".removeprefix(".")
        if all(_allows_variables(kind) for kind in kinds_of(model, name)):
            yield place
        kinds: list[Any] = [key.annotation, *get_args(key.annotation)]
        for below in dict.fromkeys(part for kind in kinds for part in _models(kind)):
            yield from marked(below, place)


def test_keys_that_take_values_of_the_environment__are_those_of_paths_storage_and_places() -> None:
    keys = set(marked(CatalogText))

    assert {key.rpartition(".")[2] for key in keys} == {
        "path", "weights", "base", "tokenizer", "registry", "storage", "store", "remote", "baseline",
        "n_workers", "scheduler", "ca", "cert", "key", "interface", "partition", "account", "image", "namespace",
        "volume_claim", "volume_path", "address", "proxy_address",
    }  # fmt: skip
    assert {key for key in keys if key.endswith(".key")} == {"cluster.tls.key"}


def test_lists_of_paths__take_values_of_the_environment(tmp_path: Path) -> None:
    text = """\
version: 1
datasets: {probe: {ids: positional, inputs: {path: inputs.npy}}}
models:
  net: {torch: {factory: "x:y", dataset: probe, reads: ["${HUB}/a.json"]}, layers: ["*"]}
links: ["${HUB}"]
"""
    (tmp_path / "data_catalog.yaml").write_text(text)
    catalog = read_catalog(tmp_path / "data_catalog.yaml", {"HUB": "/data/hub"})
    assert catalog.link_homes == (Path("/data/hub"),)
    assert catalog.model_on("net").torch is not None
    assert catalog.model_on("net").torch.reads == ("/data/hub/a.json",)
    (tmp_path / "data_catalog.yaml").write_text(text.replace('["*"]', '["${HUB}"]'))
    with pytest.raises(CatalogError, match=r"models\.net\.layers\[0\]: got the variable HUB, expected plain text"):
        read_catalog(tmp_path / "data_catalog.yaml", {"HUB": "/data/hub"})


@pytest.mark.parametrize(
    ("section", "expected"),
    {
        "atlas: {remote: '${KEY}'}\n": "atlas.remote: got a value of KEY that does not fit",
        "cluster: {type: address, scheduler: 'http://${KEY}'}\n": "cluster.scheduler: got a value of KEY that does not",
        "cluster: {n_workers: '${KEY}'}\n": "cluster.n_workers: got a value of KEY that does not fit, expected a whole",
        "atlas: {store: !!int '${KEY}'}\n": "got '${KEY}' with the tag '!!int'",
        "atlas: {path: '${KEY}', store: '${KEY}'}\n": "",
    }.items(),
)
def test_value_of_the_environment_that_does_not_fit__is_not_shown(section: str, expected: str, tmp_path: Path) -> None:
    message = refusal(tmp_path, GOOD + section)

    assert expected in message
    assert SECRET not in message


def test_value_that_comes_by_an_anchor__is_refused_where_it_ends(tmp_path: Path) -> None:
    text = "x-note: &note {note: '${KEY}'}\n" + START + MODEL % "meta: {<<: *note}"

    message = refusal(tmp_path, text)

    assert "got the variable KEY" in message
    assert SECRET not in message


def test_messages__name_variables_in_the_place_of_their_values() -> None:
    variables = {"ZOO": "/scratch/zoo", "SECRET": SECRET, "SHORT": "zoo"}

    assert hidden_values(variables)("/scratch/zoo/a.npz: not found") == "${ZOO}/a.npz: not found"
    assert hidden_values(variables)(f"got '{SECRET}', zoo") == "got '${SECRET}', zoo"
    assert hidden_values(variables)(f"a_{SECRET}_b") == "a_${SECRET}_b"
    assert hidden_values({"WORD": "tool"})("tools, a_tool") == "tools, a_tool"
