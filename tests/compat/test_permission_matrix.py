"""Every endpoint by every role in every relation, at a server whose database forgets each request, and the oracle."""

from __future__ import annotations

import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import oracle
import pytest
from flask import request, request_started
from sqlalchemy.orm import Session

sys.path.insert(0, str(Path(__file__).parent.parent / "unit" / "server"))
from server_federation import PASSWORD, Api, Clock, Federation, make_settings, plain

from skerry.keys import Identity
from skerry.wire import b64
from skerry_server import passwords, webcalls
from skerry_server.app import create_app
from skerry_server.models import AlgorithmStore, Collaboration, Organization, Role, Study, User
from skerry_server.server import open_server
from skerry_server.services.users import found_root
from skerry_server.settings import FileStore

pytestmark = pytest.mark.unit


@dataclass
class World:
    """Organization 1 is the callers'; 1 and 2 work together, 2 and 3 too, 4 is alone. Relation → id, for each thing."""

    federation: Federation
    callers: dict[str, Api] = field(default_factory=dict)
    selves: dict[str, dict[str, int]] = field(default_factory=dict)
    things: dict[str, dict[str, int]] = field(default_factory=dict)


def in_memory() -> str | None:
    """A folder that costs no disk, where there is one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(dir=in_memory()) as folder:
        patch.setattr(passwords, "_HASHER", passwords.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
        clock = Clock()
        server = open_server(make_settings(Path(folder), blob_store=FileStore()), clock)
        with server.database.writing() as session:
            found_root(session, "root", PASSWORD, "organization 1")
        world = World(Federation(server, create_app(server).test_client(), clock))
        world.federation.found()
        _people(world)
        yield world
        server.database.close()


def _people(world: World) -> None:
    federation = world.federation
    federation.root.post("organization", {"name": "organization 4"})
    homes = {"own": federation.collaboration, "same": federation.collaborate([1, 2], encrypted=False)}
    homes |= {
        "other": federation.collaborate([2, 3], encrypted=False),
        "none": federation.collaborate([4], encrypted=False),
    }
    nodes = {"own": federation.nodes[1], "same": federation.nodes[2]}
    nodes |= {"other": federation.make_node(2, homes["other"]), "none": federation.make_node(4, homes["none"])}
    world.things = {"collaboration": homes, "organization": {"own": 1, "same": 2, "other": 3, "none": 4}}
    world.things["node"] = {name: int(api.post("token/node/validate")["node_id"]) for name, api in nodes.items()}
    for name in ("user", "role", "study", "task", "run", "algorithmstore", "blob"):
        world.things[name] = {}
    _things(world, nodes)
    for caller in oracle.USERS:
        _caller(world, caller)
    world.callers["node"] = federation.nodes[1]
    world.callers["nobody"] = federation.anybody


def _things(world: World, nodes: dict[str, Api]) -> None:
    federation, collaborations = world.federation, world.things["collaboration"]
    where = {"own": (1, federation.collaboration), "same": (2, federation.collaboration)}
    where |= {"other": (2, collaborations["other"]), "none": (4, collaborations["none"])}
    for relation, (organization, collaboration) in where.items():
        home = world.things["organization"][relation]
        with federation.server.database.writing() as session:
            user, role = _user(session, home), Role(name=f"role {relation}", organization_id=home)
            members = [session.get_one(Organization, organization)]
            study = Study(name=f"study {relation}", collaboration_id=collaboration, organizations=members)
            store = _store(session, relation, collaborations[relation])
            session.add_all([user, role, study, store])
            session.flush()
            found = {"user": user.id, "role": role.id, "study": study.id, "algorithmstore": store.id}
        for name, id_ in found.items():
            world.things[name][relation] = id_
        asking = federation.make_user("Researcher", organization)
        blob = asking.ok(asking.ask("POST", "blobstream", data=plain({"method": "mean"}).encode()))["uuid"]
        targets = [{"id": organization, "input": blob}]
        task = federation.make_task(asking, organization, collaboration_id=collaboration, organizations=targets)
        world.things["blob"][relation] = blob
        world.things["task"][relation] = task["id"]
        [order] = nodes[relation].post("skerry/node/work", {"capacity": 5, "wait": 0})["runs"]
        world.things["run"][relation] = order["run"]
        if relation == "own":
            world.callers["container"] = Api(federation.client, order["token"])


def _store(session: Session, relation: str, collaboration: int) -> AlgorithmStore:
    linked = [session.get_one(Collaboration, collaboration)]
    url = f"https://{relation}.example.org"
    return AlgorithmStore(name=f"store {relation}", url=url, everywhere=False, collaborations=linked)


def _user(session: Session, organization: int) -> User:
    name = f"user-{uuid.uuid4().hex[:8]}"
    hashed = session.get_one(User, 1).password
    return User(username=name, email=f"{name}@example.org", password=hashed, organization_id=organization)


def _caller(world: World, role: str) -> None:
    api = world.federation.make_user(None if role == "no role" else role)
    me = api.post("token/user/validate")["user_id"]
    selves = {"user": me}
    if oracle.scopes(role, "task create"):
        selves["task"] = world.federation.make_task(api, 1, name=f"of a {role}")["id"]
    world.callers[role], world.selves[role] = api, selves


@contextmanager
def forgetting(world: World) -> Iterator[None]:
    """What a request writes is there until it is answered, and then never was."""
    database = world.federation.server.database

    @contextmanager
    def writing() -> Iterator[Session]:
        with database._turn, database._writer() as session:
            yield session
            session.flush()
            session.rollback()

    address = webcalls.Address("https", "store.example.org", 443, "/api", "93.184.216.34")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "writing", writing)
        patch.setattr(webcalls, "check", lambda _url, _allowed: address)
        patch.setattr(webcalls, "ask", lambda _url, _path, **_query: {"version": "4"})
        patch.setattr(world.federation.server.payloads, "forget", lambda _payload: None)
        yield


@dataclass(frozen=True)
class Cell:
    """One request, all but the caller: ``thing`` → id of the thing of a kind in this cell's relation."""

    deed: str
    relation: str
    thing: Callable[[str], int]

    @property
    def subject(self) -> str:
        return self.deed.split()[0]

    def request(self) -> tuple[str, str, Any, dict[str, Any]]:
        subject, verb = self.deed.split(maxsplit=1)
        if self.deed in _OURS:
            method, path, body = _OURS[self.deed](self)
            return method, path, body, {}
        if verb in _SPECIAL:
            return _SPECIAL[verb](self)
        if verb == "post":
            return "POST", subject, _BODIES[subject](self), {}
        path = f"{subject}/{self.thing('run' if subject == 'result' else subject)}"
        query = {"delete_dependents": 1} if verb == "delete" else {}
        return verb.upper(), path, _PATCHES[subject] if verb == "patch" else None, query


