"""What a scrape is told while the database hangs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from clusters import free_port
from flask import Flask

from skerry_server import health, metrics
from skerry_server.database import Database
from skerry_server.server import Server
from skerry_server.settings import Metrics

pytestmark = pytest.mark.unit


@pytest.fixture
def url(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Database, "listens", True)
    monkeypatch.setattr(health, "LONGEST", 0.2)
    port = free_port()
    stop = metrics.serve(Metrics(port=port), server, Flask("nothing"), lambda: 7)
    yield f"http://127.0.0.1:{port}/metrics"
    stop()


def scrape(url: str) -> list[str]:
    return requests.get(url, timeout=20).text.splitlines()


def test_a_scrape_does_not_wait_for_a_database_that_hangs(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on, looks = threading.Event(), list[int]()

    def answers(_self: Database) -> bool:
        looks.append(1)
        return goes_on.wait(60)

    with monkeypatch.context() as hanging:
        hanging.setattr(Database, "answers", answers)
        with ThreadPoolExecutor(8) as threads:
            for told in threads.map(scrape, [url] * 8):
                assert 'skerry_ready{what="in_time"} 0.0' in told
                assert "skerry_waiting_calls 7.0" in told
                assert not any(line.startswith("skerry_open_runs{") for line in told)
        assert len(looks) == 1
        goes_on.set()
    monkeypatch.setattr(health, "LONGEST", 20)
    told = scrape(url)
    assert 'skerry_ready{what="database"} 1.0' in told
    assert 'skerry_open_runs{state="pending"} 0.0' in told
