"""Calls over real HTTP: errors as skerry's, repeated where that does no harm."""

from __future__ import annotations

import socket
import time
from dataclasses import replace

import pytest

from skerry.calls import Call
from skerry.errors import (
    AuthenticationError,
    ConfigurationError,
    Conflict,
    InvalidInput,
    NotFound,
    ServerError,
    ServerUnreachable,
)
from skerry.session import Session
from skerry.transport import Transport, is_loopback

pytestmark = pytest.mark.unit
GET = Call("GET", "thing", repeatable=True)
POST = Call("POST", "thing", json={"a": 1})


class Time:
    """A clock that moves only when someone sleeps."""

    def __init__(self) -> None:
        self.now, self.pauses = 0.0, []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pauses.append(seconds)


@pytest.fixture
def time_() -> Time:
    return Time()


@pytest.fixture
def transport(server, time_) -> Transport:
    return Transport(server.url, clock=time_.clock, sleep=time_.sleep)


def test_a_call(server, transport) -> None:
    server.on("POST", "thing", (201, {"id": 1}))
    call = replace(POST, token="t", params={"a": "b c"}, headers={"X-Y": "z"})
    assert transport.json(call) == {"id": 1}
    [asked] = server.asked
    assert (asked.json, asked.token, asked.params, asked.headers["X-Y"]) == ({"a": 1}, "t", {"a": "b c"}, "z")


def test_bytes_and_empty_answers(server, transport) -> None:
    server.on("GET", "thing", (200, b"SKR1\x00"), (204, b""))
    assert transport.open(GET).content == b"SKR1\x00"
    assert transport.json(GET) == {}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidInput),
        (401, AuthenticationError),
        (403, AuthenticationError),
        (404, NotFound),
        (409, Conflict),
        (422, InvalidInput),
        (418, ServerError),
        (500, ServerError),
    ],
)
def test_an_error_status(server, transport, status, kind) -> None:
    server.on("GET", "thing", (status, {"msg": "What is wrong.", "errors": {"name": ["Too long."], "x": "y"}}))
    with pytest.raises(kind) as caught:
        transport.json(GET)
    assert type(caught.value) is kind
    assert caught.value.status == status
    assert str(caught.value) == "What is wrong. (name: Too long.; x: y)"
    assert len(server.asked) == 1


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"msg": {"a": 1}}', b'{"message": "no"}', b"\xff"])
def test_an_error_without_words(server, transport, body) -> None:
    server.on("GET", "thing", (404, body))
    with pytest.raises(NotFound, match="The server answered 404 to GET thing"):
        transport.json(GET)


def test_an_answer_that_is_not_json(server, transport) -> None:
    server.on("GET", "thing", (200, b"<html>welcome</html>"))
    with pytest.raises(ServerError, match="did not answer in JSON"):
        transport.json(GET)


def test_a_redirect_is_not_followed(server, transport) -> None:
    server.on("GET", "thing", (302, {}))
    with pytest.raises(ServerError, match="302"):
        transport.json(replace(GET, token="secret"))


def test_what_may_be_repeated_is_repeated_with_growing_pauses(server, transport, time_) -> None:
    server.on("GET", "thing", None, (502, b"<html>"), (503, {}), (429, {}), (504, {}), {"at": "last"})
    assert transport.json(GET) == {"at": "last"}
    assert len(server.asked) == 6
    assert len(time_.pauses) == 5
    assert all(0 < early < 2 * late for early, late in zip(time_.pauses, time_.pauses[1:], strict=False))


def test_it_is_given_up_when_patience_is_over(server, transport, time_) -> None:
    server.on("GET", "thing", (503, {"msg": "Later."}))
    with pytest.raises(ServerError, match="Later"):
        transport.json(replace(GET, patience=60.0))
    assert time_.now == pytest.approx(60.0)
    assert max(time_.pauses) <= 5.0


@pytest.mark.parametrize("answer", [None, (502, {}), (503, {})])
def test_what_creates_is_not_repeated(server, transport, answer) -> None:
    server.on("POST", "thing", answer, {"id": 1})
    with pytest.raises((ServerUnreachable, ServerError)):
        transport.json(POST)
    assert len(server.asked) == 1


def test_what_creates_is_repeated_when_nobody_listened(server, time_, monkeypatch) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        transport = Transport(f"http://127.0.0.1:{nobody.getsockname()[1]}/api", clock=time_.clock, sleep=time_.sleep)
        with pytest.raises(ServerUnreachable, match=r"can't be reached.*is the server running"):
            transport.json(POST)
    assert time_.now == pytest.approx(POST.patience)


def test_what_carries_a_key_is_repeated(server, transport) -> None:
    server.on("POST", "thing", None, {"id": 1})
    assert transport.json(replace(POST, repeatable=True)) == {"id": 1}
    assert [asked.json for asked in server.asked] == [{"a": 1}] * 2


