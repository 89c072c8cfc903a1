"""The section ``cluster``: local without a word, one kind named by ``type``, and no place for a secret."""

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from lfm_tasks.catalog import Catalog, CatalogError, catalog_schema, on_scheduler, read_catalog
from lfm_tasks.catalog.cluster import KINDS, Adapt, Tls
from lfm_tasks.catalog.reading import catalog_yaml

SLURM = {"type": "slurm", "interface": "lo", "n_workers": 2}
KUBERNETES = {"type": "kubernetes", "image": "zoo/lfm-atlas:1", "n_workers": 2}
GATEWAY = {"type": "gateway", "address": "https://gateway.example.org", "adapt": {"maximum": 9}}


def content(cluster: Any) -> dict[str, Any]:
    model = {"activations": {"path": "a.npy", "dataset": "probe"}}
    return {"version": 1, "datasets": {"probe": {"ids": "positional"}}, "models": {"a": model}, "cluster": cluster}


def read(folder: Path, cluster: Any) -> Catalog:
    path = folder / "data_catalog.yaml"
    with path.open("w") as file:
        YAML().dump(content(cluster), file)
    return read_catalog(path, {})


@pytest.mark.parametrize("cluster", [{}, {"n_workers": 3}, {"memory_limit": "2GiB"}, {"type": "local"}])
def test_without_a_type__the_cluster_is_local(tmp_path: Path, cluster: Any) -> None:
    assert read(tmp_path, cluster).cluster.type == "local"
    jsonschema.validate(content(cluster), catalog_schema())


@pytest.mark.parametrize(
    "cluster",
    [
        {
            "type": "address",
            "scheduler": "tls://10.0.0.1:8786",
            "tls": {"ca": "ca.pem", "cert": "c.pem", "key": "k.pem"},
        },
        {"type": "address", "scheduler": "shared/scheduler.json"},
        SLURM | {"partition": "gpu", "directives": ["--exclude=n[3-4]", "--exclusive"], "walltime": "1-00:00:00"},
        KUBERNETES | {"volume_claim": "zoo", "volume_path": "/zoo"},
        GATEWAY | {"options": {"worker_memory": 4}},
    ],
)
def test_each_kind__is_read_printed_and_in_the_schema(tmp_path: Path, cluster: Any) -> None:
    catalog = read(tmp_path, cluster)
    (tmp_path / "printed.yaml").write_text(catalog_yaml(catalog))

    assert catalog.cluster.type == cluster["type"]
    assert read_catalog(tmp_path / "printed.yaml", {}).cluster == catalog.cluster
    jsonschema.validate(content(cluster), catalog_schema())


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        ({"type": "slrm"}, "got the text 'slrm', expected local or address or slurm or kubernetes or gateway; did you"),
        ({"type": "slurm", "n_workers": 1}, "interface is missing. Add it"),
        (SLURM | {"memory_limit": "2GiB"}, "unknown key; did you mean 'memory'"),
        ({"n_worker": 1}, "unknown key; did you mean 'n_workers'"),
        ({"scheduler": "tcp://a:1"}, "unknown key; there is memory_limit, n_workers, type"),
        (
            {"type": "address", "scheduler": "http://a:1"},
            "got 'http://a:1', expected tcp:// or tls://host:port, or",
        ),
        ({"type": "address", "scheduler": "tcp://a"}, "got 'tcp://a', expected tcp:// or tls://host:port"),
        (
            {"type": "address", "scheduler": "tcp://me:hunter2@a:1"},
            "got a user or password in 'tcp://a:1', expected none",
        ),
        (SLURM | {"adapt": {"maximum": 3}}, "got both of n_workers and adapt, expected one: n_workers: 8, or adapt"),
        ({"type": "slurm", "interface": "lo"}, "got neither of n_workers and adapt, expected one"),
        (SLURM | {"directives": ["--x=1\nrm -rf /"]}, "should match pattern"),
        (SLURM | {"partition": "a b"}, "should match pattern"),
        (GATEWAY | {"adapt": {"minimum": 3, "maximum": 2}}, "got minimum 3 and maximum 2, expected them in order"),
        (GATEWAY | {"address": "gateway"}, "expected an address such as https://gateway.example.org"),
        (KUBERNETES | {"volume_claim": "zoo"}, "got one of volume_claim and volume_path, expected both or neither"),
    ],
)
def test_mistake__is_told_with_its_line_and_without_secrets(tmp_path: Path, cluster: Any, message: str) -> None:
    with pytest.raises(CatalogError) as caught:
        read(tmp_path, cluster)

    [problem] = caught.value.problems
    assert message in problem.message
    assert problem.line > 8
    assert "hunter2" not in str(caught.value)


def test_scheduler_of_the_command_line__takes_the_place_of_the_section_and_keeps_its_certificates(
    tmp_path: Path,
) -> None:
    tls = {"ca": "ca.pem", "cert": "cert.pem", "key": "key.pem"}
    catalog = read(tmp_path, {"type": "address", "scheduler": "tls://10.0.0.1:8786", "tls": tls})

    moved = on_scheduler(catalog, "tls://10.0.0.2:8786").cluster
    local = on_scheduler(read(tmp_path, {}), "shared/scheduler.json").cluster

    assert moved.model_dump() == catalog.cluster.model_dump() | {"scheduler": "tls://10.0.0.2:8786"}
    assert local.model_dump()["scheduler"] == str(Path("shared/scheduler.json").absolute())
    with pytest.raises(ValueError, match="expected tcp:// or tls://host:port"):
        on_scheduler(catalog, "ftp://a:1")


PAGE = (Path(__file__).parents[3] / "docs/clusters.md").read_text(encoding="utf-8")


def test_page__shows_sections_that_are_read_and_names_every_key(tmp_path: Path) -> None:
    examples = [YAML(typ="safe").load(text)["cluster"] for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]

    assert [read(tmp_path, example).cluster.type for example in examples] == list(KINDS)
    keys = {key for kind in (*KINDS.values(), Tls, Adapt) for key in kind.model_fields}
    assert sorted(key for key in keys if not re.search(rf"\b{key}:", PAGE)) == []
