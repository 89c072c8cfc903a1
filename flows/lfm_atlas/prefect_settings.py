"""Prefect's settings for a run, and which settings of the user apply to it.

Prefect reads settings from the environment, whatever the case of its names, from profiles, and from files in its
working directory. One of them is enough to end a server that a run starts, or to have it write into another database.
So that server and its client see what is listed here and nothing else. At a server of the user (``PREFECT_API_URL``)
everything is the user's, except for files in the working directory, which anybody may have put there.

This module imports nothing of Prefect, which reads the environment when it is imported.
"""

import os
import re
from pathlib import Path

from lfm_atlas.console import EMPTY_FOLDER
from lfm_atlas.proxies import unusable_proxies

# Settings that the user has not chosen: no telemetry, no messages, no lost records.
PREFECT_DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    # With the defaults, records of fast tasks are lost and tracebacks printed at exit.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "200",
    # Whole seconds: Prefect rounds down, and with 0 the server spins on one core.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_LOGGING_LEVEL": "ERROR",
    "PREFECT_SHOW_STARTUP_MESSAGES": "false",
}

# Prefect's settings that are paths, and those of the libraries that it reaches a server by.
_PATHS = (
    "PREFECT_HOME",
    "PREFECT_PROFILES_PATH",
    "PREFECT_LOGGING_CONFIG_PATH",
    "PREFECT_LOGGING_SETTINGS_PATH",
    "PREFECT_LOCAL_STORAGE_PATH",
    "PREFECT_API_SSL_CERT_FILE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "TMPDIR",
)
# What a server of our own takes from the user: how it logs.
_OF_THE_USER = re.compile(r"PREFECT_LOGGING_\w+", re.I)
# And what it takes from the machine: where Python, its libraries and their files are, the language, the proxies that
# its notifications go through.
_OF_THE_MACHINE = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|TZ|LANG|LANGUAGE|LC_\w+|TMPDIR|TEMP|TMP|LD_\w+|DYLD_\w+|VIRTUAL_ENV|CONDA_PREFIX"
    r"|SSL_CERT_FILE|SSL_CERT_DIR|OPENSSL_\w+|MALLOC_\w+|LFM_ATLAS_\w+"
    r"|PYTHON(PATH|HOME|UTF8|IOENCODING|COERCECLOCALE|DONTWRITEBYTECODE|PYCACHEPREFIX|HASHSEED|NOUSERSITE|USERBASE)"
    r"|(?i:(https?|all|no)_proxy)"
)


def set_prefect_defaults() -> None:
    """Set `PREFECT_DEFAULTS` in the environment, except for what is set there; call it before Prefect is imported.

    Paths that the user has set become absolute: Prefect works in another folder than the one where the command starts.
    """
    for name, value in PREFECT_DEFAULTS.items():
        os.environ.setdefault(name, value)
    for name in _PATHS:
        path = os.environ.get(name, "")
        if path and not path.startswith("~"):
            os.environ[name] = os.path.abspath(path)


def settings_of_run(home: Path, secret: str) -> dict[str, str | None]:
    """Return the environment variables (None: unset) of a process that is the client of its own server.

    Parameters
    ----------
    home
        Folder of the server; settings that lie in it do not count.
    secret
        What the server answers to.
    """
    foreign = [name for name in os.environ if name.upper().startswith("PREFECT_") and not _OF_THE_USER.fullmatch(name)]
    logging = os.environ.get("PREFECT_LOGGING_SETTINGS_PATH", str(EMPTY_FOLDER / "logging.yml"))
    return {
        **dict.fromkeys(foreign),
        **{name: value for name, value in PREFECT_DEFAULTS.items() if not _OF_THE_USER.fullmatch(name)},
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(EMPTY_FOLDER / "profiles.toml"),
        "PREFECT_LOGGING_SETTINGS_PATH": logging,
        "PREFECT_API_AUTH_STRING": secret,
        **dict.fromkeys(unusable_proxies(), ""),
    }


def variables_of_server(home: Path, secret: str, *, with_schedules: bool, pages_of: str = "") -> dict[str, str]:
    """Return the whole environment of a server that a run starts.

    Parameters
    ----------
    home
        Its folder.
    secret
        What the server answers to.
    with_schedules
        The whole server, with scheduler and automations; False: Prefect's lean form.
    pages_of
        The address of the API whose interface the server has, from files in ``home``; empty: it has none.
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        if _OF_THE_MACHINE.fullmatch(name) or _OF_THE_USER.fullmatch(name)
    }
    return {
        **inherited,
        # Else SQLite needs room in TMPDIR, too.
        "SQLITE_TMPDIR": str(home),
        **{name: value for name, value in settings_of_run(home, secret).items() if value is not None},
        **_pages(home, pages_of),
        "PREFECT_SERVER_API_AUTH_STRING": secret,
        "PYTHONSAFEPATH": "1",
        **({} if with_schedules else {"PREFECT__SERVER_EPHEMERAL": "1"}),
    }


def _pages(home: Path, address: str) -> dict[str, str]:
    if not address:
        return {"PREFECT_UI_ENABLED": "false"}
    # Prefect writes them where it is installed, else: other users' folder, or one that cannot be written.
    return {
        "PREFECT_UI_ENABLED": "true",
        "PREFECT_UI_STATIC_DIRECTORY": str(home / "ui"),
        "PREFECT_UI_API_URL": address,
    }