def test_an_answer_that_does_not_come(server, transport) -> None:
    server.on("GET", "thing", lambda _: time.sleep(0.3) or {})
    with pytest.raises(ServerUnreachable, match="does not answer in time"):
        transport.json(replace(GET, timeout=0.05, patience=0))


def test_a_server_that_does_not_speak_tls(server, time_) -> None:
    transport = Transport(server.url.replace("http:", "https:"), clock=time_.clock, sleep=time_.sleep)
    with pytest.raises(ConfigurationError, match="certificate"):
        transport.json(GET)
    assert time_.pauses == []


@pytest.mark.parametrize("url", ["nonsense", "http://", "ftp://example.test"])
def test_an_address_that_is_none(url, time_) -> None:
    with pytest.raises(ConfigurationError, match="not an address"):
        Transport(url, clock=time_.clock, sleep=time_.sleep).json(GET)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:1/api", True),
        ("http://127.8.9.1", True),
        ("http://localhost:80", True),
        ("http://[::1]:80", True),
        ("http://localhost.example.org", False),
        ("http://10.0.0.1", False),
        ("nonsense", False),
    ],
)
def test_loopback(url, expected) -> None:
    assert is_loopback(url) is expected


def test_a_netrc_does_not_replace_the_token(server, transport, monkeypatch, tmp_path) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    transport._session.trust_env = True
    server.on("GET", "thing", {})
    transport.json(replace(GET, token="mine"))
    assert server.asked[0].token == "mine"


# --- a user's session ------------------------------------------------------------------------------------


@pytest.fixture
def session(transport, time_) -> Session:
    return Session(transport, time_.clock)


def tokens(make_token, name: str, lifetime: float = 3600.0) -> dict[str, str]:
    return {
        "access_token": make_token(7, lifetime, name=name),
        "refresh_token": make_token(7, 99999.0, name=f"{name}-refresh"),
    }


def test_logging_in(server, session, make_token) -> None:
    first = tokens(make_token, "first")
    server.on("POST", "token/user", first)
    server.on("GET", "thing", {"ok": 1})
    assert session.log_in("root", "secret", "123456") == 7
    assert session.json(GET) == {"ok": 1}
    assert server.asked[0].json == {"username": "root", "password": "secret", "mfa_code": "123456"}
    assert server.asked[1].token == first["access_token"]


def test_a_refused_log_in(server, session) -> None:
    server.on("POST", "token/user", (401, {"msg": "Failed to login."}))
    with pytest.raises(AuthenticationError, match=r'did not let "root" log in: Failed to login.') as caught:
        session.log_in("root", "secret", None)
    assert "secret" not in str(caught.value)
    with pytest.raises(AuthenticationError, match="call authenticate"):
        session.json(GET)


@pytest.mark.parametrize(
    "answer",
    [
        {"msg": "Please include your two-factor authentication code"},
        {},
        [],
        {"access_token": "x", "refresh_token": "y"},
    ],
)
def test_a_log_in_without_tokens(server, session, answer) -> None:
    server.on("POST", "token/user", answer)
    with pytest.raises(AuthenticationError, match=r"two-factor|did not answer"):
        session.log_in("root", "secret", None)


def test_a_token_is_renewed_before_its_end(server, session, time_, make_token) -> None:
    first, second = tokens(make_token, "first", 600), tokens(make_token, "second", 600)
    server.on("POST", "token/user", first)
    server.on("POST", "token/refresh", second)
    server.on("GET", "thing", {})
    session.log_in("root", "x", None)
    session.json(GET)
    time_.now += 590
    session.json(GET)
    assert [one.token for one in server.calls("GET", "thing")] == [first["access_token"], second["access_token"]]
    [renewal] = server.calls("POST", "token/refresh")
    assert renewal.token == first["refresh_token"]


def test_a_token_that_expired_early_is_renewed_once(server, session, make_token) -> None:
    server.on("POST", "token/user", tokens(make_token, "first"))
    server.on("POST", "token/refresh", tokens(make_token, "second"))
    server.on("GET", "thing", (401, {"msg": "Token has expired"}))
    session.log_in("root", "x", None)
    with pytest.raises(AuthenticationError, match="expired"):
        session.json(GET)
    assert len(server.calls("GET", "thing")) == 2


def test_a_refusal_is_not_taken_for_an_expired_token(server, session, make_token) -> None:
    server.on("POST", "token/user", tokens(make_token, "first"))
    server.on("GET", "thing", (401, {"msg": "You lack the permission to do that!"}))
    session.log_in("root", "x", None)
    with pytest.raises(AuthenticationError, match="permission"):
        session.open(GET)
    assert server.calls("POST", "token/refresh") == []


def test_a_log_in_that_has_expired(server, session, time_, make_token) -> None:
    server.on("POST", "token/user", tokens(make_token, "first"))
    server.on("POST", "token/refresh", (401, {"msg": "Token has expired"}))
    session.log_in("root", "x", None)
    time_.now += 10_000
    with pytest.raises(AuthenticationError, match="call authenticate"):
        session.json(GET)
