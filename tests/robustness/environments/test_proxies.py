"""Proxies of the user: none stands between this machine and its own loopback, whatever the variables say."""

import os
from pathlib import Path

import pytest

from lfm_atlas.proxies import is_loopback, no_proxy_on_loopback, proxy_for, unusable_proxies
from tests.robustness.environments.commands import lfm_atlas
from tests.robustness.environments.conftest import files

Proxy = tuple[str, list[str]]


@pytest.mark.environments
@pytest.mark.parametrize(
    "variables",
    [
        {"http_proxy": "http://{proxy}"},
        {"HTTP_PROXY": "http://{proxy}", "HTTPS_PROXY": "http://{proxy}", "NO_PROXY": "[::1],*.example.org,ü.example"},
        {"ALL_PROXY": "socks5://{proxy}", "http_proxy": "socks4://{proxy}", "no_proxy": "10.0.0.0/8"},
        {"all_proxy": "http://user:secret@{proxy}", "https_proxy": "http://proxy:no-port"},
    ],
    ids=lambda variables: " ".join(variables),
)
def test_run_with_proxies__makes_the_same_atlas_and_asks_none(
    variables: dict[str, str], zoo: Path, proxy: Proxy, expected: dict[str, bytes]
) -> None:
    address, seen = proxy

    ended = lfm_atlas(
        "run", folder=zoo, variables={name: value.format(proxy=address) for name, value in variables.items()}
    )

    ended.check(0, "2 spaces, 0 failed")
    assert seen == []
    assert files(zoo / "atlas") == expected


@pytest.mark.environments
def test_server_of_the_user_behind_a_proxy__is_told_with_the_variable(zoo: Path, proxy: Proxy) -> None:
    address, seen = proxy
    server = {"PREFECT_API_URL": "http://prefect.example/api"}

    refused = lfm_atlas("deploy", folder=zoo, variables=server | {"http_proxy": f"http://user:secret@{address}"})
    unusable = lfm_atlas("deploy", folder=zoo, variables=server | {"ALL_PROXY": "socks5://user:secret@proxy:1080"})

    refused.check(2, "PREFECT_API_URL=http://prefect.example/api through http_proxy", "503", most_lines=1, within=60)
    assert seen
    unusable.check(2, "got ALL_PROXY=socks5://proxy:1080, which Prefect cannot use", most_lines=1)
    assert "secret" not in refused.err + unusable.err


VALUES = ["http://h:1", "h:1", "HTTP://h", "http://u:p@ss@h:1", "socks5://h:1", "socks4://h", "ftp://h", "http://h:x"]
VALUES += ["http://", "http://[::1", "http://[v1.x]:1", "http://h:99999", "//h:1", " "]
ENTRIES = [
    "",
    "*",
    "[::1]",
    "::1/128",
    "fd00::/8",
    "10.0.0.0/8",
    "x:y",
    "ü.de",
    ".example.org",
    "*.a",
    "h:80",
    "<local>",
]


@pytest.mark.parametrize("value", VALUES)
def test_whatever_the_variables_say__httpx_goes_to_loopback_directly(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpx

    for name in ("http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        for entry in ENTRIES:
            for other in [known for known in os.environ if known.lower().endswith("_proxy")]:
                monkeypatch.delenv(other)
            monkeypatch.setenv(name, value)
            monkeypatch.setenv("NO_PROXY", entry)
            for known, text in {**no_proxy_on_loopback(), **dict.fromkeys(unusable_proxies(), "")}.items():
                monkeypatch.setenv(known, text)
            with httpx.Client(verify=False) as client:  # noqa: S501 - nobody is called
                for address in ("http://127.0.0.1:4200/api", "https://localhost/api", "http://[::1]:4200"):
                    assert client._transport_for_url(httpx.URL(address)) is client._transport


def test_no_proxy__keeps_what_the_user_says() -> None:
    merged = no_proxy_on_loopback({"NO_PROXY": "upper", "no_proxy": "example.org, 10.0.0.0/8,[fd00::1],::1"})

    assert merged["no_proxy"] == merged["NO_PROXY"] == "127.0.0.1,localhost,::1,example.org,10.0.0.0/8,fd00::1"
    assert no_proxy_on_loopback({"no_proxy": "*"})["no_proxy"] == "*"


@pytest.mark.parametrize(
    ("host", "found"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("LOCALHOST.", True), ("10.0.0.1", False), ("h", False)],
)
def test_loopback__is_recognized(host: str, found: bool) -> None:
    assert is_loopback(host) is found


def test_proxy_on_the_way__is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "inside.example")
    variables = {"https_proxy": "http://h:1", "ALL_PROXY": "http://h:2"}

    assert proxy_for("https://prefect.example/api", variables) == "https_proxy"
    assert proxy_for("http://prefect.example/api", variables) == "ALL_PROXY"
    for address in ("http://127.0.0.1:4200/api", "http://localhost/api", "https://inside.example/api", "nowhere"):
        assert proxy_for(address, variables) == ""
