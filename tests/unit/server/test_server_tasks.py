"""Creating tasks: the order of checks, formats, idempotency, what a container may create."""

from __future__ import annotations

import base64
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from server_federation import Api, Federation, plain

from skerry.crypto import seal, vantage6_encrypt
from skerry.keys import Identity
from skerry.wire import Context, b64

pytestmark = pytest.mark.unit


@pytest.fixture(scope="session")
def identity() -> Identity:
    return Identity(generate_private_key(public_exponent=65537, key_size=2048), Ed25519PrivateKey.generate())


@pytest.fixture
def envelope(federation: Federation, identity: Identity) -> Callable[..., str]:
    def make(context: Context) -> str:
        return b64(
            b"".join(seal([b'{"method": "mean"}'], context, recipients=[identity.public_pem], identity=identity))
        )

    return make


@pytest.fixture
def encrypted(federation: Federation) -> int:
    id_ = federation.collaborate([1, 2], encrypted=True)
    for organization in (1, 2):
        federation.make_node(organization, id_)
    return id_


def context(collaboration: int, user: int, task: str) -> Context:
    now = int(time.time())
    return Context("input", task, None, collaboration, 1, user, 2, "example/mean", (), None, now, now + 3600)


def user_id(api: Api) -> int:
    return int(api.post("token/user/validate")["user_id"])


def native_body(federation: Federation, collaboration: int, text: str, id_: str) -> dict[str, Any]:
    return {
        **federation.task_body(2, collaboration_id=collaboration, uuid=id_),
        "organizations": [{"id": 2, "input": text}],
    }


def test_a_native_input(federation: Federation, researcher: Api, encrypted: int, envelope: Callable[..., str]) -> None:
    id_ = str(uuid.uuid4())
    text = envelope(context(encrypted, user_id(researcher), id_))
    task = researcher.post("task", native_body(federation, encrypted, text, id_))
    [run] = researcher.get("run", task_id=task["id"])["data"]
    assert run["input"] == text
    assert researcher.ask("GET", f"skerry/run/{run['id']}/input").data == base64.b64decode(text)


@pytest.mark.parametrize(
    "change",
    [
        {"direction": "result"},
        {"task": "11111111-1111-4111-8111-111111111111"},
        {"parent": "11111111-1111-4111-8111-111111111111"},
        {"collaboration": 99},
        {"sender": 2},
        {"user": 1},
        {"user": None},
        {"recipient": 1},
        {"image": "example/other"},
        {"databases": ({"label": "secret"},)},
        {"attempt": 1},
    ],
    ids=str,
)
def test_an_envelope_for_something_else_is_refused(
    federation: Federation, researcher: Api, encrypted: int, envelope: Callable[..., str], change: dict[str, Any]
) -> None:
    id_ = str(uuid.uuid4())
    text = envelope(replace(context(encrypted, user_id(researcher), id_), **change))
    message = researcher.refused(400, "POST", "task", native_body(federation, encrypted, text, id_))
    assert f'"{next(iter(change))}"' in message
    assert researcher.get("task")["data"] == []


def test_a_native_input_needs_its_uuid(
    federation: Federation, researcher: Api, encrypted: int, envelope: Callable[..., str]
) -> None:
    text = envelope(context(encrypted, user_id(researcher), str(uuid.uuid4())))
    body = native_body(federation, encrypted, text, "x")
    del body["uuid"]
    assert "uuid" in researcher.refused(400, "POST", "task", body)


def six(identity: Identity) -> str:
    return vantage6_encrypt(b'{"method": "mean"}', identity.public_pem)


@pytest.mark.parametrize("accept", ["native", "vantage6", "both"])
@pytest.mark.parametrize("kind", ["plain", "vantage6", "native"])
def test_what_a_collaboration_accepts(  # noqa: PLR0917 - fixtures
    federation: Federation, researcher: Api, identity: Identity, envelope: Callable[..., str], accept: str, kind: str
) -> None:
    """CVE-2024-22193: plaintext in an encrypted collaboration."""
    collaboration = federation.collaborate([1, 2], encrypted=True, accept=accept)
    federation.make_node(2, collaboration)
    id_ = str(uuid.uuid4())
    text = {
        "plain": plain({"method": "mean"}),
        "vantage6": six(identity),
        "native": envelope(context(collaboration, user_id(researcher), id_)),
    }[kind]
    body = native_body(federation, collaboration, text, id_)
    if accept in {kind, "both"} and kind != "plain":
        assert researcher.post("task", body)["id"]
    else:
        assert accept in researcher.refused(400, "POST", "task", body) or accept == "both"
        assert researcher.get("task")["data"] == []


