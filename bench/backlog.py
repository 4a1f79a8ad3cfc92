"""Creating, claiming and listing with 100,000 queued runs and a million finished ones, beside an empty database.

Both are the same server on the same machine, on SQLite and on PostgreSQL; the ratio of the medians is what counts.
QUEUED and FINISHED set other numbers of runs.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import psycopg
from replicas import Replicas, replicas
from serving import Line, folder, median, number, postgresql, report, say

QUEUED, FINISHED, TIMES = number("QUEUED", 100_000), number("FINISHED", 1_000_000), number("TIMES", 31)
NODES, TARGETS = 20, 10
LISTS = {
    "GET /task": "task",
    "GET /task, deep": "task?page={deep}",
    "GET /task?status": "task?status=pending",
    "GET /task?name": "task?name=task-77",
    "GET /task?name=...%": "task?name=task-77%25",
    "GET /task?image": "task?image=image",
    "GET /task?description": "task?description=about%25",
    "GET /task?job_id": "task?job_id=3",
    "GET /task?init_org_id": "task?init_org_id=1",
    "GET /task?init_user_id": "task?init_user_id=1&sort=-id",
    "GET /task?collaboration_id": "task?collaboration_id=1",
    "GET /task?parent_id": "task?parent_id=3",
    "GET /task?run_id": "task?run_id=3",
    "GET /task?is_user_created": "task?is_user_created=1",
    "GET /task?database": "task?database=label",
    "GET /task?database, none": "task?database=none",
    "GET /run": "run",
    "GET /run, deep": "run?page={deep}",
    "GET /run?task_id": "run?task_id=3",
    "GET /run?organization_id": "run?organization_id=2",
    "GET /run?collaboration_id": "run?collaboration_id=1",
    "GET /run?node_id": "run?node_id=2",
    "GET /run?port": "run?port=1234",
    "GET /run?assigned_from": "run?assigned_from=2020-01-01T00:00:00",
    "GET /run?finished_till": "run?finished_till=2020-01-01T00:00:00",
    "GET /run?state=open": "run?state=open",
    "GET /run?state=open, oldest": "run?state=open&sort=id",
}
_FILL = """
INSERT INTO task (id, uuid, creator, fingerprint, name, image, collaboration_id, init_org_id, init_user_id, job_id,
    databases, format, status, created_at, finished_at)
WITH RECURSIVE s(n) AS (SELECT :first UNION ALL SELECT n + 1 FROM s WHERE n < :last)
SELECT n, {uuid}, 'user:1', {uuid}, 'task-' || n, 'image', 1, 1, 1, n, '[{{"label": "label"}}]', 'plain',
    CASE WHEN n <= :done THEN 'completed' ELSE 'pending' END, {now}, CASE WHEN n <= :done THEN {now} END
FROM s;
INSERT INTO task_database (task_id, label)
WITH RECURSIVE s(n) AS (SELECT :first UNION ALL SELECT n + 1 FROM s WHERE n < :last)
SELECT n, 'label' FROM s;
INSERT INTO payload (id, size, inline)
WITH RECURSIVE s(n) AS (SELECT :first * 20 UNION ALL SELECT n + 1 FROM s WHERE n < :last * 20 + 19)
SELECT n, 16, {bytes} FROM s;
INSERT INTO run (id, task_id, organization_id, collaboration_id, node_id, state, attempt, input_id, result_id,
    assigned_at, started_at, finished_at, log, live_log)
WITH RECURSIVE s(n) AS (SELECT :first UNION ALL SELECT n + 1 FROM s WHERE n < :last),
    t(r) AS (SELECT 0 UNION ALL SELECT r + 1 FROM t WHERE r < 9)
SELECT n * 10 + r, n, 2 + (n + r) {rest} 20, 1, 1 + (n + r) {rest} 20,
    CASE WHEN n <= :done THEN 'completed' ELSE 'pending' END, CASE WHEN n <= :done THEN 1 ELSE 0 END,
    n * 20 + r, CASE WHEN n <= :done THEN n * 20 + 10 + r END,
    {later}, CASE WHEN n <= :done THEN {now} END, CASE WHEN n <= :done THEN {later} END, NULL, 0