def _targets(cell: Cell) -> list[dict[str, Any]]:
    organization = {"own": 1, "same": 2, "other": 2, "none": 4}[cell.relation]
    return [{"id": organization, "input": plain({"method": "mean"})}]


def _home(cell: Cell) -> int:
    """The collaboration in which things in this relation are; for "own" and "same" the same one."""
    return cell.thing("collaboration") if cell.relation in {"other", "none"} else cell.thing("home")


_PATCHES: dict[str, Any] = {
    "organization": {"country": "NL"},
    "collaboration": {"name": "changed"},
    "study": {"name": "changed"},
    "node": {"name": "changed"},
    "user": {"firstname": "changed"},
    "role": {"name": "changed"},
    "algorithmstore": {"name": "changed"},
}
_NEW_USER = {"username": "newcomer", "email": "new@example.org", "password": PASSWORD}
_BODIES: dict[str, Callable[[Cell], Any]] = {
    "organization": lambda _cell: {"name": "made"},
    "collaboration": lambda _cell: {"name": "made", "organization_ids": [1], "encrypted": False},
    "study": lambda cell: {"name": "made", "collaboration_id": _home(cell), "organization_ids": []},
    "node": lambda cell: {"collaboration_id": cell.thing("spare"), "organization_id": cell.thing("organization")},
    "user": lambda cell: {**_NEW_USER, "organization_id": cell.thing("organization")},
    "role": lambda cell: {"name": "made", "rules": [], "organization_id": cell.thing("organization")},
    "task": lambda cell: {
        "image": "example/mean",
        "collaboration_id": _home(cell),
        "organizations": _targets(cell),
        "uuid": str(uuid.uuid4()),
    },
    "algorithmstore": lambda cell: {
        "name": "made",
        "algorithm_store_url": "https://made.example.org",
        "collaboration_id": cell.thing("collaboration"),
    },
    "column": lambda cell: {"collaboration_id": _home(cell), "organizations": _targets(cell), "db_label": "x"},
}
_SPECIAL: dict[str, Callable[[Cell], tuple[str, str, Any, dict[str, Any]]]] = {
    "list": lambda cell: ("GET", cell.subject, None, {"per_page": 500}),
    "status": lambda cell: ("GET", f"task/{cell.thing('task')}/status", None, {}),
    "widen": lambda cell: (
        "PATCH",
        f"collaboration/{cell.thing('collaboration')}",
        {"organization_ids": [1, 2, 3]},
        {},
    ),
    "add organization": lambda cell: (
        "POST",
        f"{cell.subject}/{cell.thing(cell.subject)}/organization",
        {"id": cell.thing("organization") if cell.subject == "collaboration" else cell.thing("study member")},
        {},
    ),
    "remove organization": lambda cell: (
        "DELETE",
        f"{cell.subject}/{cell.thing(cell.subject)}/organization",
        {"id": cell.thing("organization")},
        {},
    ),
    "remove node": lambda cell: ("DELETE", f"collaboration/{_home(cell)}/node", {"id": cell.thing("node")}, {}),
    "renew key": lambda cell: ("POST", "recover/node", {"id": cell.thing("node")}, {}),
    "kill tasks": lambda cell: ("POST", "kill/node/tasks", {"id": cell.thing("node")}, {}),
    "kill": lambda cell: ("POST", "kill/task", {"id": cell.thing("task")}, {}),
    "add rule": lambda cell: ("POST", f"role/{cell.thing('role')}/rule/{cell.thing('rule')}", None, {}),
    "remove rule": lambda cell: ("DELETE", f"role/{cell.thing('role')}/rule/{cell.thing('rule')}", None, {}),
}


