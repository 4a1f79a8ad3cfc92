"""What the benches of the server share: a durable PostgreSQL, timed calls, and the line at the end."""

from __future__ import annotations

import http.client
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
from urllib.parse import urlsplit

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
    """One kept connection to the server, as one caller; by the standard library, for it shares the server's machine."""

    def __init__(self, url: str, token: str) -> None:
        at = urlsplit(url)
        self._path = at.path
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._http = http.client.HTTPConnection(str(at.hostname), at.port, timeout=120)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        try:
            return self._ask(method, path, body)
        except ConnectionError:  # the server has closed it meanwhile
            self._http.close()
            return self._ask(method, path, body)

    def _ask(self, method: str, path: str, body: Any) -> Any:
        self._http.request(method, f"{self._path}/{path}", None if body is None else json.dumps(body), self._headers)
        answer = self._http.getresponse()
        raw = answer.read()
        if answer.status not in {200, 201}:
            raise RuntimeError(f"{method} {path}: {answer.status} {raw.decode()}")
        return json.loads(raw)


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
