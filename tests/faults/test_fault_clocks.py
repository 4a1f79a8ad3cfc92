"""Two processes of one server on machines whose clocks are hours apart; and a node whose clock is set under a run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from clusters import Cluster
from fault_host import NOTICED_SECONDS, Clock
from replicas import PASSWORD, Caller, Replicas, database, haproxy, replicas

sys.path.insert(0, str(Path(__file__).parent.parent / "acceptance"))

from devfederation import ALGORITHMS, SKERRY, DevFederation, skerry, start

pytestmark = pytest.mark.integration
HOUR = 3600
TWO_SWEEPS = 22.0
IMAGE = "skerry-tests/probe-clock"


@pytest.fixture
def apart(request: pytest.FixtureRequest, postgresql_cluster: Cluster, tmp_path: Path) -> Iterator[Replicas]:
    """The second one's clock is wrong by as many seconds as the test says, and was so when it started."""
    for url in database(postgresql_cluster):
        with replicas(tmp_path, url, nodes=1, balanced=False) as made:
            clock = Clock(tmp_path / "clock")
            clock.jump(request.param)
            _, wrong = made.each
            wrong.end(signal.SIGTERM)
            wrong.environment = {"PYTHONPATH": str(clock.folder)}
            wrong.start()
            with haproxy(tmp_path, [one.port for one in made.each]) as made.balancer:
                yield made


@pytest.mark.parametrize("apart", [-3 * HOUR, -3, 3 * HOUR], indirect=True)
def test_who_logs_in_through_the_balancer_is_known_to_both(apart: Replicas) -> None:
    """A token is made by one and checked by the other, at once."""
    key = apart.root.ok("POST", "recover/node", {"id": apart.facts["node_ids"][0]})["api_key"]
    logins = {"token/user": {"username": "root", "password": PASSWORD}, "token/node": {"api_key": key}}
    for path, body in [*logins.items()] * 4:
        pair = Caller(apart.balancer, "").ok("POST", path, body)
        for url in (apart.balancer, *(one.url for one in apart.each)):
            assert Caller(url, pair["access_token"]).ask("GET", "collaboration").status_code == 200
            assert Caller(url, pair["refresh_token"]).ask("POST", "token/refresh").status_code == 200


@pytest.mark.parametrize("apart", [3 * HOUR], indirect=True)
def test_what_was_announced_while_it_was_deaf_is_heard(apart: Replicas, postgresql_cluster: Cluster) -> None:
    """A node waits at the one whose clock is ahead, which has no connection for events when its task is made."""
    right, wrong = apart.each
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(apart.node(0).at(wrong.url).ok, "POST", "skerry/node/work", {"capacity": 1, "wait": 40})
        while not apart.root.at(right.url).ok("GET", "node?status=online")["data"]:
            time.sleep(0.05)
        made = Event()
        deaf = pool.submit(end_ears, postgresql_cluster, made)
        time.sleep(1)
        task = apart.root.at(right.url).ok("POST", "task", apart.task(0))["id"]
        made.set()
        deaf.result()
        assert [order["task"]["id"] for order in waiting.result()["runs"]] == [task]


def end_ears(cluster: Cluster, made: Event) -> None:
    """All connections for events, again and again."""
    with cluster.connect() as connection:
        while not made.wait(0.01):
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'skerry events'"
            )


@pytest.mark.parametrize("apart", [-3 * HOUR, 3 * HOUR], indirect=True)
def test_no_run_is_lost(apart: Replicas) -> None:
    """The wrong one hands it out and renews its lease; both look for runs that have been silent too long."""
    _, wrong = apart.each
    key = apart.root.ok("POST", "recover/node", {"id": apart.facts["node_ids"][0]})["api_key"]
    token = Caller(wrong.url, "").ok("POST", "token/node", {"api_key": key})["access_token"]
    node, task = Caller(wrong.url, token), apart.root.ok("POST", "task", apart.task(0))["id"]
    [order] = node.ok("POST", "skerry/node/work", {"capacity": 1, "wait": 0})["runs"]
    holding = [{"run": order["run"], "attempt": order["attempt"]}]
    end = time.monotonic() + TWO_SWEEPS
    while time.monotonic() < end:
        told = node.ok("POST", "skerry/node/work", {"capacity": 0, "wait": 5, "holding": holding})
        assert told["stop"] == []
    assert apart.root.ok("GET", f"task/{task}/status")["status"] == "initializing"
    finished = {"attempt": order["attempt"], "status": "completed", "log": "log", "result": "MQ=="}
    node.ok("POST", f"skerry/run/{order['run']}/finish", finished)
    assert apart.root.ok("GET", f"result/{order['run']}")["result"] == "MQ=="
    assert "the database's: leases and tokens go by the database's" in wrong.log.read_text()


class Node:
    """The one node of a federation, on a machine whose clock is ``clock``."""

    def __init__(self, federation: DevFederation, clock: Clock) -> None:
        self._command = [str(SKERRY), "node", "start", "--config", str(federation.folder / "node-1" / "node.yaml")]
        self._environment = {**os.environ, "PYTHONPATH": str(clock.folder)}
        self._log = clock.folder / "log"
        self.start()

    def start(self) -> None:
        with self._log.open("a") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, env=self._environment)

    def end(self) -> None:
        self._process.terminate()
        assert self._process.wait(60) == 0, self._log.read_text()


@pytest.fixture
def federation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DevFederation]:
    """Without an engine. As root, each run is a user of its own, who must get through to the algorithm's code."""
    for place in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        place.chmod(place.stat().st_mode | 0o711)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    built = skerry("algorithm", "build", str(ALGORITHMS / "probe"), "--tag", IMAGE, "--launcher", "process")
    assert built.returncode == 0, built.stderr
    with start("--nodes", "1", "--launcher", "process") as federation:
        yield federation


def test_a_nodes_clock_that_is_set_ends_no_run(own_machines: object, federation: DevFederation, tmp_path: Path) -> None:
    """Nor does the start of a node whose clock is wrong: a run may take a day, and this one takes seconds.

    The node seals the result by that clock, and it can be read at once.
    """
    clock = Clock(tmp_path / "clock")
    federation.end_node(1)
    node = Node(federation, clock)
    try:
        task = federation.client().task.create(
            organizations=federation.organization_ids,
            name="sleep",
            image=IMAGE,
            collaboration=federation.collaboration_id,
            input_={"method": "sleep", "kwargs": {"seconds": 6}},
        )
        federation.wait_for_status(task["id"], "active")
        clock.jump(48 * HOUR)
        time.sleep(NOTICED_SECONDS + 1)
        node.end()
        node.start()
        federation.wait_for_status(task["id"], "completed")
        [result] = task.results()
        assert result["ended"] - result["started"] >= 6
    finally:
        node.end()
