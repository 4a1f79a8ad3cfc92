"""Upstream tokens are renewed in time, and by nobody but the proxy."""

from __future__ import annotations

import threading

import pytest
from federation import jwt, wait_for

from skerry.errors import AuthenticationError
from skerry_proxy.access import Renewer, first_renewal
from skerry_proxy.forwarding import Forwarder
from skerry_proxy.upstream import Call

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("token", "seconds"),
    [
        (jwt(iat=1000, exp=1900), 450),
        (jwt(iat=500, exp=1400), 200),
        (jwt(iat=5000, exp=5900), 450),  # the server's clock is ahead
        (jwt(iat=100, exp=900), 0),
        (jwt(iat=0, exp=10**12), 3600),
        (jwt(iat="x", exp=1), 150),
        (jwt(iat=1, exp=float("inf")), 150),
        ("opaque", 150),
        ("a.%%%.c", 150),
        ("a.W10.c", 150),
    ],
)
def test_when_a_token_is_first_renewed(token, seconds) -> None:
    assert first_renewal(token, 1000) == seconds


def test_a_served_runs_token_is_renewed_and_used(make_bench, fake, call) -> None:
    bench = make_bench()
    resume, first = bench.open()["resume"], jwt(iat=0, exp=1)
    fake.token = first
    caller = bench.serve(resume, first)
    wait_for(lambda: fake.token != first)
    (renewal,) = [headers for _, path, headers in fake.seen if path == "/skerry/run/7/token"]
    assert renewal["Authorization"] == f"Bearer {first}"
    wait_for(lambda: call(caller, "GET", "/organization/1").status_code == 200)
    assert fake.seen[-1][2]["Authorization"] == f"Bearer {fake.token}"


def test_a_call_waits_for_the_new_token_when_the_old_one_has_expired() -> None:
    """As after an outage of the server that was longer than the token lived."""
    access = Flaky()
    access.token = "old"

    class Server:
        def answer(self, call: Call) -> str:
            if call.token == "old":
                access.token = "new"
                raise AuthenticationError("Token has expired", 401)
            return f"answered {call.token}"

    forwarder = Forwarder(Server(), access, threading.Event())
    assert forwarder.repeat(Call("GET", "/organization/1", forwarder.token)) == "answered new"


def test_a_dead_runs_token_is_not_renewed_again(make_bench, fake) -> None:
    bench = make_bench()
    resume = bench.open()["resume"]
    bench.serve(resume, jwt(iat=0, exp=1))
    wait_for(lambda: any(path.endswith("/token") for _, path, _ in fake.seen))
    wait_for(lambda: not bench.office._renewer._due)


class Flaky:
    """Renews after it failed as often as asked."""

    def __init__(self, *errors: Exception) -> None:
        self.run = 7
        self.token = jwt(iat=0, exp=1)
        self.errors = list(errors)
        self.renewed = threading.Event()

    def renew(self) -> float:
        if self.errors:
            raise self.errors.pop(0)
        self.renewed.set()
        return 1000.0


def test_an_unforeseen_error_does_not_end_the_renewals(caplog) -> None:
    renewer = Renewer()
    broken, sound = Flaky(RuntimeError("planted")), Flaky()
    try:
        renewer.add(broken)
        renewer.add(sound)
        assert sound.renewed.wait(5)
        wait_for(lambda: "planted" in caplog.text)
    finally:
        renewer.close()
