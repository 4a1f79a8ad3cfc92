"""A run's child tasks: created once, sealed for each organization, their results and logs opened."""

from __future__ import annotations

import base64
import json
import socket
import struct
import threading
import time

import pytest
from federation import IMAGE, answer_child, input_context, open_child_input, seal

from skerry import crypto
from skerry.keys import OrganizationKeys
from skerry.trust import Expected, verify
from skerry.wire import b64

pytestmark = pytest.mark.unit
FORMATS = ["native", "vantage6", "plain"]
WISH = b'{"method": "partial", "args": [], "kwargs": {"column": "age"}}'


def wish(*organizations: int, **fields) -> dict:
    entries = [{"id": organization, "input": b64(WISH)} for organization in organizations or (3,)]
    return {"name": "subtask", "image": IMAGE, "collaboration_id": 1, "organizations": entries} | fields


@pytest.fixture(params=FORMATS)
def central(request, make_bench):
    """A bench and the caller of a run that may create children, in each format."""
    bench = make_bench(request.param)
    return bench, bench.serve(bench.open()["resume"])


def test_a_child_is_sealed_for_each_organization_and_its_result_is_opened(central, call, alice, bob, carol) -> None:
    bench, caller = central
    created = call(caller, "POST", "/task", json=wish(3, 1, databases=[{"label": "default"}]))
    assert created.status_code == 201
    (post,) = bench.fake.posts
    assert post["image"] == IMAGE
    for entry, identity in zip(post["organizations"], (carol, alice), strict=True):
        assert open_child_input(bench.format, entry["input"], identity)[0] == WISH
    run = 1000
    bench.fake.complete(run, answer_child(bench.format, b'{"mean": 3}', post, carol, bob))
    answer = call(caller, "GET", "/result", params={"task_id": created.json()["id"], "page": 1})
    rows = {row["id"]: row for row in answer.json()["data"]}
    assert base64.b64decode(rows[1000]["result"]) == b'{"mean": 3}'
    assert rows[1001]["result"] is None
    assert "next" not in answer.json()["links"]
    single = call(caller, "GET", "/result/1000")
    assert single.json() == rows[1000]


def test_a_childs_input_proves_which_user_stands_behind_it(make_bench, call, alice, bob, carol) -> None:
    bench = make_bench()
    opened = bench.open()
    caller = bench.serve(opened["resume"])
    call(caller, "POST", "/task", json=wish(3, databases=[{"label": "default"}]))
    (post,) = bench.fake.posts
    _, envelope = open_child_input("native", post["organizations"][0]["input"], carol)
    assert envelope is not None
    identities = {1: alice, 2: bob}

    def keys_of(organization: int) -> OrganizationKeys:
        return OrganizationKeys.from_wire(identities[organization].organization_keys(organization))

    expected = Expected("input", post["uuid"], 1, recipient=3, image=IMAGE, databases=[{"label": "default"}])
    sender = verify(envelope.header, envelope.proof, expected, keys_of, envelope.header.context.created)
    assert (sender.organization, sender.origin, sender.signed) == (2, 1, True)
    assert envelope.header.context.parent == opened["resume"]["uuid"]


@pytest.mark.parametrize("fault", ["lose", "drop", "503"])
def test_a_repeated_call_creates_one_task_only(central, call, fault) -> None:
    bench, caller = central
    bench.fake.faults += [("/task", fault), ("/task", fault)]
    assert call(caller, "POST", "/task", json=wish()).status_code == 201
    attempts = [path for method, path, _ in bench.fake.seen if (method, path) == ("POST", "/task")]
    assert len(attempts) == 3
    assert len(bench.fake.tasks) == 1


