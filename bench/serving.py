"""What the benches of the server share: a durable PostgreSQL, timed calls, and the line at the end."""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from clusters import Cluster, cluster

PROGRAMS = Path("/usr/lib/postgresql/15/bin")


def number(name: str, default: int) -> int:
    """From the environment: how much of something."""
    return int(os.environ.get(name, default))


@contextmanager
def postgresql() -> Iterator[Cluster]:
    """What it acknowledges survives a power cut, as in production."""
    with cluster(PROGRAMS, durable=True, options="-c shared_buffers=512MB -c max_wal_size=4GB") as made:
        yield made


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="skerry-bench-") as name:
        yield Path(name)


class Line:
    """One kept connection to the server, as one caller."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {token}"

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        answer = self._session.request(method, f"{self._url}/{path}", json=body, timeout=120)
        if not answer.ok:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json()


def median(action: Callable[[], object], times: int) -> float:
    """Seconds, after one that does not count."""
    action()
    return statistics.median(seconds(action) for _ in range(times))


def seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def say(line: str) -> None:
    print(f"bench: {line}", file=sys.stderr, flush=True)


def report(name: str, **facts: Any) -> None:
    rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in facts.items()}
    print(f"bench: {json.dumps({'name': name, **rounded})}", flush=True)
