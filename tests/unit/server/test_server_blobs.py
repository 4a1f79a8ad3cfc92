"""The blob stream: its forms, who may send and fetch, and that tasks take what was sent."""

from __future__ import annotations

import base64
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from server_federation import SECRET, Api, Clock, Federation, make_settings, plain
from sqlalchemy import select
from sqlalchemy.orm import Session

from skerry import crypto
from skerry.keys import Identity
from skerry.wire import INLINE_LIMIT, Format
from skerry_server import blobforms
from skerry_server.app import create_app
from skerry_server.errors import InvalidRequest
from skerry_server.models import Payload
from skerry_server.server import Server, open_server
from skerry_server.services import repeats, tasks
from skerry_server.services.blobs import KEPT_WAITING
from skerry_server.services.tasks import REPEAT_WINDOW
from skerry_server.settings import FileStore

pytestmark = pytest.mark.unit
LARGE = json.dumps({"method": "mean", "kwargs": {"weights": "x" * 3 * INLINE_LIMIT}}).encode()


@pytest.fixture
def server(server: Server, clock: Clock) -> Iterator[Server]:
    """The same one with a blob store, which takes up to a megabyte at once, and two of each caller."""
    server.database.close()
    limits = server.settings.limits.model_copy(update={"result_bytes": 1 << 20, "waiting_bytes": 2 << 20})
    opened = open_server(server.settings.model_copy(update={"blob_store": FileStore(), "limits": limits}), clock)
    yield opened
    opened.database.close()


@pytest.fixture(scope="module")
def identity() -> Identity:
    return Identity.generate()


def send(api: Api, body: bytes) -> str:
    return str(api.ok(api.ask("POST", "blobstream", data=body))["uuid"])


def fetch(api: Api, name: str) -> bytes:
    answer = api.ask("GET", f"blobstream/{name}")
    assert answer.status_code == 200, answer.data
    assert answer.mimetype == "application/octet-stream"
    assert answer.headers["Content-Disposition"].startswith("attachment; filename=result_")
    return answer.data


def test_a_blob_is_kept_once_for_each_key(federation: Federation, researcher: Api) -> None:
    headers = {"Authorization": f"Bearer {researcher.token}", "Idempotency-Key": "a key of the caller's"}
    body = base64.b64encode(LARGE)
    first, again = (researcher.client.post("/api/blobstream", data=body, headers=headers) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 201), again.data
    assert first.get_json() == again.get_json()
    assert len(list(federation.server.settings.payload_folder.iterdir())) == 1
    other = researcher.client.post("/api/blobstream", data=base64.b64encode(LARGE + b" "), headers=headers)
    assert (other.status_code, "take a new one" in other.get_json()["msg"]) == (409, True)
    assert len(list(federation.server.settings.payload_folder.iterdir())) == 1


