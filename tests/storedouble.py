"""A double of vantage6's algorithm store: tables in memory, open to whom the server that they name vouches for.

It speaks at ``/api`` and at the root, since clients of different ages write its address differently. What anybody
may ask is its version, its public policies and its list of algorithms, which leaves out those that are closed.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qsl, urlsplit
from urllib.request import Request, urlopen

_FREE = {("GET", "version"), ("GET", "policy/public"), ("GET", "algorithm")}
_POLICIES = {"algorithm_view": "public", "allow_localhost": True}
_FIELDS = {
    "algorithm": "name description image partitioning vantage6_version code_url documentation_url functions",
    "review": "algorithm_id reviewer_id",
    "user": "username roles",
    "role": "name description rules",
}
_STATES = {"invalidate": "removed", "approve": "approved", "reject": "rejected"}


class Refused(Exception):
    """A status and what the caller is told."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class StoreDouble(ThreadingHTTPServer):
    """``algorithms`` maps each image that it lists from the beginning to its digest, or to None.

    Those whose name ends in "closed" are for people whom their server vouches for.
    """

    daemon_threads = True

    def __init__(self, algorithms: dict[str, str | None]) -> None:
        super().__init__(("127.0.0.1", 0), _Door)
        self.lock = threading.Lock()
        self.servers: set[str] = set()
        self.tables: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in _FIELDS}
        self.tables["rule"] = {
            n: {"id": n, "name": "algorithm", "operation": op} for n, op in enumerate(("view", "edit"), 1)
        }
        self.tables["role"] = {1: {"id": 1, "name": "Reviewer", "description": "reviews", "rules": [1]}}
        for image, digest in algorithms.items():
            row = {"name": image, "image": image, "digest": digest, "status": "approved"}
            self.add("algorithm", row)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, table: str, row: dict[str, Any]) -> dict[str, Any]:
        id_ = max(self.tables[table], default=0) + 1
        self.tables[table][id_] = {"id": id_, **row}
        return self.tables[table][id_]


@contextmanager
def open_store(algorithms: dict[str, str | None]) -> Iterator[StoreDouble]:
    with StoreDouble(algorithms) as store:
        thread = threading.Thread(target=store.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield store
        finally:
            store.shutdown()
            thread.join()


class _Door(BaseHTTPRequestHandler):
    server: StoreDouble

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815 - the names that the base class looks for

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def _serve(self) -> None:
        try:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")
            address = urlsplit(self.path)
            path = address.path.strip("/").removeprefix("api").strip("/")
            anonymous = (self.command, path) in _FREE and "Authorization" not in self.headers
            if (self.command, path) == ("POST", "vantage6-server"):
                status, answer = self._note_server(body)
            else:
                who = None if anonymous else self._vouched_for(self.headers.get("server_url"))
                with self.server.lock:
                    status, answer = self._answer(path.split("/"), body, dict(parse_qsl(address.query)), who)
        except Refused as error:
            status, answer = error.status, {"msg": str(error)}
        raw = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _note_server(self, body: dict[str, Any]) -> tuple[int, Any]:
        """One of this machine only when that is meant; and only by somebody whom that server knows."""
        if set(body) - {"url", "force"} or ("127.0.0.1" in body["url"] and body.get("force") is not True):
            raise Refused(400, "A server of this machine is not noted without force.")
        known = body["url"] in self.server.servers
        self.server.servers.add(body["url"])
        try:
            self._vouched_for(body["url"])
        except Refused:
            self.server.servers.discard(body["url"])
            raise
        return 208 if known else 201, {"msg": "noted"} if known else {"id": 1, "url": body["url"]}

    def _vouched_for(self, server: str | None) -> str:
        """The name that the caller's server, which is on the list, gives for the caller's token."""
        token = self.headers.get("Authorization")
        if not server or not token:
            raise Refused(401, "Who asks here says of which server they are.")
        if server not in self.server.servers:
            raise Refused(403, "Your server is not on the list.")
        try:
            with urlopen(Request(f"{server}/token/user/validate", b"", {"Authorization": token})) as answer:  # noqa: S310
                return str(json.load(answer)["username"])
        except HTTPError as error:
            raise Refused(401, "Your server does not vouch for you.") from error

    def _answer(self, path: list[str], body: Any, query: dict[str, str], who: str | None) -> tuple[int, Any]:
        match self.command, path:
            case "GET", ["version"]:
                return 200, {"version": "4.15.2"}
            case "GET", ["policy", "public"]:
                return 200, _POLICIES
            case "GET", ["policy"]:
                return 200, {**_POLICIES, "asked_by": who}
            case "GET", [table] if table in self.server.tables:
                return 200, self._page(table, query, who)
            case "POST", [table] if table in _FIELDS:
                return 201, self.server.add(table, {**self._fields(table, body), **_beginning(table)})
            case method, [table, id_, *verb] if table in self.server.tables and id_.isdigit():
                return 200, self._one(method, table, int(id_), body, verb)
        raise Refused(404, "There is nothing here.")

    def _page(self, table: str, query: dict[str, str], who: str | None) -> dict[str, Any]:
        page, size = int(query.pop("page", 1)), int(query.pop("per_page", 10))
        found = [
            row
            for row in self.server.tables[table].values()
            if all(str(row[name]) == value for name, value in query.items() if name in row)
            and (who is not None or not row["image"].endswith("closed"))
            and (query.get("invalidated") != "True" or row["status"] == "removed")
        ]
        return {"data": found[(page - 1) * size : page * size], "links": {"self": self.path}}

    def _one(self, method: str, table: str, id_: int, body: Any, verb: list[str]) -> Any:
        rows = self.server.tables[table]
        if id_ not in rows:
            raise Refused(404, f"There is no {table} {id_}.")
        if method == "POST" and verb and verb[0] in _STATES:
            rows[id_] |= {"status": _STATES[verb[0]], **({"comment": body["comment"]} if body else {})}
        elif method == "PATCH" and not verb:
            rows[id_] |= self._fields(table, body)
        elif method == "DELETE" and not verb:
            del rows[id_]
            return {"msg": f"{table} {id_} deleted"}
        elif method != "GET" or verb:
            raise Refused(405, "That can't be done with it.")
        return rows[id_]

    def _fields(self, table: str, body: Any) -> dict[str, Any]:
        known = {*_FIELDS[table].split(), "refresh_digest"}
        if not isinstance(body, dict) or set(body) - known:
            raise Refused(400, f"A {table} has these fields: {', '.join(sorted(known))}.")
        return body


def _beginning(table: str) -> dict[str, Any]:
    return {"algorithm": {"status": "awaiting reviewer assignment"}, "review": {"status": "under review"}}.get(
        table, {}
    )
