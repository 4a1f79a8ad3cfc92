"""What an algorithm asks of its gate, over real HTTP."""

from __future__ import annotations

import json
import socket
import uuid

import pytest

from skerry import AlgorithmClient
from skerry.algorithm_client import Claims
from skerry.errors import AlgorithmError, ChildTaskFailed, InputError, NotFound, ServerError
from skerry.wire import b64, unb64

pytestmark = pytest.mark.unit

SUBJECT = {
    "client_type": "container",
    "task_id": 5,
    "node_id": 4,
    "organization_id": 1,
    "collaboration_id": 3,
    "study_id": None,
    "store_id": None,
    "image": "image:1@sha256:abc",
    "databases": [{"label": "default", "query": "select 1"}],
}


@pytest.fixture
def client(server, make_token) -> AlgorithmClient:
    return AlgorithmClient(make_token(SUBJECT), "http://127.0.0.1", server.port, "/api")


def run(id_: int, status: str = "completed", log: str | None = None) -> dict:
    return {"id": id_, "status": status, "log": log, "organization": {"id": id_ - 10}, "task": {"id": 7}}


def waiting(*statuses: str, finished: bool = True) -> dict:
    runs = [{"id": 11 + number, "status": status} for number, status in enumerate(statuses)]
    return {"id": 7, "status": "active", "finished": finished, "seen": "s1", "runs": runs}


def test_a_child_task(server, client) -> None:
    server.on("POST", "task", (201, {"id": 7}))
    task = client.task.create(
        input_={"method": "sums", "kwargs": {"column": "age"}}, organizations=[1, 2], name="round 1", description="why"
    )
    assert task == {"id": 7}
    [asked] = server.asked
    assert asked.token == client.token
    inputs = asked.json.pop("organizations")
    assert [one["id"] for one in inputs] == [1, 2]
    assert json.loads(unb64(inputs[1]["input"])) == {"method": "sums", "kwargs": {"column": "age"}}
    body = asked.json
    del body["organizations"]
    assert uuid.UUID(asked.headers["Idempotency-Key"])
    assert body == {
        "name": "round 1",
        "description": "why",
        "image": SUBJECT["image"],
        "collaboration_id": 3,
        "databases": SUBJECT["databases"],
    }


def test_a_large_input_is_sent_ahead_of_its_task(server, client, monkeypatch) -> None:
    monkeypatch.setattr("skerry.algorithm_client._MOST_INLINE", 200_000)
    names = [str(uuid.uuid4()) for _ in range(2)]
    server.on("GET", "organization/1", {"id": 1, "public_key": "a2V5"})
    server.on("GET", "organization/2", {"id": 2, "public_key": ""})
    server.on("POST", "blobstream", (503, {"msg": "Full."}), None, *((201, {"uuid": name}) for name in names))
    server.on("POST", "task", (201, {"id": 7}))
    input_ = {"method": "sums", "kwargs": {"filler": "x" * 80_000}}
    client.task.create(input_, organizations=[1, 2])
    *_, first, second = server.calls("POST", "blobstream")
    assert json.loads(first.body) == json.loads(second.body) == input_
    assert (first.headers["X-Public-Key"], "X-Public-Key" in second.headers) == ("a2V5", False)
    [task] = server.calls("POST", "task")
    assert task.json["organizations"] == [{"id": one, "input": name} for one, name in zip((1, 2), names, strict=True)]
    client.task.create(input_, organizations=[1])
    assert unb64(server.calls("POST", "task")[1].json["organizations"][0]["input"]) == first.body


def test_a_child_task_for_everyone_in_the_study(server, make_token) -> None:
    client = AlgorithmClient(make_token({**SUBJECT, "study_id": 8}), "http://127.0.0.1", server.port, "/api")
    server.on("GET", "organization", {"data": [{"id": 2}, {"id": 3}]})
    server.on("POST", "task", {"id": 7})
    client.task.create({"method": "f"})
    assert server.asked[0].params == {"study_id": "8"}
    body = server.asked[1].json
    assert [one["id"] for one in body["organizations"]] == [2, 3]
    assert (body["study_id"], body["name"]) == (8, "subtask")
    assert "description" not in body


