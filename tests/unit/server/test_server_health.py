"""What a load balancer and a supervisor are told while the database hangs, without a socket."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from skerry_server import health
from skerry_server.database import Database
from skerry_server.health import Health
from skerry_server.server import Server

pytestmark = pytest.mark.unit
LIVE, READY = "/api/skerry/health/live", "/api/skerry/health/ready"


async def doors(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 418})


async def ask(desk: Health, path: str, method: str = "GET") -> tuple[int, Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError

    await desk({"type": "http", "method": method, "path": path}, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"]) if len(sent) > 1 else None


@pytest.fixture
def desk(server: Server, monkeypatch: pytest.MonkeyPatch) -> Health:
    monkeypatch.setattr(Database, "listens", True)
    return Health(doors, server)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[threading.Event]]:
    """How often the database was asked, and what each lets go on."""
    begun: list[threading.Event] = []

    def answers(_self: Database) -> bool:
        begun.append(threading.Event())
        return begun[-1].wait(20)

    monkeypatch.setattr(Database, "answers", answers)
    monkeypatch.setattr(health, "LONGEST", 0.2)
    yield begun
    for one in begun:
        one.set()


def test_alive_and_ready(desk: Health, server: Server) -> None:
    assert asyncio.run(ask(desk, LIVE)) == (200, {"alive": True})
    good = {"ready": True, "database": True, "events": True, "payloads": True, "staying": True}
    assert asyncio.run(ask(desk, READY)) == asyncio.run(ask(desk, READY, "HEAD")) == (200, good)
    server.stopping.set()
    assert asyncio.run(ask(desk, READY)) == (503, {**good, "ready": False, "staying": False})


def test_all_else_is_for_the_doors(desk: Health) -> None:
    for method, path in (("GET", "/api/health"), ("POST", LIVE), ("DELETE", READY), ("GET", f"{READY}/more")):
        assert asyncio.run(ask(desk, path, method)) == (418, None)


def test_a_database_that_hangs_is_asked_once_and_again_when_it_goes_on(
    desk: Health, looks: list[threading.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        for _ in range(2):
            each = await asyncio.gather(*(ask(desk, READY) for _ in range(20)))
            assert each == [(503, {"ready": False, "in_time": False})] * 20
            assert await ask(desk, LIVE) == (200, {"alive": True})
        assert len(looks) == 1
        looks[0].set()
        monkeypatch.setattr(health, "LONGEST", 20)
        assert (await ask(desk, READY))[0] == 200
        monkeypatch.setattr(health, "LONGEST", 0.2)
        await asyncio.sleep(0.1)
        assert (await ask(desk, READY))[0] == 503
        assert len(looks) == 2
        looks[1].set()

    asyncio.run(test())