_ATTEMPT = {"attempt": 1}


def _invitation(cell: Cell, collaboration: int) -> dict[str, int]:
    """To that organization whose node there is, or may be, in this relation."""
    home = {"own": 1, "same": 2, "other": 2, "none": 4}.get(cell.relation, 1)
    elsewhere = collaboration == cell.thing("spare")
    return {"collaboration_id": collaboration, "organization_id": cell.thing("organization") if elsewhere else home}


_Call = tuple[str, str, Any]
_OURS: dict[str, Callable[[Cell], _Call]] = {
    "task wait": lambda cell: ("GET", f"skerry/task/{cell.thing('task')}/wait?timeout=0", None),
    "collaboration add node": lambda cell: (
        "POST",
        f"collaboration/{cell.thing('spare')}/node",
        {"id": cell.thing("node")},
    ),
    "blobstream status": lambda _cell: ("GET", "blobstream/status", None),
    "blobstream post": lambda _cell: ("POST", "blobstream", b"YQ=="),
    "blobstream get": lambda cell: ("GET", f"blobstream/{cell.thing('blob')}", None),
    "password change": lambda _cell: (
        "PATCH",
        "password/change",
        {"current_password": PASSWORD, "new_password": f"{PASSWORD}2"},
    ),
    "token validate user": lambda _cell: ("POST", "token/user/validate", None),
    "token validate node": lambda _cell: ("POST", "token/node/validate", None),
    "token container": lambda _cell: ("POST", "token/container", None),
    "vpn profile": lambda _cell: ("GET", "vpn", None),
    "vpn addresses": lambda _cell: ("GET", "vpn/algorithm/addresses", None),
    "port post": lambda cell: ("POST", "port", {"port": 8888, "run_id": cell.thing("run"), **_ATTEMPT}),
    "port delete": lambda cell: ("DELETE", f"port?run_id={cell.thing('run')}&attempt=1", None),
    "keys list": lambda cell: ("GET", f"skerry/keys?collaboration_id={cell.thing('collaboration')}", None),
    "keys put": lambda cell: (
        "PUT",
        f"skerry/organization/{cell.thing('organization')}/keys",
        {**_KEYS, "organization_id": cell.thing("organization")},
    ),
    "keys get": lambda cell: ("GET", f"skerry/organization/{cell.thing('organization')}/keys", None),
    "audit read": lambda _cell: ("GET", "skerry/audit", None),
    "keys clear": lambda cell: ("DELETE", f"skerry/organization/{cell.thing('organization')}/keys", None),
    "keys succeed": lambda cell: (
        "POST",
        f"skerry/organization/{cell.thing('organization')}/successor",
        {
            **_KEYS,
            "organization_id": cell.thing("organization"),
            **dict.fromkeys(("previous", "signature"), ""),
            **dict.fromkeys(("created", "until"), 1),
        },
    ),
    "keys revoke": lambda cell: (
        "PUT",
        f"skerry/organization/{cell.thing('organization')}/revocation",
        {"organization_id": cell.thing("organization"), "created": 1, "revoked": [], "signature": ""},
    ),
    "node invite": lambda cell: ("POST", "skerry/invitation", _invitation(cell, cell.thing("spare"))),
    "node invite again": lambda cell: ("POST", "skerry/invitation", _invitation(cell, _home(cell))),
    "self key": lambda _cell: ("POST", "skerry/node/key", {}),
    "self node": lambda _cell: ("GET", "skerry/node/self", None),
    "self config": lambda _cell: ("PUT", "skerry/node/self/config", {"data": []}),
    "self work": lambda _cell: ("POST", "skerry/node/work", {"wait": 0}),
    "self leave": lambda _cell: ("POST", "skerry/node/leave", {}),
    "run status": lambda cell: ("POST", f"skerry/run/{cell.thing('run')}/status", {**_ATTEMPT, "status": "active"}),
    "run log": lambda cell: ("PUT", f"skerry/run/{cell.thing('run')}/log", {**_ATTEMPT, "log": "so far"}),
    "run token": lambda cell: ("POST", f"skerry/run/{cell.thing('run')}/token", _ATTEMPT),
    "run input": lambda cell: ("GET", f"skerry/run/{cell.thing('run')}/input", None),
    "run result": lambda cell: ("GET", f"skerry/run/{cell.thing('run')}/result", None),
    "run received": lambda cell: ("GET", f"skerry/run/{cell.thing('run')}/upload?attempt=1", None),
    "blob put": lambda _cell: ("PUT", f"skerry/blob/{uuid.uuid4()}", b"{}"),
    "blob received": lambda _cell: ("GET", f"skerry/blob/{uuid.uuid4()}", None),
    "run stage": lambda cell: ("PUT", f"skerry/run/{cell.thing('run')}/result?attempt=1", b"result"),
    "run address": lambda cell: ("POST", f"skerry/run/{cell.thing('run')}/peer", _ATTEMPT),
    "run introduce": lambda cell: ("PUT", f"skerry/run/{cell.thing('run')}/peer", {**_ATTEMPT, "statement": {}}),
    "run finish": lambda cell: (
        "POST",
        f"skerry/run/{cell.thing('run')}/finish",
        {**_ATTEMPT, "status": "completed", "result": plain(1)},
    ),
}
_KEYS = {"public_key": b64(Identity.generate().public_pem)}