@pytest.mark.parametrize("wrong", [None, "sums", {}, {"method": 3}, {"method": "f", "args": [{1, 2}]}])
def test_an_input_that_is_none(server, client, wrong) -> None:
    with pytest.raises(InputError, match="input of a child task"):
        client.task.create(wrong, organizations=[1])
    assert server.asked == []


def test_results_in_the_order_of_the_organizations(server, client) -> None:
    server.on("GET", "skerry/task/7/wait", waiting(finished=False), waiting(finished=False), waiting("completed"))
    rows = [{"id": 12, "result": b64(b'{"n": 2}')}, {"id": 11, "result": b64(b"[1]")}]
    server.on("GET", "result", {"data": rows})
    assert client.wait_for_results(7) == [[1], {"n": 2}]
    waits = server.calls("GET", "skerry/task/7/wait")
    assert [call.params["until"] for call in waits] == ["finished"] * 3
    assert server.calls("GET", "result")[0].params == {"task_id": "7"}


def test_waiting_goes_on_while_the_gate_is_away(server, client) -> None:
    server.on("GET", "skerry/task/7/wait", waiting(finished=False), None, (503, {"msg": "later"}), None, waiting())
    server.on("GET", "result", None, {"data": [{"id": 11, "result": b64(b"1")}]})
    assert client.wait_for_results(7) == [1]


def test_a_child_task_is_asked_for_until_the_gate_answers_in_the_same_name(server, client) -> None:
    server.on("POST", "task", None, (503, {"msg": "later"}), (201, {"id": 7}))
    assert client.task.create({"method": "f"}, organizations=[1]) == {"id": 7}
    assert len(server.asked) == 3
    assert len({one.headers["Idempotency-Key"] for one in server.asked}) == 1
    client.task.create({"method": "f"}, organizations=[1])
    assert len({one.headers["Idempotency-Key"] for one in server.asked}) == 2


def test_what_creates_something_without_a_name_is_asked_once(server, client) -> None:
    server.on("POST", "task", None)
    with pytest.raises(Exception, match="can't be reached"):
        client.request("task", json={}, method="post")
    assert len(server.asked) == 1


def test_a_failed_child_says_who_and_why(server, client) -> None:
    server.on("GET", "skerry/task/7/wait", waiting("completed", "crashed", "killed by user"))
    log = "info > x\nerror > too few rows"
    sealed = b64(b"SKR1" + b"\0" * 50)
    runs = [run(13, "killed by user", sealed), run(12, "crashed", log), run(11)]
    server.on("GET", "run", {"data": runs})
    with pytest.raises(ChildTaskFailed) as caught:
        client.wait_for_results(7)
    told = "Child task 7 failed. Organization 2: crashed: too few rows; Organization 3: killed by user."
    assert str(caught.value) == told


def test_a_result_that_can_not_be_opened_is_an_error_at_once(server, client) -> None:
    server.on("GET", "result/11", (502, {"msg": "The result of run 11 can't be opened."}))
    with pytest.raises(ServerError, match="can't be opened"):
        client.result.get(11)
    assert len(server.asked) == 1


@pytest.mark.parametrize("row", [{"id": 11}, {"id": 11, "result": None}, {"id": 11, "result": b64(b"\xff")}])
def test_a_result_that_is_none(server, client, row) -> None:
    server.on("GET", "result/11", row)
    with pytest.raises(AlgorithmError, match="run 11 is missing or not JSON"):
        client.result.get(11)


def test_results_that_there_are(server, client) -> None:
    server.on("GET", "result", {"data": [{"id": 12, "result": None}, {"id": 11, "result": b64(b"0")}]})
    assert client.result.from_task(7) == [0]


