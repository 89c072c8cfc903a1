"""Modules and settings that somebody put where a command starts or reads: none is imported, none is obeyed.

They lie in the working directory, in the catalog's folder, in the store and in the folder of the Prefect server.
`tests/integration/test_deployed_audit.py` plants them for ``deploy``, ``serve`` and a worker, too.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from lfm_tasks.stores.units.marker import claim_store

pytestmark = pytest.mark.safety

CATALOG = "../zoo/data_catalog.yaml"
SCRIPT = """
from lfm_atlas.cli.main import main
if __name__ == "__main__":
    main()
"""


@dataclass(frozen=True)
class Scene:
    """A zoo and a working directory beside it, both with strangers in them, and the command."""

    zoo: Path
    work: Path
    # A console script: Python puts its folder on the path, and not the working directory.
    script: Path
    strangers: Any

    def start(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        inherited.pop("PYTHONSAFEPATH", None)
        return subprocess.run(
            [sys.executable, *command], cwd=self.work, env=inherited | variables, capture_output=True, text=True,
            timeout=600, check=False,
        )  # fmt: skip

    def lfm_atlas(self, *arguments: str, **variables: str) -> str:
        return done(self.start(str(self.script), *arguments, **variables))


def done(process: subprocess.CompletedProcess[str]) -> str:
    assert process.returncode == 0, process.stdout + process.stderr
    # What is read and cannot be understood is told so: settings of strangers are not read.
    assert "hostile" not in process.stdout + process.stderr
    return process.stdout


def change(zoo: Path, **sections: Any) -> None:
    path = zoo / "data_catalog.yaml"
    content = YAML(typ="safe").load(path.read_text())
    for name, section in sections.items():
        content[name] = {**content.get(name, {}), **section}
    with path.open("w") as file:
        YAML().dump(content, file)


@pytest.fixture
def scene(tmp_path: Path, related_spaces: Any, write_zoo: Callable[..., Path], strangers: Any) -> Scene:
    zoo = write_zoo(tmp_path / "zoo", related_spaces(2, n_layers=1))
    checks = {"quality": {"min_points": 100, "min_reliability": -1}, "near_duplicate": None}
    change(zoo, audit={"checks": checks}, cluster={"n_workers": 1})
    script = tmp_path / "bin" / "lfm-atlas"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    scene = Scene(zoo, tmp_path / "work", script, strangers)
    # A folder with anything in it and no marker would be refused as a store.
    claim_store(zoo / ".lfm-atlas")
    strangers.plant(scene.work, zoo, zoo / ".lfm-atlas", zoo / ".lfm-atlas" / "prefect")
    return scene


def test_commands__import_and_obey_nothing_of_strangers(scene: Scene) -> None:
    scene.lfm_atlas("validate", CATALOG)
    scene.lfm_atlas("plan", CATALOG)
    scene.lfm_atlas("run", CATALOG)
    scene.lfm_atlas("audit", CATALOG)
    scene.lfm_atlas("map", "model0/layer0", "model1/layer0", "--catalog", CATALOG)

    assert scene.strangers.seen() == {}
    assert (scene.zoo / "atlas" / "report.html").is_file()


def test_commands_without_prefect_and_dask__import_and_obey_nothing_of_strangers(scene: Scene) -> None:
    scene.lfm_atlas("plan", CATALOG)
    scene.lfm_atlas("run", CATALOG, "--no-prefect")
    scene.lfm_atlas("audit", CATALOG, "--no-dask")
    scene.lfm_atlas("maps", "--catalog", CATALOG)
    refused = scene.start(str(scene.script), "reproduce", CATALOG, "--no-dask", "--experiment", "layer_matching")
    assert refused.returncode in (0, 4), refused.stderr
    assert "hostile" not in refused.stderr

    assert scene.strangers.seen() == {}


def test_empty_entry_of_pythonpath__is_no_leave_to_import_from_the_working_directory(scene: Scene) -> None:
    # Python itself imports these two from there, before any line of ours runs, and our package from the first place.
    for name in ("sitecustomize", "usercustomize", "lfm_atlas", "contextlib", "typing"):
        (scene.work / f"{name}.py").unlink()

    # As `PYTHONPATH=$NOTHING:...` makes it: the empty entry is the working directory.
    scene.lfm_atlas("run", CATALOG, PYTHONPATH=os.pathsep + os.environ["PYTHONPATH"])

    assert scene.strangers.seen() == {}


def test_started_as_a_module__imports_nothing_of_the_working_directory(scene: Scene) -> None:
    with_p = scene.start("-P", "-m", "lfm_atlas", "validate", CATALOG)
    for name in ("contextlib", "lfm_atlas", "multiprocessing", "pickle", "typing"):
        (scene.work / f"{name}.py").unlink()
    ran = [scene.start("-m", "lfm_atlas", "run", CATALOG, *options) for options in ([], ["--no-prefect"])]

    for process in (with_p, *ran):
        done(process)
    assert scene.strangers.seen() == {}


def test_trust_code__alone_lets_modules_of_the_catalogs_folder_run(scene: Scene) -> None:
    pytest.importorskip("torch")
    witness = scene.strangers.folder / "nets"
    (scene.zoo / "nets.py").write_text(
        "from torch.nn import Linear, Sequential, Tanh\n"
        f"open({str(witness)!r}, 'w').close()\n"
        "def net(): return Sequential(Linear(int(open('width.txt').read()), 4), Tanh())\n"
    )
    (scene.zoo / "width.txt").write_text("3")  # found beside the catalog, wherever the command starts
    np.save(scene.zoo / "inputs.npy", np.random.default_rng(0).standard_normal((120, 3)).astype(np.float32))
    change(scene.zoo, models={"net": {"torch": {"factory": "nets:net", "dataset": "probe"}, "layers": ["0"]}})
    content = YAML(typ="safe").load((scene.zoo / "data_catalog.yaml").read_text())
    change(scene.zoo, datasets={"probe": {**content["datasets"]["probe"], "inputs": {"path": "inputs.npy"}}})

    refused = scene.start(str(scene.script), "run", CATALOG, "--no-prefect", "--only", "net")

    assert "[untrusted_code]" in refused.stderr
    assert scene.strangers.seen() == {}
    ran = scene.start(str(scene.script), "run", CATALOG, "--trust-code", "--only", "net")
    assert set(scene.strangers.seen()) == {"nets"}, ran.stderr
    assert "bad_factory" not in ran.stderr
