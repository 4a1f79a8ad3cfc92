"""Inputs of child tasks that a container sends ahead of them, as vantage6's tools do for a server with a blob store."""

from __future__ import annotations

import json

import pytest
from federation import open_child_input

from skerry import AlgorithmClient, crypto
from skerry.algorithm_client import Organization
from skerry.wire import b64
from skerry_proxy.blobs import MOST_WAITING

pytestmark = pytest.mark.unit
WISH = b'{"method": "partial", "kwargs": {"filler": "' + b"x" * 200_000 + b'"}}'
ELSEWHERE = "6ac803f1-6b9a-4db4-8000-000000000000"


@pytest.fixture(params=["native", "vantage6", "plain"])
def central(request, make_bench):
    bench = make_bench(request.param)
    return bench, bench.serve(bench.open()["resume"])


def key_of(identity) -> dict[str, str]:
    return {"X-Public-Key": b64(identity.public_pem)}


def pieces(payload: bytes):
    """Sent in chunks, with no length before them."""
    for start in range(0, len(payload), 65536):
        yield payload[start : start + 65536]


def send(call, caller, headers, payload: bytes = WISH):
    return call(caller, "POST", "/blobstream", data=pieces(payload), headers=headers)


def wish(**inputs: str) -> dict:
    return {"name": "subtask", "organizations": [{"id": int(n[1:]), "input": one} for n, one in inputs.items()]}


def opened(fmt: str, blob: bytes, identity) -> bytes:
    """What organization's node would read of what the server keeps."""
    if fmt == "native":
        return open_child_input(fmt, b64(blob), identity)[0]
    return blob if fmt == "plain" else crypto.vantage6_decrypt(blob.decode(), identity)


def test_each_is_sealed_for_its_organization_and_sent_on(central, call, alice, carol) -> None:
    bench, caller = central
    names = {}
    for organization, identity in (("_3", carol), ("_1", alice)):
        answer = send(call, caller, key_of(identity))
        assert answer.status_code == 201
        names[organization] = answer.json()["uuid"]
    assert bench.fake.blobs == {}
    assert call(caller, "POST", "/task", json=wish(**names)).status_code == 201
    (post,) = bench.fake.posts
    for entry, identity in zip(post["organizations"], (carol, alice), strict=True):
        blob = bench.fake.blobs[entry["input"]]
        assert opened(bench.format, blob, identity) == WISH
        assert bench.format == "plain" or WISH[:20] not in blob


def test_a_server_that_is_away_is_waited_for(central, call, carol) -> None:
    bench, caller = central
    name = send(call, caller, key_of(carol)).json()["uuid"]
    bench.fake.faults += [("/skerry/blob/", "503"), ("/skerry/blob/", "lose")]
    assert call(caller, "POST", "/task", json=wish(_3=name)).status_code == 201
    [blob] = bench.fake.blobs.values()
    assert opened(bench.format, blob, carol) == WISH


@pytest.mark.parametrize("fmt", ["native", "vantage6"])
@pytest.mark.parametrize("key", [{}, {"X-Public-Key": ""}, {"X-Public-Key": "not base64"}])
def test_without_a_key_nothing_is_kept(make_bench, call, fmt, key) -> None:
    bench = make_bench(fmt)
    answer = send(call, bench.serve(bench.open()["resume"]), key)
    assert answer.status_code == 400
    assert "X-Public-Key" in answer.json()["msg"]


@pytest.mark.parametrize("fmt", ["native", "vantage6"])
def test_a_key_that_is_not_the_pinned_one(make_bench, call, fake, fmt, alice) -> None:
    """As when the server shows an algorithm another key than it shows the node."""
    bench = make_bench(fmt)
    caller = bench.serve(bench.open()["resume"])
    name = send(call, caller, key_of(alice)).json()["uuid"]
    answer = call(caller, "POST", "/task", json=wish(_3=name))
    assert answer.status_code == 502
    assert "another key than this node has pinned" in answer.json()["msg"]
    assert (fake.blobs, fake.posts) == ({}, [])


def test_what_was_not_sent_or_was_used(central, call, carol) -> None:
    _, caller = central
    unknown = call(caller, "POST", "/task", json=wish(_3=ELSEWHERE))
    assert (unknown.status_code, "has not sent" in unknown.json()["msg"]) == (400, True)
    name = send(call, caller, key_of(carol)).json()["uuid"]
    twice = call(caller, "POST", "/task", json=wish(_3=name, _1=name))
    assert (twice.status_code, "same blob" in twice.json()["msg"]) == (400, True)
    assert call(caller, "POST", "/task", json=wish(_3=name.upper())).status_code == 201
    again = call(caller, "POST", "/task", json=wish(_3=name))
    assert (again.status_code, "has not sent" in again.json()["msg"]) == (400, True)


def test_a_task_that_failed_leaves_its_blobs(central, call, carol) -> None:
    bench, caller = central
    name = send(call, caller, key_of(carol)).json()["uuid"]
    bench.fake.faults.append(("/task", "400"))
    assert call(caller, "POST", "/task", json=wish(_3=name)).status_code == 400
    assert call(caller, "POST", "/task", json=wish(_3=name)).status_code == 201


def test_another_run_s_blob(make_bench, call, carol) -> None:
    bench = make_bench()
    first, second = (bench.serve(bench.open(run=run)["resume"]) for run in (7, 8))
    name = send(call, first, key_of(carol)).json()["uuid"]
    assert call(second, "POST", "/task", json=wish(_3=name)).status_code == 400


def test_so_many_wait_at_once(make_bench, call, carol) -> None:
    bench = make_bench()
    caller = bench.serve(bench.open()["resume"])
    for _ in range(MOST_WAITING):
        assert send(call, caller, key_of(carol), b"x").status_code == 201
    answer = send(call, caller, key_of(carol), b"x")
    assert (answer.status_code, "wait for their tasks" in answer.json()["msg"]) == (413, True)


def test_one_larger_than_a_request_may_be_otherwise(make_bench, call, carol) -> None:
    bench = make_bench()
    caller = bench.serve(bench.open()["resume"])
    payload = b'{"method": "partial", "kwargs": {"filler": "' + b"x" * (70 << 20) + b'"}}'
    name = send(call, caller, key_of(carol), payload).json()["uuid"]
    assert call(caller, "POST", "/task", json=wish(_3=name)).status_code == 201
    [blob] = bench.fake.blobs.values()
    assert opened("native", blob, carol) == payload


def test_skerrys_own_client_sends_so_what_is_too_large_for_a_task(make_bench, alice, carol, monkeypatch) -> None:
    bench, people = make_bench(), {1: alice, 3: carol}
    caller = bench.serve(bench.open()["resume"])
    client = AlgorithmClient(caller.token, "http://127.0.0.1", caller.port)
    keys = {number: {"public_key": b64(identity.public_pem)} for number, identity in people.items()}
    monkeypatch.setattr(Organization, "get", lambda _, number: keys[number])
    input_ = {"method": "partial", "kwargs": {"filler": "x" * (26 << 20)}}
    client.task.create(input_, organizations=[3, 1])
    [post] = bench.fake.posts
    for entry in post["organizations"]:
        assert json.loads(opened("native", bench.fake.blobs[entry["input"]], people[entry["id"]])) == input_


def test_what_waits_goes_with_its_gate(make_bench, call, carol) -> None:
    bench = make_bench()
    caller = bench.serve(bench.open()["resume"])
    send(call, caller, key_of(carol))
    desk = bench.office._served[7, 1].gate._desk
    [blob] = desk.children._blobs._waiting.values()
    bench.office.close_gate((7, 1))
    assert blob.file.closed