def test_a_task_that_there_is_not(server, client) -> None:
    server.on("GET", "skerry/task/9/wait", (404, {"msg": "There is no task 9."}))
    server.on("GET", "task/9", (404, {"msg": "There is no task 9."}))
    with pytest.raises(NotFound, match="no task 9"):
        client.wait_for_results(9)


@pytest.mark.parametrize("status", [403, 404])
def test_a_gate_without_push(server, client, status, monkeypatch) -> None:
    pauses = []
    monkeypatch.setattr("skerry.algorithm_client.time.sleep", pauses.append)
    server.on("GET", "skerry/task/7/wait", (status, {"msg": "unknown"}))
    server.on("GET", "task/7", {"id": 7})
    running = [run(12, "active"), run(11)]
    server.on("GET", "run", {"data": running}, {"data": running}, {"data": [run(12), run(11)]})
    server.on("GET", "result", {"data": [{"id": 12, "result": b64(b"2")}, {"id": 11, "result": b64(b"1")}]})
    assert client.wait_for_results(7) == [1, 2]
    assert len(pauses) == 2
    assert pauses == sorted(pauses)


@pytest.mark.parametrize(
    ("call", "path", "params"),
    [
        (lambda c: c.task.get(7), "task/7", {}),
        (lambda c: c.run.get(11), "run/11", {}),
        (lambda c: c.organization.get(2), "organization/2", {}),
        (lambda c: c.collaboration.get(), "collaboration/3", {}),
        (lambda c: c.study.get(8), "study/8", {}),
        (lambda c: c.node.get(), "node/4", {}),
    ],
)
def test_one_thing(server, client, call, path, params) -> None:
    server.on("GET", path, {"id": 1})
    assert call(client) == {"id": 1}
    assert server.asked[0].params == params


@pytest.mark.parametrize(
    ("call", "path", "params"),
    [
        (lambda c: c.organization.list(), "organization", {"collaboration_id": "3"}),
        (lambda c: c.study.list(), "study", {"collaboration_id": "3"}),
        (lambda c: c.run.from_task(7), "run", {"task_id": "7"}),
    ],
)
def test_lists(server, client, call, path, params) -> None:
    server.on("GET", path, {"data": [{"id": 2}, {"id": 1}]})
    assert sorted(row["id"] for row in call(client)) == [1, 2]
    assert server.asked[0].params == params


@pytest.mark.parametrize(
    ("call", "params"),
    [
        (lambda vpn: vpn.get_addresses(), {}),
        (
            lambda vpn: vpn.get_addresses(include_children=True, include_parent=True, label="x"),
            {"include_children": "1", "include_parent": "1", "label": "x"},
        ),
        (lambda vpn: vpn.get_child_addresses(), {"only_children": "1"}),
        (lambda vpn: vpn.get_parent_address(), {"only_parent": "1"}),
        (lambda vpn: vpn.get_sibling_addresses(), {"only_siblings": "1"}),
        (lambda vpn: vpn.get_own_address(), {"only_self": "1"}),
    ],
)
def test_addresses(server, client, call, params) -> None:
    server.on("GET", "vpn/algorithm/addresses", {"addresses": [{"ip": "10.0.0.1"}]})
    assert call(client.vpn) == [{"ip": "10.0.0.1"}]
    assert server.asked[0].params == params


def test_addresses_that_can_not_be_had(server, client) -> None:
    server.on("GET", "vpn/algorithm/addresses", (404, {"msg": "no VPN"}))
    assert client.vpn.get_addresses() == {"message": "Obtaining VPN addresses failed! no VPN"}


def test_what_the_client_says_of_itself(server, client) -> None:
    assert client.base_path == f"http://127.0.0.1:{server.port}/api"
    assert (client.host, client.port, client.path) == ("http://127.0.0.1", server.port, "/api")
    assert client.headers == {"Authorization": f"Bearer {client.token}"}
    assert client.generate_path_to("task") == f"{client.base_path}/task"
    assert client.name == "task 5 at organization 1"
    with pytest.raises(InputError, match="store"):
        client.generate_path_to("algorithm", is_for_algorithm_store=True)


