"""A scheduler that runs already: a file or certificate that is missing is a sentence."""

from pathlib import Path

import pytest

from lfm_tasks.catalog import read_catalog
from lfm_tasks.workers.clusters.address import open_cluster
from lfm_tasks.workers.pool import ClusterError

CATALOG = """
version: 1
datasets: {probe: {ids: positional}}
models: {a: {activations: {path: a.npy, dataset: probe}}}
"""


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        ("{type: address, scheduler: none.json}", "got no scheduler file .*none.json. Start dask scheduler"),
        (
            "{type: address, scheduler: 'tls://127.0.0.1:1', tls: {ca: no.pem}}",
            "got no certificate .*no.pem: cluster.tls names PEM files",
        ),
        ("{type: address, scheduler: 'tls://127.0.0.1:1'}", "tls://127.0.0.1:1 needs certificates. Name them in"),
    ],
)
def test_what_a_scheduler_needs__is_told(tmp_path: Path, cluster: str, message: str) -> None:
    (tmp_path / "data_catalog.yaml").write_text(f"{CATALOG}cluster: {cluster}\n")
    catalog = read_catalog(tmp_path / "data_catalog.yaml", {})
    with pytest.raises(ClusterError, match=message), open_cluster(catalog):
        pass


def test_scheduler__is_reached_by_its_address_or_its_file(tmp_path: Path) -> None:
    (tmp_path / "scheduler.json").write_text("{}")
    for scheduler, argument, value in (
        ("tcp://127.0.0.1:8786", "address", "tcp://127.0.0.1:8786"),
        ("scheduler.json", "scheduler_file", str(tmp_path / "scheduler.json")),
    ):
        (tmp_path / "data_catalog.yaml").write_text(f"{CATALOG}cluster: {{type: address, scheduler: '{scheduler}'}}\n")
        with open_cluster(read_catalog(tmp_path / "data_catalog.yaml", {})) as arguments:
            assert arguments[argument] == value
