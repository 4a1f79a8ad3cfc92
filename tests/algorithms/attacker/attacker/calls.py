"""Hostile calls of the gate, byte by byte: each asks for something that would be answered with 2xx if it were let."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_PATIENCE = 20
_SLOW = 12
"""Seconds: more than a gate waits for a head."""


def _gate(facts: Mapping[str, Any]) -> tuple[int, str]:
    """Port and token: those of the run, or the ones that it is told."""
    if "gate" in facts:
        return int(facts["gate"]), str(facts["token"])
    return int(os.environ["PORT"]), Path(os.environ["TOKEN_FILE"]).read_text()


def _send(port: int, data: bytes, *, ends: bool = True, patience: float = _PATIENCE) -> bytes:
    """All that is answered until the gate closes the connection."""
    whole = b""
    with socket.create_connection(("127.0.0.1", port), timeout=patience) as connection:
        connection.sendall(data)
        if ends:
            connection.shutdown(socket.SHUT_WR)
        while piece := connection.recv(65536):
            whole += piece
    return whole


def judge(answer: bytes, wanted: int = 1) -> tuple[bool, str]:
    good = [status for status in _STATUS.findall(answer) if status.startswith(b"2")]
    return len(good) >= wanted, answer.decode("latin-1")[:1500] or "refused: no answer"


def _head(request: str, *headers: str) -> bytes:
    return "\r\n".join([request, "Host: gate", *headers, "", ""]).encode("latin-1")


def _raw(data: bytes, facts: Mapping[str, Any]) -> tuple[bool, str]:
    return judge(_send(_gate(facts)[0], data))


def _version(*headers: str, target: str = "/version", body: bytes = b"") -> partial[tuple[bool, str]]:
    return partial(_raw, _head(f"GET {target} HTTP/1.1", *headers) + body)


def _call(method: str, path: str, facts: Mapping[str, Any], body: object = None) -> tuple[bool, str]:
    """With the run's own token. ``{other_task}`` and the like stand for the facts."""
    port, token = _gate(facts)
    text = b"" if body is None else json.dumps(body).encode()
    length = [] if body is None else [f"Content-Length: {len(text)}", "Content-Type: application/json"]
    head = _head(f"{method} {path.format(**facts)} HTTP/1.1", f"Authorization: Bearer {token}", *length)
    return judge(_send(port, head + text))


def _get(path: str) -> partial[tuple[bool, str]]:
    return partial(_call, "GET", path)


def _post(path: str) -> partial[tuple[bool, str]]:
    return partial(_call, "POST", path, body={})


def _show(token: str, facts: Mapping[str, Any]) -> tuple[bool, str]:
    shown = token.format(**facts)
    return _raw(_head("GET /organization HTTP/1.1", *([f"Authorization: {shown}"] if shown else [])), facts)


def _without_signature(facts: Mapping[str, Any]) -> tuple[bool, str]:
    """The run's own claims under "alg": "none"."""
    _, claims, _ = _gate(facts)[1].split(".")
    head = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    return _show(f"Bearer {head}.{claims}.", facts)


def _child(facts: Mapping[str, Any], **changes: Any) -> tuple[bool, str]:
    entry = {"id": facts["organization"], "input": base64.b64encode(b"{}").decode()}
    body = {"name": "child", "organizations": [entry], "databases": []} | changes
    return _call("POST", "/task", facts, body)


def _child_of_outsider(facts: Mapping[str, Any]) -> tuple[bool, str]:
    return _child(facts, organizations=[{"id": facts["outsider"], "input": "e30="}])


def _child_twice(facts: Mapping[str, Any]) -> tuple[bool, str]:
    return _child(facts, organizations=[{"id": facts["organization"], "input": "e30="}] * 2)


def _pipeline(facts: Mapping[str, Any]) -> tuple[bool, str]:
    """A second request behind the first, which a front would take for its body."""
    return judge(_send(_gate(facts)[0], _head("GET /version HTTP/1.1") * 2), wanted=2)