FROM s, t;
"""
_SQLITE = {
    "uuid": "lower(hex(randomblob(16)))",
    "now": "strftime('%Y-%m-%d %H:%M:%f000', 'now')",
    "later": "strftime('%Y-%m-%d %H:%M:%f000', 'now', (n / 1000.0) || ' seconds')",
    "bytes": "x'00112233445566778899aabbccddeeff'",
    "rest": "%",
}
_POSTGRESQL = {
    "uuid": "gen_random_uuid()::text",
    "now": "now()",
    "later": "now() + n * interval '1 ms'",
    "bytes": "'\\x00112233445566778899aabbccddeeff'::bytea",
    "rest": "%%",
}


def fill(execute: Callable[[str, Mapping[str, int]], object], words: Mapping[str, str]) -> None:
    """Straight into the tables, without the checks of each row's references, which are right."""
    first, done, last = 1000, 1000 + FINISHED // TARGETS, 1000 + (FINISHED + QUEUED) // TARGETS
    for start in range(first, last, 10_000):
        values = {"first": start, "last": min(start + 9_999, last), "done": done}
        for statement in _FILL.format(**words).split(";")[:-1]:
            execute(statement, values)
        say(f"filled up to task {values['last']} of {last}")


def fill_sqlite(file: Path) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        for pragma in ("synchronous=OFF", "foreign_keys=OFF", "cache_size=-500000"):
            connection.execute(f"PRAGMA {pragma}")
        fill(connection.execute, _SQLITE)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def fill_postgresql(connection: psycopg.Connection) -> None:
    connection.execute("SET session_replication_role = replica")
    with psycopg.ClientCursor(connection) as cursor:
        fill(lambda text, values: cursor.execute(re.sub(r"(?<![:\w]):(\w+)", r"%(\1)s", text), values), _POSTGRESQL)
    for table in ("task", "run", "payload"):
        connection.execute(f"SELECT setval('{table}_id_seq', (SELECT max(id) FROM {table}))")  # noqa: S608 - our own names
    connection.execute("VACUUM ANALYZE")
    connection.execute("CHECKPOINT")


def calls(made: Replicas, deep: int) -> Mapping[str, Callable[[], object]]:
    root, node = (Line(made.each[0].url, token) for token in (made.facts["root"], made.facts["nodes"][1]))

    def claim() -> None:
        found = node.ask("POST", "skerry/node/work", {"capacity": 1, "wait": 0, "holding": []})["runs"]
        for run in found:
            body = {"attempt": run["attempt"], "status": "failed", "log": "log"}
            node.ask("POST", f"skerry/run/{run['run']}/finish", body)

    listed = {name: lambda path=path: root.ask("GET", path.format(deep=deep)) for name, path in LISTS.items()}
    return {
        "POST /task, 10 runs": lambda: root.ask("POST", "task", made.task(*range(TARGETS))),
        "claim and end a run": claim,
        **listed,
    }


def measure(made: Replicas, deep: int) -> dict[str, float]:
    """``deep``: the number of a page that is far from the first, where there are as many."""
    return {name: median(call, TIMES) for name, call in calls(made, deep).items()}


def compare(made: Replicas, fill_up: Callable[[], None]) -> tuple[dict[str, float], dict[str, float]]:
    """The times on the empty database, and on the full one."""
    for _ in range(5):
        made.root.ok("POST", "task", made.task(*range(TARGETS)))
    empty = measure(made, 2)
    fill_up()
    return empty, measure(made, 500)


def on_sqlite() -> tuple[dict[str, float], dict[str, float]]:
    with folder() as place, replicas(place, None, count=1, nodes=NODES, balanced=False) as made:
        return compare(made, lambda: fill_sqlite(made.config.with_name("skerry.sqlite")))


def on_postgresql() -> tuple[dict[str, float], dict[str, float]]:
    with postgresql() as database, folder() as place:
        name = database.make_database()
        with (
            replicas(place, database.url(name), count=1, nodes=NODES, balanced=False) as made,
            database.connect(name) as connection,
        ):
            return compare(made, lambda: fill_postgresql(connection))


def tell(name: str, empty: Mapping[str, float], full: Mapping[str, float]) -> None:
    print(f"{name:<28}{'empty':>9}{'full':>9}{'ratio':>8}   milliseconds, medians of {TIMES}")
    ratios = {what: full[what] / before for what, before in empty.items()}
    for what, before in empty.items():
        print(f"{what:<28}{before * 1000:>9.1f}{full[what] * 1000:>9.1f}{ratios[what]:>8.2f}")
    worst = max(ratios, key=lambda what: ratios[what])
    facts = {
        "queued": QUEUED,
        "finished": FINISHED,
        "ratios": {what: round(ratio, 2) for what, ratio in ratios.items()},
    }
    report("backlog", database=name, value=ratios[worst], unit="worst ratio", worst=worst, **facts)


def main() -> None:
    for name, take in {"SQLite": on_sqlite, "PostgreSQL": on_postgresql}.items():
        tell(name, *take())


if __name__ == "__main__":
    main()
