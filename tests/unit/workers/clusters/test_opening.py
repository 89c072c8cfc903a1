"""A cluster is opened by its kind; a library that is not installed is a sentence before anything starts."""

import sys
from pathlib import Path

import pytest

from lfm_tasks.catalog import Catalog, read_catalog
from lfm_tasks.runtime.session import open_run
from lfm_tasks.workers.clusters.opening import LIBRARIES
from lfm_tasks.workers.pool import ClusterError

CATALOG = """
version: 1
datasets: {probe: {ids: positional}}
models: {a: {activations: {path: a.npy, dataset: probe}}}
"""


def catalog_with(folder: Path, cluster: str = "{}") -> Catalog:
    (folder / "data_catalog.yaml").write_text(f"{CATALOG}cluster: {cluster}\n")
    return read_catalog(folder / "data_catalog.yaml", {})


@pytest.mark.parametrize(
    ("kind", "section"),
    [
        ("slurm", "{type: slurm, interface: lo, n_workers: 1}"),
        ("kubernetes", "{type: kubernetes, image: lfm-atlas, n_workers: 1}"),
        ("gateway", "{type: gateway, address: 'https://g', n_workers: 1}"),
    ],
)
def test_extra_that_is_not_installed__is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, section: str
) -> None:
    for name in ("dask_jobqueue", "dask_kubernetes", "dask_kubernetes.operator", "dask_gateway"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"lfm_tasks.workers.clusters.{kind}", raising=False)

    needs = rf"needs {LIBRARIES[kind].replace('_', '-')}, .*pip install \"lfm-atlas\[{kind}\]\""
    with pytest.raises(ClusterError, match=needs), open_run(catalog_with(tmp_path, section), lambda *_: None):
        pass
