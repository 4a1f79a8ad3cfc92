"""Creating tasks of ten runs, and claiming runs by tens, on SQLite and PostgreSQL, beside the database's raw rate.

The raw rate is that of the same rows in tables of the same kind, with all their indices and references, written by the
same statements in as many durable transactions, by the driver alone and over as many connections, in the same run.
SECONDS sets how long each is measured.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from clusters import Cluster
from replicas import Replicas, replicas
from serving import Line, folder, number, postgresql, report, say

SECONDS, CLIENTS, RUNS = number("SECONDS", 10), 8, 10
NODES = 160
"""Each claims once, as a node does that has nothing yet."""
_HASH, _WRITER = "0" * 64, "raw"


@dataclass(frozen=True)
class Raw:
    """A driver's connection to a founded database of its own. ``mark`` stands for a value."""

    connection: Any
    mark: str
    begin: str
    skip: str
    turn: AbstractContextManager[Any]
    """SQLite's writers poll for the one lock; a queue before it, as the server has one, is quicker."""
    starts: Iterator[int]
    """The index of the first node of each task."""
    facts: dict[str, Any]
    nodes: Sequence[int]
    """The indices of those for which it claims, each once."""

    def found(self) -> None:
        """The one chain to which all write, as processes do that share a state folder."""
        self._insert("audit_head", writer=_WRITER, sequence=0, hash=_HASH)

    def create(self) -> int:
        """A task and its runs, their inputs, an event, and their records in the audit trail."""
        with self.turn:
            self._create(next(self.starts))
        return 1

    def claim(self, index: int) -> int:
        """So many runs are given to a node as there are to give; it was heard of, and they are leased to it."""
        with self.turn:
            return self._claim(index)

    def _create(self, start: int) -> None:
        self._ask(self.begin)
        now = datetime(2026, 1, 1)  # noqa: DTZ001 - as the tables keep it
        task = self._add(
            "task",
            uuid=str(uuid.uuid4()),
            creator="user:1",
            fingerprint=_HASH,
            image="image",
            collaboration_id=self.facts["collaboration"],
            init_org_id=1,
            init_user_id=1,
            databases="[]",
            format="plain",
            status="pending",
            created_at=now,
        )
        self._ask(f"UPDATE task SET job_id = {self.mark} WHERE id = {self.mark}", task, task)  # noqa: S608 - marks
        for index in range(start, start + RUNS):
            payload = self._add("payload", size=2, inline=b"{}")
            self._add(
                "run",
                task_id=task,
                organization_id=self.facts["organizations"][index],
                input_id=payload,
                collaboration_id=self.facts["collaboration"],
                node_id=self.facts["node_ids"][index],
                state="pending",
                attempt=0,
                assigned_at=now,
                live_log=0,
            )
        self._end(RUNS + 1, now)

    def _claim(self, index: int) -> int:
        self._ask(self.begin)
        now = datetime(2026, 1, 1)  # noqa: DTZ001 - as above
        text = f"UPDATE node SET online = true, last_seen = {self.mark} WHERE id = {self.mark}"  # noqa: S608
        self._ask(text, now, self.facts["node_ids"][index])
        text = (
            f"SELECT id, task_id FROM run WHERE state = 'pending' AND organization_id = {self.mark} "  # noqa: S608
            f"AND collaboration_id = {self.mark} ORDER BY id LIMIT {RUNS} {self.skip}"
        )
        found = self._ask(text, self.facts["organizations"][index], self.facts["collaboration"]).fetchall()
        changed = f"state = 'initializing', attempt = 1, started_at = {self.mark}, lease_expires = {self.mark}"
        for run, _ in found:
            self._ask(f"UPDATE run SET {changed} WHERE id = {self.mark}", now, now, run)  # noqa: S608 - marks
        for task in sorted({task for _, task in found}):
            self._ask(f"UPDATE task SET status = 'initializing' WHERE id = {self.mark}", task)  # noqa: S608 - marks
        if found:
            self._end(len(found), now)
        else:
            self._ask("ROLLBACK")
        return len(found)

    def _end(self, records: int, now: datetime) -> None:
        """What was announced and recorded, and the commit."""
        self._add("event", at=now, topics="[]")
        lock = "" if self.skip == "" else "FOR UPDATE"
        head = self._ask(f"SELECT sequence FROM audit_head WHERE writer = {self.mark} {lock}", _WRITER)  # noqa: S608
        [sequence] = head.fetchone()
        for number_ in range(sequence + 1, sequence + records + 1):
            self._insert(
                "audit",
                writer=_WRITER,
                sequence=number_,
                previous=_HASH,
                time=now.isoformat(),
                actor_kind="user",
                actor_id=1,
                action="run.create",
                object_kind="run",
                object_id=1,
                organization_id=1,
                collaboration_id=1,
                task_id=1,
                run_id=number_,
                details='{"state": "pending"}',
                hash=_HASH,
            )
        text = f"UPDATE audit_head SET sequence = {self.mark} WHERE writer = {self.mark}"  # noqa: S608 - marks
        self._ask(text, sequence + records, _WRITER)
        self._ask("COMMIT")

    def _add(self, table: str, **values: Any) -> int:
        [id_] = self._insert(table, " RETURNING id", **values).fetchone()
        return int(id_)

    def _insert(self, table: str, more: str = "", **values: Any) -> Any:
        marks = ", ".join([self.mark] * len(values))
        text = f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks}){more}"  # noqa: S608 - our own names
        return self._ask(text, *values.values())

    def _ask(self, text: str, *values: Any) -> Any:
        return self.connection.execute(text, values)