def _things_for(world: World, caller: str, relation: str) -> Callable[[str], int]:
    near = {"home": world.federation.collaboration, "rule": _own_rule(world), "spare": world.things["spare"][relation]}
    near["study member"] = {"own": 1, "same": 2, "other": 2, "none": 4}.get(relation, 1)
    selves = world.selves.get(caller, {})

    def thing(name: str) -> int:
        if name in near:
            return near[name]
        near_enough = "own" if relation == "self" else relation
        return selves[name] if relation == "self" and name in selves else world.things[name][near_enough]

    return thing


def _own_rule(world: World) -> int:
    """A rule that all who may change roles hold themselves: to see the users of one's organization."""
    query = {"name": "user", "operation": "view", "scope": "organization"}
    return int(world.federation.root.get("rule", **query)["data"][0]["id"])


def _spare_homes(world: World) -> dict[str, int]:
    """Collaborations in which there is no node yet: for "own" and "same" one that both are in."""
    together = world.federation.collaborate([1, 2], encrypted=False)
    spare = {"own": together, "same": together, "self": together}
    return spare | {
        "other": world.federation.collaborate([3], encrypted=False),
        "none": world.federation.collaborate([4], encrypted=False),
    }


def test_the_permission_matrix(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.things["spare"] = _spare_homes(world)
    cells, mismatches = 0, []
    with forgetting(world), noting(world) as asked:
        for deed in oracle.DEEDS:
            for caller in oracle.CALLERS:
                for relation in (*oracle.RELATIONS, "self"):
                    if relation == "self" and not _of_oneself(world, caller, deed):
                        continue
                    cells += 1
                    problem = _judge(world, deed, caller, relation)
                    mismatches += [problem] if problem else []
    with capsys.disabled():
        print(f"\nmatrix: {cells} cells, {len(mismatches)} mismatches")
    assert not mismatches, "\n".join(mismatches)
    assert cells > 3000
    assert sorted(endpoints(world) - asked - FREE) == [], "no cell asks for these"


FREE = {
    *(("GET", f"/api/{path}") for path in ("version", "health", "openapi.json", "skerry/info")),
    *(("POST", f"/api/skerry/{path}") for path in ("join", "bootstrap")),
    *(("POST", f"/api/token/{path}") for path in ("user", "node", "refresh")),
    *(("POST", f"/api/recover/{path}") for path in ("lost", "reset", "2fa/lost", "2fa/reset")),
    ("GET", "/robots.txt"),
}
"""What asks for no token, or for a token of its own kind."""


def endpoints(world: World) -> set[tuple[str, str]]:
    """Every method of every address."""
    rules = world.federation.client.application.url_map.iter_rules()
    return {(method, str(rule)) for rule in rules for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}}


