"""Two processes of one server on one PostgreSQL behind a load balancer: any may answer, and any may die."""

from __future__ import annotations

import concurrent.futures
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import Cluster
from replicas import SKERRY, Replicas, database, finish, replicas, run_all_meanwhile, work

from skerry_server import health

pytestmark = pytest.mark.integration
WAITING = 40


@pytest.fixture(scope="module")
def running(
    postgresql_cluster: Cluster, balancer_program: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Replicas]:
    for url in database(postgresql_cluster):
        with replicas(tmp_path_factory.mktemp("replicas"), url, settings="drain_seconds: 6\n") as made:
            yield made
            audited = subprocess.run(
                [SKERRY, "audit", "verify", "--server", made.config], capture_output=True, text=True, check=False
            )
            assert audited.returncode == 0, audited.stdout + audited.stderr


@pytest.fixture
def pair(running: Replicas) -> Replicas:
    """Both run, and nothing is left to do."""
    for replica in running.each:
        if replica.process is None:
            replica.start()
    for task in running.root.ok("GET", "task?per_page=1000")["data"]:
        running.root.ok("DELETE", f"task/{task['id']}")
    return running


def test_what_one_is_told_wakes_who_waits_at_the_other(pair: Replicas) -> None:
    """Far sooner than the wait would end by itself."""
    here, there = (replica.url for replica in pair.each)
    node, root = pair.node(0), pair.root
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = pool.submit(work, node.at(here), wait=50)
        while not root.at(there).ok("GET", "node?status=online")["data"]:
            time.sleep(0.05)
        task = root.at(there).ok("POST", "task", pair.task(0))
        [order] = waiting.result(40)["runs"]
        assert order["task"]["id"] == task["id"]
        seen = root.at(here).ok("GET", f"skerry/task/{task['id']}/wait")["seen"]
        ended = pool.submit(root.at(here).ok, "GET", f"skerry/task/{task['id']}/wait?seen={seen}&timeout=60")
        finish(node.at(there), order)
        assert ended.result(50)["finished"]


def test_one_is_killed_at_any_time(pair: Replicas) -> None:
    def strike() -> None:
        for replica in (*pair.each, *pair.each):
            replica.end(signal.SIGKILL)
            replica.start()

    run_all_meanwhile(pair, strike)


def test_a_replica_that_stops_says_so_and_serves_on_until_the_balancer_knows(pair: Replicas) -> None:
    leaving, staying = pair.each
    assert leaving.process is not None
    node = pair.node(0)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = pool.submit(node.at(leaving.url).ask, "POST", "skerry/node/work", {"wait": 50})
        pair.root.at(leaving.url).ok("GET", "version")
        leaving.process.send_signal(signal.SIGTERM)
        while (found := pair.root.at(leaving.url).ask("GET", "skerry/health/ready")).status_code == 200:
            pass
        assert found.status_code == 503
        assert found.json() == {"ready": False, "database": True, "events": True, "payloads": True, "staying": False}
        assert pair.root.at(leaving.url).ask("GET", "skerry/health/live").status_code == 200
        assert pair.root.at(leaving.url).ask("GET", "task").status_code == 200
        assert waiting.result(50).status_code == 200
    while leaving.process.poll() is None:
        assert pair.root.ask("GET", "task").status_code == 200
    assert leaving.end() == 0
    assert pair.root.at(staying.url).ask("GET", "skerry/health/ready").status_code == 200


def test_the_database_restarts(pair: Replicas, postgresql_cluster: Cluster) -> None:
    """Meanwhile requests are put off, not refused; afterwards everything is heard again."""
    here, there = (replica.url for replica in pair.each)
    postgresql_cluster.stop()
    assert pair.root.at(here).ask("GET", "task").status_code == 503
    assert pair.root.at(here).ask("GET", "health").json() == {"database": False}
    assert pair.root.at(here).ask("GET", "skerry/health/live").status_code == 200
    assert pair.root.at(here).ask("GET", "skerry/health/ready").status_code == 503
    postgresql_cluster.start()
    for url in (here, there):
        pair.root.at(url).ok("GET", "skerry/health/ready")
    test_what_one_is_told_wakes_who_waits_at_the_other(pair)


