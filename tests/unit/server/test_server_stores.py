"""Algorithm stores: who links them, and which addresses the server asks."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from server_federation import Api, Federation

from skerry_server import webcalls
from skerry_server.app import create_app
from skerry_server.errors import InvalidRequest
from skerry_server.server import Server
from skerry_server.settings import Stores

pytestmark = pytest.mark.unit


class _Store(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.seen.append(dict(self.headers))  # type: ignore[attr-defined]
        listed = self.path == "/api/algorithm?image=example%2Fmean"
        status = 200 if listed or self.path in {"/api/version", "/api/algorithm?image=other"} else 302
        self.send_response(status)
        self.send_header("Location", "http://127.0.0.1:1/")
        self.end_headers()
        rows = b'{"data": [{"image": "example/mean", "digest": "sha256:00"}]}' if listed else b'{"data": []}'
        self.wfile.write(rows)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.registered.append((self.path, body, dict(self.headers)))  # type: ignore[attr-defined]
        status, answer = self.server.answer  # type: ignore[attr-defined]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        """Silence."""


@pytest.fixture
def store() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Store) as server:
        server.seen, server.registered = [], []  # type: ignore[attr-defined]
        server.answer = (201, b"{}")  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def allowing(server: Server) -> Any:
    """The same server, whose owner allows this machine."""
    settings = server.settings.model_copy(update={"stores": Stores(allowed=["127.0.0.1"])})
    return create_app(replace(server, settings=settings)).test_client()


def url(store: ThreadingHTTPServer, path: str = "/api") -> str:
    return f"http://127.0.0.1:{store.server_address[1]}{path}"


def test_a_store_is_linked(federation: Federation, allowing: Any, store: ThreadingHTTPServer) -> None:
    admin = Api(allowing, federation.make_user("Collaboration Admin").token)
    body = {"name": "a store", "algorithm_store_url": url(store), "server_url": "http://x/api", "force": True}
    body |= {"collaboration_id": [federation.collaboration]}
    assert '"force"' in admin.refused(400, "POST", "algorithmstore", {**body, "force": False})
    assert store.seen == []  # type: ignore[attr-defined]
    made = admin.post("algorithmstore", body)
    assert set(made) == {"id", "name", "url", "collaborations"}
    assert all("Authorization" not in headers for headers in store.seen)  # type: ignore[attr-defined]
    assert len(store.registered) == 1  # type: ignore[attr-defined]
    assert [one["id"] for one in made["collaborations"]] == [federation.collaboration]
    path = f"algorithmstore/{made['id']}"
    for api in (federation.make_user("Viewer"), federation.nodes[1]):
        assert api.get(path)["url"] == url(store)
    federation.make_user("Viewer", 3).refused(401, "GET", path)
    assert federation.make_user("Viewer", 3).get("algorithmstore")["data"] == []
    found = admin.get("algorithmstore", collaboration_id=federation.collaboration, name="a%")["data"]
    assert [one["id"] for one in found] == [made["id"]]
    admin.refused(401, "PATCH", path, {"collaboration_id": None})
    assert federation.root.patch(path, {"collaboration_id": None, "name": "ours"})["collaborations"] == []
    assert [one["name"] for one in federation.make_user("Viewer", 3).get("algorithmstore")["data"]] == ["ours"]
    admin.refused(401, "DELETE", path, query_string={"server_url": "http://x/api"})
    federation.root.delete(path)
    federation.root.refused(404, "GET", path)


def test_linking_a_store_notes_the_server_there(
    federation: Federation, allowing: Any, store: ThreadingHTTPServer
) -> None:
    """With a token that is good for nothing but to say who wants it."""
    admin = Api(allowing, federation.make_user("Collaboration Admin").token)
    body = {"name": "a store", "algorithm_store_url": url(store), "force": True}
    body |= {"collaboration_id": federation.collaboration}
    admin.post("algorithmstore", body)
    assert store.registered == []  # type: ignore[attr-defined]
    for status in (201, 208, 404):
        store.answer = (status, b"")  # type: ignore[attr-defined]
        admin.post("algorithmstore", {**body, "server_url": "http://here/api/"})
    path, sent, headers = store.registered[-1]  # type: ignore[attr-defined]
    assert (path, sent, headers["server_url"]) == (
        "/api/vantage6-server",
        {"url": "http://here/api", "force": True},
        "http://here/api",
    )
    given = Api(allowing, headers["Authorization"].removeprefix("Bearer "))
    assert given.post("token/user/validate") == admin.post("token/user/validate")
    given.refused(401, "GET", "user")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((403, b'{"msg": "not \\u0007you"}'), "(status 403): not you"),
        ((400, b'{"msg": {"a": 1}}'), "does not say why"),
        ((500, b"<html>"), "does not say why"),
        ((400, b'{"msg": "' + b"x" * 5000 + b'"}'), "(status 400): " + "x" * 300),
        ((400, b"{"), "does not answer with JSON"),
    ],
)
def test_a_store_that_does_not_take_the_server_is_not_linked(
    federation: Federation, allowing: Any, store: ThreadingHTTPServer, answer: tuple[int, bytes], words: str
) -> None:
    root, body = Api(allowing, federation.root.token), {"name": "a store", "algorithm_store_url": url(store)}
    store.answer = answer  # type: ignore[attr-defined]
    message = root.refused(400, "POST", "algorithmstore", {**body, "server_url": "http://here/api", "force": True})
    assert message.endswith(words) or words in message[:100]
    assert root.get("algorithmstore")["data"] == []


def test_a_store_is_linked_once(federation: Federation, allowing: Any, store: ThreadingHTTPServer) -> None:
    """Nor is it asked, or told of this server, a second time."""
    admin = federation.make_user("Collaboration Admin")
    body = {"name": "a store", "algorithm_store_url": url(store), "server_url": "http://x/api", "force": True}
    body |= {"collaboration_id": [federation.collaboration]}
    headers = {"Authorization": f"Bearer {admin.token}", "Idempotency-Key": "a key of the caller's"}
    first, again = (allowing.post("/api/algorithmstore", json=body, headers=headers) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 201), again.data
    assert first.get_json() == again.get_json()
    assert len(store.registered) == 1  # type: ignore[attr-defined]
    assert allowing.post("/api/algorithmstore", json={**body, "name": "another"}, headers=headers).status_code == 409


def test_a_node_is_told_which_store_a_task_names(
    federation: Federation, allowing: Any, store: ThreadingHTTPServer
) -> None:
    admin = Api(allowing, federation.make_user("Collaboration Admin").token)
    body = {"name": "a store", "algorithm_store_url": url(store), "server_url": "http://x/api", "force": True}
    made = admin.post("algorithmstore", {**body, "collaboration_id": [federation.collaboration]})
    federation.make_task(Api(allowing, federation.make_user().token), store_id=made["id"])
    federation.make_task(federation.make_user())
    named, unnamed = federation.work(2)["runs"]
    assert (named["task"]["store_id"], named["task"]["store_url"]) == (made["id"], url(store))
    assert unnamed["task"]["store_url"] is None


def test_who_may_not_link_makes_the_server_ask_nobody(
    federation: Federation, allowing: Any, store: ThreadingHTTPServer
) -> None:
    body = {
        "name": "a store",
        "algorithm_store_url": url(store),
        "collaboration_id": federation.collaboration,
        "force": True,
    }
    Api(allowing, federation.make_user().token).refused(401, "POST", "algorithmstore", body)
    admin = Api(allowing, federation.make_user("Collaboration Admin").token)
    admin.refused(401, "POST", "algorithmstore", {**body, "collaboration_id": None})
    assert store.seen == []  # type: ignore[attr-defined]
    assert "status 302" in admin.refused(
        400, "POST", "algorithmstore", {**body, "algorithm_store_url": url(store, "/x")}
    )
    admin.refused(400, "POST", "algorithmstore", {**body, "algorithm_store_url": "http://127.0.0.1:1"})


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:8000/api",
        "https://127.0.0.1/api",
        "https://localhost/api",
        "https://[::1]/api",
        "https://[::ffff:127.0.0.1]/api",
        "https://10.0.0.1",
        "https://192.168.1.1",
        "https://169.254.169.254/latest/meta-data",
        "https://[fe80::1]",
        "https://0.0.0.0",
        "https://2130706433",
        "https://0x7f.1",
        "https://224.0.0.1",
        "https://user:password@8.8.8.8",
        "https://8.8.8.8/?x",
        "https://8.8.8.8/#x",
        "https://8.8.8.8:99999",
        "https://[",
        "ftp://8.8.8.8",
        "file:///etc/passwd",
        "http://8.8.8.8",
        "https://8.8.8.8/\r\nX: y",
        "https://no-such-host.invalid",
        "",
        "x",
    ],
)
def test_where_the_server_does_not_go(address: str) -> None:
    with pytest.raises(InvalidRequest):
        webcalls.check(address, allowed=["else.example.org"])


def test_the_checked_address_is_the_one_that_is_asked() -> None:
    assert webcalls.check("https://8.8.8.8/api/", allowed=()).ip == "8.8.8.8"
    assert webcalls.check("http://127.0.0.1:7/api", allowed=["127.0.0.1"]).port == 7


def test_what_a_store_is_given_of_a_user(federation: Federation, allowing: Any, store: ThreadingHTTPServer) -> None:
    """A token with which it can ask who that is, and nothing else."""
    root, user = Api(allowing, federation.root.token), federation.make_user()
    place = {"collaboration_id": federation.collaboration, "force": True}
    id_ = root.post("algorithmstore", {"name": "a store", "algorithm_store_url": url(store), **place})["id"]
    researcher = Api(allowing, user.token)
    researcher.post("task", federation.task_body(2, store_id=id_))
    researcher.post("task", federation.task_body(2, store_id=id_, server_url="http://here/api", name="other"))
    before, after = store.seen[-2:]  # type: ignore[attr-defined]
    assert not {"Authorization", "server_url", "Server-Url"} & set(before)
    assert after["server_url"] == after["Server-Url"] == "http://here/api"
    given = Api(allowing, after["Authorization"].removeprefix("Bearer "))
    assert given.token != user.token
    assert given.post("token/user/validate") == user.post("token/user/validate")
    given.refused(401, "GET", "user")
    given.refused(401, "POST", "task", federation.task_body(2))
    given.refused(401, "POST", "token/node/validate")
    given.refused(422, "POST", "token/refresh")


def test_a_task_with_an_image_of_a_store(federation: Federation, allowing: Any, store: ThreadingHTTPServer) -> None:
    elsewhere = federation.collaborate([1], encrypted=False)
    federation.make_node(1, elsewhere)
    root, researcher = Api(allowing, federation.root.token), Api(allowing, federation.make_user().token)
    body = {
        "name": "a store",
        "algorithm_store_url": url(store),
        "collaboration_id": federation.collaboration,
        "force": True,
    }
    id_ = root.post("algorithmstore", body)["id"]
    task = researcher.post("task", federation.task_body(2, store_id=id_, server_url="http://x/api"))
    assert task["image"] == "example/mean@sha256:00"
    assert task["algorithm_store"]["id"] == id_
    assert researcher.get("task", store_id=id_)["data"][0]["id"] == task["id"]
    assert [one["id"] for one in researcher.get("collaboration", algorithm_store_id=id_)["data"]] == [1]
    assert federation.claim(2)["task"]["store_id"] == id_
    other = federation.task_body(2, store_id=id_, image="other")
    assert "does not list" in researcher.refused(400, "POST", "task", other)
    there = federation.task_body(1, store_id=id_, collaboration_id=elsewhere)
    researcher.refused(403, "POST", "task", there)
    researcher.refused(404, "POST", "task", federation.task_body(2, store_id=99))
    root.delete(f"algorithmstore/{id_}")
    assert researcher.get(f"task/{task['id']}")["algorithm_store"] is None
