"""Audits on a schedule, against a real Prefect server and a real process worker on loopback."""

import base64
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from ruamel.yaml import YAML

from lfm_atlas.prefect_server import PREFECT_DEFAULTS
from lfm_tasks.stores.units.marker import claim_store

SECONDS = 300


class Server:
    """A Prefect server and its API; ``environment`` is for the processes that use it."""

    def __init__(self, address: str, environment: dict[str, str], folder: Path) -> None:
        self.address, self.environment, self.folder = address, environment, folder
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, *command: str, folder: Path | None = None) -> subprocess.Popen[bytes]:
        with (self.folder / "processes.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *command], env=self.environment, cwd=folder or self.folder, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self.started.append(process)
        return process

    def stop(self) -> None:
        for ending in (signal.SIGTERM, signal.SIGKILL):
            for process in reversed(self.started):
                if process.poll() is None:
                    os.killpg(process.pid, ending)
                    try:
                        process.wait(20)
                    except subprocess.TimeoutExpired:
                        continue

    def ask(self, path: str, body: Any) -> Any:
        return ask(self.address, path, body)

    def runs(self) -> list[dict[str, Any]]:
        runs: list[dict[str, Any]] = self.ask("flow_runs/filter", {"sort": "START_TIME_ASC"})
        return [run for run in runs if run["state_type"] != "SCHEDULED"]

    def events(self, name: str) -> list[dict[str, Any]]:
        page = self.ask("events/filter", {"filter": {"event": {"name": [name]}}, "limit": 50})
        return list(page["events"])

    def wait_for(self, what: str, find: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            if result := find():
                return result
            time.sleep(2)
        log = (self.folder / "processes.log").read_text()[-4000:]
        states = [(run["name"], run["state_name"], run["state"]["message"]) for run in self.runs()]
        raise AssertionError(f"no {what} within {SECONDS} s; runs: {states}; log: {log}")


def ask(address: str, path: str, body: Any, secret: str = "") -> Any:
    headers = {"Content-Type": "application/json"}
    if secret:
        headers["Authorization"] = f"Basic {base64.b64encode(secret.encode()).decode()}"
    request = urllib.request.Request(f"{address}/{path}", json.dumps(body).encode(), headers)  # noqa: S310 - loopback
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - our own loopback address
        return json.loads(answer.read())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path / "server"
    (folder / "home").mkdir(parents=True)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    address = f"http://127.0.0.1:{port}/api"
    environment = inherited | PREFECT_DEFAULTS | {
        "PREFECT_HOME": str(folder / "home"),
        "PREFECT_API_URL": address,
        "PREFECT_LOGGING_LEVEL": "INFO",
        "PREFECT_UI_ENABLED": "false",
    }  # fmt: skip
    server = Server(address, environment, folder)
    try:
        server.start("-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port))
        server.wait_for("server", lambda: _answers(address))
        yield server
    finally:
        server.stop()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=2):  # noqa: S310 - our own loopback address
            return True
    except OSError:
        return False


@pytest.fixture
def web_hook() -> Iterator[tuple[str, list[str]]]:
    """Yield the address of a web hook, and the texts that it receives."""
    received: list[str] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Hook) as hook:
        Thread(target=hook.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{hook.server_address[1]}/", received
        hook.shutdown()


SAVE_BLOCK = """
import sys
from prefect.blocks.notifications import CustomWebhookNotificationBlock as Hook
Hook(name="zoo", url=sys.argv[1], json_data={"text": "{{subject}}: {{body}}"}).save("zoo")
"""


@pytest.fixture
def zoo(tmp_path: Path, related_spaces: Any, write_zoo: Callable[..., Path], strangers: Any) -> Path:
    folder = write_zoo(tmp_path / "zoo", related_spaces(2))
    path = folder / "data_catalog.yaml"
    content = YAML(typ="safe").load(path.read_text())
    content["audit"] = {"checks": {"quality": {"min_points": 100, "min_reliability": -1}, "near_duplicate": None}}
    content["cluster"] = {"n_workers": 1}
    with path.open("w") as file:
        YAML().dump(content, file)
    # A package of the user that bears the name of the folder in which ours lies.
    (folder / "flows").mkdir()
    for name in ("__init__", "audit"):
        (folder / "flows" / f"{name}.py").write_text("raise ImportError('the user's own flows were imported')\n")
    # A folder with anything in it and no marker would be refused as a store.
    claim_store(folder / ".lfm-atlas")
    strangers.plant(folder, folder / ".lfm-atlas", folder / ".lfm-atlas" / "prefect", with_python_m=True)
    return folder


def deploy(server: Server, zoo: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lfm_atlas", "deploy", str(zoo / "data_catalog.yaml"), *options],
        env=server.environment, cwd=zoo, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_schedule__fires_completes_breaks_by_name_and_an_automation_answers(
    server: Server, zoo: Path, web_hook: tuple[str, list[str]], strangers: Any
) -> None:
    refused = deploy(server, zoo, "--notify", "slack-webhook/nobody")
    assert (refused.returncode, "got no block 'slack-webhook/nobody' on the server" in refused.stderr) == (2, True)
    subprocess.run(
        [sys.executable, "-c", SAVE_BLOCK, web_hook[0]],
        env=server.environment,
        cwd=server.folder,
        check=True,
        timeout=120,
    )
    for notify in ([], ["--notify", "custom-webhook/zoo"]):  # the second replaces the first
        deployed = deploy(server, zoo, "--cron", "* * * * *", *notify)
        assert deployed.returncode == 0, deployed.stderr
    [deployment] = server.ask("deployments/filter", {})
    assert deployment["name"] == "zoo"
    assert deployment["schedules"][0]["schedule"]["cron"] == "* * * * *"
    assert deployment["global_concurrency_limit"]["limit"] == 1
    assert deployment["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    described = json.dumps(deployment["parameter_openapi_schema"])
    for text in ("Path of the catalog", "Make this atlas the baseline", "they are code"):
        assert text in described
    assert len(server.ask("automations/filter", {})) == 3

    assert deployment["job_variables"]["env"] | VARIABLES == deployment["job_variables"]["env"]
    assert deployment["job_variables"]["env"]["LFM_ATLAS_CATALOG"] == str(zoo / "data_catalog.yaml")
    server.start("-m", "prefect", "worker", "start", "--pool", "lfm-atlas")
    [first] = server.wait_for("completed run", lambda: [r for r in server.runs() if r["state_name"] == "Completed"][:1])

    assert first["name"].startswith(f"audit of {zoo.name}, ")
    assert first["auto_scheduled"] is True
    assert {"audit", "lfm-atlas", "zoo:zoo"} <= set(first["tags"])
    assert json.loads((zoo / "audits" / "audit.json").read_text())["verdict"] in ("pass", "warn")

    shutil.copy(zoo / "model1.npz", zoo / "model0.npz")  # another model under the same name and version
    shutil.copy(zoo / "model1_ids.npy", zoo / "model0_ids.npy")
    [broken] = server.wait_for(
        "broken run", lambda: [r for r in server.runs() if r["state_name"] == "ThresholdBroken"][:1]
    )

    assert broken["state_type"] == "FAILED"
    assert " failed (" in broken["state"]["message"]
    [event, *_] = server.wait_for("event", lambda: server.events("lfm-atlas.audit.fail"))
    assert "changed_weights_same_version" in event["payload"]["sentence"]
    fired = server.wait_for("automation", lambda: server.events("prefect.automation.triggered"))
    assert {e["resource"]["prefect.resource.name"] for e in fired} >= {"lfm-atlas audit broke a limit"}
    server.wait_for("action", lambda: server.events("prefect.automation.action.executed"))
    [text, *_] = server.wait_for("notification", lambda: web_hook[1])
    assert "lfm-atlas audit broke a limit" in text
    assert "changed_weights_same_version" in text

    for changed in (
        {"trust_code": True},
        {"catalog": "/other/data_catalog.yaml"},
        {"scheduler": "tcp://10.0.0.9:1"},
    ):
        run = server.ask(f"deployments/{deployment['id']}/create_flow_run", {"parameters": changed})
        refused = server.wait_for("refusal", partial(ended, server, run["id"]))
        assert (refused["state_type"], refused["state_name"]) == ("FAILED", "Refused"), refused["state"]["message"]
        [(name, value)] = changed.items()
        assert f"got {name} {value!r}, expected" in refused["state"]["message"]
    assert strangers.seen() == {}


# What a flow run must not change: where it works, and whose code it runs.
VARIABLES = {"PYTHONSAFEPATH": "1", "LFM_ATLAS_TRUST_CODE": "false"}


def ended(server: Server, run: str) -> Any:
    return next((r for r in server.runs() if r["id"] == run and r["state_type"] in ("FAILED", "COMPLETED")), None)


@contextmanager
def served(zoo: Path, log: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Serve audits from the zoo's folder until the block ends; it has to end in order."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    with log.open("wb") as file:
        serving = subprocess.Popen(
            [sys.executable, "-u", "-m", "lfm_atlas", "serve", "data_catalog.yaml", *options],
            cwd=zoo, env=environment, stdout=file, stderr=file,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),  # as in the background of a script
        )  # fmt: skip
    try:
        yield serving
    finally:
        serving.send_signal(signal.SIGTERM)
        code = serving.wait(120)
    assert code == 143, log.read_text(encoding="utf-8")
    assert nobody_left(zoo)


def wait_while_serving(serving: subprocess.Popen[bytes], log: Path, what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        assert serving.poll() is None, log.read_text(encoding="utf-8")
        if result := what():
            return result
        time.sleep(1)
    raise AssertionError(log.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_serve__runs_audits_on_this_machine_and_stops_with_everything(
    zoo: Path, tmp_path: Path, strangers: Any
) -> None:
    log = tmp_path / "serve.log"
    with served(zoo, log, "--cron", "* * * * *") as serving:
        wait_while_serving(serving, log, (zoo / "audits" / "audit.json").exists)

    assert strangers.seen() == {}


@pytest.mark.slow
def test_serve__answers_only_to_its_secret_and_refuses_another_catalog_and_untrusted_code(
    zoo: Path, tmp_path: Path
) -> None:
    log, secret_file = tmp_path / "serve.log", zoo / ".lfm-atlas" / "prefect" / "api_auth"
    with served(zoo, log, "--cron", "0 0 1 1 *") as serving:
        address = wait_while_serving(serving, log, lambda: re.search(r"server: (http\S+/api)", log.read_text()))[1]
        assert stat.S_IMODE(secret_file.stat().st_mode) == 0o600
        secret = secret_file.read_text()
        deployment = wait_while_serving(
            serving, log, lambda: next(iter(ask(address, "deployments/filter", {}, secret)), None)
        )
        for wrong in ("", "lfm-atlas:guessed"):
            with pytest.raises(urllib.error.HTTPError, match="401"):
                ask(address, f"deployments/{deployment['id']}/create_flow_run", {}, wrong)
        assert secret not in processes()
        stranger = tmp_path / "stranger"
        stranger.mkdir()
        shutil.copy(zoo / "data_catalog.yaml", stranger)
        for changed in ({"trust_code": True}, {"catalog": str(stranger / "data_catalog.yaml")}):
            body = {"parameters": changed}
            run = ask(address, f"deployments/{deployment['id']}/create_flow_run", body, secret)
            refused = wait_while_serving(serving, log, partial(ended_at, address, run["id"], secret))
            assert (refused["state_type"], refused["state_name"]) == ("FAILED", "Refused"), refused["state"]["message"]
            assert "this flow run was refused, nothing ran: got" in refused["state"]["message"]
        assert not (zoo / "audits").exists()
        assert [path.name for path in stranger.iterdir()] == ["data_catalog.yaml"]

    assert not secret_file.exists()


def ended_at(address: str, run: str, secret: str) -> Any:
    runs = ask(address, "flow_runs/filter", {}, secret)
    return next((r for r in runs if r["id"] == run and r["state_type"] in ("FAILED", "COMPLETED", "CRASHED")), None)


def processes() -> str:
    """Return the command lines of all processes, as any user of the machine sees them."""
    lines = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            lines.append(entry.read_bytes().decode(errors="replace"))
    return "\n".join(lines)


def nobody_left(folder: Path) -> bool:
    for _ in range(100):
        if str(folder) not in processes():
            return True
        time.sleep(0.2)
    return False


def test_deploy_without_a_server__says_what_to_do(zoo: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}

    refused = subprocess.run(
        [sys.executable, "-m", "lfm_atlas", "deploy", str(zoo / "data_catalog.yaml")],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert refused.returncode == 2
    assert "got no PREFECT_API_URL, expected the address of a server" in refused.stderr


def test_serve_at_a_time_that_is_none__says_what_to_do(zoo: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}

    refused = subprocess.run(
        [sys.executable, "-m", "lfm_atlas", "serve", "data_catalog.yaml", "--cron", "at night"],
        cwd=zoo, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip

    assert refused.returncode == 2, refused.stderr
    assert "got --cron 'at night', expected minute, hour, day, month and weekday" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert nobody_left(zoo)
