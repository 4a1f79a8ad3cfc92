"""A thousand simulated nodes at two replicas behind HAProxy: how fast a task reaches one, and what a restart does.

The nodes are real HTTP clients with a connection each; they make the long call, and wait after a failure, as a node
does. NODES and TASKS set other numbers.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from clusters import Cluster
from replicas import Replicas, replicas
from serving import folder, number, postgresql, report, say

from skerry_node.server import WAIT_SECONDS, BackOff

NODES, TASKS = number("NODES", 1000), number("TASKS", 200)
QUIET_SECONDS = 20.0
HEAD = re.compile(rb"^HTTP/1.1 (\d+).*?content-length: (\d+)", re.DOTALL | re.IGNORECASE)


@dataclass
class Crowd:
    """What all the nodes saw: when each task's run came, and how their calls ended."""

    url: str
    arrivals: dict[str, float] = field(default_factory=dict)
    answers: Counter[int] = field(default_factory=Counter)

    async def node(self, token: str) -> None:
        """One node, until it is cancelled: takes each run and ends it."""
        pauses, line = BackOff(), Wire(self.url, token)
        while True:
            try:
                status, found = await line.post("skerry/node/work", {"capacity": 5, "wait": WAIT_SECONDS})
                self.answers[status] += 1
                for run in found["runs"] if status == 200 else ():
                    self.arrivals[run["task"]["uuid"]] = time.perf_counter()
                    await line.post(f"skerry/run/{run['run']}/finish", {"attempt": run["attempt"], "status": "failed"})
            except (OSError, asyncio.IncompleteReadError):
                self.answers[0] += 1
                line.drop()
                status = 0
            if status == 200:
                pauses.reset()
            else:
                await asyncio.sleep(pauses.pause())


class Wire:
    """One kept connection."""

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        self._address, self._path, self._token = (parts.hostname, parts.port), parts.path, token
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        return await self.send("POST", path, json.dumps(body).encode())

    async def send(self, method: str, path: str, content: bytes = b"") -> tuple[int, Any]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
        reader, writer = self._streams
        lines = [f"{method} {self._path}/{path} HTTP/1.1", "Host: x", f"Authorization: Bearer {self._token}"]
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}", "", ""]
        writer.write("\r\n".join(lines).encode() + content)
        head = await reader.readuntil(b"\r\n\r\n")
        found = HEAD.match(head)
        if found is None or b"connection: close" in head.lower():
            self.drop()
        if found is None:
            return int(head.split()[1]), None
        answer = await reader.readexactly(int(found[2]))
        return int(found[1]), json.loads(answer) if found[1] == b"200" or found[1] == b"201" else None

    def drop(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class User:
    """Asks for a list five times a second, and notes when that failed."""

    def __init__(self, url: str, token: str) -> None:
        self._line = Wire(url, token)
        self.failed: list[float] = []

    async def look(self) -> None:
        while True:
            try:
                status, _ = await self._line.send("GET", "task?per_page=1")
            except (OSError, asyncio.IncompleteReadError):
                self._line.drop()
                status = 0
            if status >= 500 or not status:
                self.failed.append(time.perf_counter())
            await asyncio.sleep(0.2)


async def until(condition: Callable[[], bool], seconds: float) -> float:
    """How long it took; raises TimeoutError."""
    began = time.perf_counter()
    while not await asyncio.to_thread(condition):
        if time.perf_counter() - began > seconds:
            raise TimeoutError
        await asyncio.sleep(0.2)
    return time.perf_counter() - began


def heard_since(cluster: Cluster, database: str, moment: str) -> int:
    with cluster.connect(database) as connection:
        row = connection.execute("SELECT count(*) FROM node WHERE online AND last_seen > %s", [moment]).fetchone()
    return int(row[0]) if row else 0


def clock(cluster: Cluster, database: str) -> str:
    with cluster.connect(database) as connection:
        row = connection.execute("SELECT (now() AT TIME ZONE 'UTC')::text").fetchone()
    return str(row[0]) if row else ""


async def dispatch(made: Replicas, crowd: Crowd) -> list[float]:
    """Seconds from sending a task's creation to its run's arrival at the node."""
    root, sent = Wire(made.balancer, made.facts["root"]), {}
    for _ in range(TASKS):
        body = made.task(random.randrange(NODES))  # noqa: S311 - a choice, no secret
        sent[body["uuid"]] = time.perf_counter()
        await root.post("task", body)
        await asyncio.sleep(0.05)
    await until(lambda: set(sent) <= set(crowd.arrivals), 60)
    return [crowd.arrivals[uuid] - moment for uuid, moment in sent.items()]


def used(made: Replicas) -> tuple[float, float]:
    """Seconds of processor and megabytes of memory of all replicas."""
    processor = memory = 0.0
    for replica in made.each:
        if replica.process is not None:
            fields = Path(f"/proc/{replica.process.pid}/stat").read_text().rpartition(")")[2].split()
            processor += (int(fields[11]) + int(fields[12])) / 100
            status = Path(f"/proc/{replica.process.pid}/status").read_text()
            memory += int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024
    return processor, memory


async def restart(made: Replicas, back: Callable[[], bool], user: User) -> tuple[float, float]:
    """Both replicas are killed at once and started: seconds until all nodes are back, and to users' last failure."""
    began = time.perf_counter()
    for replica in made.each:
        replica.end(signal.SIGKILL)
    await asyncio.gather(*(asyncio.to_thread(replica.start) for replica in made.each))
    say(f"both replicas serve again after {time.perf_counter() - began:.1f} s")
    await until(back, 180)
    taken = time.perf_counter() - began
    await asyncio.sleep(5)
    return taken, max((moment - began for moment in user.failed if moment > began), default=0.0)


async def scenario(made: Replicas, cluster: Cluster, database: str) -> dict[str, Any]:
    crowd, user = Crowd(made.balancer), User(made.balancer, made.facts["root"])
    first = clock(cluster, database)
    running = [asyncio.create_task(crowd.node(token)) for token in made.facts["nodes"]]
    connected = await until(lambda: heard_since(cluster, database, first) == NODES, 180)
    say(f"{NODES} nodes are connected after {connected:.1f} s")
    running.append(asyncio.create_task(user.look()))
    processor, _ = used(made)
    await asyncio.sleep(QUIET_SECONDS)
    idle = (used(made)[0] - processor) / QUIET_SECONDS
    delays = sorted(await dispatch(made, crowd))
    _, memory = used(made)
    second = clock(cluster, database)
    back, last = await restart(made, lambda: heard_since(cluster, database, second) == NODES, user)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    return {
        "connected_s": connected,
        "dispatch_p50_s": statistics.median(delays),
        "dispatch_p95_s": delays[int(0.95 * len(delays))],
        "dispatch_max_s": delays[-1],
        "back_after_restart_s": back,
        "last_user_failure_s": last,
        "memory_mb": memory,
        "idle_cores": idle,
    }


def main() -> None:
    with postgresql() as cluster, folder() as place:
        name = cluster.make_database()
        with replicas(place, cluster.url(name), nodes=NODES) as made:
            facts = asyncio.run(scenario(made, cluster, name))
    for what, value in facts.items():
        print(f"{what:<24}{value:>10.3f}")
    report("nodes", value=facts["dispatch_p95_s"], unit="s", nodes=NODES, replicas=2, tasks=TASKS, **facts)


if __name__ == "__main__":
    main()