@pytest.mark.parametrize("name", ["authenticate", "refresh_token", "setup_encryption"])
def test_what_an_algorithm_need_not_do(client, name) -> None:
    with pytest.raises(NotImplementedError):
        getattr(client, name)()


@pytest.mark.parametrize("missing", ["task_id", "image", "collaboration_id"])
def test_a_token_without_its_claims(make_token, missing) -> None:
    subject = {name: value for name, value in SUBJECT.items() if name != missing}
    with pytest.raises(InputError, match="token"):
        Claims.of(make_token(subject))
    with pytest.raises(InputError, match="token"):
        Claims.of(make_token("7"))


def peer_rows(*organizations: int) -> dict:
    return {"addresses": [{"ip": f"10.0.0.{one}", "port": 8888, "organization_id": one} for one in organizations]}


def test_waiting_for_peers(server, client) -> None:
    server.on("GET", "vpn/algorithm/addresses", peer_rows(3, 2, 4))
    found = client.vpn.wait_for([2, 3], label="ring")
    assert {one: rows[0]["ip"] for one, rows in found.items()} == {2: "10.0.0.2", 3: "10.0.0.3"}
    assert server.asked[0].params == {"label": "ring"}


def test_waiting_for_a_peer_that_does_not_come(server, client) -> None:
    server.on("GET", "vpn/algorithm/addresses", peer_rows(2))
    with pytest.raises(AlgorithmError, match=r"Organizations 3 are not in the VPN.*policies\.vpn"):
        client.vpn.wait_for([2, 3], timeout=0)


@pytest.fixture
def hasty(monkeypatch) -> None:
    monkeypatch.setattr("skerry.algorithm_client._PEER_SECONDS", 0.001)


RUNS = [
    {"id": 8, "organization_id": 2, "status": "crashed"},
    {"id": 9, "organization_id": 3, "status": "active"},
]


@pytest.mark.parametrize("children", [False, True])
@pytest.mark.usefixtures("hasty")
def test_waiting_for_a_peer_that_has_ended(server, client, children) -> None:
    """It is told at once, not after the timeout: an ended run has no address any more."""
    server.on("POST", "task", {"id": 6}, {"id": 7})
    server.on("GET", f"skerry/task/{7 if children else 5}/wait", {"finished": False, "runs": RUNS})
    server.on("GET", "vpn/algorithm/addresses", peer_rows())
    for _ in range(2):
        client.task.create({"method": "x"}, organizations=[2, 3])
    with pytest.raises(AlgorithmError, match=r"Organization 2 is not in the VPN: its run ended \(crashed\).*EXPOSE"):
        client.vpn.wait_for([2, 3], children=children)
    [look] = [call for call in server.asked if call.path.endswith("wait")]
    assert look.params == {"timeout": "0"}
    assert len([call for call in server.asked if call.path.endswith("addresses")]) == 8


@pytest.mark.parametrize("answer", [{"finished": False, "runs": RUNS}, (404, {"msg": "no such call"})])
@pytest.mark.parametrize(("wanted", "children"), [([3, 9], False), ([2], True)])
@pytest.mark.usefixtures("hasty")
def test_peers_that_may_still_come_are_waited_for(server, client, answer, wanted, children) -> None:
    """An active one, one that has no run yet, one of a child task that somebody else made; a gate without that call."""
    server.on("GET", "skerry/task/5/wait", answer)
    server.on("GET", "vpn/algorithm/addresses", peer_rows())
    with pytest.raises(AlgorithmError, match=r"after 1 s"):
        client.vpn.wait_for(wanted, children=children, timeout=1)
    assert children or "skerry/task/5/wait" in {call.path for call in server.asked}


def test_nobody_answers(client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(AlgorithmError, match="Nobody answers"):
        client.vpn.connect({"ip": "127.0.0.1", "port": port}, timeout=0)
