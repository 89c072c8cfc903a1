"""The Prefect server that a run starts: it answers to the run's secret, and takes nothing from where it lies."""

import base64
import os
import stat
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from lfm_atlas.prefect_server import SECRET_FILE, pages_of, pages_sentence, prefect_server, wait_until_ready


@pytest.fixture(autouse=True)
def _no_server_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)


def status(address: str, secret: str = "") -> int:
    request = urllib.request.Request(f"{address}/flow_runs/filter", b"{}", {"Content-Type": "application/json"})  # noqa: S310 - loopback
    if secret:
        request.add_header("Authorization", f"Basic {base64.b64encode(secret.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - our own loopback address
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


# What Prefect's server answers without its secret where nobody takes it away: no data, but versions and settings.
TOLD_TO_NOBODY = dict.fromkeys(
    ["", "/", "/docs", "/redoc", "/openapi.json", "/ui-settings", "/docs/oauth2-redirect", "/v2", "/api", "//api/docs",
     "/API/docs", "/static/prefect-logo-mark-gradient.png"],
    404,
) | dict.fromkeys(
    ["/api/docs", "/api/openapi.json", "/api/redoc", "/api/version", "/api/static/x", "/api/../docs", "/api/metrics",
     "/api//docs", "/api/variables/name/health", "/api/health/../version"],
    401,
)  # fmt: skip


def answer_of(address: str) -> int:
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:  # noqa: S310 - our own loopback address
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_server__answers_to_its_secret_alone_which_no_other_user_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "user:password of another server")
    monkeypatch.setenv("PREFECT_LOGGING_SETTINGS_PATH", "logging.yml")
    monkeypatch.chdir(tmp_path)
    folder = Path.cwd()

    with prefect_server(tmp_path / "prefect", with_schedules=True) as address:
        secret = os.environ["PREFECT_API_AUTH_STRING"]
        wait_until_ready(address)

        assert {path: answer_of(address.removesuffix("/api") + path) for path in TOLD_TO_NOBODY} == TOLD_TO_NOBODY
        assert answer_of(f"{address}/health") == 200
        assert [status(address, tried) for tried in ("", "user:password of another server", secret)] == [401, 401, 200]
        assert os.environ["PREFECT_LOGGING_SETTINGS_PATH"] == str(folder / "logging.yml")
        file = tmp_path / "prefect" / SECRET_FILE
        assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == (secret, 0o600)
        lines = b"".join(path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists())
        assert b"uvicorn" in lines
        assert {stat.S_IMODE(path.lstat().st_mode) & 0o077 for path in [file.parent, *file.parent.rglob("*")]} == {0}
        assert secret.encode() not in lines
        assert list(Path.cwd().iterdir()) == [Path.cwd() / "README"]

    assert Path.cwd() == folder
    assert not file.exists()
    assert os.environ["PREFECT_API_AUTH_STRING"] == "user:password of another server"
    assert "PREFECT_API_URL" not in os.environ


def test_server_with_pages__shows_its_interface_to_all_and_what_it_knows_to_who_logs_in(tmp_path: Path) -> None:
    with prefect_server(tmp_path / "prefect", with_pages=True) as address:
        wait_until_ready(address)
        pages, secret = pages_of(address), (tmp_path / "prefect" / SECRET_FILE).read_text()

        answers = {path: answer_of(pages + path) for path in ("", "ui-settings", "docs", "openapi.json")}
        assert answers == {"": 200, "ui-settings": 200, "docs": 404, "openapi.json": 404}
        assert [status(address, tried) for tried in ("", secret)] == [401, 200]
        assert pages_sentence(address, tmp_path / "prefect" / SECRET_FILE).startswith(
            f"Prefect's interface, until this command ends: {pages}; its password is what this prints: cat "
        )


def test_server_of_the_user__keeps_its_address_and_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect.example/api")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "user:password")
    monkeypatch.setattr("lfm_atlas.prefect_server._start", lambda *_, **__: pytest.fail("it started a server"))

    with prefect_server(tmp_path / "prefect") as address:
        assert address == os.environ["PREFECT_API_URL"] == "http://prefect.example/api"
        assert os.environ["PREFECT_API_AUTH_STRING"] == "user:password"

    assert not (tmp_path / "prefect").exists()


def test_folder_of_the_server__is_taken_from_all_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, outside = tmp_path / "prefect", tmp_path / "outside"
    (home / "storage").mkdir(parents=True)
    for file in (home / "prefect.db", home / "storage" / "result", outside):
        file.write_text("")
        file.chmod(0o666)
    (home / "link").symlink_to(outside)
    for folder in (home, home / "storage"):
        folder.chmod(0o755)
    monkeypatch.setattr("lfm_atlas.prefect_server._start", lambda *_, **__: pytest.fail("it is enough"))

    with pytest.raises(pytest.fail.Exception, match="it is enough"), prefect_server(home):
        pass

    rights = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [home, *home.rglob("*")]}
    assert rights == {"prefect": 0o700, "storage": 0o700, "prefect.db": 0o600, "result": 0o600, "link": 0o666}


@pytest.mark.skipif(os.geteuid() != 0, reason="not run: only root gives a folder to another user")
@pytest.mark.parametrize("with_schedules", [False, True])
def test_folder_of_another_user__is_refused(
    with_schedules: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lfm_atlas.prefect_server._start", lambda *_, **__: pytest.fail("it started a server"))
    home = tmp_path / "prefect"
    home.mkdir(mode=0o700)
    os.chown(home, 65534, 65534)

    with (
        pytest.raises(RuntimeError, match="prefect, which another user can change, expected a folder that only you"),
        prefect_server(home, with_schedules=with_schedules),
    ):
        pass


@pytest.mark.parametrize("kind", ["writable", "link"])
def test_schedules_in_a_folder_that_others_can_change__are_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lfm_atlas.prefect_server._start", lambda *_, **__: pytest.fail("it started a server"))
    home = tmp_path / "prefect"
    if kind == "link":
        (tmp_path / "elsewhere").mkdir()
        home.symlink_to(tmp_path / "elsewhere")
    else:
        home.mkdir()
        home.chmod(0o777)

    with (
        pytest.raises(RuntimeError, match=r"prefect, which another user can change, expected a folder that only you"),
        prefect_server(home, with_schedules=True),
    ):
        pass