@pytest.mark.parametrize(
    "disguise",
    [
        lambda: "$".join([plain("key"), plain("iv"), plain({"method": "mean"})]),
        lambda: "$".join([b64(os.urandom(256)), b64(os.urandom(8)), plain({"method": "mean"})]),
        lambda: "$".join([b64(os.urandom(256)), b64(os.urandom(16)), "QUFB" * 400_000 + "?"]),
        lambda: "a$b$c",
        lambda: "$$",
        lambda: "é$é$é",
    ],
)
def test_plaintext_in_disguise(federation: Federation, researcher: Api, disguise: Callable[[], str]) -> None:
    collaboration = federation.collaborate([1, 2], encrypted=True, accept="vantage6")
    federation.make_node(2, collaboration)
    body = native_body(federation, collaboration, disguise(), str(uuid.uuid4()))
    researcher.refused(400, "POST", "task", body)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not base64!",
        "ÿÿ",
        b64(b"\xff\xfe"),
        "SKR1",
        "U0tSMQ==",
        "U0tSMQAAAAA=",
        "QUFB" * 400_000 + "ÿ",
        "YQ==" + "QUFB" * 400_000,
        b64(b"a" * 2_000_000 + b"\xc3"),
    ],
    ids=lambda text: text[:12],
)
def test_odd_plain_inputs(federation: Federation, researcher: Api, text: str) -> None:
    answer = researcher.ask("POST", "task", native_body(federation, federation.collaboration, text, str(uuid.uuid4())))
    assert answer.status_code == (201 if text == "" else 400), answer.get_json()


def test_a_large_input_of_any_text(federation: Federation, researcher: Api) -> None:
    text = ("a" + "é" * 1_500_000).encode()
    federation.make_task(researcher, organizations=[{"id": 2, "input": b64(text)}])
    order = federation.claim()
    assert federation.as_run(order).ask("GET", f"skerry/run/{order['run']}/input").data == text


def test_mixed_formats_are_refused(federation: Federation, researcher: Api, identity: Identity) -> None:
    collaboration = federation.collaborate([1, 2], encrypted=True, accept="both")
    for organization in (1, 2):
        federation.make_node(organization, collaboration)
    body = federation.task_body(1, 2, collaboration_id=collaboration)
    body["organizations"] = [{"id": 1, "input": six(identity)}, {"id": 2, "input": b64(b"SKR1" + bytes(8))}]
    assert "same format" in researcher.refused(400, "POST", "task", body)


def test_the_order_of_checks(federation: Federation, researcher: Api) -> None:
    body = federation.task_body(2)
    elsewhere = federation.collaborate([2, 3], encrypted=False)
    study = federation.root.post(
        "study", {"name": "a study", "collaboration_id": federation.collaboration, "organization_ids": [1]}
    )["id"]
    lonely = federation.collaborate([1, 3], encrypted=False)
    without_place = {key: value for key, value in body.items() if key != "collaboration_id"}
    cases: list[tuple[int, dict[str, Any], str]] = [
        (400, {**body, "nonsense": 1}, "nonsense: Unknown field."),
        (400, {**body, "name": "123"}, "name"),
        (400, without_place, "collaboration_id"),
        (404, {**body, "collaboration_id": 999}, "collaboration"),
        (404, {**body, "study_id": 999}, "study"),
        (400, {**body, "collaboration_id": elsewhere, "study_id": study}, "Study"),
        (400, {**body, "organizations": [{"id": 3, "input": ""}]}, "3"),
        (400, {**body, "organizations": [{"id": 999, "input": ""}]}, "999"),
        (400, {**body, "organizations": [{"id": 2, "input": ""}] * 2}, "twice"),
        (400, {**body, "study_id": study}, "study"),
        (400, {**body, "collaboration_id": lonely, "organizations": [{"id": 3, "input": ""}]}, "node"),
        (400, {**body, "organizations": []}, "organizations"),
        (400, {**body, "databases": [{"label": "a", "path": "/etc"}]}, "databases"),
        (400, {**body, "uuid": "not-one"}, "uuid"),
    ]
    for status, one, said in cases:
        assert said in researcher.refused(status, "POST", "task", one)
    assert federation.root.get("task")["data"] == []


def test_root_creates_nothing_elsewhere(federation: Federation) -> None:
    elsewhere = federation.collaborate([2, 3], encrypted=False)
    federation.make_node(2, elsewhere)
    message = federation.root.refused(401, "POST", "task", federation.task_body(2, collaboration_id=elsewhere))
    assert "member" in message


@pytest.mark.parametrize("role", ["Viewer", "Organization Admin", "Auditor"])
def test_who_may_not_create(federation: Federation, role: str) -> None:
    federation.make_user(role).refused(401, "POST", "task", federation.task_body())


def test_nodes_and_strangers_create_nothing(federation: Federation) -> None:
    federation.nodes[2].refused(401, "POST", "task", federation.task_body())
    federation.anybody.refused(401, "POST", "task", federation.task_body())


