"""Settings of Prefect that lie around, and servers of the user that are not there, not theirs, or older."""

import base64
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lfm_atlas.prefect_access import PrefectError, find_user_server
from lfm_atlas.prefect_settings import settings_of_run, variables_of_server
from lfm_atlas.proxies import LOOPBACK
from tests.robustness.environments.commands import Ended, clean_environment, crowd, lfm_atlas
from tests.robustness.environments.conftest import files, free_port

WRONG = "PREFECT_CLIENT_MAX_RETRIES"
PROFILE = """
active = "company"
[profiles.company]
PREFECT_CLIENT_MAX_RETRIES = "wrong"
PREFECT_SERVER_DATABASE_CONNECTION_URL = "sqlite+aiosqlite:///{database}"
"""


@pytest.mark.environments
def test_run_among_settings_of_others__obeys_none_and_writes_into_its_own_database(
    zoo: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    database, home = tmp_path / "company.db", tmp_path / "home"
    (home / ".prefect").mkdir(parents=True)
    for place in (home / ".prefect" / "profiles.toml", tmp_path / "profiles.toml"):
        place.write_text(PROFILE.format(database=database))
    for name in ("pyproject.toml", "prefect.toml"):
        (zoo / name).write_text(f'[{"tool.prefect." * (name[1] == "y")}client]\nmax_retries = "wrong"\n')
    (zoo / ".env").write_text(f"{WRONG}=wrong\nPREFECT_API_DATABASE_CONNECTION_URL=sqlite+aiosqlite:///{database}\n")
    variables = {
        "HOME": str(home),
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{database}",
        "prefect_server_database_connection_url": f"sqlite+aiosqlite:///{database}",
        WRONG: "wrong",
        "PREFECT_PROFILES_PATH": str(tmp_path / "profiles.toml"),
        "PREFECT_PROFILE": "company",
        "PREFECT_HOME": str(home / ".prefect"),
        "PREFECT_API_KEY": "key of a cloud",
        "PREFECT_API_AUTH_STRING": "user:password of another server",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "wrong",
        "PREFECT_FLOWS_DEFAULT_RETRIES": "9",
    }

    lfm_atlas("run", folder=zoo, variables=variables).check(0, "2 spaces, 0 failed")

    assert not list(tmp_path.glob("company.db*"))
    assert (zoo / ".lfm-atlas" / "prefect" / "prefect.db").is_file()
    assert files(zoo / "atlas") == expected


def test_environment_of_our_server__holds_what_is_allowed_and_the_users_logging(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.upper().startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    refused = ("PREFECT_API_DATABASE_CONNECTION_URL", "prefect_home", "DASK_CONFIG", "WEB_CONCURRENCY", "OTEL_EXPORTER")
    kept = ("PATH", "LANG", "https_proxy", "NO_PROXY", "PREFECT_LOGGING_LEVEL", "LFM_ATLAS_TEST", "LD_LIBRARY_PATH")
    for name in refused + kept:
        monkeypatch.setenv(name, "given")

    variables = variables_of_server(tmp_path, "secret", with_schedules=False)

    assert {variables[name] for name in kept} == {"given"}
    assert not set(refused) & set(variables)
    assert variables["PREFECT_HOME"] == str(tmp_path)
    assert variables["PREFECT_SERVER_API_AUTH_STRING"] == variables["PREFECT_API_AUTH_STRING"] == "secret"
    assert "PREFECT__SERVER_EPHEMERAL" not in variables_of_server(tmp_path, "secret", with_schedules=True)
    of_run = settings_of_run(tmp_path, "secret")
    assert (of_run["prefect_home"], of_run["PREFECT_API_DATABASE_CONNECTION_URL"]) == (None, None)
    assert "PREFECT_LOGGING_LEVEL" not in of_run


@pytest.mark.environments
@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"PREFECT_LOGGING_LEVEL": "NOISY"}, "LoggingSettings.level"),
        ({"PREFECT_LOGGING_SETTINGS_PATH": "logging.yml"}, "cannot use (ParserError"),
    ],
)
def test_wrong_settings_of_the_users_logging__are_told_in_a_sentence(
    variables: dict[str, str], told: str, zoo: Path
) -> None:
    (zoo / "logging.yml").write_text("version: [1\n")

    ended = lfm_atlas("run", folder=zoo, variables=variables)

    if "got the Prefect server of this run ended" not in ended.err:  # which has the same settings, and may be first
        ended.check(2, told, "Correct the PREFECT_... variables", most_lines=2)
    ended.check(ended.code, most_lines=2)


@pytest.mark.environments
def test_server_that_does_not_answer__is_told_after_ten_seconds_with_the_variable(zoo: Path) -> None:
    address = f"http://127.0.0.1:{free_port()}/api"

    def end(command: str) -> Ended:
        return lfm_atlas(command, folder=zoo, variables={"PREFECT_API_URL": address})

    commands = ("run", "audit", "deploy", "serve")
    with ThreadPoolExecutor() as pool:  # they wait, side by side
        ends = dict(zip(commands, pool.map(end, commands), strict=True))

    told = f"got no answer from PREFECT_API_URL={address} within 10 s ([Errno 111] Connection refused)"
    for command, ended in ends.items():
        ended.check(2, told, most_lines=1 if command == "deploy" else 2, within=60)
        assert ended.seconds > 10  # it may be starting


