"""Creating tasks of ten runs, and claiming runs by tens, on SQLite and PostgreSQL, beside the database's raw rate.

The raw rate is that of the same rows in the same transactions, durable, by the driver alone and as many connections,
measured in the same run. SECONDS sets how long each is measured.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from clusters import Cluster
from replicas import Replicas, replicas
from serving import Line, folder, number, postgresql, report, say

SECONDS, CLIENTS, RUNS = number("SECONDS", 10), 8, 10
_TABLES = (
    "CREATE TABLE raw_task (id {serial}, uuid varchar(36) UNIQUE, image varchar(1024), status varchar(32), made text)",
    "CREATE TABLE raw_payload (id {serial}, size bigint, content {bytes})",
    "CREATE TABLE raw_run (id {serial}, task integer, payload integer, organization integer, state varchar(32))",
    "CREATE INDEX raw_run_state ON raw_run (state, id)",
    "CREATE INDEX raw_run_task ON raw_run (task)",
    "CREATE TABLE raw_audit (id {serial}, details text, hash varchar(64))",
)


@dataclass(frozen=True)
class Raw:
    """A driver's connection to the tables of the reference. ``mark`` stands for a value."""

    connection: Any
    mark: str
    begin: str
    skip: str

    def create(self) -> int:
        """A task and its runs, their inputs and their records in the audit trail."""
        cursor, marks = self.connection.cursor(), ", ".join([self.mark] * 4)
        cursor.execute(self.begin)
        values = (str(uuid.uuid4()), "image", "pending", "2026-01-01")
        text = f"INSERT INTO raw_task (uuid, image, status, made) VALUES ({marks}) RETURNING id"  # noqa: S608 - marks
        task = cursor.execute(text, values).fetchone()[0]
        for organization in range(RUNS):
            text = f"INSERT INTO raw_payload (size, content) VALUES ({self.mark}, {self.mark}) RETURNING id"  # noqa: S608
            payload = cursor.execute(text, (2, b"{}")).fetchone()[0]
            text = f"INSERT INTO raw_run (task, payload, organization, state) VALUES ({marks})"  # noqa: S608
            cursor.execute(text, (task, payload, organization, "pending"))
        self._record(cursor, RUNS + 1)
        cursor.execute("COMMIT")
        return 1

    def claim(self) -> int:
        """So many runs are given out as there were to give."""
        cursor = self.connection.cursor()
        cursor.execute(self.begin)
        text = f"SELECT id FROM raw_run WHERE state = 'pending' ORDER BY id LIMIT {RUNS} {self.skip}"  # noqa: S608
        ids = [row[0] for row in cursor.execute(text).fetchall()]
        for id_ in ids:
            cursor.execute(f"UPDATE raw_run SET state = 'initializing' WHERE id = {self.mark}", (id_,))  # noqa: S608
        self._record(cursor, len(ids))
        cursor.execute("COMMIT")
        return len(ids)

    def _record(self, cursor: Any, times: int) -> None:
        text = f"INSERT INTO raw_audit (details, hash) VALUES ({self.mark}, {self.mark})"  # noqa: S608
        for _ in range(times):
            cursor.execute(text, ('{"state": "pending"}', "0" * 64))


def rate(actions: list[Callable[[], int]]) -> float:
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


def raw_sqlite(place: Path) -> list[Raw]:
    def connect() -> Raw:
        connection = sqlite3.connect(place / "raw.sqlite", timeout=60, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        return Raw(connection, "?", "BEGIN IMMEDIATE", "")

    made = [connect() for _ in range(CLIENTS)]
    for table in _TABLES:
        made[0].connection.execute(table.format(serial="integer PRIMARY KEY AUTOINCREMENT", bytes="blob"))
    return made


def raw_postgresql(cluster: Cluster) -> list[Raw]:
    name = cluster.make_database()

    def connect() -> Raw:
        connection: psycopg.Connection = cluster.connect(name)
        return Raw(connection, "%s", "BEGIN", "FOR UPDATE SKIP LOCKED")

    made = [connect() for _ in range(CLIENTS)]
    for table in _TABLES:
        made[0].connection.execute(table.format(serial="serial PRIMARY KEY", bytes="bytea"))
    return made


def served(made: Replicas) -> tuple[float, float]:
    """Tasks created and runs claimed each second, over HTTP."""
    urls = itertools.cycle([replica.url for replica in made.each])
    roots = [Line(next(urls), made.facts["root"]) for _ in range(CLIENTS)]
    nodes = [Line(next(urls), token) for token in made.facts["nodes"][:CLIENTS]]

    def create(root: Line) -> int:
        root.ask("POST", "task", made.task(*range(RUNS)))
        return 1

    def claim(node: Line) -> int:
        return len(node.ask("POST", "skerry/node/work", {"capacity": RUNS, "wait": 0, "holding": []})["runs"])

    created = rate([lambda root=root: create(root) for root in roots])
    return created, rate([lambda node=node: claim(node) for node in nodes])


def measure(raw: list[Raw], made: Replicas) -> dict[str, float]:
    created, claimed = served(made)
    return {
        "tasks": created,
        "raw_tasks": rate([one.create for one in raw]),
        "claims": claimed,
        "raw_claims": rate([one.claim for one in raw]),
    }


def main() -> None:
    found = {}
    with folder() as place, replicas(place, None, count=1, nodes=RUNS, balanced=False) as made:
        found["SQLite"] = measure(raw_sqlite(place), made)
    say("SQLite is measured")
    with postgresql() as cluster, folder() as place:
        url = cluster.url(cluster.make_database())
        with replicas(place, url, nodes=RUNS, balanced=False) as made:
            found["PostgreSQL, 2 replicas"] = measure(raw_postgresql(cluster), made)
    print(f"{'each second':<26}{'tasks':>9}{'raw':>9}{'ratio':>8}{'claims':>9}{'raw':>9}{'ratio':>8}")
    for name, rates in found.items():
        cells = [rates["tasks"], rates["raw_tasks"], rates["claims"], rates["raw_claims"]]
        tasks, raw_tasks, claims, raw_claims = cells
        ratios = tasks / raw_tasks, claims / raw_claims
        print(
            f"{name:<26}{tasks:>9.1f}{raw_tasks:>9.1f}{ratios[0]:>8.2f}{claims:>9.1f}{raw_claims:>9.1f}{ratios[1]:>8.2f}"
        )
        rounded = json.loads(json.dumps(rates), parse_float=lambda text: round(float(text), 1))
        report("throughput", database=name, value=ratios[0], unit="of the raw rate", claims_ratio=ratios[1], **rounded)


if __name__ == "__main__":
    main()
