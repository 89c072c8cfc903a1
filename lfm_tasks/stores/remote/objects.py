"""The objects below an address such as ``s3://bucket/zoo``: the one door to object stores that are written to.

s3fs and botocore repeat a request that is refused for load (503, SlowDown), answered late or cut off. What they give
up on, and all else that an object store says instead of an answer, is a `RemoteStoreError`. A repeated put may find
what its first try has put, so the caller of a conditional put reads again when the condition does not hold.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from lfm_tasks.errors import one_line

# Answers to a conditional put: the condition does not hold, two puts have met, or what was to be replaced is gone.
_CONDITION_FAILED = ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey")
# What is written to read the store's clock. Everybody overwrites it: a later time is still no time of the future.
CLOCK = "clock"


class RemoteStoreError(OSError):
    """An object store that does not answer, or that refuses; a job that meets one ends its run, as with a full disk."""


@dataclass(frozen=True)
class ObjectFacts:
    """An object in a listing: its size (bytes), and when it was put, by the store's clock."""

    size: int
    modified: datetime


@dataclass(frozen=True)
class StoredObject:
    """A whole object.

    ``tag`` belongs to these bytes or to earlier ones: replacing the version of this tag never destroys later bytes.
    """

    content: bytes
    tag: str
    modified: datetime


class Objects(Protocol):
    """The operations of an object store that the lock needs; names are relative to ``place``."""

    @property
    def place(self) -> str:
        """The address."""

    def read(self, name: str) -> StoredObject:
        """Return an object; `FileNotFoundError` if there is none."""

    def put_if_absent(self, name: str, content: bytes) -> bool:
        """Put an object if there is none of this name; return whether there was none."""

    def replace(self, name: str, content: bytes, tag: str) -> bool:
        """Put an object in the place of the version with this tag; return whether it was still there."""

    def now(self) -> datetime:
        """Return the time by the store's clock."""


@dataclass(frozen=True)
class S3Objects:
    """The objects below an address of S3. It holds the address only: credentials are each machine's environment's."""

    place: str

    def exists(self, name: str) -> bool:
        """Return whether there is an object of this name."""
        with self._request(name, "read"):
            return bool(_file_system().exists(self._path(name)))

    def read(self, name: str) -> StoredObject:
        """Return an object; `FileNotFoundError` if there is none."""
        with self._request(name, "read", may_be_missing=True):
            facts = _file_system().info(self._path(name))
            if facts["type"] != "file":  # other names begin with this one
                raise FileNotFoundError(name)
            content = _file_system().cat_file(self._path(name), max_concurrency=1)
            return StoredObject(content, str(facts["ETag"]), facts["LastModified"])

    def put(self, name: str, content: bytes) -> None:
        """Put an object, whatever is there."""
        with self._request(name, "written to"):
            _file_system().pipe_file(self._path(name), content)

    def put_if_absent(self, name: str, content: bytes) -> bool:
        """Put an object if there is none of this name; return whether there was none."""
        return self._put_if(name, content, mode="create")

    def replace(self, name: str, content: bytes, tag: str) -> bool:
        """Put an object in the place of the version with this tag; return whether it was still there."""
        return self._put_if(name, content, IfMatch=tag)

    def now(self) -> datetime:
        """Return the time by the store's clock: that of an object just written."""
        self.put(CLOCK, b"")
        return self.read(CLOCK).modified

    def delete(self, *names: str) -> None:
        """Remove objects; one that is not there is no error."""
        if names:
            with self._request(names[0], "written to"):
                _file_system().rm([self._path(name) for name in names])

    def below(self, folder: str) -> Mapping[str, ObjectFacts]:
        """Return the facts of every object below ``folder``, by the rest of its name."""
        with self._request(folder, "read"):
            found = _file_system().find(self._path(folder), detail=True)
        start = self._path(folder).partition("://")[2] + "/"
        return {
            name.removeprefix(start): ObjectFacts(int(facts["size"]), facts["LastModified"])
            for name, facts in found.items()
        }

    def first_names(self) -> Collection[str]:
        """Return the first parts of the names of all objects."""
        start = self.place.partition("://")[2].rstrip("/") + "/"
        try:
            with self._request("", "read", may_be_missing=True):
                names = _file_system().ls(self.place, detail=False)
        except FileNotFoundError:
            return set()
        # The console of an object store makes an empty object for a folder, under the folder's name.
        return {name.removeprefix(start).strip("/") for name in names if name.rstrip("/") + "/" != start} - {""}

    def fetch(self, folder: str, into: Path) -> int:
        """Write every object below ``folder`` as a file; return how many there are.

        Raises
        ------
        RemoteStoreError
            If the name of an object leads out of the folder.
        """
        names = self.below(folder)
        for name in names:
            if any(part in ("", ".", "..") for part in name.split("/")):
                told = f"got an object named {one_line(f'{folder}/{name}')!r}, expected no '..' in a name"
                raise RemoteStoreError(f"{self.place}: {told}. Remove it")
        for name in names:
            with self._request(f"{folder}/{name}", "read"):
                content = _file_system().cat_file(self._path(f"{folder}/{name}"))
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            (into / name).write_bytes(content)
        return len(names)

    def put_files(self, folder: Path, place: str) -> None:
        """Put every file of a folder below ``place``."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{place}/{path.relative_to(folder).as_posix()}", path.read_bytes())

    def _path(self, name: str) -> str:
        return f"{self.place}/{name}"

    def _put_if(self, name: str, content: bytes, **condition: str) -> bool:
        with self._request(name, "written to"):
            try:
                _file_system().pipe_file(self._path(name), content, **condition)
            except OSError as error:
                # fsspec gives some of these answers a class of their own, others none.
                answer = getattr(error.__cause__, "response", {}).get("Error", {}).get("Code")
                if isinstance(error, FileExistsError) or answer in _CONDITION_FAILED:
                    return False
                raise
        return True

    @contextmanager
    def _request(self, name: str, done: str, *, may_be_missing: bool = False) -> Iterator[None]:
        """Turn what stops a request into a `RemoteStoreError`; ``done``: what cannot be done to the store."""
        try:
            yield
        except RemoteStoreError:
            raise
        except Exception as error:  # file systems of fsspec have no common class of errors
            if may_be_missing and isinstance(error, FileNotFoundError):
                raise
            why = f"{name or 'a listing'}: {type(error).__name__}: {one_line(str(error))}"
            needs = "Check the address, and the AWS_... variables of the environment; if it is busy, run again later"
            if isinstance(error, ImportError):
                needs = 'Run pip install "lfm-atlas[remote]"'
            raise RemoteStoreError(f"{self.place} cannot be {done} ({why}). {needs}") from error


@lru_cache(maxsize=1)
def _file_system() -> Any:
    """Return the object store. No listing is kept: others write, too."""
    import fsspec

    return fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)
