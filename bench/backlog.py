"""Creating, claiming and listing with 100,000 queued runs and a million finished ones, beside an empty PostgreSQL.

Both are the same server on the same machine; the ratio of the medians is what counts. QUEUED and FINISHED set other
numbers of runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

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
    "GET /task?job_id": "task?job_id=3",
    "GET /task?init_user_id": "task?init_user_id=1&sort=-id",
    "GET /run": "run",
    "GET /run, deep": "run?page={deep}",
    "GET /run?task_id": "run?task_id=3",
    "GET /run?organization_id": "run?organization_id=2",
    "GET /run?state=open": "run?state=open",
    "GET /run?state=open, oldest": "run?state=open&sort=id",
}
_FILL = """
INSERT INTO task (id, uuid, creator, fingerprint, name, image, collaboration_id, init_org_id, init_user_id, job_id,
    databases, format, status, created_at, finished_at)
SELECT n, gen_random_uuid()::text, 'user:1', md5(n::text), 'task-' || n, 'image', 1, 1, 1, n, '[]', 'plain',
    CASE WHEN n <= %(done)s THEN 'completed' ELSE 'pending' END, now(),
    CASE WHEN n <= %(done)s THEN now() END
FROM generate_series(%(first)s, %(last)s) AS n;
INSERT INTO payload (id, size, inline)
SELECT n, 16, '\\x00112233445566778899aabbccddeeff' FROM generate_series(%(first)s * 20, %(last)s * 20 + 19) AS n;
INSERT INTO run (id, task_id, organization_id, collaboration_id, node_id, state, attempt, input_id, result_id,
    assigned_at, started_at, finished_at, log, live_log)
SELECT t * 10 + r, t, 2 + (t + r) %% 20, 1, 1 + (t + r) %% 20,
    CASE WHEN t <= %(done)s THEN 'completed' ELSE 'pending' END, CASE WHEN t <= %(done)s THEN 1 ELSE 0 END,
    t * 20 + r, CASE WHEN t <= %(done)s THEN t * 20 + 10 + r END,
    now() + t * interval '1 ms', CASE WHEN t <= %(done)s THEN now() END,
    CASE WHEN t <= %(done)s THEN now() + t * interval '1 ms' END, NULL, 0
FROM generate_series(%(first)s, %(last)s) AS t, generate_series(0, 9) AS r;
"""


def fill(connection: psycopg.Connection) -> None:
    """Straight into the tables, without the checks of each row's references, which are right."""
    first, done, last = 1000, 1000 + FINISHED // TARGETS, 1000 + (FINISHED + QUEUED) // TARGETS
    connection.execute("SET session_replication_role = replica")
    for start in range(first, last, 10_000):
        values = {"first": start, "last": min(start + 9_999, last), "done": done}
        with psycopg.ClientCursor(connection) as cursor:
            cursor.execute(_FILL, values)
        say(f"filled up to task {values['last']} of {last}")
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


def main() -> None:
    with postgresql() as database, folder() as place:
        name = database.make_database()
        with replicas(place, database.url(name), count=1, nodes=NODES, balanced=False) as made:
            for _ in range(5):
                made.root.ok("POST", "task", made.task(*range(TARGETS)))
            empty = measure(made, 2)
            with database.connect(name) as connection:
                fill(connection)
            full = measure(made, 500)
    print(f"{'':<28}{'empty':>9}{'full':>9}{'ratio':>8}   milliseconds, medians of {TIMES}")
    for what, before in empty.items():
        print(f"{what:<28}{before * 1000:>9.1f}{full[what] * 1000:>9.1f}{full[what] / before:>8.2f}")
    worst = max(empty, key=lambda what: full[what] / empty[what])
    ratios = {what: round(full[what] / empty[what], 2) for what in empty}
    facts = {"queued": QUEUED, "finished": FINISHED, "ratios": ratios}
    report("backlog", value=full[worst] / empty[worst], unit="worst ratio", worst=worst, **facts)


if __name__ == "__main__":
    main()
