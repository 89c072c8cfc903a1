"""An object store in memory whose clock a test sets, and actors whose requests a test puts in any order."""

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

START = datetime(2026, 1, 1, tzinfo=UTC)


class Refused(OSError):
    """What s3fs raises for an answer that has a code."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.__cause__ = OSError()
        setattr(self.__cause__, "response", {"Error": {"Code": code}})  # noqa: B010 - botocore's errors have it


@dataclass
class FakeFileSystem:
    """The parts of s3fs that are used, over a dictionary.

    Attributes
    ----------
    seconds
        The store's clock.
    before
        Called before each request with its name and the object's.
    lost
        How many answers of coming conditional puts are lost: the put arrives and is sent again, as botocore does.
    """

    contents: dict[str, tuple[bytes, datetime]] = field(default_factory=dict)
    seconds: float = 0.0
    before: Callable[[str, str], None] = lambda request, name: None
    lost: int = 0

    def info(self, path: str) -> dict[str, Any]:
        content, modified = self._found("info", path)
        tag = hashlib.md5(content, usedforsecurity=False).hexdigest()
        return {"ETag": tag, "LastModified": modified, "size": len(content), "type": "file"}

    def cat_file(self, path: str, **options: Any) -> bytes:
        return self._found("cat", path)[0]

    def exists(self, path: str) -> bool:
        self.before("exists", path)
        return _name(path) in self.contents

    def pipe_file(self, path: str, content: bytes, mode: str = "overwrite", IfMatch: str = "") -> None:
        self.before("put", path)
        conditional = mode == "create" or bool(IfMatch)
        for _ in range(2 if conditional and self.lost else 1):
            there = self.contents.get(_name(path))
            if mode == "create" and there is not None:
                raise Refused("PreconditionFailed")
            if IfMatch and there is None:
                raise Refused("NoSuchKey")
            if IfMatch and there is not None and hashlib.md5(there[0], usedforsecurity=False).hexdigest() != IfMatch:
                raise Refused("PreconditionFailed")
            # A whole second, as in the header of an answer.
            self.contents[_name(path)] = (content, START + timedelta(seconds=int(self.seconds)))
            self.lost -= int(conditional and self.lost > 0)

    def rm(self, paths: Sequence[str]) -> None:
        self.before("remove", paths[0])
        for path in paths:
            self.contents.pop(_name(path), None)

    def find(self, path: str, detail: bool) -> dict[str, dict[str, Any]]:
        self.before("find", path)
        return {
            name: {"size": len(content), "LastModified": modified}
            for name, (content, modified) in self.contents.items()
            if name.startswith(_name(path) + "/")
        }

    def ls(self, path: str, detail: bool) -> list[str]:
        self.before("ls", path)
        start = _name(path) + "/"
        return sorted({start + name[len(start) :].split("/")[0] for name in self.contents if name.startswith(start)})

    def _found(self, request: str, path: str) -> tuple[bytes, datetime]:
        self.before(request, path)
        if _name(path) not in self.contents:
            raise FileNotFoundError(path)
        return self.contents[_name(path)]


def _name(path: str) -> str:
    return path.partition("://")[2]


class Stage:
    """Runs actors in threads, one request at a time, in an order that a test gives."""

    def __init__(self, files: FakeFileSystem, actors: Sequence[Callable[[], object]]) -> None:
        self.files, self.results = files, [None] * len(actors)
        self._turns = [threading.Semaphore(0) for _ in actors]
        self._back = threading.Semaphore(0)
        self._is_over = [False] * len(actors)
        self._threads = [
            threading.Thread(target=self._act, args=(number, actor), daemon=True) for number, actor in enumerate(actors)
        ]
        self._number_of = threading.local()

    def play(self, order: Iterator[int]) -> list[Any]:
        """Give each actor of ``order`` leave for its next request, then let all finish; return their results."""
        self.files.before = self._wait
        for thread in self._threads:
            thread.start()
            self._back.acquire()
        for number in order:
            self._let(number)
        for number in range(len(self._threads)):
            while not self._is_over[number]:
                self._let(number)
        self.files.before = lambda request, name: None
        return self.results

    def _let(self, number: int) -> None:
        if not self._is_over[number]:
            self._turns[number].release()
            self._back.acquire()

    def _wait(self, request: str, name: str) -> None:
        self._back.release()
        self._turns[self._number_of.value].acquire()

    def _act(self, number: int, actor: Callable[[], object]) -> None:
        self._number_of.value = number
        try:
            self.results[number] = actor()  # type: ignore[call-overload]
        except Exception as error:
            self.results[number] = error  # type: ignore[call-overload]
        self._is_over[number] = True
        self._back.release()
