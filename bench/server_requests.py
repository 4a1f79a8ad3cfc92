"""What the server answers a second, and how long a caller waits, at 1, 8 and 32 connections, on SQLite.

The callers are threads of this process, on the same machine as the server, each with a connection of its own. Tasks go
to an organization whose node is played here, so nothing is started. The reference is vantage6 4.15.2 under its
production server on the reference machine, at 8 connections (SQLite): a number of the past, not of this run.
`TASKS=100000 make bench-requests` fills the database further first, `EACH=2` looks for so many seconds at each.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import statistics
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import measuring

from skerry import UserClient

TASKS = int(os.environ.get("TASKS", "1000"))
EACH = float(os.environ.get("EACH", "5"))
CONNECTIONS = (1, 8, 32)
_VANTAGE6 = {"POST /task": 20, "GET /task": 25, "GET /run": 10}
_INPUT = base64.b64encode(json.dumps({"method": "noop"}).encode()).decode()


@dataclass(frozen=True, slots=True)
class Place:
    """The server, and where in it the tasks go."""

    host: str
    port: int
    path: str
    user: str
    node: str
    collaboration: int
    organization: int


class Caller:
    """One connection."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._http = http.client.HTTPConnection(place.host, place.port)

    def ask(self, method: str, path: str, body: Any = None, *, node: bool = False) -> Any:
        token = self.place.node if node else self.place.user
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._http.request(method, f"{self.place.path}/{path}", None if body is None else json.dumps(body), headers)
        answer = self._http.getresponse()
        raw = answer.read()
        assert answer.status < 300, (answer.status, raw)
        return json.loads(raw)

    def create(self) -> Any:
        target = {"id": self.place.organization, "input": _INPUT}
        body = {"uuid": str(uuid.uuid4()), "image": "noop", "collaboration_id": self.place.collaboration}
        return self.ask("POST", "task", {**body, "organizations": [target]})

    def claim_and_report(self) -> None:
        """One claim, and one report of the run's state."""
        for run in self.ask("POST", "skerry/node/work", {"capacity": 1, "wait": 0}, node=True)["runs"][:1]:
            report = {"attempt": run["attempt"], "status": "active"}
            self.ask("POST", f"skerry/run/{run['run']}/status", report, node=True)


CALLS: dict[str, Callable[[Caller], object]] = {
    "POST /task": Caller.create,
    "GET /task": lambda caller: caller.ask("GET", "task?per_page=10"),
    "GET /run": lambda caller: caller.ask("GET", "run?per_page=10"),
    "claim and status": Caller.claim_and_report,
}


def found(client: UserClient, facts: dict[str, Any]) -> Place:
    """A collaboration of its own, that is not encrypted, with a node that is played here."""
    organization = client.organization_id
    together = client.collaboration.create(name=f"bench {uuid.uuid4()}", organizations=[organization], encrypted=False)
    made = client.node.create(collaboration=together["id"], organization=organization)
    host, _, port = facts["server"]["url"].removeprefix("http://").rpartition(":")
    path = facts["server"]["api_path"]
    place = Place(host, int(port), path, client.token, "", int(together["id"]), organization)
    node = Caller(place).ask("POST", "token/node", {"api_key": made["api_key"]})["access_token"]
    return Place(host, int(port), path, client.token, node, place.collaboration, organization)


def rate(place: Place, call: Callable[[Caller], object], connections: int) -> tuple[float, float]:
    """Answers a second, and the seconds that 95% of them stay below."""
    end, taken, lock = time.perf_counter() + EACH, list[float](), threading.Lock()

    def go_on() -> None:
        caller, own = Caller(place), list[float]()
        while time.perf_counter() < end:
            own.append(measuring.seconds(lambda: call(caller)))
        with lock:
            taken.extend(own)

    threads = [threading.Thread(target=go_on) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(taken) / EACH, statistics.quantiles(taken, n=20)[-1] if len(taken) > 1 else taken[0]


def measure() -> dict[str, dict[int, tuple[float, float]]]:
    with measuring.federation(1) as made:
        place = found(made.client(), made.facts)
        filler = Caller(place)
        for _ in range(TASKS):
            filler.create()
        return {name: {n: rate(place, call, n) for n in CONNECTIONS} for name, call in CALLS.items()}


def report(rates: dict[str, dict[int, tuple[float, float]]]) -> None:
    head = [f"a second (p95 in ms), {TASKS} tasks", *(f"{n} connections" for n in CONNECTIONS)]
    rows = [
        [name, *(f"{many:.0f} ({late * 1000:.0f})" for many, late in found.values())] for name, found in rates.items()
    ]
    measuring.table(head, rows)
    for name, found in rates.items():
        if name in _VANTAGE6:
            many, late = found[8]
            reference = "vantage6 4.15.2 at 8 connections, measured earlier"
            measuring.tell(name, many, "1/s", reference, _VANTAGE6[name], p95=round(late, 4), tasks=TASKS)


if __name__ == "__main__":
    report(measure())