def test_each_call_is_a_task_of_its_own(central, call) -> None:
    bench, caller = central
    assert (
        call(caller, "POST", "/task", json=wish()).json()["id"]
        != call(caller, "POST", "/task", json=wish()).json()["id"]
    )
    assert len({post["uuid"] for post in bench.fake.posts}) == 2


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"organizations": []}, "Organizations missing"),
        ({"organizations": "all"}, "organizations"),
        ({"organizations": [{"id": "3", "input": "e30="}]}, "id"),
        ({"organizations": [{"id": 3}]}, "input"),
        ({"organizations": [{"id": 3, "input": "%%%"}]}, "base64"),
        ({"organizations": [{"id": 3, "input": "e30="}, {"id": 3, "input": "e30="}]}, "twice"),
        ({"image": "evil/image"}, "image"),
        ({"collaboration_id": 2}, "collaboration_id"),
        ({"databases": [{"query": "x"}]}, "label"),
        ({"databases": ["default"]}, "databases"),
        ({"name": 5}, "name"),
    ],
)
def test_a_malformed_child_task_is_refused_by_the_fields_name(bench, call, changes, word) -> None:
    caller = bench.serve(bench.open()["resume"])
    answer = call(caller, "POST", "/task", json=wish() | changes)
    assert answer.status_code == 400
    assert word in answer.json()["msg"]
    assert bench.fake.posts == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"[" * 100_000, b'"task"', b"\xff\xfe"])
def test_a_body_that_is_no_object_is_refused(bench, call, body) -> None:
    caller = bench.serve(bench.open()["resume"])
    assert call(caller, "POST", "/task", data=body).status_code == 400


def hang_up(caller, body: dict, fake) -> None:
    """Asks for a child task, and is gone before the answer."""
    raw, before = json.dumps(body).encode(), len(fake.seen)
    head = f"POST /task HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer {caller.token}\r\n"
    with socket.create_connection(("127.0.0.1", caller.port)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        fake.held.clear()
        connection.sendall(f"{head}Content-Length: {len(raw)}\r\n\r\n".encode() + raw)
        until(lambda: any(path == "/task" for _, path, _ in fake.seen[before:]))
    fake.held.set()


def until(condition) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_wish_that_was_not_answered_is_the_same_wish_again(central, call) -> None:
    bench, caller = central
    hang_up(caller, wish(), bench.fake)
    until(lambda: bench.fake.tasks)
    # The gate finds out that nobody listens once it has written.
    until(lambda: call(caller, "POST", "/task", json=wish()).json()["id"] == 100)
    first, *others = bench.fake.tasks.values()
    before = len(others)
    again = call(caller, "POST", "/task", json=wish())
    assert again.status_code == 201
    assert again.json()["uuid"] != first["uuid"]
    assert len(bench.fake.tasks) == before + 2


def test_a_wish_that_a_proxy_took_into_its_grave(make_bench, call) -> None:
    """The server has the task, the container no answer: the next proxy gives it the task that there is."""
    bench = make_bench()
    opened = bench.open()["resume"]
    bench.fake.faults += [("/task", "lose")] * 1000
    dying = threading.Thread(target=hang_up, args=(bench.serve(opened), wish(), bench.fake))
    dying.start()
    until(lambda: bench.fake.tasks)
    bench.office.close()
    dying.join()
    bench.fake.faults.clear()
    caller = make_bench().serve(opened)
    assert call(caller, "POST", "/task", json=wish()).json()["id"] == 100
    assert len(bench.fake.tasks) == 1
    assert call(caller, "POST", "/task", json=wish()).json()["id"] == 101
    assert call(caller, "POST", "/task", json=wish(name="other")).json()["id"] == 102


def test_a_keyed_wish_is_the_same_however_often_it_is_answered(central, call) -> None:
    bench, caller = central
    key = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
    for _ in range(3):
        assert call(caller, "POST", "/task", json=wish(), headers={"Idempotency-Key": key}).json()["id"] == 100
    [task] = bench.fake.tasks.values()
    assert task["uuid"] != key


def test_a_key_is_the_runs_own(bench, call) -> None:
    key = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
    callers = [bench.serve(bench.open(run=run)["resume"]) for run in (7, 8)]
    created = [
        call(caller, "POST", "/task", json=wish(), headers={"Idempotency-Key": key}).json() for caller in callers
    ]
    assert created[0]["uuid"] != created[1]["uuid"]


@pytest.mark.parametrize("key", ["mine", "7", "6ba7b810"])
def test_a_key_that_is_no_uuid_is_refused(bench, call, key) -> None:
    answer = call(bench.serve(bench.open()["resume"]), "POST", "/task", json=wish(), headers={"Idempotency-Key": key})
    assert answer.status_code == 400
    assert "Idempotency-Key" in answer.json()["msg"]


def test_unknown_fields_are_dropped(bench, call) -> None:
    caller = bench.serve(bench.open()["resume"])
    call(caller, "POST", "/task", json=wish(parent_id=1, init_user=1, uuid="mine", server_url="http://evil"))
    (post,) = bench.fake.posts
    assert not {"parent_id", "init_user", "server_url"} & set(post)
    assert post["uuid"] != "mine"


def test_an_organization_without_keys_is_named(make_bench, call) -> None:
    bench = make_bench()
    caller = bench.serve(bench.open()["resume"])
    answer = call(caller, "POST", "/task", json=wish(8))
    assert answer.status_code == 502
    assert "Organization 8" in answer.json()["msg"]


def test_a_server_that_swaps_a_key_gets_no_input_for_it(make_bench, call, alice, carol) -> None:
    bench = make_bench()
    caller = bench.serve(bench.open()["resume"])
    assert call(caller, "POST", "/task", json=wish(3)).status_code == 201
    bench.fake.keys[2] = alice.organization_keys(3)
    assert call(caller, "POST", "/task", json=wish(3)).status_code == 201
    for post in bench.fake.posts:
        assert open_child_input("native", post["organizations"][0]["input"], carol)[0] == WISH


@pytest.fixture
def asked(make_bench, call):
    """A native run that has asked organization 3: bench, caller, the post and the child's id."""
    bench = make_bench()
    caller = bench.serve(bench.open()["resume"])
    task = call(caller, "POST", "/task", json=wish(3, databases=[{"label": "default"}])).json()["id"]
    return bench, caller, bench.fake.posts[0], task


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"sender": 1}, "another organization"),
        ({"recipient": 1}, "recipient"),
        ({"task": "6f6b1e0e-5a3e-4a7e-9a55-0d2f3c8b1a01"}, "task"),
        ({"direction": "log"}, "direction"),
        ({"image": "other"}, "image"),
        ({"collaboration": 2}, "collaboration"),
        ({"databases": ()}, "databases"),
        ({"attempt": None}, "attempt"),
    ],
)
def test_a_result_of_another_context_is_not_handed_on(  # noqa: PLR0917 - fixtures
    asked, call, bob, carol, change, word
) -> None:
    bench, caller, post, task = asked
    bench.fake.complete(1000, answer_child("native", b"[1]", post, carol, bob, **change))
    for path in (f"/result?task_id={task}", "/result/1000"):
        answer = call(caller, "GET", path)
        assert answer.status_code == 502
        assert word in answer.json()["msg"]


