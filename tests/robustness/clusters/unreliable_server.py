"""An HTTP server that passes requests on to another one, and fails a share of them as busy object stores do."""

import http.client
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any
from urllib.parse import urlsplit

_ERROR = '<?xml version="1.0"?><Error><Code>{code}</Code><Message>{text}</Message></Error>'
_CODES = {
    "slow down": (503, "SlowDown", "Please reduce your request rate."),
    "unavailable": (503, "ServiceUnavailable", "Service is unable to handle request."),
    "internal error": (500, "InternalError", "We encountered an internal error. Please try again."),
}
FAULTS = (*_CODES, "refused", "lost answer", "half an answer", "late")


@dataclass
class Unreliable:
    """What the server does to requests.

    Attributes
    ----------
    share
        The share of requests that a fault hits, in [0, 1].
    sound
        How many requests come first that none hits.
    faults
        Which: answers 503 and 500; ``refused`` closes the connection before the request is passed on, ``lost answer``
        after it; ``half an answer`` closes it within the answer; ``late`` answers after `late_seconds`.
    hit
        How often each has hit.
    """

    url: str
    share: float = 0.0
    sound: int = 0
    faults: tuple[str, ...] = FAULTS
    late_seconds: float = 0.1
    hit: Counter[str] = field(default_factory=Counter)
    draws: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311 - of faults
    lock: Lock = field(default_factory=Lock)

    def fault(self) -> str | None:
        """Return what happens to the next request."""
        with self.lock:
            self.sound -= 1
            if self.sound >= 0 or self.draws.random() >= self.share:
                return None
            fault = self.draws.choice(self.faults)
            self.hit[fault] += 1
            return fault


@contextmanager
def unreliable(target: str) -> Iterator[Unreliable]:
    """Give a server in front of the one at the URL ``target``."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fault = state.fault()
            if fault in _CODES:
                status, code, text = _CODES[fault]
                self.send(status, {}, _ERROR.format(code=code, text=text).encode())
            elif fault == "refused":
                self.reset()
            else:
                self.pass_on(body, fault)

        def pass_on(self, body: bytes, fault: str | None) -> None:
            upstream = http.client.HTTPConnection(urlsplit(target).netloc, timeout=60)
            upstream.request(self.command, self.path, body, dict(self.headers))
            answer = upstream.getresponse()
            content = answer.read()
            upstream.close()
            if fault == "late":
                time.sleep(state.late_seconds)
            if fault == "lost answer":
                self.reset()
            else:
                headers = {name: value for name, value in answer.getheaders() if name.lower() not in _HOPS}
                self.send(answer.status, headers, content, cut=fault == "half an answer")

        def send(self, status: int, headers: dict[str, str], content: bytes, *, cut: bool = False) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "content-length" not in {name.lower() for name in headers}:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[: len(content) // 2] if cut else content)
            if cut:
                self.reset()

        def reset(self) -> None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

        def log_message(self, *arguments: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *arguments: Any) -> None:  # whoever has gone away
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        state = Unreliable(f"http://127.0.0.1:{server.server_address[1]}")
        Thread(target=server.serve_forever, daemon=True).start()
        yield state
        server.shutdown()


# Of one connection, and not of the answer.
_HOPS = {"connection", "transfer-encoding", "keep-alive", "server"}