def test_a_blob_that_comes_twice_at_once_is_kept_once(
    federation: Federation, researcher: Api, engine_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a sender whose patience ended before the server's; SQLite's writers come one after the other."""
    headers = {"Authorization": f"Bearer {researcher.token}", "Idempotency-Key": "a key of the caller's"}
    recall, told = repeats.recall, list[Any]()

    def post(client: FlaskClient) -> Any:
        return client.post("/api/blobstream", data=base64.b64encode(LARGE), headers=headers)

    def late(session: Session, asked: repeats.Asked) -> Any:
        found = recall(session, asked)
        if not told and engine_name == "postgresql":
            told.append(None)
            told[0] = post(researcher.client.application.test_client())
        return found

    monkeypatch.setattr(repeats, "recall", late)
    told.append(post(researcher.client))
    assert [answer.status_code for answer in told] == [201] * len(told), told[-1].data
    assert len({answer.get_json()["uuid"] for answer in told}) == 1
    assert len(list(federation.server.settings.payload_folder.iterdir())) == 1


def files(server: Server) -> list[str]:
    return sorted(path.name for path in server.settings.payload_folder.iterdir())


def make(federation: Federation, by: Api, content: bytes = LARGE, **more: Any) -> dict[str, Any]:
    name = send(by, base64.b64encode(content))
    targets = [{"id": 2, "input": name}]
    return federation.make_task(by, 2, **{"organizations": targets, **more})


# --- the forms -------------------------------------------------------------------------------------------


def pieces_of(content: bytes, sizes: list[int]) -> Iterator[bytes]:
    start = 0
    for size in sizes:
        yield content[start : start + size]
        start += size
    yield content[start:]


@given(st.text(), st.lists(st.integers(0, 9)))
def test_a_plain_blob_is_stored_as_what_it_says(text: str, sizes: list[int]) -> None:
    blob = base64.b64encode(text.encode())
    fmt, stored = blobforms.to_stored(pieces_of(blob, sizes))
    kept = b"".join(stored)
    assert (fmt, kept) == (Format.PLAIN, text.encode())
    assert b"".join(blobforms.from_stored(pieces_of(kept, sizes), fmt)) == blob


@given(st.binary(), st.lists(st.integers(0, 700)))
def test_an_encrypted_blob_is_stored_as_the_string_of_the_wire(ciphertext: bytes, sizes: list[int]) -> None:
    head = b"$".join([base64.b64encode(b"k" * 512), base64.b64encode(b"i" * 16), b""])
    fmt, stored = blobforms.to_stored(pieces_of(head + ciphertext, sizes))
    kept = b"".join(stored)
    assert (fmt, kept) == (Format.VANTAGE6, head + base64.b64encode(ciphertext))
    assert b"".join(blobforms.from_stored(pieces_of(kept, sizes), fmt)) == head + ciphertext


def test_a_native_blob_stays_as_it_is() -> None:
    fmt, stored = blobforms.to_stored([b"SKR1\0\0\0\0rest"])
    assert (fmt, b"".join(stored)) == (Format.NATIVE, b"SKR1\0\0\0\0rest")


@pytest.mark.parametrize(
    "blob",
    [b"not base64!", b"abc", b"YQ==YQ==", b"YQ==" + b"A" * 9000, base64.b64encode(b"\xff\xfe"), b"$$x", b"YQ==$YQ==$x"],
)
def test_what_is_no_blob_is_refused(blob: bytes) -> None:
    with pytest.raises(InvalidRequest, match="neither"):
        b"".join(blobforms.to_stored([blob[:5], blob[5:]])[1])


# --- how much may wait ----------------------------------------------------------------------------------


def test_what_waits_for_its_task_is_bounded_for_each_caller(federation: Federation, researcher: Api) -> None:
    """What a task took, or nobody, waits no more; others are not bounded by it."""
    large, refusals = base64.b64encode(b"x" * 900_000), "must not exceed 2097152 bytes"
    names = [send(researcher, large), send(researcher, large)]
    before = files(federation.server)
    assert refusals in researcher.refused(413, "POST", "blobstream", data=large)
    assert files(federation.server) == before
    send(federation.make_user(), large)
    federation.make_task(researcher, 2, organizations=[{"id": 2, "input": names[0]}])
    send(researcher, large)
    assert refusals in researcher.refused(413, "POST", "blobstream", data=large)
    federation.clock.turn(seconds=KEPT_WAITING.total_seconds() + 1)
    federation.server.sweep()
    send(federation.log_in("root"), large)


def test_empty_uploads_are_bounded_too(federation: Federation, researcher: Api) -> None:
    send(researcher, b"")
    with federation.server.database.writing() as session:
        uploader, now = session.scalars(select(Payload.uploader)).one(), federation.clock()
        session.add_all(Payload(size=0, inline=b"", uploader=uploader, uploaded_at=now) for _ in range(510))
    send(researcher, b"")
    assert "of which 0 are left" in researcher.refused(413, "POST", "blobstream", data=b"")


# --- through the doors -----------------------------------------------------------------------------------


def test_the_store_says_that_it_is_there(federation: Federation) -> None:
    assert federation.root.get("blobstream/status") == {"blob_store_enabled": True}


def test_an_input_and_its_result_go_as_blobs(federation: Federation, researcher: Api) -> None:
    task = make(federation, researcher)
    [run] = researcher.get("run", task_id=task["id"])["data"]
    assert run["blob_storage_used"] is True
    assert base64.b64decode(fetch(researcher, run["input"])) == LARGE
    order = federation.claim(2)
    assert order["input"] is None
    stored = federation.as_run(order).ask("GET", f"skerry/run/{order['run']}/input")
    assert stored.data == LARGE
    upload = federation.as_run(order).ask(
        "PUT", f"skerry/run/{order['run']}/result", data=LARGE, query_string={"attempt": order["attempt"]}
    )
    assert upload.status_code == 204
    federation.finish(order, result=None, staged=True)
    [result] = researcher.get("result", task_id=task["id"])["data"]
    assert result["blob_storage_used"] is True
    assert base64.b64decode(fetch(researcher, result["result"])) == LARGE
    included = researcher.get(f"task/{task['id']}", include="results,runs")
    assert included["results"][0]["result"] == result["result"]
    assert included["runs"][0]["input"] == run["input"]


def test_an_encrypted_input_and_result(federation: Federation, researcher: Api, identity: Identity) -> None:
    together = federation.collaborate([1, 2], encrypted=True, accept="vantage6")
    node = federation.make_node(2, together)
    key, iv, ciphertext = crypto.vantage6_encrypt(LARGE, identity.public_pem).split("$")
    name = send(researcher, f"{key}${iv}$".encode() + base64.b64decode(ciphertext))
    body = federation.task_body(2, collaboration_id=together, organizations=[{"id": 2, "input": name}])
    task = researcher.post("task", body)
    [order] = node.post("skerry/node/work", {"capacity": 1, "wait": 0})["runs"]
    assert order["format"] == "vantage6"
    stored = node.ask("GET", f"skerry/run/{order['run']}/input").data
    assert crypto.vantage6_decrypt(stored.decode(), identity) == LARGE
    federation.finish(order, result=crypto.vantage6_encrypt(b"4", identity.public_pem))
    [result] = researcher.get("result", task_id=task["id"])["data"]
    key, iv, raw = fetch(researcher, result["result"]).split(b"$", 2)
    text = b"$".join([key, iv, base64.b64encode(raw)]).decode()
    assert crypto.vantage6_decrypt(text, identity) == b"4"


def test_who_sends_inputs_with_the_task_gets_results_with_theirs(federation: Federation, researcher: Api) -> None:
    task = federation.make_task(researcher, 2)
    federation.finish(federation.claim(2))
    [run] = researcher.get("run", task_id=task["id"])["data"]
    [result] = researcher.get("result", task_id=task["id"])["data"]
    assert (run["blob_storage_used"], result["blob_storage_used"]) == (False, False)
    assert result["result"] == plain(1)


def test_a_chunked_body(federation: Federation, researcher: Api) -> None:
    """As a stream whose length is not announced."""
    import io  # noqa: PLC0415 - here only

    body = base64.b64encode(LARGE)
    answer = researcher.client.post(
        "/api/blobstream",
        headers={"Authorization": f"Bearer {researcher.token}", "Transfer-Encoding": "chunked"},
        input_stream=io.BytesIO(body),
    )
    assert answer.status_code == 201
    assert fetch(researcher, answer.get_json()["uuid"]) == body


def test_the_size_is_bounded(federation: Federation, researcher: Api, server: Server) -> None:
    before = files(server)
    said = researcher.refused(413, "POST", "blobstream", data=base64.b64encode(b"x" * ((1 << 20) + 3)))
    assert "larger than" in said
    assert files(server) == before


def test_what_is_no_blob_leaves_nothing(federation: Federation, researcher: Api, server: Server) -> None:
    researcher.refused(400, "POST", "blobstream", data=b"A" * 3 * INLINE_LIMIT + b"!")
    assert files(server) == []


def test_only_those_who_see_the_run_fetch(federation: Federation, researcher: Api) -> None:
    name = send(researcher, base64.b64encode(LARGE))
    others = [federation.make_user("Viewer"), federation.make_user("Researcher", 3), federation.nodes[2]]
    for other in others:
        other.refused(404, "GET", f"blobstream/{name}")
    federation.make_task(researcher, 2, organizations=[{"id": 2, "input": name}])
    viewer, stranger, node = others
    assert fetch(viewer, name) == fetch(node, name) == base64.b64encode(LARGE)
    stranger.refused(404, "GET", f"blobstream/{name}")
    federation.nodes[1].refused(404, "GET", f"blobstream/{name}")
    federation.anybody.refused(401, "GET", f"blobstream/{name}")
    researcher.refused(404, "GET", f"blobstream/{uuid.uuid4()}")


def test_only_those_who_may_create_tasks_send(federation: Federation) -> None:
    for role in (None, "Viewer", "Auditor", "Organization Admin"):
        federation.make_user(role).refused(401, "POST", "blobstream", data=b"YQ==")
    federation.anybody.refused(401, "POST", "blobstream", data=b"YQ==")


def test_a_run_sends_the_input_of_its_child(federation: Federation, researcher: Api) -> None:
    federation.make_task(researcher, 2)
    order = federation.claim(2)
    run = federation.as_run(order)
    name = send(run, base64.b64encode(LARGE))
    researcher.refused(400, "POST", "task", federation.task_body(2, organizations=[{"id": 2, "input": name}]))
    child = federation.make_task(run, 1, organizations=[{"id": 1, "input": name}])
    child_order = federation.claim(1)
    assert child_order["task"]["id"] == child["id"]
    federation.finish(child_order)
    [result] = run.get("result", task_id=child["id"])["data"]
    assert base64.b64decode(fetch(run, result["result"])) == b"1"
    federation.finish(order)
    assert "ended" in run.refused(403, "POST", "blobstream", data=b"YQ==")


def test_a_blob_is_for_one_organization_of_one_task(federation: Federation, researcher: Api) -> None:
    name = send(researcher, base64.b64encode(LARGE))
    both = [{"id": 1, "input": name}, {"id": 2, "input": name.upper()}]
    assert "one for each" in researcher.refused(400, "POST", "task", federation.task_body(organizations=both))
    body = federation.task_body(organizations=both[:1])
    task = researcher.post("task", body)
    assert researcher.post("task", body)["id"] == task["id"]
    again = federation.task_body(organizations=both[:1])
    assert "organization 1" in researcher.refused(400, "POST", "task", again)
    missing = federation.task_body(organizations=[{"id": 2, "input": str(uuid.uuid4())}])
    assert "organization 2" in researcher.refused(400, "POST", "task", missing)


def test_without_a_uuid_a_repeated_request_gives_the_first_task(federation: Federation, researcher: Api) -> None:
    """As the published clients repeat a failed POST."""
    name = send(researcher, base64.b64encode(LARGE))
    body = federation.task_body(organizations=[{"id": 2, "input": name}])
    del body["uuid"]
    assert researcher.post("task", body)["id"] == researcher.post("task", body)["id"]
    federation.clock.turn(seconds=REPEAT_WINDOW.total_seconds() + 1)
    researcher.refused(400, "POST", "task", body)


def test_what_a_collaboration_does_not_accept_is_refused(federation: Federation, researcher: Api) -> None:
    together = federation.collaborate([1, 2], encrypted=True, accept="both")
    federation.make_node(2, together)
    name = send(researcher, base64.b64encode(LARGE))
    body = federation.task_body(2, collaboration_id=together, organizations=[{"id": 2, "input": name}])
    assert "encrypted" in researcher.refused(400, "POST", "task", body)
    head = b"$".join([base64.b64encode(b"k" * 512), base64.b64encode(b"i" * 16), os.urandom(40)])
    body = federation.task_body(2, organizations=[{"id": 2, "input": send(researcher, head)}])
    assert "not encrypted" in researcher.refused(400, "POST", "task", body)


def test_blobs_go_with_their_task(federation: Federation, researcher: Api, server: Server) -> None:
    task = make(federation, researcher)
    assert len(files(server)) == 1
    researcher.delete(f"task/{task['id']}")
    assert files(server) == []


def test_many_payloads_go_in_portions(
    federation: Federation, researcher: Api, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "_AT_ONCE", 2)
    for _ in range(3):
        make(federation, researcher)
    federation.root.delete(f"collaboration/{federation.collaboration}", delete_dependents=1)
    assert files(server) == []
    with server.database.reading() as session:
        assert session.scalars(select(Payload)).all() == []


def test_what_no_task_took_is_collected(federation: Federation, researcher: Api, server: Server, clock: Clock) -> None:
    name = send(researcher, base64.b64encode(LARGE))
    kept = make(federation, researcher)
    clock.turn(seconds=KEPT_WAITING.total_seconds() - 60)
    server.sweep()
    assert len(files(server)) == 2
    clock.turn(minutes=2)
    server.sweep()
    assert len(files(server)) == 1
    with server.database.reading() as session:
        assert session.scalar(select(Payload).where(Payload.blob == name)) is None
    assert federation.log_in("root").get(f"task/{kept['id']}")["id"] == kept["id"]


def test_a_garbled_result_is_refused_when_it_comes(federation: Federation, researcher: Api, identity: Identity) -> None:
    """What is stored under vantage6's format can always be shown as text."""
    together = federation.collaborate([1, 2], encrypted=True, accept="vantage6")
    node = federation.make_node(2, together)
    text = crypto.vantage6_encrypt(b"{}", identity.public_pem)
    researcher.post(
        "task", federation.task_body(2, collaboration_id=together, organizations=[{"id": 2, "input": text}])
    )
    [order] = node.post("skerry/node/work", {"capacity": 1, "wait": 0})["runs"]
    path, query = f"skerry/run/{order['run']}/result", {"attempt": order["attempt"]}
    for garbage in (b"\xff" * 10, b"x$y$z", text.encode() + b"\xff"):
        node.refused(400, "PUT", path, data=garbage, query_string=query)


def test_the_folder_is_the_configured_one(tmp_path: Path) -> None:
    server = open_server(make_settings(tmp_path, blob_store=FileStore(folder="elsewhere")))
    assert server.settings.payload_folder == tmp_path / "elsewhere"
    assert server.settings.payload_folder.stat().st_mode & 0o777 == 0o700
    assert server.secret == SECRET
    assert create_app(server)
    server.database.close()