def test_a_result_signed_by_another_organization_is_not_handed_on(asked, call, alice, bob) -> None:
    bench, caller, post, task = asked
    bench.fake.complete(1000, answer_child("native", b"[1]", post, alice, bob))
    answer = call(caller, "GET", "/result", params={"task_id": task})
    assert answer.status_code == 502
    assert "signature" in answer.json()["msg"].lower()


def test_a_tampered_result_is_not_handed_on(asked, call, bob, carol) -> None:
    bench, caller, post, task = asked
    stored = bytearray(answer_child("native", b"[1]" * 100_000, post, carol, bob))
    stored[-200_000] ^= 1
    bench.fake.complete(1000, bytes(stored))
    assert call(caller, "GET", "/result", params={"task_id": task}).status_code == 502


def test_the_results_of_two_children_cannot_be_swapped(asked, call, bob, carol) -> None:
    bench, caller, _, first = asked
    second = call(caller, "POST", "/task", json=wish(3, databases=[{"label": "default"}])).json()["id"]
    posts = bench.fake.posts
    bench.fake.complete(1000, answer_child("native", b"[1]", posts[1], carol, bob))
    bench.fake.complete(1001, answer_child("native", b"[2]", posts[0], carol, bob))
    assert [call(caller, "GET", "/result", params={"task_id": t}).status_code for t in (first, second)] == [502, 502]


def test_one_organizations_result_cannot_stand_for_anothers(asked, call, bob, carol) -> None:
    bench, caller, post, task = asked
    bench.fake.complete(1000, answer_child("native", b"[1]", post, carol, bob))
    bench.fake.runs[1001] = bench.fake.runs[1000] | {"id": 1001}
    assert call(caller, "GET", "/result", params={"task_id": task}).status_code == 502


