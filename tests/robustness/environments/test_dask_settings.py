"""Dask's settings that the user wrote for other programs: ignored by local clusters, partly honored by the user's."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dask
import pytest

from lfm_tasks.workers.dask_config import DASK_SETTINGS, HONORED, DaskSettingsError, dask_settings, honored_settings
from tests.robustness.environments.commands import clean_environment, lfm_atlas
from tests.robustness.environments.conftest import files, free_port

HOSTILE = """
temporary-directory: /nowhere
logging: {distributed: debug}
distributed:
  scheduler: {idle-timeout: 2s, allowed-failures: 0}
  worker: {lifetime: 3s, memory: {terminate: 0.01}, preload: [no_such_module]}
  nanny: {preload: [no_such_module]}
  admin: {log-format: "no format"}
  comm:
    require-encryption: true
    offload: no size
    timeouts: {connect: 1ms}
"""
BROKEN = "distributed: [unclosed\n  worker: {\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home" / ".config" / "dask"
    folder.mkdir(parents=True)
    return folder.parents[1]


def write(home: Path, text: str) -> Path:
    path = home / ".config" / "dask" / "company.yaml"
    path.write_text(text)
    return path


@pytest.mark.environments
@pytest.mark.parametrize(
    ("options", "of_home", "of_variable"),
    [
        ([], HOSTILE, BROKEN),
        (["--no-prefect"], HOSTILE, HOSTILE),
        (["--no-prefect"], BROKEN, BROKEN),
        (["--no-dask"], HOSTILE, HOSTILE),
        (["--no-dask"], BROKEN, BROKEN),
    ],
    ids=["both", "no prefect, hostile", "no prefect, broken", "no dask, hostile", "no dask, broken"],
)
def test_local_run__ignores_the_users_settings(
    options: list[str],
    of_home: str,
    of_variable: str,
    zoo: Path,
    home: Path,
    tmp_path: Path,
    expected: dict[str, bytes],
) -> None:
    write(home, of_home)
    path = tmp_path / "named.yaml"
    path.write_text(of_variable)
    variables = {"HOME": str(home), "DASK_CONFIG": str(path), "DASK_DISTRIBUTED__WORKER__LIFETIME": "1s"}
    variables |= {"DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True", "DASK_DISTRIBUTED__COMM__OFFLOAD": "no size"}

    ended = lfm_atlas("run", *options, folder=zoo, variables=variables)

    ended.check(0, "2 spaces, 0 failed", most_lines=30)
    assert files(zoo / "atlas") == expected
    lfm_atlas("show", "atlas", "summary", folder=zoo, variables=variables).check(0, most_lines=0)


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[str]:
    """Give the address of a scheduler with a worker, started by hand."""
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    commands = (
        ["scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"],
        ["worker", address, "--host", "127.0.0.1", "--nthreads", "1", "--no-dashboard"],
    )
    started = []
    for command in commands:
        with (tmp_path / f"{command[0]}.log").open("wb") as log:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "dask", *command],
                    env=clean_environment(),
                    cwd=tmp_path,
                    stdout=log,
                    stderr=log,
                )
            )
    yield address
    for process in reversed(started):
        process.terminate()
        process.wait(30)


@pytest.mark.environments
def test_run_at_an_address__honors_encryption_and_times_and_ignores_the_rest(
    scheduler: str, zoo: Path, home: Path, expected: dict[str, bytes]
) -> None:
    patient = HOSTILE.replace("connect: 1ms", "connect: 50s").replace("require-encryption: true", "")
    write(home, patient)
    at = ("run", "--scheduler", scheduler)

    for more, told in (
        ({"DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True"}, "encryption"),
        ({"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "soon"}, "got 'soon' as Dask's setting"),
    ):
        lfm_atlas(*at, "--no-prefect", folder=zoo, variables={"HOME": str(home)} | more).check(1, told, most_lines=8)
    lfm_atlas(*at, folder=zoo, variables={"HOME": str(home)}).check(0, "2 spaces, 0 failed")

    assert files(zoo / "atlas") == expected


KINDS = {
    "address": "{type: address, scheduler: 'tcp://127.0.0.1:1'}",
    "slurm": "{type: slurm, interface: lo, n_workers: 1}",
    "kubernetes": "{type: kubernetes, image: lfm-atlas, n_workers: 1}",
    "gateway": "{type: gateway, address: 'http://127.0.0.1:1', n_workers: 1}",
}


@pytest.mark.environments
@pytest.mark.parametrize(("options", "kind"), [([], "address"), *((["--no-prefect"], kind) for kind in KINDS)], ids=str)
def test_file_that_is_no_yaml__is_told_in_a_sentence_by_every_cluster_of_the_user(
    options: list[str], kind: str, zoo: Path, home: Path
) -> None:
    path = write(home, BROKEN)
    catalog = zoo / "data_catalog.yaml"
    catalog.write_text(catalog.read_text().replace("cluster: {n_workers: 1}", f"cluster: {KINDS[kind]}"))

    ended = lfm_atlas("run", *options, folder=zoo, variables={"HOME": str(home)})

    ended.check(1, f"got settings that Dask cannot read (A dask config file at '{path}'", most_lines=2)


def test_settings_in_a_run__are_ours_and_come_back_afterwards(tmp_path: Path) -> None:
    with dask.config.set({"distributed.scheduler.idle-timeout": "2s", "of-somebody": 1}):
        with dask_settings({"distributed.comm.timeouts.connect": "7s"}):
            assert dask.config.get("distributed.scheduler.idle-timeout", None) is None
            assert dask.config.get("of-somebody", None) is None
            assert dask.config.get("distributed.comm.timeouts.connect") == "7s"
            for name in set(DASK_SETTINGS) - {"distributed.comm.timeouts.connect"}:
                assert dask.config.get(name) == DASK_SETTINGS[name]
        assert dask.config.get("distributed.scheduler.idle-timeout") == "2s"
        assert dask.config.get("of-somebody") == 1


def test_honored_settings__are_those_of_the_way_in(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home, HOSTILE + "gateway: {auth: {type: basic, kwargs: {username: ada}}}\nkubernetes: {name: mine}\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TLS__CA_FILE", "/ca.pem")
    monkeypatch.setenv("DASK_GATEWAY__AUTH__TYPE", "jupyterhub")
    monkeypatch.setenv("DASK_DISTRIBUTED__WORKER__LIFETIME", "1s")

    found = {name.replace("_", "-"): value for name, value in honored_settings().items()}

    assert found == {
        "temporary-directory": "/nowhere",
        "distributed.comm.require-encryption": True,
        "distributed.comm.timeouts.connect": "1ms",
        "distributed.comm.tls.ca-file": "/ca.pem",
        "gateway.auth.type": "jupyterhub",
        "gateway.auth.kwargs.username": "ada",
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (BROKEN, r"got settings that Dask cannot read \(A dask config file at .* Correct that file, or move it away"),
        ("- a list\n", "got settings that Dask cannot read"),
        (
            "distributed: {comm: {timeouts: {tcp: soon}}}\n",
            "got 'soon' as Dask's setting distributed.comm.timeouts.tcp",
        ),
        ("distributed: {comm: {timeouts: {tcp: [1]}}}\n", "expected a time such as 30s"),
    ],
)
def test_settings_that_cannot_be_read__are_told(
    text: str, told: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(home, text)
    monkeypatch.setenv("HOME", str(home))

    with pytest.raises(DaskSettingsError, match=told):
        honored_settings()


def test_settings_of_the_user__are_told_by_the_pages() -> None:
    page = (Path(__file__).parents[3] / "docs" / "clusters.md").read_text(encoding="utf-8")
    assert [name for name in HONORED if f"`{name}" not in page] == []
