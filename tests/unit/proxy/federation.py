"""A server in a thread that speaks the native protocol's shapes, and the things that a proxy needs around it."""

from __future__ import annotations

import base64
import json
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from skerry import crypto
from skerry.keys import Identity
from skerry.wire import Context, b64, to_stored, unb64
from skerry_proxy.settings import admitted_formats

TOKEN = "upstream-token"
IMAGE = "example/mean:1"
DATABASES = [{"label": "default"}]


@dataclass
class FakeServer:
    """One collaboration: organization 1 asks, 2 is the proxy's own, 3 another. Faults are taken one by one."""

    keys: list[dict] = field(default_factory=list)
    tasks: dict[int, dict] = field(default_factory=dict)
    runs: dict[int, dict] = field(default_factory=dict)
    inputs: dict[int, bytes] = field(default_factory=dict)
    results: dict[int, bytes] = field(default_factory=dict)
    staged: dict[int, bytes | int] = field(default_factory=dict)
    finished: list[dict] = field(default_factory=list)
    posts: list[dict] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    seen: list[tuple[str, str, dict]] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)
    addresses: object = field(default_factory=list)
    received: int = 0
    whole: bool = False
    token: str = TOKEN
    token_life: int = 900
    waiting: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    held: threading.Event = field(default_factory=threading.Event)
    while_uploading: Callable[[], object] = lambda: None

    def __post_init__(self) -> None:
        """New tasks are held back while ``held`` is clear."""
        self.held.set()

    def fault_for(self, path: str) -> str:
        """The next planted fault for this path: drop, lose (done, then no answer), or a status."""
        for index, (part, fault) in enumerate(self.faults):
            if part in path:
                del self.faults[index]
                return fault
        return ""

    def create(self, body: dict) -> dict:
        for task in self.tasks.values():
            if task["uuid"] == body["uuid"]:
                return task
        number = 100 + len(self.tasks)
        task = {"id": number, "uuid": body["uuid"], "name": body.get("name"), "status": "pending"}
        self.tasks[number] = task
        for entry in body["organizations"]:
            run = 1000 + len(self.runs)
            self.runs[run] = {
                "id": run,
                "status": "pending",
                "log": None,
                "organization": {"id": entry["id"]},
                "task": {"id": number},
                "input": entry["input"],
            }
        self.posts.append(body)
        return task

    def complete(self, run: int, stored: bytes, log: str | None = None) -> None:
        self.runs[run] |= {"status": "completed", "log": log}
        self.results[run] = stored

    def runs_of(self, task: int) -> list[dict]:
        return [run for run in self.runs.values() if run["task"]["id"] == task]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeServer

    def log_message(self, *args) -> None:
        pass

    def handle_any(self) -> None:
        fake, url = self.fake, urlsplit(self.path)
        path = url.path.removeprefix("/api")
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        fake.seen.append((self.command, path, dict(self.headers) | {"query": url.query}))
        known = self.headers.get("Authorization") == f"Bearer {fake.token}"
        body = self.read_body(path)
        fault = fake.fault_for(path)
        if fault == "drop":
            self.close_connection = True
            return
        if fault.isdigit():
            self.answer(int(fault), {"msg": f"planted {fault}"})
            return
        if path != "/version" and not known:
            self.answer(401, {"msg": "Token has expired"})
            return
        if self.command == "POST" and path == "/task":
            fake.held.wait(10)
        status, value = self.route(path, query, body)
        if fault == "lose":
            self.close_connection = True
            return
        self.answer(status, value)

    do_GET = do_POST = do_PUT = handle_any  # noqa: N815 - the standard library's names

    def read_body(self, path: str) -> object:
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.fake.while_uploading()
            return self.read_chunks()
        length = int(self.headers.get("Content-Length") or 0)
        if self.command == "PUT" and "/blob/" in path:
            return self.rfile.read(length)
        if self.command == "PUT":
            size = 0
            while size < length:
                size += len(self.rfile.read(min(length - size, 1 << 20)))
            return size
        return json.loads(self.rfile.read(length)) if length else None

    def read_chunks(self) -> bytes:
        whole = bytearray()
        while size := int(self.rfile.readline(), 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return bytes(whole)

    def answer(self, status: int, value: object) -> None:
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream" if isinstance(value, bytes) else "application/json")
        self.send_header("Content-Length", str(len(raw)))
        if status in {301, 302}:
            self.send_header("Location", "http://127.0.0.1:1/stolen")
        self.end_headers()
        self.wfile.write(raw)

    def route(self, path: str, query: dict, body) -> tuple[int, object]:  # noqa: PLR0911 - a table
        fake = self.fake
        if self.command == "POST" and path == "/task":
            return 201, fake.create(body)
        if found := re.fullmatch(r"/skerry/blob/([0-9a-f-]{36})", path):
            if self.command == "PUT":
                fake.blobs[found[1]] = body
            return 200, {"received": 0, "complete": False}
        if found := re.fullmatch(r"/skerry/run/(\d+)/(\w+)", path):
            return self.route_run(int(found[1]), found[2], query, body)
        if found := re.fullmatch(r"/skerry/task/(\d+)/wait", path):
            return self.wait(int(found[1]), query)
        if path == "/vpn/algorithm/addresses":
            return 200, {"addresses": fake.addresses}
        if path == "/skerry/keys":
            return 200, {"data": fake.keys}
        if path in {"/organization", "/run", "/study"}:
            rows = fake.runs_of(int(query["task_id"])) if path == "/run" else [{"id": n} for n in range(1, 251)]
            return 200, page(rows, int(query["page"]), int(query["per_page"]))
        if found := re.fullmatch(r"/run/(\d+)", path):
            run = fake.runs.get(int(found[1]))
            return (200, run) if run else (404, {"msg": "There is no such run."})
        return 200, {"echo": path}

    def route_run(self, run: int, what: str, query: dict, body) -> tuple[int, object]:
        fake = self.fake
        if what == "token":
            fake.token = f"{TOKEN}-{len(fake.seen)}"
            return 200, {"token": fake.token, "expires_in": fake.token_life}
        if what == "input":
            return 200, fake.inputs[run]
        if what == "upload":
            return 200, {"received": fake.received, "complete": fake.whole}
        if what == "result" and self.command == "PUT":
            fake.staged[run] = body
            return 204, b""
        if what == "result":
            return (200, fake.results[run]) if run in fake.results else (404, {"msg": "There is no result."})
        fake.finished.append({"run": run, **body})
        return 200, {"status": body["status"]}

    def wait(self, task: int, query: dict) -> tuple[int, object]:
        fake = self.fake
        if int(query.get("timeout", "0")) > 0:
            fake.waiting.set()
            fake.released.wait(20)
        rows = [
            {
                "id": run["id"],
                "organization_id": run["organization"]["id"],
                "node_id": 1,
                "status": run["status"],
                "node_online": True,
            }
            for run in fake.runs_of(task)
        ]
        return 200, {"id": task, "status": "active", "finished": False, "seen": "s1", "runs": rows}


def page(rows: list, number: int, size: int) -> dict:
    start = (number - 1) * size
    links = {"self": "/x", "next": "/y"} if start + size < len(rows) else {"self": "/x"}
    return {"data": rows[start : start + size], "links": links}


def start_server(fake: FakeServer) -> ThreadingHTTPServer:
    handler = type("BoundHandler", (Handler,), {"fake": fake})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # a proxy that hangs up is no error here
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return server


def make_settings(url: str, folder, *, encrypted=True, accept="native", unsigned="refuse", **changes) -> dict:
    settings = {
        "server_url": url,
        "api_path": "/api",
        "ca_file": None,
        "control_socket": str(folder / "control.sock"),
        "state_folder": str(folder),
        "node_id": 5,
        "organization_id": 2,
        "collaboration": {"id": 1, "encrypted": encrypted, "accept": accept},
        "unsigned_tasks": unsigned,
        "require_confirmed_keys": False,
    }
    assert admitted_formats(encrypted=encrypted, accept=accept, unsigned=unsigned == "allow") is not None
    return settings | changes


def make_order(fmt: str, stored: bytes | None, *, task_uuid: str, run=7, attempt=1, **task) -> dict:
    base = {
        "id": 9,
        "uuid": task_uuid,
        "parent_uuid": None,
        "job_id": 9,
        "parent_id": None,
        "name": "mean",
        "image": IMAGE,
        "collaboration_id": 1,
        "study_id": None,
        "store_id": None,
        "init_org_id": 1,
        "init_user_id": 4,
        "databases": DATABASES,
    }
    return {
        "run": run,
        "attempt": attempt,
        "organization_id": 2,
        "node_id": 5,
        "format": fmt,
        "task": base | task,
        "input": None if stored is None else b64(stored),
        "input_size": len(stored or b""),
        "token": TOKEN,
        "token_expires_in": 900,
    }


def input_context(task_uuid: str, **changes) -> Context:
    now = int(time.time())
    values = {
        "direction": "input",
        "task": task_uuid,
        "parent": None,
        "collaboration": 1,
        "sender": 1,
        "user": None,
        "recipient": 2,
        "image": IMAGE,
        "databases": tuple(DATABASES),
        "attempt": None,
        "created": now,
        "expires": now + 3600,
    }
    return Context(**(values | changes))


def seal(plaintext: bytes, sender: Identity, recipient: Identity, context: Context, chain=()) -> bytes:
    pieces = crypto.seal([plaintext], context, recipients=[recipient.public_pem], identity=sender, chain=chain)
    return b"".join(pieces)


def make_input(fmt: str, plaintext: bytes, sender: Identity, recipient: Identity) -> tuple[str, bytes]:
    """The task's UUID and its stored input, in a format."""
    task_uuid = str(uuid.uuid4())
    if fmt == "native":
        return task_uuid, seal(plaintext, sender, recipient, input_context(task_uuid))
    if fmt == "vantage6":
        return task_uuid, crypto.vantage6_encrypt(plaintext, recipient.public_pem).encode()
    return task_uuid, plaintext


def answer_child(fmt: str, plaintext: bytes, post: dict, author: Identity, reader: Identity, /, **changes) -> bytes:
    """The stored result of organization 3 for a child task that organization 2 posted."""
    if fmt == "native":
        context = input_context(
            post["uuid"],
            **({"direction": "result", "sender": 3, "recipient": 2, "attempt": 1} | changes),
        )
        return seal(plaintext, author, reader, context)
    if fmt == "vantage6":
        return crypto.vantage6_encrypt(plaintext, reader.public_pem).encode()
    return plaintext


def open_child_input(fmt: str, payload: str, recipient: Identity) -> tuple[bytes, crypto.Opened | None]:
    if fmt == "native":
        opened = crypto.unseal([unb64(payload)], recipient)
        return b"".join(opened.chunks), opened
    if fmt == "vantage6":
        return crypto.vantage6_decrypt(payload, recipient), None
    return to_stored(payload, "plain"), None


@dataclass
class Caller:
    """What a container does: calls its gate over TCP."""

    port: int
    token: str | None

    def raw(self, data: bytes, *, patience: float = 5.0) -> bytes:
        """All that the gate answers until it closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=patience) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    whole = b""
    while piece := connection.recv(65536):
        whole += piece
    return whole


def jwt(**claims) -> str:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"e30.{body}.c2ln"


def wait_for(condition: Callable[[], bool]) -> None:
    """Returns once it holds; fails after a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        threading.Event().wait(0.01)
