"""What who runs a server does with it: look at its metrics and logs, back it up and restore it, go back a version."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from clusters import Cluster, free_port
from replicas import SKERRY, Replicas, replicas

pytestmark = pytest.mark.integration
PREVIOUS = "0010"


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Iterator[tuple[Cluster, str] | None]:
    if request.param == "sqlite":
        yield None
        return
    cluster: Cluster = request.getfixturevalue("postgresql_cluster")
    name = cluster.make_database()
    yield cluster, name
    cluster.drop_database(name)


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def running(database: tuple[Cluster, str] | None, tmp_path: Path, port: int) -> Iterator[Replicas]:
    url = database and database[0].url(database[1])
    settings = f"metrics: {{port: {port}}}\nlog_format: json\n"
    folder = tmp_path / "server"
    folder.mkdir()
    with replicas(folder, url, count=1, nodes=2, settings=settings, balanced=False) as made:
        yield made


def run_one(made: Replicas) -> tuple[int, int]:
    """A task, and its one run, which is completed."""
    task, run = claim_one(made)
    finish_one(made, run)
    return task, run


def claim_one(made: Replicas) -> tuple[int, int]:
    """A task, and its one run, which a node has begun."""
    task = made.root.ok("POST", "task", made.task(0))
    [order] = made.node(0).ok("POST", "skerry/node/work", {"capacity": 1, "wait": 0})["runs"]
    return task["id"], order["run"]


def finish_one(made: Replicas, run: int) -> None:
    body = {"attempt": 1, "status": "completed", "log": "log", "result": "MQ=="}
    made.node(0).ok("POST", f"skerry/run/{run}/finish", body)


def skerry(*arguments: object) -> str:
    done = subprocess.run([SKERRY, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_metrics_and_logs(running: Replicas, port: int) -> None:
    task, run = run_one(running)
    running.root.ok("POST", "task", running.task(0, 1))
    metrics = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text.splitlines()
    assert 'skerry_open_runs{state="pending"} 2.0' in metrics
    assert "skerry_online_nodes 1.0" in metrics
    assert 'skerry_ready{what="database"} 1.0' in metrics
    asked = 'skerry_request_seconds_count{endpoint="vantage6.task_create",method="POST",status="201"} 2.0'
    assert asked in metrics
    [replica] = running.each
    assert replica.end(signal.SIGTERM) == 0
    lines = [json.loads(line) for line in replica.log.read_text().splitlines()]
    told = [line["message"] for line in lines if line.get("run") == run]
    assert len(told) == 2, told
    assert {line["task"] for line in lines if line.get("run") == run} == {task}


def test_strangers_make_no_labels(running: Replicas, port: int) -> None:
    """Nor does a request that is refused before it begins break what counts it."""
    url = running.each[0].url
    for word in ("BREW", "WHEN", "PROPFIND"):
        assert requests.request(word, url, timeout=10).status_code in {400, 404, 405}
    assert requests.post(f"{url}/task", headers={"Content-Encoding": "br"}, timeout=10).status_code == 415
    metrics = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
    assert 'method="other"' in metrics
    assert not any(word in metrics for word in ("BREW", "WHEN", "PROPFIND"))
    assert 'status="415"' in metrics


def test_back_up_and_restore(running: Replicas, database: tuple[Cluster, str] | None, tmp_path: Path) -> None:
    """As docs/how-to/run-a-server.md has it; meanwhile the server serves."""
    task, run = run_one(running)
    state, backup = running.config.parent, tmp_path / "backup"
    backup.mkdir()
    if database is None:
        skerry("server", "backup", "--config", running.config, backup / "skerry.sqlite")
    else:
        cluster, name = database
        dump = cluster.run("pg_dump", "-Fc", "-d", cluster.url(name), check=True, capture_output=True).stdout
    for name_ in ("server.yaml", "jwt-secret", "audit-writer", "payloads"):
        path = state / name_
        (shutil.copytree if path.is_dir() else shutil.copy2)(path, backup / name_)
    running.root.ok("POST", "task", running.task(0))
    [replica] = running.each
    replica.end()
    shutil.rmtree(state)
    shutil.copytree(backup, state)
    if database is not None:
        cluster.drop_database(name)
        with cluster.connect() as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        cluster.run("pg_restore", "-d", cluster.url(name), input=dump, check=True, capture_output=True)
    replica.start()
    assert [row["id"] for row in running.root.ok("GET", "task")["data"]] == [task]
    assert running.root.ok("GET", f"result/{run}")["result"] == "MQ=="
    assert running.root.ok("POST", "task", running.task(0))["id"] > task
    assert "records hold" in skerry("audit", "verify", "--server", running.config)


def test_a_version_back_and_forth(running: Replicas) -> None:
    """What was there stays, and nodes go on with the tokens that they have, and with the runs that they hold."""
    task, run = run_one(running)
    held, under_way = claim_one(running)
    [replica] = running.each
    replica.end(signal.SIGTERM)
    assert PREVIOUS in skerry("server", "migrate", "--config", running.config, "--to", PREVIOUS)
    replica.start()
    assert running.root.ok("GET", f"skerry/task/{task}/wait?timeout=0")["finished"]
    assert running.root.ok("GET", f"result/{run}")["result"] == "MQ=="
    finish_one(running, under_way)
    assert running.root.ok("GET", f"skerry/task/{held}/wait?timeout=0")["finished"]
    assert run_one(running)[0] > held


def test_tables_of_a_newer_version_are_refused_in_a_sentence(tmp_path: Path) -> None:
    config = tmp_path / "server.yaml"
    config.write_text("")
    skerry("server", "migrate", "--config", config)
    subprocess.run(["/usr/bin/env", "python3", "-c", _NEWER, tmp_path / "skerry.sqlite"], check=True)
    done = subprocess.run([SKERRY, "server", "start", "--config", config], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "A newer version of skerry has used them" in done.stderr


_NEWER = """
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as connection:
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
connection.close()
"""
