"""Every call of the UserClient once, at a server in a process of its own, with a store to point it at."""

from __future__ import annotations

import inspect
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from devfederation import PATIENCE, SKERRY, skerry

from skerry import UserClient
from skerry.errors import AuthenticationError, ConfigurationError, InvalidInput, NotFound, ServerUnreachable
from skerry.stores import Store
from skerry.subclients import SubClient

pytestmark = pytest.mark.acceptance
PASSWORD = "Aa1-correct-horse"
INPUT = {"method": "mean", "kwargs": {"column": "age"}}


class _StoreDouble(BaseHTTPRequestHandler):
    """Answers each call with what it was asked."""

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")
        heard = {"method": self.command, "path": parts.path, "query": parse_qs(parts.query), "body": body}
        heard["server"], heard["token"] = self.headers.get("Server-Url"), self.headers.get("Authorization")
        rows = {"data": [{"id": 1, **heard}], "links": {}}
        listed = self.command == "GET" and not parts.path.rsplit("/", 1)[1].isdigit() and "policy" not in parts.path
        raw = json.dumps(rows if listed else heard).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    do_GET = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815 - the base class's names

    def log_message(self, *_: Any) -> None:
        """Silence."""


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _StoreDouble) as double:
        thread = threading.Thread(target=double.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{double.server_address[1]}/api"
        double.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def port(tmp_path_factory) -> Iterator[int]:
    """A server that may ask stores on this machine."""
    folder = tmp_path_factory.mktemp("server")
    made = skerry("server", "new", str(folder))
    assert made.returncode == 0, made.stderr
    [config] = folder.glob("*.yaml")
    with config.open("a") as file:
        file.write("\nstores:\n  allowed: [127.0.0.1]\n")
    names = ("--organization", "organization 1", "--username", "root")
    founded = skerry("server", "bootstrap", "--config", str(config), *names, input=f"{PASSWORD}\n")
    assert founded.returncode == 0, founded.stderr
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    with (folder / "log").open("wb") as log:
        start = [str(SKERRY), "server", "start", "--config", str(config), "--port", str(number)]
        server = subprocess.Popen(start, stdout=log, stderr=log)
    try:
        await_answer(number, server, folder / "log")
        yield number
    finally:
        server.terminate()
        server.wait(timeout=PATIENCE)


def await_answer(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        assert server.poll() is None, log.read_text()
        try:
            UserClient("http://127.0.0.1", port).authenticate("nobody", "x")
        except ServerUnreachable:
            assert time.monotonic() < end, log.read_text()
        except AuthenticationError:
            return


class Recorder:
    """Passes calls on and notes their names."""

    def __init__(self, target: Any, called: set[str], path: str = "") -> None:
        self._target, self._called, self._path = target, called, path

    def __getattr__(self, name: str) -> Any:
        value, path = getattr(self._target, name), f"{self._path}.{name}".lstrip(".")
        if isinstance(value, SubClient):
            return Recorder(value, self._called, path)
        if inspect.ismethod(value):
            self._called.add(path)
        return value


def members(group: Any, path: str) -> set[str]:
    own = {f"{path}.{name}" for name, _ in inspect.getmembers(group, inspect.ismethod) if not name.startswith("_")}
    nested = {name: value for name, value in vars(group).items() if isinstance(value, SubClient)}
    return own.union(*(members(value, f"{path}.{name}") for name, value in nested.items()))


@pytest.fixture
def client(port) -> UserClient:
    client = UserClient("http://127.0.0.1", port)
    client.authenticate("root", PASSWORD)
    client.setup_encryption(None)
    return client


def test_every_call(client, port, store, tmp_path) -> None:
    called: set[str] = set()
    recorded: Any = Recorder(client, called)
    try_util(recorded)
    first, second = try_organizations(recorded)
    collaboration = try_collaborations(recorded, first, second)
    try_studies(recorded, collaboration, first, second)
    node = try_nodes(recorded, collaboration, first)
    try_tasks(recorded, collaboration, first, node, tmp_path)
    try_users(recorded, port, second)
    try_roles(recorded)
    try_stores(recorded, store, collaboration)
    try_store_members(recorded)
    try_algorithms(recorded, client)
    with pytest.raises(InvalidInput, match="node"):
        recorded.collaboration.delete(collaboration)
    recorded.node.delete(node)
    recorded.collaboration.delete(collaboration, delete_dependents=True)
    recorded.organization.delete(second, delete_dependents=True)
    recorded.util.generate_private_key(str(tmp_path / "key.pem"))
    assert recorded.organization.get()["public_key"]
    groups = {name: value for name, value in vars(client).items() if isinstance(value, SubClient)}
    helpers = {"run.log_of", "organization.all_of", "run.all_of", "store.chosen_url"}
    helpers |= {"result.plaintext", "result.pieces", "result.save", "result.write"}
    assert set().union(*(members(value, name) for name, value in groups.items())) - called <= helpers


def try_util(client: Any) -> None:
    assert "version" in client.util.get_server_version()
    assert client.util.get_server_health()["database"] is True
    assert "msg" in client.util.reset_my_password(username="root")
    with pytest.raises(InvalidInput, match="token"):
        client.util.set_my_password("nonsense", PASSWORD)
    with pytest.raises(InvalidInput, match="sends no mail"):
        client.util.reset_two_factor_auth(PASSWORD, username="root")
    with pytest.raises(InvalidInput, match="token"):
        client.util.set_two_factor_auth("nonsense")
    assert client.check_if_blob_store_enabled() is False


def try_organizations(client: Any) -> tuple[int, int]:
    first = client.organization.get()
    second = client.organization.create("organization 2", country="NL", fields=["id", "country"])
    assert second["country"] == "NL"
    assert client.organization.update(second["id"], domain="example.org", field="domain") == {"domain": "example.org"}
    assert client.organization.list(country="NL", field="id") == [{"id": second["id"]}]
    both = client.organization.list()
    assert {row["id"] for row in both["data"]} == {first["id"], second["id"]}
    assert "self" in both["links"]
    assert client.organization.list(filter_=("name", "organization 1"), field="id") == [{"id": first["id"]}]
    return first["id"], second["id"]


def try_collaborations(client: Any, first: int, second: int) -> int:
    id_ = int(client.collaboration.create("work", [first], encrypted=False)["id"])
    members = client.collaboration.add_organization(second, id_)
    assert {one["id"] for one in members} == {first, second}
    assert [one["id"] for one in client.collaboration.remove_organization(second, id_)] == [first]
    assert client.collaboration.update(id_, organizations=[first, second], field="id") == {"id": id_}
    assert client.collaboration.list(encrypted=False, name="wor%", field="id") == [{"id": id_}]
    assert client.collaboration.list(encrypted=True)["data"] == []
    assert client.collaboration.list(scope="global", algorithm_store=1000)["data"] == []
    client.setup_collaboration(id_)
    assert client.collaboration.get()["name"] == "work"
    return id_


def try_studies(client: Any, collaboration: int, first: int, second: int) -> None:
    study = client.study.create("half", [first], collaboration)["id"]
    assert client.study.update(study, name="part")["name"] == "part"
    assert {one["id"] for one in client.study.add_organization(second, study)} == {first, second}
    client.study.remove_organization(second, study)
    [row] = client.study.list(include_organizations=True, organization=first)["data"]
    assert [one["id"] for one in row["organizations"]] == [first]
    assert client.study.get(study, field="name") == {"name": "part"}
    client.study.delete(study)
    with pytest.raises(NotFound):
        client.study.get(study)


def try_nodes(client: Any, collaboration: int, organization: int) -> int:
    made = client.node.create(collaboration, organization, "a node")
    assert made["api_key"]
    id_ = int(made["id"])
    assert client.node.update(id_, name="the node", clear_ip=True)["name"] == "the node"
    assert client.node.get(id_, fields=["id"]) == {"id": id_}
    assert client.node.list(is_online=False, name="the%", last_seen_till="2001-01-01T00:00:00")["data"] == []
    assert client.node.list(is_online=False, organization=organization, field="id") == [{"id": id_}]
    assert client.node.list(is_online=True, ip="10.0.0.1", last_seen_from="2001-01-01T00:00:00")["data"] == []
    with pytest.raises(InvalidInput, match="offline"):
        client.node.kill_tasks(id_)
    return id_


def try_tasks(client: Any, collaboration: int, organization: int, node: int, folder: Path) -> None:
    task = client.task.create([organization], "a task", "image:1", "words", INPUT, collaboration, databases="default")
    assert client.task.get(task["id"], include_results=True)["results"][0]["result"] is None
    [found] = client.task.list(name="a%", database="default", description="wor%", status="pending", image="image:1")[
        "data"
    ]
    assert found["id"] == task["id"]
    assert client.task.list(user_created=False)["data"] == []
    [run] = client.run.list(task=task["id"], state="open", assigned=("2001-01-01T00:00:00", None))["data"]
    assert json.loads(run["input"]) == INPUT
    assert client.run.list(task=task["id"], finished=(None, "2001-01-01T00:00:00"), port=1234)["data"] == []
    assert client.run.get(run["id"], include_task=True)["task"]["name"] == "a task"
    assert client.run.get(run["id"], decrypt_input=False)["input"] != run["input"]
    assert client.run.from_task(task["id"], field="status") == [{"status": "pending"}]
    with pytest.raises(NotFound):
        client.result.get(run["id"])
    with pytest.raises(NotFound):
        client.result.download(run["id"], folder / "result")
    assert not list(folder.iterdir())
    assert client.result.from_task(task["id"])["data"][0]["result"] is None
    client.task.kill(task["id"])
    assert client.task.get(task["id"], field="status") == {"status": "killed by user"}
    client.task.delete(task["id"])
    with pytest.raises(NotFound):
        client.task.get(task["id"])


def try_users(client: Any, port: int, organization: int) -> None:
    viewer = client.role.list(name="Viewer", include_root=True, field="id")[0]["id"]
    made = client.user.create("ada", "Ada", "L", PASSWORD, "ada@example.org", organization, roles=[viewer])
    ada = UserClient("http://127.0.0.1", port)
    ada.authenticate("ada", PASSWORD)
    assert ada.name == "ada"
    ada.util.change_my_password(PASSWORD, f"{PASSWORD}!")
    with pytest.raises(AuthenticationError):
        ada.authenticate("ada", PASSWORD)
    ada.authenticate("ada", f"{PASSWORD}!")
    assert client.user.list(firstname="Ad%", role=viewer, organization=organization, field="id") == [{"id": made["id"]}]
    assert client.user.list(lastname="%", email="ada@%", last_seen_till="2001-01-01T00:00:00")["data"] == []
    assert client.user.update(made["id"], lastname="Lovelace", field="lastname") == {"lastname": "Lovelace"}
    assert client.user.get()["username"] == "root"
    client.util.change_my_password(PASSWORD, PASSWORD + "?")
    client.authenticate("root", PASSWORD + "?")
    client.util.change_my_password(PASSWORD + "?", PASSWORD)
    client.authenticate("root", PASSWORD)
    client.setup_encryption(None)
    client.user.delete(made["id"])


def try_roles(client: Any) -> None:
    rule = client.rule.list(name="task", operation="VIEW", scope="ORGANIZATION")["data"][0]
    assert client.rule.get(rule["id"], fields=["name", "operation"]) == {"name": "task", "operation": "VIEW"}
    role = client.role.create("looker", "looks", [rule["id"]])["id"]
    assert client.rule.list(role=role, field="id") == [{"id": rule["id"]}]
    assert client.role.update(role, name="watcher")["name"] == "watcher"
    assert client.role.list(rule=rule["id"], description="look%", field="id") == [{"id": role}]
    assert client.role.get(role, field="name") == {"name": "watcher"}
    client.role.delete(role)


def try_stores(client: Any, url: str, collaboration: int) -> None:
    with pytest.raises(ConfigurationError, match=r"client\.store\.set"):
        client.algorithm.list()
    linked = client.store.create(url, "a store", collaboration, force=True)
    assert client.store.list(name="a%", collaboration=collaboration, field="url") == [{"url": url}]
    assert client.store.set(linked["id"])["url"] == url
    assert client.store.update(name="ours")["name"] == "ours"
    assert client.store.update(linked["id"], all_collaborations=True)["collaborations"] == []
    assert client.store.get(linked["id"], field="name") == {"name": "ours"}
    spare = client.store.create(f"{url}/", "another", all_collaborations=True, force=True)["id"]
    client.store.delete(spare)


def try_store_members(client: Any) -> None:
    store = client.store
    assert store.role.list(name="R%", user=3)["data"][0]["query"] == {
        "name": ["R%"],
        "user_id": ["3"],
        "page": ["1"],
        "per_page": ["10"],
    }
    assert store.role.create("r", "d", [1])["body"] == {"name": "r", "description": "d", "rules": [1]}
    assert store.role.edit(4, rules=[2])["body"] == {"rules": [2]}
    assert store.role.delete(4)["path"] == "/api/role/4"
    asked = store.rule.list(username="ada", role=1)["data"][0]
    assert asked["query"]["server_url"] == [asked["server"]]
    assert store.user.list(role=2)["data"][0]["query"]["role_id"] == ["2"]
    assert store.user.get(2)["path"] == "/api/user/2"
    assert store.user.register("ada", [1])["body"] == {"username": "ada", "roles": [1]}
    assert store.user.update(2, [3])["body"] == {"roles": [3]}
    assert store.user.delete(2)["method"] == "DELETE"
    assert store.policy.get()["path"] == "/api/policy"
    assert store.policy.get(public=True)["path"] == "/api/policy/public"
    assert store.review.list(under_review=True, reviewer=3)["data"][0]["query"]["under_review"] == ["True"]
    assert store.review.get(5)["path"] == "/api/review/5"
    assert store.review.create(1, 2)["body"] == {"algorithm_id": 1, "reviewer_id": 2}
    assert store.review.approve(5, "good")["body"] == {"comment": "good"}
    assert store.review.reject(5)["path"] == "/api/review/5/reject"
    assert store.review.delete(5)["method"] == "DELETE"


def try_algorithms(client: Any, plain: UserClient) -> None:
    words = {"name": "mean", "description": "d", "image": "i", "partitioning": "horizontal"}
    asked = client.algorithm.create(**words, vantage6_version="4.15", code_url="https://x", functions=[])
    assert asked["body"] == {**words, "vantage6_version": "4.15", "code_url": "https://x", "functions": []}
    assert (asked["server"], asked["token"]) == (plain.base_path, f"Bearer {plain.token}")
    assert client.algorithm.update(6, refresh_digest=True)["body"] == {"refresh_digest": True}
    assert client.algorithm.list(image="i", invalidated=False)["data"][0]["query"]["invalidated"] == ["False"]
    assert client.algorithm.get(6)["path"] == "/api/algorithm/6"
    assert client.algorithm.invalidate(6)["path"] == "/api/algorithm/6/invalidate"
    assert client.algorithm.delete(6)["method"] == "DELETE"
    assert client.request("version", is_for_algorithm_store=True)["data"][0]["path"] == "/api/version"


def test_a_token_is_sent_to_no_store_without_encryption(client, monkeypatch) -> None:
    monkeypatch.setattr(Store, "_get", lambda *_: {"id": 1, "url": "http://store.example.org/api"})
    with pytest.raises(ConfigurationError, match="use https"):
        client.store.set(1)
    assert client.store.url is None