def test_a_run_reads_its_own_childrens_results_only(asked, call, bob, carol) -> None:
    bench, caller, post, task = asked
    bench.fake.complete(1000, answer_child("native", b"[1]", post, carol, bob))
    other = bench.serve(bench.open(run=8)["resume"])
    assert call(other, "GET", "/result", params={"task_id": task}).status_code == 403
    assert call(other, "GET", "/result/1000").status_code == 403
    assert call(caller, "GET", "/result", params={"task_id": task}).status_code == 200


def test_children_are_known_after_a_restart_of_the_proxy(make_bench, call, bob, carol) -> None:
    first = make_bench()
    resume = first.open()["resume"]
    task = call(first.serve(resume), "POST", "/task", json=wish(3, databases=[{"label": "default"}])).json()["id"]
    first.fake.complete(1000, answer_child("native", b"[1]", first.fake.posts[0], carol, bob))
    second = make_bench()
    answer = call(second.serve(resume), "GET", "/result", params={"task_id": task})
    assert base64.b64decode(answer.json()["data"][0]["result"]) == b"[1]"


def test_a_large_result_arrives_whole(asked, call, bob, carol) -> None:
    bench, caller, post, task = asked
    result = json.dumps(list(range(1_000_000))).encode()
    bench.fake.complete(1000, answer_child("native", result, post, carol, bob))
    answer = call(caller, "GET", "/result", params={"task_id": task})
    assert base64.b64decode(answer.json()["data"][0]["result"]) == result


def test_a_failed_childs_log_is_opened(asked, call, bob, carol) -> None:
    bench, caller, post, task = asked
    context = input_context(post["uuid"], direction="log", sender=3, recipient=2, attempt=1)
    log = b64(seal(b"error > no such column", carol, bob, context))
    bench.fake.runs[1000] |= {"status": "crashed", "log": log}
    assert call(caller, "GET", "/run/1000").json()["log"] == "error > no such column"
    assert call(caller, "GET", "/run", params={"task_id": task}).json()["data"][0]["log"] == "error > no such column"
    bench.fake.runs[1000]["log"] = log[:-8]
    assert "can't be read" in call(caller, "GET", "/run/1000").json()["log"]
    other = bench.serve(bench.open(run=8)["resume"])
    assert call(other, "GET", "/run/1000").json()["log"] is None


def test_child_tasks_are_nested_eight_deep_at_most(make_bench, call) -> None:
    bench = make_bench()
    resume = bench.open()["resume"]
    deep = resume | {"lineage": resume["lineage"] * (crypto.MAXIMUM_CHAIN + 1)}
    answer = call(bench.serve(deep), "POST", "/task", json=wish(3))
    assert answer.status_code == 502
    assert "nested" in answer.json()["msg"]


def test_the_child_of_a_vantage6_run_goes_out_in_its_format(make_bench, call, carol) -> None:
    bench = make_bench("vantage6")
    caller = bench.serve(bench.open()["resume"])
    call(caller, "POST", "/task", json=wish(3))
    assert bench.fake.posts[0]["organizations"][0]["input"].count("$") == 2


def test_nulls_in_databases_are_left_out_as_the_server_does(bench, call, carol) -> None:
    caller = bench.serve(bench.open()["resume"])
    steps = [{"function": "filter_range", "parameters": None}]
    database = {"label": "default", "query": None, "preprocessing": steps, "unknown": 1}
    assert call(caller, "POST", "/task", json=wish(3, databases=[database])).status_code == 201
    (post,) = bench.fake.posts
    cleaned = [{"label": "default", "preprocessing": [{"function": "filter_range"}]}]
    assert post["databases"] == cleaned
    _, envelope = open_child_input("native", post["organizations"][0]["input"], carol)
    assert envelope is not None
    assert list(envelope.header.context.databases) == cleaned


def test_an_input_of_many_megabytes_goes_through(bench, call, carol) -> None:
    caller = bench.serve(bench.open()["resume"])
    large = json.dumps({"method": "partial", "args": ["x" * 5_000_000]}).encode()
    entries = [{"id": 3, "input": b64(large)}]
    assert call(caller, "POST", "/task", json=wish() | {"organizations": entries}).status_code == 201
    assert open_child_input("native", bench.fake.posts[0]["organizations"][0]["input"], carol)[0] == large