def rate(actions: Sequence[Callable[[], int]]) -> float:
    """How much all of them did each second, each in a thread of its own, until the time is up or nothing is left."""
    deadline = time.perf_counter() + SECONDS

    def repeat(action: Callable[[], int]) -> int:
        count, found = 0, 1
        while found and time.perf_counter() < deadline:
            count += (found := action())
        return count

    began = time.perf_counter()
    with ThreadPoolExecutor(len(actions)) as pool:
        total = sum(pool.map(repeat, actions))
    return total / (time.perf_counter() - began)


def claims(take: Callable[[int], int], indices: Sequence[int]) -> Callable[[], int]:
    """Claims for the next of these nodes; nothing when there is none."""
    left = iter(indices)
    return lambda: take(found) if (found := next(left, None)) is not None else 0


def shares() -> list[range]:
    """Each client's nodes."""
    return [range(first, NODES, CLIENTS) for first in range(CLIENTS)]


def raw_sqlite(made: Replicas) -> list[Raw]:
    def connect(nodes: range) -> Raw:
        file = made.config.with_name("skerry.sqlite")
        connection = sqlite3.connect(file, timeout=60, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")
        return Raw(connection, "?", "BEGIN IMMEDIATE", "", turn, starts, made.facts, nodes)

    turn, starts = threading.Lock(), itertools.cycle(range(0, NODES, RUNS))
    sqlite3.register_adapter(datetime, datetime.isoformat)
    return [connect(nodes) for nodes in shares()]


def raw_postgresql(cluster: Cluster, name: str, made: Replicas) -> list[Raw]:
    def connect(nodes: range) -> Raw:
        connection: psycopg.Connection = cluster.connect(name)
        return Raw(connection, "%s", "BEGIN", "FOR UPDATE SKIP LOCKED", nullcontext(), starts, made.facts, nodes)

    starts = itertools.cycle(range(0, NODES, RUNS))
    return [connect(nodes) for nodes in shares()]


def alone(raw: list[Raw]) -> dict[str, float]:
    """What the driver does each second."""
    raw[0].found()
    created = rate([one.create for one in raw])
    return {"raw_tasks": created, "raw_claims": rate([claims(one.claim, one.nodes) for one in raw])}


def served(made: Replicas) -> dict[str, float]:
    """Tasks created and runs claimed each second, over HTTP."""
    urls = itertools.cycle([replica.url for replica in made.each])
    roots = [Line(next(urls), made.facts["root"]) for _ in range(CLIENTS)]
    nodes = [Line(next(urls), token) for token in made.facts["nodes"]]
    starts = itertools.cycle(range(0, NODES, RUNS))

    def create(root: Line) -> int:
        start = next(starts)
        root.ask("POST", "task", made.task(*range(start, start + RUNS)))
        return 1

    def claim(index: int) -> int:
        body = {"capacity": RUNS, "wait": 0, "holding": []}
        return len(nodes[index].ask("POST", "skerry/node/work", body)["runs"])

    created = rate([lambda root=root: create(root) for root in roots])
    return {"tasks": created, "claims": rate([claims(claim, share) for share in shares()])}


def on_sqlite() -> dict[str, float]:
    with folder() as place, replicas(place, None, count=1, nodes=NODES, balanced=False) as made:
        found = served(made)
    with folder() as place, replicas(place, None, count=0, nodes=NODES, balanced=False) as made:
        return found | alone(raw_sqlite(made))


def on_postgresql(cluster: Cluster) -> dict[str, float]:
    name = cluster.make_database()
    with folder() as place, replicas(place, cluster.url(name), nodes=NODES, balanced=False) as made:
        found = served(made)
    name = cluster.make_database()
    with folder() as place, replicas(place, cluster.url(name), count=0, nodes=NODES, balanced=False) as made:
        return found | alone(raw_postgresql(cluster, name, made))


def main() -> None:
    found = {"SQLite": on_sqlite()}
    say("SQLite is measured")
    with postgresql() as cluster:
        found["PostgreSQL, 2 replicas"] = on_postgresql(cluster)
    print(f"{'each second':<26}{'tasks':>9}{'raw':>9}{'ratio':>8}{'claims':>9}{'raw':>9}{'ratio':>8}")
    for name, rates in found.items():
        cells = [rates["tasks"], rates["raw_tasks"], rates["claims"], rates["raw_claims"]]
        tasks, raw_tasks, claimed, raw_claims = cells
        ratios = tasks / raw_tasks, claimed / raw_claims
        print(
            f"{name:<26}{tasks:>9.1f}{raw_tasks:>9.1f}{ratios[0]:>8.2f}{claimed:>9.1f}{raw_claims:>9.1f}{ratios[1]:>8.2f}"
        )
        rounded = json.loads(json.dumps(rates), parse_float=lambda text: round(float(text), 1))
        report("throughput", database=name, value=ratios[0], unit="of the raw rate", claims_ratio=ratios[1], **rounded)


if __name__ == "__main__":
    main()
