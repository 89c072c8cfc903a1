"""A user's own ``flows`` package beside the catalog changes nothing, whatever starts there."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RAISE = "raise ImportError('the user\\'s own flows were imported')\n"
LOAD = "from prefect.flows import load_flow_from_entrypoint as load; print(load('lfm_atlas.audit.audit').name)"


@pytest.fixture(params=["package", "module"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, related_spaces: Any, write_zoo: Callable[..., Path]) -> Path:
    folder = write_zoo(tmp_path, related_spaces(2, n_points=120, n_layers=1))
    if request.param == "module":
        (folder / "flows.py").write_text(RAISE)
    else:
        (folder / "flows").mkdir()
        for name in ("__init__", "audit", "atlas", "cli"):
            (folder / "flows" / f"{name}.py").write_text(RAISE)
    return folder


def started(folder: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Return the ended process of a command that has the user's folder as working directory and on its path."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return subprocess.run(
        command, cwd=folder, env=inherited | variables, capture_output=True, text=True, timeout=300, check=False
    )


def test_command__is_ours(folder: Path) -> None:
    script = Path(sys.executable).with_name("lfm-atlas")
    commands = [(sys.executable, "-m", "lfm_atlas"), *([(str(script),)] if script.is_file() else [])]

    for command in commands:
        validated = started(folder, *command, "validate", PYTHONPATH=str(folder))

        assert (validated.returncode, validated.stdout) == (0, "2 models, 2 spaces, 0 cannot be used\n")


@pytest.mark.safety
@pytest.mark.parametrize("options", [["--no-prefect"], []])
def test_run__is_ours_with_its_workers_and_its_server(options: list[str], folder: Path) -> None:
    ran = started(folder, sys.executable, "-m", "lfm_atlas", "run", *options)

    assert ran.returncode == 0, ran.stderr
    assert (folder / "atlas" / "report.html").is_file()
    assert "user's own flows" not in ran.stderr


def test_deployed_audit__is_loaded_from_the_installed_package(folder: Path) -> None:
    loaded = started(folder, sys.executable, "-c", LOAD, PYTHONPATH=str(folder))

    assert (loaded.returncode, loaded.stdout) == (0, "audit\n"), loaded.stderr


def test_users_flows__can_be_imported_beside_ours(folder: Path) -> None:
    code = "import lfm_atlas.pipeline\ntry: import flows\nexcept ImportError as error: print(error)"

    imported = started(folder, sys.executable, "-c", code)

    assert (imported.returncode, imported.stdout) == (0, "the user's own flows were imported\n"), imported.stderr
