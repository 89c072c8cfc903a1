"""Options of the whole suite, and the zoos that its tests build."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from lfm_atlas.pipeline import Outcome, build_atlas
from lfm_tasks.catalog import read_catalog
from lfm_tasks.runtime.session import open_run
from lfm_tasks.zoo import write_start

ROOT = Path(__file__).parents[1]
# What tests start reads the working tree, too, and not what happens to be installed.
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "flows")])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--safety", action="store_true", help="also start whole commands among hostile files and users")
    parser.addoption("--environments", action="store_true", help="also start whole commands in hostile environments")
    parser.addoption("--slow", action="store_true", help="also run tests marked slow (minutes)")
    parser.addoption("--browser", action="store_true", help="also open the report in headless Chromium")
    parser.addoption("--chaos", action="store_true", help="also kill processes, fill disks, damage stores")
    parser.addoption("--fuzz", action="store_true", help="also feed readers and catalogs with hostile input")
    parser.addoption("--large", action="store_true", help="also run what needs much memory, disk or time")
    parser.addoption("--cluster", action="store_true", help="also run on real SLURM, Gateway, TLS and S3 servers")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for option in ("safety", "environments", "slow", "browser", "chaos", "fuzz", "large", "cluster"):
            # The marker: folders bear the names of options, too, and hold tests that always run.
            if item.get_closest_marker(option) and not config.getoption(f"--{option}"):
                item.add_marker(pytest.mark.skip(reason=f"{option}: run with --{option}"))


# Small enough for seconds, large enough that every stage has something to do.
SMALL: Mapping[str, Any] = {
    "graph": {"n_neighbors": 10},
    "n_eigenpairs": 8,
    "null": {"n_permutations": 19},
}

Space = tuple[np.ndarray, np.ndarray]
WriteZoo = Callable[..., Path]
Build = Callable[..., Outcome]


@pytest.fixture(scope="session")
def write_zoo() -> WriteZoo:
    """Write a folder with a catalog and, for each model, a .npz of its layers and a .npy of its ids.

    ``dataset``: more keys of the dataset; an array becomes a file, a row for each id in ascending order.
    """

    def write(
        folder: Path,
        models: Mapping[str, tuple[Mapping[str, np.ndarray], np.ndarray]],
        dataset: Mapping[str, Any] | None = None,
        **atlas: Any,
    ) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        catalog: dict[str, Any] = {
            "version": 1,
            "datasets": {"probe": {"ids": {"path": "ids.npy"}}},
            "models": {},
            "atlas": {**SMALL, **atlas},
        }
        np.save(folder / "ids.npy", np.unique(np.concatenate([ids for _, ids in models.values()])))
        for name, value in (dataset or {}).items():
            if isinstance(value, np.ndarray):
                np.save(folder / f"{name}.npy", value)
            catalog["datasets"]["probe"][name] = {"path": f"{name}.npy"} if isinstance(value, np.ndarray) else value
        for name, (layers, ids) in models.items():
            np.savez(folder / f"{name}.npz", **layers)
            np.save(folder / f"{name}_ids.npy", ids)
            source = {"path": "{model}.npz", "key": "{layer}", "dataset": "probe", "ids": {"path": "{model}_ids.npy"}}
            catalog["models"][name] = {"activations": source}
        with (folder / "data_catalog.yaml").open("w") as file:
            YAML().dump(catalog, file)
        return folder

    return write


@pytest.fixture(scope="session")
def build() -> Build:
    """Build the atlas of a folder's catalog, in this process unless told otherwise."""

    def run(folder: Path, *, in_process: bool = True) -> Outcome:
        catalog = read_catalog(folder / "data_catalog.yaml")
        with open_run(catalog, lambda stage, done, total: None, in_process=in_process) as opened:
            return build_atlas(opened)

    return run


@pytest.fixture(scope="session")
def zoo_folder_built(tmp_path_factory: pytest.TempPathFactory, build: Build) -> Path:
    """Give a folder with the shipped zoo and its atlas."""
    folder = tmp_path_factory.mktemp("zoo")
    write_start(folder)
    build(folder)
    return folder