@contextmanager
def noting(world: World) -> Iterator[set[tuple[str, str]]]:
    """Which endpoints are asked for meanwhile."""
    asked: set[tuple[str, str]] = set()
    app = world.federation.client.application

    def note(*_: Any, **__: Any) -> None:
        asked.add((request.method, str(request.url_rule)))

    request_started.connect(note, app)
    yield asked
    request_started.disconnect(note, app)


def _of_oneself(world: World, caller: str, deed: str) -> bool:
    return not deed.endswith("post") and deed.split(maxsplit=1)[0] in world.selves.get(caller, {})


def _judge(world: World, deed: str, caller: str, relation: str) -> str | None:
    thing = _things_for(world, caller, relation)
    cell = Cell(deed, relation, thing)
    method, path, body, query = cell.request()
    options: dict[str, Any] = {"data": body} if isinstance(body, bytes) else {"body": body}
    answer = world.callers[caller].ask(method, path, **options, **({"query_string": query} if query else {}))
    expected = oracle.may(caller, deed, relation)
    listed = deed.endswith(" list") and deed not in _OURS and cell.subject != "rule"
    if listed and answer.status_code == 200:
        seen = {row["id"] for row in answer.get_json()["data"]}
        found = thing("run" if cell.subject == "result" else cell.subject) in seen
    else:
        found = answer.status_code < 400
        if deed == "blobstream get" and answer.status_code == 404:
            return None if not expected else f"{deed} by {caller}, {relation}: not found"
        if not found and answer.status_code != 401 and not _impossible(deed, relation, answer.status_code):
            return f"{deed} by {caller}, {relation}: {answer.status_code} {answer.get_data(as_text=True)[:200]}"
        found = found or answer.status_code != 401
    return None if found == expected else f"{deed} by {caller}, {relation}: {found}, but the oracle has {expected}"


def _impossible(deed: str, relation: str, status: int) -> bool:
    """What is refused for a reason that has nothing to do with who asks."""
    own = deed == "organization delete" and relation == "own"
    busy = deed in {
        "collaboration add node",
        "keys clear",
        "keys succeed",
        "keys revoke",
        "run introduce",
    }  # or there are no keys yet
    elsewhere = deed in {"token container", "vpn profile"}  # contract, section 2.11 and ADR 4
    early = deed == "run result"  # there is none yet
    return (status == 400 and (own or busy)) or (status == 404 and (elsewhere or early))
