"""The models of a local MLflow registry: their versions, and the folders that hold them.

MLflow's own client reads the SQLite file, which is opened such that nothing can write to it.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from lfm_tasks.catalog.models import MlflowRegistry


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of a registered model; ``problem`` says why its folder cannot be taken, "" if it can."""

    name: str
    version: int
    folder: Path
    problem: str = ""


def registered_versions(settings: MlflowRegistry, root: Path, homes: Sequence[Path] = ()) -> list[RegisteredVersion]:
    """Return the versions that a section of ``discover`` chooses, in the order of their names and numbers.

    Parameters
    ----------
    settings
        The registry, and which of its versions.
    root
        The folder of the catalog: the registry's path is relative to it, and folders may lie in it.
    homes
        Further folders that theirs may lie in.

    Raises
    ------
    ValueError
        If the registry cannot be read, or MLflow is not installed.
    """
    file = root / settings.registry
    if not file.is_file():
        what = "a folder" if file.is_dir() else "no such file"
        problem = f"mlflow: got {what}, {settings.registry}, expected the SQLite file of a registry, such as mlflow.db"
        raise ValueError(f"{problem}. Move a folder mlruns into one: mlflow migrate-filestore")
    status = file.stat()
    entries = _entries(file.resolve(), status.st_mtime_ns, status.st_size)
    latest: dict[str, int] = {}
    for name, version, *_ in entries:
        latest[name] = max(version, latest.get(name, 0))
    chosen = []
    for name, version, place, aliases in sorted(entries):
        if settings.alias is not None and settings.alias not in aliases:
            continue
        if settings.alias is None and settings.versions == "latest" and version != latest[name]:
            continue
        called = f"{name}-v{version}" if settings.alias is None and settings.versions == "all" else name
        folder = _local(place, file.parent)
        problem = _problem(place, folder, (file.parent, root, *homes))
        chosen.append(RegisteredVersion(called, version, folder or Path(place), problem))
    return chosen


def _local(place: str, folder: Path) -> Path | None:
    """Return the folder of this machine that MLflow names; None for an address elsewhere."""
    parts = urlsplit(place)
    if parts.scheme == "file":
        return Path(unquote(parts.path)) if parts.netloc in ("", "localhost") else None
    return None if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", place) else folder / place


def _problem(place: str, folder: Path | None, homes: Sequence[Path]) -> str:
    if folder is None:
        return f"got its files at {place[:200]}, expected a folder of this machine. Download them, and name the folder"
    if not any(folder.resolve().is_relative_to(home.resolve()) for home in homes):
        problem = f"got its files in {place[:200]}, expected a folder beside the registry or in the catalog's"
        return f"{problem}. Allow the folder that they lie in by links: [...]"
    if not folder.is_dir():
        return f"got no folder {place[:200]}, where the registry says that its files are. Copy it there"
    return f"got braces in {place[:200]}, expected a path without. Rename the folder" if set("{}") & set(place) else ""


Entry = tuple[str, int, str, tuple[str, ...]]


@lru_cache(maxsize=4)
def _entries(file: Path, _modified: int, _size: int) -> tuple[Entry, ...]:
    """Return name, number, place and aliases of every version; read once while the file stays as it is."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before its import: it would report its use
    try:
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        problem = f"mlflow: got no package that reads a registry ({error}), expected mlflow-skinny"
        raise ValueError(f'{problem}. Run pip install "lfm-atlas[mlflow]"') from error
    address = f"sqlite:///file:{quote(str(file))}?mode=ro&uri=true"
    try:
        client = MlflowClient(tracking_uri=address, registry_uri=address)
        aliases: dict[tuple[str, int], list[str]] = {}
        for model in _pages(client.search_registered_models):
            by_alias: Mapping[str, Any] = model.aliases
            for alias, version in by_alias.items():
                aliases.setdefault((model.name, int(version)), []).append(alias)
        found = [
            (one.name, int(one.version), client.get_model_version_download_uri(one.name, one.version))
            for one in _pages(client.search_model_versions)
            if one.status == "READY"
        ]
    except Exception as error:
        text = " ".join(str(getattr(error, "orig", None) or error).split())[:300]
        problem = f"mlflow: got a registry {file.name} that MLflow cannot read ({type(error).__name__}: {text})"
        raise ValueError(f"{problem}, expected one of its version. Run mlflow db upgrade on a copy") from error
    return tuple((name, version, place, tuple(aliases.get((name, version), ()))) for name, version, place in found)


def _pages(search: Callable[..., Any]) -> Iterator[Any]:
    token = None
    while True:
        page = search(page_token=token)
        yield from page
        token = page.token
        if not token:
            return