@pytest.fixture(scope="session")
def checkpoint_zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with checkpoints of several libraries, texts and images; see `tests.checkpoint_zoo`."""
    pytest.importorskip("transformers")
    from tests.checkpoint_zoo import write_checkpoint_zoo
    from tests.torchvision_operators import define_missing_operators

    define_missing_operators()
    pytest.importorskip("peft")
    return write_checkpoint_zoo(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="session")
def related_spaces() -> Callable[..., dict[str, tuple[dict[str, np.ndarray], np.ndarray]]]:
    """Make models whose layers are noisy random images of one set of points; rows in another order each."""

    def make(n_models: int, *, n_points: int = 120, n_layers: int = 2, seed: int = 0) -> dict[str, Any]:
        generator = np.random.default_rng(seed)
        ids = np.array([f"p{number:03}" for number in range(n_points)])
        latent = generator.standard_normal((n_points, 4))
        models = {}
        for number in range(n_models):
            order = generator.permutation(n_points)
            layers = {}
            for layer in range(n_layers):
                image = np.tanh(latent @ generator.standard_normal((4, 12 + number)))
                noise = 0.05 * (layer + 1) * generator.standard_normal(image.shape)
                layers[f"layer{layer}"] = (image + noise).astype(np.float32)[order]
            models[f"model{number}"] = (layers, ids[order])
        return models

    return make


# Names that our programs import. `python -m` imports the last ones before any line of ours runs: only -P helps.
_LIBRARIES = ["cyclopts", "dask", "distributed", "h5py", "lfm_tasks", "numba", "numpy", "prefect", "pydantic", "rich"]
_LIBRARIES += ["conftest", "sitecustomize", "usercustomize", "uvicorn", "zarr"]
_BEFORE_US = ["contextlib", "lfm_atlas", "multiprocessing", "pickle", "typing"]
_STRANGER = """
import os
with open({folder!r} + "/{name}-" + str(os.getpid()), "w") as file:
    file.write(os.getcwd())
raise ImportError("{name} of a stranger was imported")
"""
# Whoever obeys one of these fails: no setting takes these values, or a folder appears where the strangers tell.
_STRANGE_SETTINGS = {
    ".env": "PREFECT_CLIENT_MAX_RETRIES=hostile\nPREFECT_PROFILES_PATH={folder}/profiles.toml\n",
    "prefect.toml": '[client]\nmax_retries = "hostile"\n',
    "pyproject.toml": '[tool.prefect.client]\nmax_retries = "hostile"\n',
    "setup.cfg": "[prefect]\nmax_retries = hostile\n",
    "profiles.toml": 'active = "hostile"\n[profiles.hostile]\nPREFECT_CLIENT_MAX_RETRIES = "hostile"\n',
    "logging.yml": "version: hostile\n",
    ".numba_config.yaml": "cache_dir: {folder}/numba\nnum_threads: hostile\n",
    "matplotlibrc": "backend: hostile\n",
    "dask.yaml": "distributed: {worker: {preload: [hostile]}}\n",
    "distributed.yaml": "distributed: {nanny: {preload: [hostile]}}\n",
    "hostile.pth": "import os; open('{folder}/pth', 'w').close()\n",
    "pip.conf": "[global]\nindex-url = http://hostile\n",
}


class Strangers:
    """Modules and settings of somebody who may write where our programs start; each one that is imported says so."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def plant(self, *folders: Path, with_python_m: bool = False) -> None:
        """Put them into folders; ``with_python_m`` without those that ``python -m`` itself would import."""
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name in _LIBRARIES + ([] if with_python_m else _BEFORE_US):
                (folder / f"{name}.py").write_text(_STRANGER.format(folder=str(self.folder), name=name))
            for name, text in _STRANGE_SETTINGS.items():
                (folder / name).write_text(text.replace("{folder}", str(self.folder)))

    def seen(self) -> dict[str, str]:
        """Return what was imported or obeyed, and the working directory at that time."""
        return {path.name: path.read_text() if path.is_file() else "" for path in self.folder.iterdir()}


@pytest.fixture
def strangers(tmp_path: Path) -> Strangers:
    return Strangers(tmp_path / "strangers")
