"""Which calls a container may make, with which token, and what reaches the server of them."""

from __future__ import annotations

import base64
import json
import logging
import socket
import threading

import pytest
from federation import TOKEN, Caller, wait_for

from skerry_proxy.gate_tokens import mint_gate_token
from skerry_proxy.messages import Refusal
from skerry_proxy.routes import ROUTES, find_route, parse_query
from skerry_proxy.runs import Run

pytestmark = pytest.mark.unit

ALLOWED = [
    "/version",
    "/organization",
    "/organization/3",
    "/collaboration/1",
    "/node/5",
    "/study",
    "/study/1",
    "/task/1",
    "/task/1/status",
    "/run?task_id=1",
    "/blobstream/status",
    "/skerry/task/1/wait",
]
DENIED = [
    ("GET", "/"),
    ("GET", "/collaboration"),
    ("GET", "/node"),
    ("GET", "/node/6"),
    ("GET", "/node/05"),
    ("GET", "/task"),
    ("GET", "/user"),
    ("GET", "/role/1"),
    ("GET", "/port"),
    ("GET", "/health"),
    ("GET", "/organization/1/"),
    ("GET", "/organization/-1"),
    ("GET", "/organization/1.0"),
    ("GET", "/organization/0"),
    ("GET", "/organization/1e3"),
    ("GET", "/organization/%31"),
    ("GET", "/organization/../user/1"),
    ("GET", "/organization/1/../../user"),
    ("GET", "/Organization/1"),
    ("GET", "/organization/99999999999999999999"),
    ("GET", "/api/organization/1"),
    ("GET", "/skerry/keys"),
    ("GET", "/skerry/run/7/result"),
    ("GET", "/skerry/run/7/input"),
    ("POST", "/skerry/run/7/token"),
    ("POST", "/skerry/run/7/finish"),
    ("PUT", "/skerry/run/7/result"),
    ("POST", "/token/user"),
    ("POST", "/token/container"),
    ("POST", "/kill/task"),
    ("POST", "/organization"),
    ("POST", "/task/1"),
    ("PATCH", "/run/7"),
    ("PATCH", "/organization/2"),
    ("PUT", "/task"),
    ("DELETE", "/task/1"),
    ("DELETE", "/version"),
    ("PUT", "/blobstream"),
    ("GET", "/blobstream"),
    ("POST", "/blobstream/status"),
    ("GET", "/blobstream/6ac803f1-6b9a-4db4-8000-000000000000"),
]


@pytest.fixture
def caller(bench):
    return bench.serve(bench.open()["resume"])


@pytest.mark.parametrize("path", ALLOWED)
def test_what_the_table_allows_is_asked_of_the_server_with_the_runs_own_token(caller, call, fake, path) -> None:
    assert call(caller, "GET", path).status_code == 200
    method, asked, headers = fake.seen[-1]
    assert (method, asked) == ("GET", path.partition("?")[0])
    assert headers.get("Authorization") == (None if path == "/version" else f"Bearer {TOKEN}")


def test_every_route_of_the_table_is_tried_above() -> None:
    tried = {find_route("GET", path.partition("?")[0]).route.name for path in ALLOWED}
    rest = {route.name for route in ROUTES} - tried
    # test_children, test_blobs and test_introductions try these.
    assert rest == {
        "POST /task",
        "POST /blobstream",
        "GET /run/<id>",
        "GET /result",
        "GET /result/<id>",
        "GET /vpn/algorithm/addresses",
    }


@pytest.mark.parametrize(("method", "path"), DENIED)
def test_what_is_not_in_the_table_is_refused(caller, fake, method, path) -> None:
    before = len(fake.seen)
    head = f"{method} {path} HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {caller.token}\r\nContent-Length: 0\r\n\r\n"
    assert caller.raw(head.encode()).startswith(b"HTTP/1.1 403 ")
    assert len(fake.seen) == before


@pytest.mark.parametrize(("method", "path"), [("GET", "/organization/1"), ("POST", "/task"), ("GET", "/user")])
def test_a_call_without_the_runs_own_token_is_401(make_bench, fake, call, method, path) -> None:
    bench = make_bench()
    first, second = bench.open()["resume"], bench.open(run=8)["resume"]
    caller, other = bench.serve(first), bench.serve(second)
    before = len(fake.seen)
    for shown in (None, "", TOKEN, other.token, caller.token[:-1], caller.token + "x", "é"):
        headers = {"Authorization": f"Bearer {shown}".encode()} if shown is not None else {"Authorization": None}
        assert call(caller, method, path, headers=headers).status_code == 401
    assert call(caller, method, path, headers={"Authorization": f"Basic {caller.token}"}).status_code == 401
    assert len(fake.seen) == before


def test_the_version_needs_no_token(caller, call) -> None:
    assert call(caller, "GET", "/version", headers={"Authorization": None}).status_code == 200


def test_headers_and_cookies_are_not_handed_on(caller, call, fake) -> None:
    call(
        caller, "GET", "/organization/1", headers={"X-Forwarded-For": "1.2.3.4", "Cookie": "a=b", "Accept": "text/html"}
    )
    _, _, headers = fake.seen[-1]
    assert set(headers) == {
        "Host",
        "User-Agent",
        "Accept",
        "Accept-Encoding",
        "Authorization",
        "Connection",
        "query",
    } - (set() if "Connection" in headers else {"Connection"})
    assert headers["Accept"] == "application/json"