def _many_connections(facts: Mapping[str, Any]) -> tuple[bool, str]:
    """Holds as many as the gate lets it; whether a seventeenth is served."""
    port = _gate(facts)[0]
    held = [socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE) for _ in range(20)]
    try:
        for one in held[:-1]:
            one.sendall(b"GET /ver")
        held[-1].sendall(b"GET /version HTTP/1.1\r\nHost: gate\r\n\r\n")
        answer = held[-1].recv(65536)
    finally:
        for one in held:
            one.close()
    return judge(answer)


def drip(port: int, words: bytes) -> tuple[bool, str]:
    """Half a head, and then nothing: the other side has to hang up by itself."""
    try:
        answer = _send(port, words, ends=False, patience=_SLOW)
    except TimeoutError:
        return True, "still waited for"
    return False, f"refused: closed {answer[:100]!r}"


def _gate_bound_elsewhere(facts: Mapping[str, Any]) -> tuple[bool, str]:
    """Takes the gate's place before its other callers."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", _gate(facts)[0]))
        other.listen()
    return True, "bound"


_EMPTY_CHUNKS = b"0\r\n\r\n"

CALLS = {
    "smuggle-both-lengths": _version("Content-Length: 0", "Transfer-Encoding: chunked", body=_EMPTY_CHUNKS),
    "smuggle-two-lengths": _version("Content-Length: 0", "Content-Length: 0"),
    "smuggle-folded-line": _version("X-A: b", " c: d"),
    "smuggle-bare-line-feed": _version("X-A: b\nX-B: c"),
    "smuggle-null": _version("X-A: b\0c"),
    "smuggle-space-before-colon": _version("Content-Length : 0"),
    "smuggle-two-tokens": _version("Authorization: Bearer a", "Authorization: Bearer b"),
    "smuggle-pipeline": _pipeline,
    "absolute-form": _version(target="http://169.254.169.254/version"),
    "connect": partial(_raw, b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: x\r\n\r\n"),
    "upgrade": _version("Connection: Upgrade", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"),
    "http-1.0": partial(_raw, b"GET /version HTTP/1.0\r\nHost: gate\r\n\r\n"),
    "huge-head": _version("X-A: " + "b" * 17_000),
    "endless-length": _version("Content-Length: " + "0" * 18),
    "many-connections": _many_connections,
    "slow-head": lambda facts: drip(_gate(facts)[0], b"GET /version HTTP/1.1\r\nHost: g"),
    "gate-taken-over": _gate_bound_elsewhere,
    "call-users": _get("/user"),
    "call-log-in": _post("/token/user"),
    "call-kill": _post("/kill/task"),
    "call-node-protocol": _get("/skerry/node/self"),
    "call-node-work": _post("/skerry/node/work"),
    "call-delete": partial(_call, "DELETE", "/task/1"),
    "call-patch": partial(_call, "PATCH", "/organization/1", body={"public_key": "mine"}),
    "traversal": _get("/organization/../user"),
    "traversal-encoded": _get("/organization/%2e%2e/user"),
    "traversal-after-number": _get("/organization/1/../../user"),
    "path-parameter": _get("/organization/1;/user"),
    "path-null": _get("/organization/1%00"),
    "path-case": _get("/ORGANIZATION/1"),
    "path-slash": _get("/organization/1/"),
    "number-negative": _get("/organization/-1"),
    "query-line-end": _get("/organization/{organization}?include=a%0d%0aX-Evil:%20b"),
    "query-unknown": _get("/task/{other_task}?fields=input"),
    "query-encoded-amp": _get("/organization/{organization}?include=a%26all=1"),
    "token-none": partial(_show, ""),
    "token-of-another-run": partial(_show, "Bearer {other_token}"),
    "token-without-signature": _without_signature,
    "token-other-scheme": partial(_show, "Basic {other_token}"),
    "other-node": _get("/node/{other_node}"),
    "other-results": _get("/result?task_id={other_task}"),
    "other-result": _get("/result/{other_run}"),
    "child-of-outsider": _child_of_outsider,
    "child-other-image": partial(_child, image="skerry-tests/evil"),
    "child-other-collaboration": partial(_child, collaboration_id=9999),
    "child-twice": _child_twice,
    "child-of-blob-of-others": lambda facts: _child(
        facts, organizations=[{"id": facts["organization"], "input": "6f1c1c1e-0000-4000-8000-000000000000"}]
    ),
}
