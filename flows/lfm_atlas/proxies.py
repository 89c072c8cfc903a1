"""Proxy settings of the user: used for remote addresses, never for servers on this machine's loopback."""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from ipaddress import ip_address
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Of httpx, by which Prefect reaches its server: it makes a client for each of these, whatever the address.
_VARIABLES = ("http_proxy", "https_proxy", "all_proxy")
_HOST = re.compile(r"[A-Za-z0-9._*-]+(:\d{1,5}|/\d{1,2})?")


def no_proxy_on_loopback(variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return ``no_proxy`` with this machine's loopback in front of what the user names, in both spellings.

    Examples
    --------
    >>> no_proxy_on_loopback({"NO_PROXY": "example.org"})
    {'no_proxy': '127.0.0.1,localhost,::1,example.org', 'NO_PROXY': '127.0.0.1,localhost,::1,example.org'}
    """
    named = variables.get("no_proxy") or variables.get("NO_PROXY") or ""
    entries = [_readable(entry.strip()) for entry in named.split(",")]
    merged = "*" if "*" in entries else ",".join(dict.fromkeys([*LOOPBACK, *filter(None, entries)]))
    return dict.fromkeys(("no_proxy", "NO_PROXY"), merged)


def unusable_proxies(variables: Mapping[str, str] = os.environ) -> list[str]:
    """Return the names of variables that hold a proxy which httpx cannot use, such as SOCKS without its package.

    One of them ends every client of Prefect, also one for loopback.

    Examples
    --------
    >>> unusable_proxies({"http_proxy": "http://proxy:3128", "HTTPS_PROXY": "ftp://proxy"})
    ['HTTPS_PROXY']
    """
    return [name for name, value in variables.items() if name.lower() in _VARIABLES and value and not _is_usable(value)]


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine's loopback."""
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host.lower().rstrip(".") == "localhost"


def proxy_for(address: str, variables: Mapping[str, str] = os.environ) -> str:
    """Return the variable that puts a proxy between this machine and ``address``, "" if none does."""
    parts = urlsplit(address)
    if not parts.hostname or is_loopback(parts.hostname) or proxy_bypass(parts.hostname):
        return ""
    names = (f"{parts.scheme}_proxy", f"{parts.scheme}_proxy".upper(), "all_proxy", "ALL_PROXY")
    return next((name for name in names if variables.get(name)), "")


def _readable(entry: str) -> str:
    """Return an entry of ``no_proxy`` as httpx reads it, "" for one at which it would end."""
    bare = entry[1:-1] if entry[:1] + entry[-1:] == "[]" else entry
    with suppress(ValueError):
        return str(ip_address(bare))
    return entry if _HOST.fullmatch(entry) else ""


def _is_usable(proxy: str) -> bool:
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        if "[" in parts.netloc:
            ip_address(parts.hostname or "")
        schemes = {"http", "https"} | ({"socks5", "socks5h"} if find_spec("socksio") else set())
        return parts.scheme in schemes and bool(parts.hostname) and (parts.port is None or parts.port >= 0)
    except ValueError:  # no port, no address
        return False