def test_lists_come_as_one_page(caller, call, fake) -> None:
    answer = call(caller, "GET", "/organization", params={"collaboration_id": 1, "page": 1, "per_page": 10}).json()
    assert [row["id"] for row in answer["data"]] == list(range(1, 251))
    assert "next" not in answer["links"]
    assert "collaboration_id=1&page=3&per_page=100" in fake.seen[-1][2]["query"]
    assert call(caller, "GET", "/organization", params={"page": 2}).json()["data"] == []


@pytest.mark.parametrize(
    "query",
    [
        "task_id=1;drop",
        "task_id=",
        "task_id=-1",
        "state=open",
        "include=../x",
        "include=task%00",
        "a",
        "&&",
        "task_id=\uff11",
    ],
)
def test_parameters_that_the_table_does_not_know_are_refused(caller, call, query) -> None:
    answer = call(caller, "GET", f"/run?{query}")
    assert answer.status_code == 400
    assert isinstance(answer.json()["msg"], str)


def test_result_needs_a_task(caller, call) -> None:
    assert call(caller, "GET", "/result").status_code == 400


def test_a_query_is_rebuilt_from_its_parts() -> None:
    match = parse_query(find_route("GET", "/organization"), "ids=1&ids=2&include=task%2Cruns")
    assert match.query == (("ids", "1"), ("ids", "2"), ("include", "task,runs"))
    with pytest.raises(Refusal):
        parse_query(find_route("GET", "/organization"), "&".join(["ids=1"] * 100))


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422])
def test_the_servers_own_refusals_reach_the_container(caller, call, fake, status) -> None:
    fake.faults.append(("/organization", str(status)))
    answer = call(caller, "GET", "/organization/1")
    assert (answer.status_code, answer.json()) == (status, {"msg": f"planted {status}"})


@pytest.mark.parametrize("status", [301, 302, 500])
def test_redirects_are_not_followed_and_failures_are_said(caller, call, fake, status) -> None:
    fake.faults.append(("/organization", str(status)))
    answer = call(caller, "GET", "/organization/1")
    assert answer.status_code == 502
    assert "planted" not in answer.text


@pytest.mark.parametrize("fault", ["drop", "503"])
def test_a_call_waits_for_a_server_that_is_away_for_a_moment(caller, call, fake, fault) -> None:
    fake.faults += [("/organization", fault)] * 2
    assert call(caller, "GET", "/organization/1").status_code == 200


def test_a_wait_is_passed_through_and_ends_with_the_gate(make_bench, call, fake) -> None:
    bench = make_bench()
    caller = bench.serve(bench.open()["resume"])
    answers: list[bytes] = []
    call_line = "GET /skerry/task/9/wait?seen=s1&timeout=30 HTTP/1.1"
    head = f"{call_line}\r\nHost: g\r\nAuthorization: Bearer {caller.token}\r\n\r\n"
    waiter = threading.Thread(target=lambda: answers.append(caller.raw(head.encode(), patience=20)))
    waiter.start()
    assert fake.waiting.wait(5)
    assert fake.seen[-1][2]["query"] == "seen=s1&timeout=30"
    bench.office.close_gate((7, 1))
    waiter.join(5)
    assert answers == [b""]
    with pytest.raises(OSError, match="refused"):
        caller.raw(b"")


def test_a_gate_is_replaced_when_its_run_is_served_again(make_bench, call) -> None:
    bench = make_bench()
    resume = bench.open()["resume"]
    first = bench.serve(resume)
    second = bench.serve(resume)
    assert first.token == second.token
    assert call(second, "GET", "/organization/1").status_code == 200
    with pytest.raises(OSError, match="refused"):
        first.raw(b"")


def test_a_run_that_is_served_again_on_its_listener_goes_on_with_the_new_token(make_bench, fake, call) -> None:
    bench = make_bench()
    resume = bench.open()["resume"]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        tokens = [bench.office.serve(resume, token, [listener.fileno()]) for token in (TOKEN, "a newer one")]
        caller = Caller(listener.getsockname()[1], tokens[1])
        fake.token = "a newer one"
        assert tokens[0] == tokens[1]
        assert call(caller, "GET", "/organization/1").status_code == 200


def test_the_gate_token_has_the_claims_that_clients_read(bench) -> None:
    resume = bench.open()["resume"]
    token = mint_gate_token(Run.parse(json.loads(json.dumps(resume))))
    header, body, _ = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    assert json.loads(base64.urlsafe_b64decode(header + "==")) == {"alg": "HS256", "typ": "JWT"}
    assert claims["run_id"] == 7
    assert claims["sub"] == {
        "client_type": "container",
        "node_id": 5,
        "organization_id": 2,
        "collaboration_id": 1,
        "study_id": None,
        "store_id": None,
        "task_id": 9,
        "image": "example/mean:1",
        "databases": [{"label": "default"}],
    }


def test_each_opened_run_has_a_token_of_its_own(bench) -> None:
    tokens = {
        mint_gate_token(Run.parse(bench.open()["resume"] if n == 7 else bench.open(run=n)["resume"])) for n in (7, 8)
    }
    assert len(tokens) == 2


def test_a_resume_of_another_version_is_refused(bench) -> None:
    with pytest.raises(ValueError, match="version"):
        Run.parse(bench.open()["resume"] | {"v": 2})


def test_the_log_names_calls_and_never_tokens_or_bodies(caller, call, caplog) -> None:
    caplog.set_level(logging.DEBUG, logger="skerry_proxy")
    call(caller, "GET", "/run", params={"task_id": 77})
    call(caller, "POST", "/task", json={"name": "canary"})
    call(caller, "GET", "/canary")
    wait_for(lambda: "GET /run 200" in caplog.text)
    assert "run 7" in caplog.text
    for secret in (TOKEN, caller.token, "canary", "77"):
        assert secret not in caplog.text
