"""Commands on a small zoo, and mounts: what the tests of this suite share."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from lfm_atlas.cli.main import app

SETTINGS = {"graph": {"n_neighbors": 5}, "n_eigenpairs": 4, "null": {"n_permutations": 9}, "measures": ["overlap"]}


def command(name: str, folder: Path, *options: str, catalog: str = "data_catalog.yaml") -> int:
    """Return the exit code of a command on the catalog in ``folder``."""
    try:
        code: int = app([name, str(folder / catalog), *options], result_action="return_value")
    except SystemExit as left:
        code = int(left.code or 0)
    return code


def run(folder: Path, **options: Any) -> int:
    """Return the exit code of a run in this process."""
    return command("run", folder, "--no-prefect", "--no-dask", **options)


def audit(folder: Path) -> int:
    """Return the exit code of an audit in this process that makes the atlas the baseline."""
    return command("audit", folder, "--no-prefect", "--no-dask", "--promote")


def edit(folder: Path, catalog: str = "data_catalog.yaml", **sections: Any) -> None:
    """Change keys of the catalog in ``folder``; write it as ``catalog``."""
    yaml = YAML(typ="safe", pure=True)
    content = yaml.load(folder / "data_catalog.yaml")
    for section, keys in sections.items():
        content[section] = {**content.get(section, {}), **keys}
    with (folder / catalog).open("w") as file:
        yaml.dump(content, file)


def everything(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files below ``folder``, by name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def zoo(tmp_path: Path, write_zoo: Callable[..., Path], related_spaces: Any) -> Path:
    """Give a folder with a zoo of two spaces and its catalog."""
    return write_zoo(tmp_path / "zoo", related_spaces(2, n_points=40, n_layers=1), **SETTINGS)


@pytest.fixture
def mounts(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mount a file system in memory, or a folder once more, at a new folder; skip where that is not allowed."""
    mounted: list[Path] = []

    def mount(place: Path, source: Path | None = None) -> Path:
        place.mkdir()
        how = ["-t", "tmpfs", "tmpfs"] if source is None else ["--bind", str(source)]
        try:
            done = subprocess.run(["mount", *how, str(place)], capture_output=True, check=False)
        except FileNotFoundError:
            pytest.skip("not run: there is no command mount")
        if done.returncode:
            pytest.skip("not run: mounting takes root")
        mounted.append(place)
        return place

    yield mount
    for place in reversed(mounted):
        subprocess.run(["umount", str(place)], check=True)