def test_the_database_hangs(pair: Replicas, postgresql_cluster: Cluster) -> None:
    """All threads of the doors wait for it: the process lives, and is ready again as soon as the database goes on."""
    here, there = (replica.url for replica in pair.each)
    with concurrent.futures.ThreadPoolExecutor(WAITING) as pool:
        with postgresql_cluster.hanging():
            asked = [pool.submit(pair.root.at(here).ask, "GET", "task") for _ in range(WAITING)]
            time.sleep(1)
            begun = time.monotonic()
            for _ in range(2):
                assert pair.root.at(here).ask("GET", "skerry/health/live").json() == {"alive": True}
                found = pair.root.at(here).ask("GET", "skerry/health/ready")
                assert (found.status_code, found.json()["ready"]) == (503, False)
            assert time.monotonic() - begun < 3 * health.LONGEST
        assert {one.result(50).status_code for one in asked} <= {200, 503}
    for url in (here, there):
        assert pair.root.at(url).ask("GET", "skerry/health/ready").status_code == 200


def test_a_repeated_request_makes_one_task_whichever_replica_gets_it(pair: Replicas) -> None:
    """By its UUID; and as vantage6's clients send it, without one, by what it says."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for number in range(5):
            body = {**pair.task(0), "name": f"task {number}"}
            if number % 2:
                del body["uuid"]
            callers = [pair.root.at(replica.url) for replica in pair.each] * 4
            made = list(pool.map(lambda caller, body=body: caller.ok("POST", "task", body)["id"], callers))
            assert len(set(made)) == 1
    assert len(pair.root.ok("GET", "task?per_page=100")["data"]) == 5


def test_the_last_two_runs_of_a_task_end_at_once(pair: Replicas) -> None:
    """Each at another replica: neither sees the other's end unless they take turns."""
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        for _ in range(10):
            task = pair.root.ok("POST", "task", pair.task(0, 1, 2))
            orders = [work(pair.node(index))["runs"][0] for index in range(3)]
            callers = [pair.node(index).at(pair.each[index % 2].url) for index in range(3)]
            list(pool.map(finish, callers, orders))
            assert pair.root.ok("GET", f"skerry/task/{task['id']}/wait?timeout=0")["finished"]


def test_a_kill_and_an_end_meet(pair: Replicas) -> None:
    """One of them wins, everywhere alike, and what it said stays."""
    ends = set()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for number in range(10):
            task = pair.root.ok("POST", "task", pair.task(0))
            [order] = work(pair.node(0))["runs"]
            body = {"attempt": 1, "status": "completed", "log": "log", "result": "MQ=="}
            node, root = pair.node(0).at(pair.each[number % 2].url), pair.root.at(pair.each[1 - number % 2].url)
            ended = pool.submit(node.ask, "POST", f"skerry/run/{order['run']}/finish", body)
            killed = pool.submit(root.ask, "POST", "kill/task", {"id": task["id"]})
            codes = ended.result().status_code, killed.result().status_code
            shown = pair.root.ok("GET", f"run/{order['run']}")["status"]
            assert (codes, shown) in {((200, 400), "completed"), ((409, 200), "killed by user")}
            ends.add(shown)
    assert ends


def test_they_start_together_on_an_empty_database(postgresql_cluster: Cluster, tmp_path: Path) -> None:
    for url in database(postgresql_cluster):
        config = tmp_path / "server.yaml"
        config.write_text(f'database: "{url}"\nport: 0\n')
        command = [str(SKERRY), "server", "start", "--config", str(config)]
        started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in "abc"]
        lines = [one.stdout.readline() for one in started if one.stdout is not None]
        for one in started:
            one.terminate()
        said = [one.communicate(timeout=60)[1] for one in started]
        assert [one.returncode for one in started] == [0] * len(started), said
        assert all(re.search("ready", line) for line in lines)
