"""An audit as it is by default, orchestrated by Prefect: the verdict is a state of its own, and an artifact."""

import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dask.distributed import LocalCluster
from ruamel.yaml import YAML

from lfm_atlas.artifacts import artifact_key


def audit(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return subprocess.run(
        [sys.executable, "-m", "lfm_atlas", "audit", str(folder / "data_catalog.yaml"), *options],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_broken_limit__is_3_and_a_state_by_name(
    tmp_path: Path, related_spaces: Any, write_zoo: Callable[..., Path]
) -> None:
    folder = write_zoo(tmp_path, related_spaces(2))
    path = folder / "data_catalog.yaml"
    content = YAML(typ="safe").load(path.read_text())
    content["audit"] = {"checks": {"quality": {"min_points": 100_000}}}
    with path.open("w") as file:
        YAML().dump(content, file)

    broken = audit(folder)

    assert broken.returncode == 3, broken.stderr
    assert "fail     quality: got a space of 120 points, expected 100000" in broken.stderr
    assert "Traceback" not in broken.stderr
    with sqlite3.connect(folder / ".lfm-atlas" / "prefect" / "prefect.db") as records:
        runs = records.execute("select name, state_type, state_name from flow_run").fetchall()
        tasks = records.execute("select name from task_run").fetchall()
        [(artifact,)] = records.execute("select data from artifact where key = 'lfm-atlas-audit'").fetchall()
        found = records.execute("select key, type, data, description from artifact").fetchall()
    [(name, *state)] = runs
    assert re.fullmatch(rf"audit of {folder.name}, \d{{4}}-\d\d-\d\d \d\d:\d\d UTC", name)
    assert state == ["FAILED", "ThresholdBroken"]
    assert {"audit-atlas", "validate", "build-bases"} <= {name for (name,) in tasks}
    kinds = {(key or "bar", kind): (data, words) for key, kind, data, words in found}
    page = artifact_key(folder / "atlas")
    assert '<img alt=\\"models by models' in kinds[page, "markdown"][0]
    assert '\\"nearest\\"' in kinds[f"{page}-nearest", "table"][0]
    assert (folder / "atlas/report.html").as_uri() in kinds[f"{page}-report", "markdown"][0]
    assert (folder / "audits").as_uri() in kinds["lfm-atlas-audit-page", "markdown"][0]
    assert "quality" in kinds["lfm-atlas-audit-checks", "table"][0]
    assert re.fullmatch(r"\w+: (\d+) of \1", kinds["bar", "progress"][1])
    assert "| quality | fail | yes |" in artifact
    assert "evidence of lineage, not proof" in artifact


def test_scheduler__does_the_work_of_an_audit(
    tmp_path: Path, related_spaces: Any, write_zoo: Callable[..., Path]
) -> None:
    folder = write_zoo(tmp_path, related_spaces(2, n_points=220, n_layers=1))
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, host="127.0.0.1", dashboard_address="127.0.0.1:0",
        protocol="tcp",
    ) as cluster:  # fmt: skip
        wrong = audit(folder, "--scheduler", "http://127.0.0.1:80")
        done = audit(folder, "--scheduler", cluster.scheduler_address)
        tasks = set(cluster.scheduler.task_prefixes)

    assert wrong.returncode == 2
    assert "--scheduler: got 'http://127.0.0.1:80', expected tcp:// or tls://host:port, or a" in wrong.stderr
    assert done.returncode == 0, done.stderr
    assert "this atlas is the baseline now" in done.stdout
    assert tasks
