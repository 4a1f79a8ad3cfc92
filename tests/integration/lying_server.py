"""A server that speaks the node's protocol and says whatever a test wants; it believes every token."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

PATIENCE = 120


@dataclass
class LyingServer:
    """Node 5 of organization 2 in the encrypted collaboration 1. ``keys``: what it shows of organizations' keys."""

    keys: list[dict[str, Any]] = field(default_factory=list)
    orders: list[dict[str, Any]] = field(default_factory=list)
    statuses: dict[int, list[str]] = field(default_factory=dict)
    finished: dict[int, dict[str, Any]] = field(default_factory=dict)
    staged: dict[int, bytes] = field(default_factory=dict)
    accept: str = "native"
    asked: int = 0
    version: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def offer(self, order: dict[str, Any]) -> dict[str, Any]:
        """Hands an order to the node; what the node reported in the end."""
        run = order["run"]
        with self.changed:
            self.version += 1
            self.orders.append({**order, "keys_version": str(self.version)})
            self.changed.notify_all()
            assert self.changed.wait_for(lambda: run in self.finished, PATIENCE), f"nothing was reported of run {run}"
            return self.finished[run]

    def forget(self, run: int) -> None:
        """What the node said of a run."""
        with self.changed:
            self.orders = [order for order in self.orders if order["run"] != run]
            self.finished.pop(run, None)
            self.statuses.pop(run, None)

    def ran(self, run: int) -> bool:
        """Whether the algorithm was started."""
        return "active" in self.statuses.get(run, [])

    def sees_node(self, alive: Callable[[], bool]) -> bool:
        """Waits until a node asks for work; false when it is not alive any more, or patience ends."""
        deadline = time.monotonic() + PATIENCE
        with self.changed:
            seen = self.asked
            while self.asked <= seen and alive() and time.monotonic() < deadline:
                self.changed.wait(1)
            return self.asked > seen

    # --- what it answers ---------------------------------------------------------------------------------

    def work(self, holding: list[dict[str, int]], seconds: float) -> dict[str, Any]:
        """What the node neither holds nor has finished, also when it was handed out before: an answer may be lost."""
        held = {run["run"] for run in holding}

        def due() -> list[dict[str, Any]]:
            return [order for order in self.orders if order["run"] not in held | self.finished.keys()]

        with self.changed:
            self.asked += 1
            self.changed.notify_all()
            self.changed.wait_for(due, seconds)
            return {"runs": due(), "stop": [], "finished_jobs": [], "lease_seconds": 120}

    def report(self, run: int, what: str, body: dict[str, Any]) -> dict[str, Any]:
        if what == "token":
            return {"token": "renewed", "expires_in": 900}
        with self.changed:
            if what == "status":
                self.statuses.setdefault(run, []).append(body["status"])
            else:
                self.finished[run] = body
            self.changed.notify_all()
        return {"status": body["status"]}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    liar: LyingServer

    def log_message(self, *_: object) -> None:
        pass

    def answer_any(self) -> None:
        url = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        value = self.route(url.path.removeprefix("/api"), parse_qs(url.query), raw)
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = answer_any  # noqa: N815 - the standard library's names

    def route(self, path: str, query: dict[str, list[str]], raw: bytes) -> Any:
        liar = self.liar
        if found := re.fullmatch(r"/skerry/run/(\d+)/result", path):
            liar.staged[int(found[1])] = raw
            return None
        body = json.loads(raw) if raw else {}
        if found := re.fullmatch(r"/skerry/run/(\d+)/(status|token|finish)", path):
            return liar.report(int(found[1]), found[2], body)
        if path == "/skerry/node/work":
            return liar.work(body["holding"], float(body["wait"]))
        fixed = {
            "/token/node": {"access_token": "believed"},
            "/skerry/keys": {"data": liar.keys},
            "/skerry/node/self": {
                "id": 5,
                "name": "node",
                "organization": {"id": 2, "name": "two"},
                "collaboration": {"id": 1, "name": "one", "encrypted": True, "accept": liar.accept},
            },
        }
        return fixed.get(path, {"query": query})


def serve(liar: LyingServer) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"liar": liar}))
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign] # a node that hangs up is no error here
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return server
