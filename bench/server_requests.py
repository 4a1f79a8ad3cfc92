"""What the server answers a second, and how long a caller waits, at 1, 8 and 32 connections, on SQLite and PostgreSQL.

The callers are threads of this process, on the same machine as the server, each with a connection of its own. Tasks go
to an organization whose node is played here, so nothing is started. The reference is vantage6 4.15.2 under its
production server on the reference machine, at 8 connections (SQLite; PostgreSQL was no faster): a number of the past,
not of this run. Each database is used by one process of the server, then by two that share the address. `TASKS=100000
make bench-requests` fills the databases further first, `EACH=2` looks for so many seconds at each.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import measuring
from replicas import Replicas, replicas
from serving import Line, folder, postgresql, say

TASKS = int(os.environ.get("TASKS", "1000"))
EACH = float(os.environ.get("EACH", "3"))
CONNECTIONS = (1, 8, 32)
_NOTHING = "e30="
_VANTAGE6 = {"POST /task": 20, "GET /task": 25, "GET /run": 10}

Found = dict[str, dict[int, tuple[float, float]]]
"""Of each call, at so many connections: answers a second, and the seconds that 95% of them stay below."""


class Caller:
    """A connection of a user, and one of a node of its own."""

    def __init__(self, server: Replicas, number: int) -> None:
        self._server = server
        self._number = number
        self._user = Line(server.root.url, server.root.token)
        self._node = Line(server.root.url, server.node(number).token)

    def create(self) -> Any:
        return self._user.ask("POST", "task", self._server.task(self._number))

    def list_tasks(self) -> Any:
        return self._user.ask("GET", "task?per_page=10")

    def list_runs(self) -> Any:
        return self._user.ask("GET", "run?per_page=10")

    def run(self) -> None:
        """What a node says of each run: it claims it, reports its start, and its end."""
        [run] = self._node.ask("POST", "skerry/node/work", {"capacity": 1, "wait": 0})["runs"] or [None]
        if run is not None:
            path, attempt = f"skerry/run/{run['run']}", run["attempt"]
            self._node.ask("POST", f"{path}/status", {"attempt": attempt, "status": "active"})
            self._node.ask("POST", f"{path}/finish", {"attempt": attempt, "status": "completed", "result": _NOTHING})


CALLS: dict[str, Callable[[Caller], object]] = {
    "POST /task": Caller.create,
    "GET /task": Caller.list_tasks,
    "GET /run": Caller.list_runs,
    "claim, status, end": Caller.run,
}


def rate(server: Replicas, call: Callable[[Caller], object], connections: int) -> tuple[float, float]:
    end, taken, lock = time.perf_counter() + EACH, list[float](), threading.Lock()

    def go_on(number: int) -> None:
        caller, own = Caller(server, number), list[float]()
        while time.perf_counter() < end:
            own.append(measuring.seconds(lambda: call(caller)))
        with lock:
            taken.extend(own)

    threads = [threading.Thread(target=go_on, args=[number]) for number in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(taken) / EACH, statistics.quantiles(taken, n=20)[-1] if len(taken) > 1 else taken[0]


def measure(database: str | None, processes: int = 1) -> Found:
    plan = {"count": 1, "nodes": max(CONNECTIONS), "balanced": False, "settings": f"processes: {processes}"}
    with folder() as place, replicas(place, database, **plan) as server:
        fillers = [Caller(server, number) for number in range(max(CONNECTIONS))]
        for number in range(TASKS):
            fillers[number % len(fillers)].create()
        return {name: {n: rate(server, call, n) for n in CONNECTIONS} for name, call in CALLS.items()}


def report(database: str, rates: Found) -> None:
    head = [f"{database}: a second (p95 in ms), {TASKS} tasks", *(f"{n} connections" for n in CONNECTIONS)]
    rows = [
        [name, *(f"{many:.0f} ({late * 1000:.0f})" for many, late in found.values())] for name, found in rates.items()
    ]
    measuring.table(head, rows)
    for name, found in rates.items():
        if name in _VANTAGE6:
            many, late = found[8]
            reference = "vantage6 4.15.2 at 8 connections, measured earlier"
            facts = {"database": database, "p95": round(late, 4), "tasks": TASKS}
            measuring.tell(name, many, "1/s", reference, _VANTAGE6[name], **facts)


def main() -> None:
    with postgresql() as made:
        for name, url in (("SQLite", lambda: None), ("PostgreSQL", lambda: made.url(made.make_database()))):
            for processes in (1, 2):
                what = name if processes == 1 else f"{name}, {processes} processes"
                report(what, measure(url(), processes))
                say(f"{what}: measured")


if __name__ == "__main__":
    main()
