"""What is installed: two packages and no other top-level name; and every module that a file names is there."""

import re
import tomllib
import zipfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from lfm_tasks import __version__

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WHEEL = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
TOP_LEVEL = {"lfm_atlas", "lfm_tasks"}
# Files in which people and programs find names of modules.
NAMING = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(path for path in (ROOT / "deploy").rglob("*") if path.is_file()),
    ROOT / ".ci" / "run",
    ROOT / "pyproject.toml",
]
# Groups of entry points, by which other packages add readers and measures: names that look like modules.
GROUPS = {"lfm_atlas.readers", "lfm_atlas.measures"}
MODULE = re.compile(r"(?<![\w./-])lfm_(?:atlas|tasks)(?:\.[A-Za-z_]\w*)+")


def exists(name: str) -> bool:
    """Return whether ``name`` is a module, or an attribute of one."""
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        try:
            found: object = import_module(".".join(parts[:n]))
        except ModuleNotFoundError:
            continue
        for part in parts[n:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def test_wheel__has_two_top_level_names() -> None:
    assert {Path(package).name for package in WHEEL["packages"]} == TOP_LEVEL
    assert all((ROOT / package / "__init__.py").is_file() for package in WHEEL["packages"])
    assert all((ROOT / package / "py.typed").is_file() for package in WHEEL["packages"])
    for source, target in WHEEL["force-include"].items():
        assert (ROOT / source).is_file()
        assert Path(target).parts[0] in TOP_LEVEL


def test_built_wheel__holds_nothing_else(tmp_path: Path) -> None:
    if find_spec("hatchling") is None:
        pytest.skip("not run: got no hatchling, which builds the wheel")
    from hatchling.builders.wheel import WheelBuilder

    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])

    with zipfile.ZipFile(wheel) as archive:
        files = set(archive.namelist())
    assert {file.split("/")[0] for file in files} == {
        *TOP_LEVEL,
        f"lfm_atlas-{__version__}.dist-info",
    }
    assert set(WHEEL["force-include"].values()) < files
    assert {"lfm_atlas/py.typed", "lfm_tasks/py.typed", "lfm_tasks/report/web/page.html.jinja"} < files


def test_version__is_the_same_in_every_file_that_names_it() -> None:
    naming = {
        "CITATION.cff": r"(?m)^version: (\S+)$",
        "deploy/k8s/kustomization.yaml": r'newTag: "([^"]+)"',
        "docs/clusters.md": r"image: \S+/lfm-atlas:(\S+)",
    }
    assert "version" in PROJECT["project"]["dynamic"]
    assert {file: re.findall(pattern, (ROOT / file).read_text()) for file, pattern in naming.items()} == {
        file: [__version__] for file in naming
    }


def test_command__is_a_function() -> None:
    (name,) = PROJECT["project"]["scripts"]
    module, _, function = PROJECT["project"]["scripts"][name].partition(":")

    assert name == PROJECT["project"]["name"]
    assert callable(getattr(import_module(module), function))


def test_entrypoint_of_deployments__is_the_flow_of_the_audit() -> None:
    from lfm_atlas.audit import audit

    (deployment,) = YAML(typ="safe").load(ROOT / "deploy" / "prefect.yaml")["deployments"]
    module, _, flow = deployment["entrypoint"].rpartition(".")

    assert getattr(import_module(module), flow) is audit


def test_every_module_that_a_file_names__is_there() -> None:
    named = {(path.relative_to(ROOT), name) for path in NAMING for name in MODULE.findall(path.read_text())}

    assert {name for _, name in named} >= {"lfm_atlas.cli.main", "lfm_atlas.audit.audit", "lfm_tasks.workers.pool"}
    assert [f"{path}: {name}" for path, name in sorted(named) if name not in GROUPS and not exists(name)] == []


def test_every_file_of_the_packages_that_a_file_names__is_there() -> None:
    pattern = re.compile(r"(?<![\w./-])(?:flows/lfm_atlas|lfm_tasks)/[\w./-]+\.py\b")
    named = {(path.relative_to(ROOT), file) for path in NAMING for file in pattern.findall(path.read_text())}

    assert "flows/lfm_atlas/pipeline.py" in {file for _, file in named}
    assert [f"{path}: {file}" for path, file in sorted(named) if not (ROOT / file).is_file()] == []
