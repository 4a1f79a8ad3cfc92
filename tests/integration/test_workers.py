"""Several processes of a server behind one address: any may be killed, and all of them end together."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clusters import Cluster, free_port
from replicas import SKERRY, Replicas, database, replicas, run_all_meanwhile

from skerry.errors import ConfigurationError
from skerry_server.seats import Seat
from skerry_server.serve import listen
from skerry_server.settings import Settings
from skerry_server.workers import Workers

pytestmark = pytest.mark.integration
PATIENCE = 60.0
PROCESSES = 3
NODES = 12


@pytest.fixture(params=["sqlite", "postgresql"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Replicas]:
    sqlite = request.param == "sqlite"
    for url in [None] if sqlite else database(request.getfixturevalue("postgresql_cluster")):
        settings = f"processes: {PROCESSES}"
        with replicas(tmp_path, url, count=1, nodes=NODES, settings=settings, balanced=False) as made:
            yield made
            made.each[0].end(signal.SIGTERM)


def children(pid: int) -> set[int]:
    return {int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def parent(made: Replicas) -> int:
    process = made.each[0].process
    assert process is not None
    return process.pid


def until(said: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not said():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def listeners(port: int) -> int:
    """How many sockets listen at that port of loopback."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(fields[1] == f"0100007F:{port:04X}" and fields[3] == "0A" for fields in lines)


def test_all_of_them_serve_one_address(served: Replicas) -> None:
    assert len(children(parent(served))) == listeners(served.each[0].port) == PROCESSES
    tasks = [served.root.ok("POST", "task", served.task(0))["id"] for _ in range(20)]
    assert {row["id"] for row in served.root.ok("GET", "task?per_page=100")["data"]} == {*tasks}
    work = served.node(0).ok("POST", "skerry/node/work", {"capacity": 100, "wait": 0})
    assert len({run["run"] for run in work["runs"]}) == len(tasks)


def test_who_waits_at_one_hears_what_another_did(served: Replicas) -> None:
    """So many nodes that they are spread over all of them, and so many tasks that those are made by all of them."""
    with concurrent.futures.ThreadPoolExecutor(NODES) as pool:
        for _ in range(2):
            asked = {"capacity": 1, "wait": PATIENCE / 2}
            waiting = [pool.submit(served.node(n).ok, "POST", "skerry/node/work", asked) for n in range(NODES)]
            time.sleep(1)
            began = time.monotonic()
            for n in range(NODES):
                served.root.ok("POST", "task", served.task(n))
            assert [len(one.result()["runs"]) for one in waiting] == [1] * NODES
            assert time.monotonic() - began < PATIENCE / 4


def test_they_are_killed_at_any_time(served: Replicas) -> None:
    def strike() -> None:
        for which in (min, max, min):
            until(lambda: len(children(parent(served))) == PROCESSES, "it is not replaced")
            time.sleep(0.3)
            os.kill(which(children(parent(served))), signal.SIGKILL)

    run_all_meanwhile(served, strike)


def test_one_that_is_killed_is_replaced(served: Replicas) -> None:
    before = children(parent(served))
    os.kill(min(before), signal.SIGKILL)
    until(lambda: len(children(parent(served)) - {min(before)}) == PROCESSES, "it is not replaced")
    until(lambda: listeners(served.each[0].port) == PROCESSES, "the new one does not listen")
    assert served.root.ok("POST", "task", served.task(0))["id"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_they_stop_together(served: Replicas, number: int) -> None:
    port, those = served.each[0].port, children(parent(served))
    assert served.each[0].end(number) == 0
    assert not any(map(alive, those))
    assert listeners(port) == 0


def test_they_stop_while_they_start(postgresql_cluster: Cluster, tmp_path: Path) -> None:
    """However many there are by then."""
    for url in database(postgresql_cluster):
        (tmp_path / "server.yaml").write_text(f"processes: {PROCESSES}\nport: 0\ndatabase: {url!r}\n")
        command = [SKERRY, "server", "start", "--config", tmp_path / "server.yaml"]
        for count in range(1, PROCESSES + 1):
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
                until(lambda: len(children(process.pid)) >= count, "they do not start")  # noqa: B023 - called here
                those = children(process.pid)
                process.terminate()
                _, said = process.communicate(timeout=PATIENCE)
            assert (process.returncode, "Traceback" in said) == (0, False), said
            assert not any(map(alive, those))


def test_two_servers_never_share_an_address(tmp_path: Path) -> None:
    """Not even before the first process of the first one listens."""
    settings = Settings(folder=tmp_path, port=free_port(), processes=2)
    first = Workers(settings, nothing)
    with pytest.raises(ConfigurationError, match="can't listen"):
        Workers(settings, nothing)
    with pytest.raises(ConfigurationError, match="can't listen"):
        listen(settings.host, settings.port)
    first.close()
    Workers(settings, nothing).close()


def nothing(_settings: Settings, _seat: Seat, _ready: Callable[[str], None]) -> None:
    """What a process does here."""


def test_none_outlives_its_parent(served: Replicas) -> None:
    those = children(parent(served))
    served.each[0].end(signal.SIGKILL)
    until(lambda: not any(map(alive, those)), "one of them stays behind")


def test_each_writes_a_chain_of_its_own(served: Replicas) -> None:
    """The audit trail of all of them verifies."""
    served.root.ok("POST", "task", served.task(0))
    assert served.each[0].end(signal.SIGTERM) == 0
    command = [SKERRY, "server", "audit", "export", "--config", served.config]
    exported = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert exported.count('"server.stop"') == PROCESSES
    assert len(list(served.config.parent.glob("audit-writer*"))) == PROCESSES
    whole = served.config.with_name("trail.jsonl")
    whole.write_text(exported)
    verified = subprocess.run([SKERRY, "audit", "verify", whole], capture_output=True, text=True, check=False)
    assert verified.returncode == 0, verified.stderr
    assert verified.stdout.count("its noted end") == PROCESSES, verified.stdout


def test_metrics_need_a_port_each(tmp_path: Path) -> None:
    for port, metrics in ((5000, 65_535), (5000, 4998), (9465, 9464)):
        done = start(
            tmp_path, f"processes: 3\nport: {port}\nmetrics: {{port: {metrics}}}\ndatabase: postgresql://a/b\n"
        )
        assert done.returncode == 1
        assert f'"metrics.port": 3 processes use the ports {metrics} to {metrics + 2}' in done.stderr


def start(folder: Path, settings: str) -> subprocess.CompletedProcess[str]:
    (folder / "server.yaml").write_text(settings)
    command = [SKERRY, "server", "start", "--config", folder / "server.yaml"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)


def test_an_address_that_is_taken(postgresql_cluster: Cluster, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as other:
        port = other.getsockname()[1]
        for url in database(postgresql_cluster):
            done = start(tmp_path, f"processes: 2\nport: {port}\ndatabase: {url!r}\n")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert f"can't listen on 127.0.0.1:{port}" in done.stderr


def test_a_database_that_is_away(tmp_path: Path) -> None:
    """Said once, by the first of them."""
    away = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"
    done = start(tmp_path, f"processes: 4\nport: 0\ndatabase: {away!r}\n")
    assert (done.returncode, done.stderr.count("can't be used")) == (1, 1)
    assert "Traceback" not in done.stderr