@pytest.mark.parametrize("address", ["localhost:4200/api", "ftp://host/api", "http://host:no/api", "http:///api", "x"])
def test_address_that_is_none__is_told_without_a_password(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", address)

    with pytest.raises(PrefectError, match=r"got PREFECT_API_URL=.*, expected the address of an API, such as http"):
        find_user_server()


def test_without_an_address__there_is_no_server_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "")

    assert find_user_server() is False


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Start a Prefect server of the user, by the ``prefect`` of a Python; return the address of its API."""
    started: list[subprocess.Popen[bytes]] = []

    def start(python: str, password: str) -> str:
        port = free_port()
        variables = clean_environment() | {
            "PREFECT_HOME": str(tmp_path / "prefect"),
            "PREFECT_SERVER_API_AUTH_STRING": password,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "no_proxy": ",".join(LOOPBACK),
        }
        variables.pop("PYTHONPATH", None)
        command = [python, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
        with (tmp_path / "server.log").open("wb") as log:
            started.append(
                subprocess.Popen(command, env=variables, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
            )
        address = f"http://127.0.0.1:{port}/api"
        deadline = time.monotonic() + 120 * crowd()
        while True:
            try:
                urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{address}/health", timeout=5)
            except OSError:
                assert time.monotonic() < deadline, (tmp_path / "server.log").read_text()
                time.sleep(0.2)
            else:
                return address

    yield start  # type: ignore[misc]
    for process in started:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def ask(address: str, path: str, password: str) -> str:
    headers = {
        "Content-Type": "application/json",
        "Authorization": f"Basic {base64.b64encode(password.encode()).decode()}",
    }
    request = urllib.request.Request(f"{address}/{path}", b"{}", headers)  # noqa: S310 - loopback
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
        return str(answer.read().decode())


@pytest.mark.environments
def test_server_of_the_user__takes_runs_with_its_password_behind_any_proxy(
    zoo: Path, start_server: Callable[[str, str], str], proxy: tuple[str, list[str]]
) -> None:
    address, password = start_server(sys.executable, "admin:word"), "admin:word"
    variables = {"PREFECT_API_URL": address, "http_proxy": f"http://{proxy[0]}", "ALL_PROXY": "socks5://127.0.0.1:1"}

    for wrong, told in (
        ({"PREFECT_API_AUTH_STRING": "admin:wrong"}, f"got 401 from PREFECT_API_URL={address}"),
        (
            {"PREFECT_API_AUTH_STRING": password, "PREFECT_API_URL": address.removesuffix("/api")},
            "ends in /api",
        ),
        ({"PREFECT_API_AUTH_STRING": password, "PREFECT_API_REQUEST_TIMEOUT": "soon"}, "request_timeout"),
    ):
        lfm_atlas("run", folder=zoo, variables=variables | wrong).check(2, told, most_lines=2)
    lfm_atlas("run", folder=zoo, variables=variables | {"PREFECT_API_AUTH_STRING": password}).check(0)

    assert proxy[1] == []
    assert "COMPLETED" in ask(address, "flow_runs/filter", password)
    assert not (zoo / ".lfm-atlas" / "prefect").exists()


@pytest.mark.environments
@pytest.mark.parametrize("variable", ["LFM_ATLAS_TEST_OLDER_PREFECT", "LFM_ATLAS_TEST_NEWER_PREFECT"])
def test_server_of_another_minor_version__takes_runs_and_audits(
    variable: str, zoo: Path, start_server: Callable[[str, str], str]
) -> None:
    python = os.environ.get(variable) or pytest.skip(f"not run: {variable} names no Python with that Prefect")
    address, password = start_server(python, "admin:word"), "admin:word"
    variables = {"PREFECT_API_URL": address, "PREFECT_API_AUTH_STRING": password}

    lfm_atlas("run", folder=zoo, variables=variables).check(0, "2 spaces, 0 failed")
    lfm_atlas("audit", folder=zoo, variables=variables).check(3, "audit: fail")
    deployed = lfm_atlas("deploy", folder=zoo, variables=variables)

    if "OLDER" in variable:
        deployed.check(2, "at the server, expected 3.", "upgrade the server", most_lines=2)
        assert ask(address, "deployments/filter", password) == "[]"
    else:
        deployed.check(0, "audit/zoo runs at")


@pytest.mark.environments
@pytest.mark.parametrize("options", [[], ["--no-prefect"]], ids=["prefect", "no prefect"])
def test_loopback_that_is_down__is_told_and_no_dask_needs_none(options: list[str], zoo: Path) -> None:
    unshare = shutil.which("unshare") or pytest.skip("not run: there is no command unshare")
    alone = (unshare, "--net")
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("not run: a network of its own takes root")

    ended = lfm_atlas("run", *options, folder=zoo, before=alone)

    ended.check(1, "got no connection of this machine to its own 127.0.0.1", "ip link set lo up", within=60)
    lfm_atlas("run", "--no-dask", folder=zoo, before=alone).check(0, "2 spaces, 0 failed")