def test_a_study_alone_says_where(federation: Federation, researcher: Api) -> None:
    made = {"name": "study", "collaboration_id": federation.collaboration, "organization_ids": [1, 2]}
    study = federation.root.post("study", made)["id"]
    body = federation.task_body(2, study_id=study)
    del body["collaboration_id"]
    task = researcher.post("task", body)
    assert task["study"]["id"] == study
    assert task["collaboration"]["id"] == federation.collaboration


def test_the_uuid_is_an_idempotency_key(federation: Federation, researcher: Api) -> None:
    body = federation.task_body()
    first = researcher.post("task", body)
    federation.clock.turn(hours=5)
    assert researcher.post("task", body)["id"] == first["id"]
    assert len(researcher.get("task")["data"]) == 1
    other = federation.make_user()
    message = other.refused(409, "POST", "task", body)
    assert str(first["id"]) not in message
    assert researcher.post("task", {**body, "uuid": str(uuid.uuid4())})["id"] != first["id"]


def test_without_a_uuid_the_same_body_within_a_moment_is_a_repeat(federation: Federation, researcher: Api) -> None:
    body = federation.task_body()
    del body["uuid"]
    first = researcher.post("task", body)
    federation.clock.turn(seconds=9)
    assert researcher.post("task", body)["id"] == first["id"]
    assert researcher.post("task", {**body, "name": "another"})["id"] != first["id"]
    assert federation.make_user().post("task", body)["id"] != first["id"]
    federation.clock.turn(seconds=2)
    assert researcher.post("task", body)["id"] != first["id"]


def test_a_childs_image_and_place_are_its_parents(federation: Federation, researcher: Api) -> None:
    federation.make_task(researcher, 1)
    run = federation.as_run(federation.claim(1))
    elsewhere = federation.collaborate([1, 2], encrypted=False)
    federation.make_node(2, elsewhere)
    for change in ({"image": "evil/image"}, {"collaboration_id": elsewhere}):
        message = run.refused(401, "POST", "task", federation.task_body(2, **change))
        assert "Container-token is not valid" in message
    assert run.post("task", federation.task_body(2, image="registry/example/mean"))["image"] == "example/mean"


def test_a_run_that_ended_creates_nothing(federation: Federation, researcher: Api) -> None:
    federation.make_task(researcher, 1)
    order = federation.claim(1)
    federation.finish(order)
    federation.as_run(order).refused(401, "POST", "task", federation.task_body(2))


def test_database_parameters_are_a_string(federation: Federation, researcher: Api) -> None:
    databases = [{"label": "b", "query": "SELECT 1", "arguments": {"x": [1]}}, {"label": "a"}]
    task = federation.make_task(researcher, databases=databases)
    assert task["databases"] == [
        {"label": "b", "parameters": '{"arguments": {"x": [1]}, "query": "SELECT 1"}'},
        {"label": "a", "parameters": "{}"},
    ]
    assert federation.claim()["task"]["databases"] == databases


def test_who_may_delete(federation: Federation, researcher: Api) -> None:
    task = federation.make_task(researcher)
    for role, organization in (("Viewer", 1), ("Researcher", 2), ("Auditor", 1)):
        federation.make_user(role, organization).refused(401, "DELETE", f"task/{task['id']}")
    federation.make_user("Researcher", 1).delete(f"task/{task['id']}")
    researcher.refused(404, "GET", f"task/{task['id']}")


def test_deleting_takes_descendants_and_files(federation: Federation, researcher: Api) -> None:
    task = federation.make_task(researcher, 1)
    order = federation.claim(1)
    child = federation.as_run(order).post("task", federation.task_body(2))
    federation.finish(order, result=plain("x" * 100_000))
    folder = federation.server.settings.payload_folder
    assert len(list(folder.iterdir())) == 1
    researcher.delete(f"task/{task['id']}")
    researcher.refused(404, "GET", f"task/{child['id']}")
    assert list(folder.iterdir()) == []
    assert researcher.get("run")["data"] == []


def test_outsiders_see_nothing(federation: Federation, researcher: Api) -> None:
    task = federation.make_task(researcher)
    order = federation.claim()
    federation.finish(order)
    outsider = federation.make_user("Researcher", 3)
    for path in ("task", "run", "result", "node", "study"):
        assert outsider.get(path)["data"] == []
    for path in (
        f"task/{task['id']}",
        f"task/{task['id']}/status",
        f"run/{order['run']}",
        f"result/{order['run']}",
        f"skerry/task/{task['id']}/wait",
        f"skerry/run/{order['run']}/input",
        f"skerry/run/{order['run']}/result",
        f"collaboration/{federation.collaboration}",
        f"node/{federation.node_ids[2]}",
        "organization/1",
        f"skerry/keys?collaboration_id={federation.collaboration}",
    ):
        outsider.refused(401, "GET", path)
    outsider.refused(401, "DELETE", f"task/{task['id']}")
