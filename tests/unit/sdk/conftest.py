"""A server whose answers a test writes, on loopback, and keys that take no time to make."""

from __future__ import annotations

import base64
import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from skerry.keys import Identity


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    params: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")


@dataclass
class ScriptedServer:
    """``on`` says what the next answers to a call are; the last one is given again and again."""

    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    _answers: dict[tuple[str, str], list[Any]] = field(default_factory=lambda: defaultdict(list))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    def on(self, method: str, path: str, *answers: Any) -> None:
        """An answer is JSON (200), a (status, JSON or bytes) pair, a function of the call, or None: hang up."""
        self._answers[method, path] = list(answers)

    def answers(self, method: str, path: str) -> list[Any]:
        """What is still to be answered."""
        return self._answers[method, path]

    def calls(self, method: str, path: str) -> list[Asked]:
        return [one for one in self.asked if (one.method, one.path) == (method, path)]

    def answer(self, asked: Asked) -> Any:
        self.asked.append(asked)
        answers = self._answers.get((asked.method, asked.path), [(404, {"msg": f"no script for {asked.path}"})])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return answer(asked) if callable(answer) else answer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    script: ScriptedServer

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        params = {name: values[0] for name, values in parse_qs(parts.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = parts.path.removeprefix("/api/")
        answer = self.script.answer(Asked(self.command, path, params, dict(self.headers), body))
        if answer is None:
            self.close_connection = True
            return
        status, content = answer if isinstance(answer, tuple) else (200, answer)
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 - the base class's names

    def log_message(self, *_: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that does not wait for its answer is part of some tests."""


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    script = ScriptedServer()
    http = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"script": script}))
    script.port = http.server_address[1]
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield script
    http.shutdown()
    thread.join()
    http.server_close()


def token(subject: Any, lifetime: float = 3600.0, **claims: Any) -> str:
    body = json.dumps({"sub": subject, "iat": 1000, "exp": 1000 + lifetime, **claims}).encode()
    return f"e30.{base64.urlsafe_b64encode(body).decode().rstrip('=')}.e30"


@pytest.fixture(scope="session")
def make_token() -> Callable[..., str]:
    return token


@pytest.fixture(scope="session")
def identities() -> dict[int, Identity]:
    """Of organizations 1 to 3; shorter keys than real ones."""
    return {i: Identity(generate_private_key(65537, 2048), Ed25519PrivateKey.generate()) for i in (1, 2, 3)}
