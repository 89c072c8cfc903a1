"""The Prefect server that ``PREFECT_API_URL`` names: checked before any work starts."""

import http.client
import io
import logging
import os
import ssl
import time
import urllib.error
import urllib.request
from contextlib import redirect_stderr
from urllib.parse import urlsplit

from lfm_atlas.proxies import proxy_for, unusable_proxies

# How long a server of the user may take to answer; one that a run starts has longer (seconds).
SECONDS = 10.0
_START = "Start that server, correct the variable, or unset it: a run then starts a server of its own"


class PrefectError(RuntimeError):
    """The user's settings of Prefect, or the user's server, are of no use: the message names the variable."""


def find_user_server() -> bool:
    """Return whether the user names a server (``PREFECT_API_URL``); PrefectError if it does not answer in time.

    Nothing of Prefect is imported. Any HTTP answer is one, and so is one that speaks another TLS: what Prefect's own
    client comes to is for `import_prefect`.
    """
    address = os.environ.get("PREFECT_API_URL", "")
    if not address:
        return False
    shown = _without_access(address)
    if not _is_address(address):
        expected = "expected the address of an API, such as http://127.0.0.1:4200/api"
        raise PrefectError(f"got PREFECT_API_URL={shown}, {expected}. Correct the variable, or unset it.")
    proxy = proxy_for(address)
    if proxy in unusable_proxies():
        expected = f"which Prefect cannot use, on the way to PREFECT_API_URL={shown}, expected a proxy that speaks HTTP"
        raise PrefectError(f"got {proxy}={_without_access(os.environ[proxy])}, {expected}. Change it, or set no_proxy.")
    if os.environ.get(proxy, "").startswith("socks"):
        return True  # only Prefect's client speaks it
    if reason := _silence(address, proxy):
        through = f" through {proxy}" if proxy else ""
        problem = f"got no answer from PREFECT_API_URL={shown}{through} within {SECONDS:.0f} s ({reason})"
        raise PrefectError(f"{problem}, expected a Prefect server. {_START}.")
    return True


def import_prefect(*, with_user_server: bool, prints_errors: bool = False) -> None:
    """Import Prefect where its settings are in the environment.

    Parameters
    ----------
    with_user_server
        Whether the server is the user's: then a request checks that it accepts this client.
    prints_errors
        Whether Prefect prints the error that ends a flow or a task, with its traceback. A command raises that error,
        and says it in its own way; the server gets it in both cases.

    Raises
    ------
    PrefectError
        If settings are wrong, or the user's server does not let us in.
    """
    from pydantic import ValidationError

    advice = "Correct the PREFECT_... variables, or the file that one of them names"
    try:
        with redirect_stderr(io.StringIO()):  # what Prefect says of the same errors
            import prefect.main  # noqa: F401 - which reads the settings and sets up logging
    except ImportError:
        raise
    except ValidationError as error:
        wrong = "; ".join(f"{error.title}.{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise PrefectError(f"got settings of Prefect that it does not take ({wrong}). {advice}.") from error
    except Exception as error:  # of readers of TOML and YAML, of logging, of TLS
        problem = f"got settings that Prefect cannot use ({type(error).__name__}: {_line(error)})"
        raise PrefectError(f"{problem}. {advice}.") from error
    if not prints_errors:
        for handler in logging.getLogger().handlers:
            handler.addFilter(_is_no_error_of_a_run)
    if with_user_server:
        _check_access()


def _is_no_error_of_a_run(record: logging.LogRecord) -> bool:
    is_error = bool(record.exc_info or record.exc_text)
    return not (is_error and record.name.startswith(("prefect.flow_runs", "prefect.task_runs")))


def _check_access() -> None:
    """Raise PrefectError unless the user's server is a Prefect server that answers us."""
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.settings import (
        PREFECT_API_REQUEST_TIMEOUT,
        PREFECT_API_URL,
        PREFECT_CLIENT_MAX_RETRIES,
        temporary_settings,
    )

    shown = f"PREFECT_API_URL={_without_access(PREFECT_API_URL.value() or '')}"
    try:
        with (
            temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0, PREFECT_API_REQUEST_TIMEOUT: SECONDS}),
            get_client(sync_client=True) as client,
        ):
            client.read_flows(limit=1)
    except httpx.HTTPStatusError as error:
        code = error.response.status_code
        if code in (401, 403):
            advice = "Set PREFECT_API_AUTH_STRING (of a server of your own) or PREFECT_API_KEY (of Prefect Cloud)"
            raise PrefectError(f"got {code} from {shown}, expected to be let in. {advice}.") from error
        advice = "Correct the variable; the address of a server of your own ends in /api"
        raise PrefectError(f"got {code} from {shown}, expected the API of a Prefect server. {advice}.") from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ImportError, ValueError, RuntimeError) as error:
        problem = f"got no use out of {shown} ({type(error).__name__}: {_line(error)})"
        raise PrefectError(f"{problem}, expected the API of a Prefect server. {_START}.") from error


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        return False


def _silence(address: str, proxy: str) -> str:
    """Return why nobody answered at ``address`` within `SECONDS`, "" if somebody did."""
    proxies = {urlsplit(address).scheme: os.environ[proxy]} if proxy else {}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
    deadline = time.monotonic() + SECONDS
    reason = "no time"
    while (left := deadline - time.monotonic()) > 0:
        try:
            with opener.open(f"{address.rstrip('/')}/health", timeout=min(left, SECONDS / 2)):
                return ""
        except urllib.error.HTTPError as error:
            if not (proxy and error.code in (407, 502, 503, 504)):
                return ""
            reason = f"the proxy says {error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:
            cause = getattr(error, "reason", None) or error
            if isinstance(cause, ssl.SSLError):
                return ""
            reason = _line(cause)
        time.sleep(min(0.2, max(0.0, deadline - time.monotonic())))
    return reason


def _without_access(address: str) -> str:
    """Return an address without user and password, as messages may show it."""
    scheme, separator, rest = address.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{path}"[:200] if separator else address[:200]


def _line(error: object) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
