from __future__ import annotations

import errno
import json
import logging
import queue
import socket
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from clusters import free_port

from skerry import logs
from skerry.errors import AuthenticationError, ConfigurationError, Conflict, ServerUnreachable
from skerry_node import areas, metrics
from skerry_node.config import Metrics
from skerry_node.daemon import Daemon
from skerry_node.journal import Entry, Journal, Stage
from skerry_node.launchers.fakes import FakeContainer
from skerry_node.launchers.launcher import Attempt, LauncherError, Phase
from skerry_node.orders import ServerHead, Stop, Work, parse_self
from skerry_node.server import BackOff, Interrupted, KeyRefused
from skerry_node.state import State, is_locked
from skerry_node.trail import FOLDER, read_lines
from skerry_proxy.client import ProxyError

pytestmark = pytest.mark.unit

NOTHING = Work(runs=[], stop=[], finished_jobs=[])
ME = {
    "id": 2,
    "name": "node 1",
    "organization": {"id": 2, "name": "o"},
    "collaboration": {"id": 1, "name": "c", "encrypted": False, "accept": "native"},
}


class FakeWorkServer:
    """Answers from a queue; an answer that is an error is raised. Waits when there is none, until interrupted."""

    def __init__(self, server) -> None:
        self.report, self.run_token, self.finish = server.report, server.run_token, server.finish
        self.finished, self.show_log = server.finished, server.show_log
        self.answers: queue.Queue = queue.Queue()
        self.asked: list[tuple[int, list, list]] = []
        self.refusals: list = []
        self.left = False
        self.first = NOTHING
        self.logins: list[Exception] = []
        self.shared: list[list[tuple[str, str]]] = []
        self._interrupted = threading.Event()

    @property
    def last(self) -> tuple:
        return self.asked[-1] if self.asked else (None, None, None)

    def log_in(self) -> None:
        if self.logins:
            raise self.logins.pop(0)

    def describe_self(self):
        return parse_self(ME)

    def work(self, capacity, holding, jobs, head, changed, *, wait, peers, refuses):
        self.asked.append((capacity, list(holding), list(jobs)))
        self.refusals.append(refuses)
        while wait:
            if changed.is_set():
                raise Interrupted
            try:
                answer = self.answers.get(timeout=0.02)
            except queue.Empty:
                continue
            if isinstance(answer, Exception):
                raise answer
            return answer
        return self.first

    def share(self, rows) -> None:
        self.shared.append(rows)

    def interrupt(self) -> None:
        self._interrupted.set()

    def leave(self) -> None:
        self.left = True

    def close(self) -> None:
        pass


class FakeProcess:
    """The proxy's process: ends when it is stopped, or told to."""

    def __init__(self, client) -> None:
        self.client = client
        self.over = threading.Event()

    def wait(self, timeout=None) -> int:
        self.over.wait(timeout)
        return 1

    def stop(self) -> None:
        self.over.set()


@pytest.fixture
def node(config, launcher, proxy, server, monkeypatch):
    """A daemon in a thread, with all its surroundings as attributes."""
    monkeypatch.setattr(areas, "mountable", lambda: False)
    config.api_key_file.write_text("k")
    spawned = []

    def spawn(settings, key, uid, gid):
        spawned.append(FakeProcess(proxy))
        return spawned[-1]

    monkeypatch.setattr("skerry_node.daemon.spawn", spawn)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    limits = config.limits.model_copy(update={"parallel_runs": 2})
    made = Daemon(config.model_copy(update={"limits": limits}), State(config.state_folder), launcher)
    made._server = FakeWorkServer(server)
    made.spawned = spawned
    made.thread = threading.Thread(target=made.run, daemon=True)
    yield made
    made.stop()
    if made.thread.ident is not None:
        made.thread.join(10)
    assert not made.thread.is_alive()
    made._state.close()


def until(condition) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def work(*orders, stop=(), jobs=()) -> Work:
    return Work(runs=list(orders), stop=list(stop), finished_jobs=list(jobs))


def test_a_run_from_claim_to_end(node, make_order, proxy) -> None:
    node.thread.start()
    node._server.answers.put(work(make_order()))
    until(lambda: proxy.delivered)
    until((node._state.folder / "ready").exists)


def test_capacity_is_bounded_and_freed_capacity_is_said_at_once(node, make_order, launcher) -> None:
    server = node._server
    node.thread.start()
    server.answers.put(work(make_order("wait", run=1), make_order("wait", run=2)))
    until(lambda: server.last[0] == 0)
    assert [attempt.run for attempt in server.asked[-1][1]] == [1, 2]
    until(lambda: len(launcher.watched) >= 2)
    launcher.stop(server.asked[-1][1][0])
    until(lambda: server.last[0] == 1)
    until(lambda: [attempt.run for attempt in node._pipelines] == [2])


def scrape(port: int) -> list[str]:
    return requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text.splitlines()


def test_the_metrics_of_a_node(node, make_order) -> None:
    port = free_port()
    with metrics.served(Metrics(port=port), node):
        assert 'skerry_node_ready{what="server"} 0.0' in scrape(port)
        node.thread.start()
        node._server.answers.put(work(make_order("wait")))
        until(lambda: 'skerry_node_runs{stage="starting"} 1.0' in scrape(port))
        found = scrape(port)
        assert {f'skerry_node_ready{{what="{what}"}} 1.0' for what in ("server", "sandbox", "records")} <= set(found)
        assert "skerry_node_places 2.0" in found
        assert 'skerry_node_deeds_total{action="run.order",status=""} 1.0' in found
        assert any(line.startswith("process_resident_memory_bytes") for line in found)
    with pytest.raises(requests.ConnectionError):
        scrape(port)


def test_without_a_word_of_the_owner_there_are_no_metrics(node, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with metrics.served(None, node):
        pass
    with pytest.raises(ConfigurationError, match=r"skerry\[metrics\]"), metrics.served(Metrics(), node):
        pass


def test_a_port_that_is_taken(node) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Metrics(port=taken.getsockname()[1])
        with pytest.raises(ConfigurationError, match="can't listen"), metrics.served(settings, node):
            pass


def test_every_line_about_a_run_says_so(node, make_order, proxy, capsys) -> None:
    root, before = logging.getLogger(), list(logging.getLogger().handlers)
    logs.set_up("info", "json")
    try:
        node.thread.start()
        node._server.answers.put(work(make_order()))
        until(lambda: proxy.delivered)
        until(lambda: not node._pipelines)
    finally:
        root.handlers = before
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    told = [line for line in lines if "Run 7" in line["message"]]
    assert told
    assert {(line.get("run"), line.get("task")) for line in told} == {(7, make_order().task.id)}


def test_the_same_run_twice_is_one_run(node, make_order, launcher) -> None:
    node.thread.start()
    node._server.answers.put(work(make_order("wait")))
    until(lambda: launcher.starts)
    node._server.answers.put(work(make_order("wait"), make_order("wait", attempt=2)))
    until(node._server.answers.empty)
    until(lambda: len(node._server.asked) >= 4)
    assert len(launcher.starts) == 1


def test_a_stop_order(node, make_order, launcher) -> None:
    node.thread.start()
    node._server.answers.put(work(make_order("wait")))
    until(lambda: launcher.watched)
    node._server.answers.put(
        work(stop=[Stop(run=7, attempt=1, reason="killed by user"), Stop(run=9, attempt=1, reason="x")])
    )
    until(lambda: not node._pipelines)
    assert launcher.list() == []


def test_a_finished_job_leaves_no_folder(node, make_order, proxy) -> None:
    node.thread.start()
    node._server.answers.put(work(make_order()))
    until(lambda: proxy.delivered)
    until(lambda: not node._pipelines)
    assert node._parts.jobs.held() == [5]
    node._server.answers.put(work(jobs=[5]))
    until(lambda: node._parts.jobs.held() == [])


def test_a_server_that_is_away_is_waited_for(node, make_order, proxy) -> None:
    away = ServerUnreachable("The server does not answer.")
    node._server.logins = [away, away]
    node.thread.start()
    node._server.answers.put(away)
    node._server.answers.put(work(make_order()))
    until(lambda: proxy.delivered)


def test_the_configuration_is_told_at_each_return(node) -> None:
    node.thread.start()
    until(lambda: node._server.shared)
    assert ("database_labels", "default") in node._server.shared[0]
    node._server.answers.put(ServerUnreachable("The server does not answer."))
    until(lambda: len(node._server.shared) == 2)


def test_a_node_whose_journal_is_full_takes_no_runs_and_says_so(node, make_order, launcher, caplog) -> None:
    trail, server = node._state.trail, node._server
    node.thread.start()
    until(lambda: server.asked)
    real = trail._append

    def append(*_, **__) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    trail._append = append
    server.answers.put(work(make_order()))
    until(lambda: server.finished)
    until(lambda: not node._pipelines)
    asked = len(server.asked)
    server.answers.put(NOTHING)
    until(lambda: len(server.asked) > asked)
    assert (server.last[0], server.refusals[-1]) == (0, "records")
    assert "The node takes no runs" in caplog.text
    assert launcher.starts == []
    trail._append = real
    server.answers.put(NOTHING)
    until(lambda: server.last[0] == 2)
    assert server.refusals[-1] is None


def test_a_node_goes_online_on_a_full_disk_and_shows_it_later(node, make_order, proxy, monkeypatch) -> None:
    path, full = node._state.folder / "ready", threading.Event()
    full.set()
    write = Path.write_text

    def write_when_there_is_room(self, text) -> int:
        if self == path and full.is_set():
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, text)

    monkeypatch.setattr(Path, "write_text", write_when_there_is_room)
    node.thread.start()
    node._server.answers.put(work(make_order()))
    until(lambda: proxy.delivered)
    assert not path.exists()
    full.clear()
    node._server.answers.put(NOTHING)
    until(path.exists)


def test_what_the_engine_refuses_to_remove_is_removed_later(node, make_order, launcher, proxy, monkeypatch) -> None:
    remove, refusing = launcher.remove, threading.Event()
    refusing.set()

    def ask(attempt) -> None:
        if refusing.is_set():
            raise LauncherError("It can't be removed.")
        remove(attempt)

    monkeypatch.setattr(launcher, "remove", ask)
    monkeypatch.setattr(BackOff, "pause", lambda _: 0.001)
    monkeypatch.setattr("skerry_node.daemon._TIDY_SECONDS", 0.01)
    node.thread.start()
    node._server.answers.put(work(make_order()))
    until(lambda: proxy.delivered and not node._pipelines)
    assert launcher.list() != []
    refusing.clear()
    until(lambda: launcher.list() == [])
    until(lambda: node._uncleaned == [])


class FakePreflight:
    """Has found what it is told."""

    passed: bool | None = None

    def start(self) -> None:
        """Tries nothing."""

    join = start


def test_a_node_whose_sandbox_does_not_hold_takes_no_run_whatever_the_server_says(
    node, make_order, proxy, launcher, monkeypatch
) -> None:
    monkeypatch.setattr("skerry_node.daemon._PAUSE_SECONDS", 0.01)
    server, node._preflight = node._server, FakePreflight()
    node.thread.start()
    until(lambda: server.refusals)
    assert (server.last[0], server.refusals[-1]) == (0, "starting")
    node._preflight.passed = False
    node._ask_again()
    until(lambda: server.refusals[-1] == "sandbox")
    asked = len(server.asked)
    server.answers.put(work(make_order()))
    until(lambda: len(server.asked) > asked)
    assert (node._pipelines, launcher.starts, server.last[0]) == ({}, [], 0)
    node._preflight.passed = True
    node._ask_again()
    until(lambda: server.refusals[-1] is None)
    assert server.last[0] == 2
    server.answers.put(work(make_order()))
    until(lambda: proxy.delivered)


def test_what_the_node_was_when_it_started_is_on_record(node, config) -> None:
    node.thread.start()
    until(lambda: node._server.asked)
    start = json.loads(next(iter(read_lines(config.state_folder / FOLDER))))
    assert (start["action"], start["object"]) == ("node.start", {"kind": "node", "id": 2})
    assert len(start["details"]["configuration"]) == 64
    assert "every image may run" in start["details"]["relaxed"]


def test_the_servers_head_is_kept(node, config) -> None:
    head = ServerHead(writer="server-1", sequence=9, hash="a" * 64)
    node.thread.start()
    node._server.answers.put(NOTHING.model_copy(update={"head": head}))
    until(lambda: '"audit.witness"' in (config.state_folder / FOLDER / "audit.jsonl").read_text())
    witness = json.loads(list(read_lines(config.state_folder / FOLDER))[1])
    assert witness["details"] == head.model_dump()


def test_a_wrong_key_ends_the_node_with_a_sentence(node) -> None:
    node._server.logins = [KeyRefused("no", 401)]
    with pytest.raises(ConfigurationError, match="api_key_file"):
        node.run()


def test_a_token_of_another_time_ends_no_run(node, make_order, launcher) -> None:
    """As when the server's clock is set; it would give the run again, and it would be started twice."""
    node.thread.start()
    node._server.answers.put(work(make_order("wait")))
    until(lambda: launcher.watched)
    asked = len(node._server.asked)
    node._server.answers.put(AuthenticationError("Token has expired", 401))
    until(lambda: len(node._server.asked) > asked + 1)
    assert len(node._pipelines) == 1
    assert not any(pipeline._course.stopped.is_set() for pipeline in node._pipelines.values())


def test_a_node_that_is_shut_out_stops_its_runs(node, make_order, launcher) -> None:
    node.thread.start()
    node._server.answers.put(work(make_order("wait")))
    until(lambda: launcher.watched)
    node._server.answers.put(KeyRefused("no", 401))
    until(lambda: not node._pipelines)
    assert launcher.list() == []


def shut_out_and_let_in(node, order, launcher) -> None:
    """While it runs this order, which the server then gives again."""
    server = node._server
    node.thread.start()
    server.answers.put(work(order))
    until(lambda: launcher.watched)
    server.first = work(order)
    server.answers.put(KeyRefused("no", 401))
    until(lambda: not node._pipelines)
    server.answers.put(NOTHING)
    until(lambda: server.finished)


def test_what_a_node_ran_when_it_was_shut_out_is_not_started_again(node, make_order, launcher) -> None:
    """When it is let in the server gives again what it has not heard the end of: it hears it now."""
    server, order = node._server, make_order("wait")
    shut_out_and_let_in(node, order, launcher)
    [(attempt, status, text)] = server.finished
    assert (attempt, status) == (order.key, "unknown error")
    assert "shut the node out" in text
    assert launcher.starts == [order.key]
    until(lambda: not list((node._state.folder / "runs").iterdir()))


def test_a_sealed_result_waits_until_the_node_is_let_in_again(node, make_order, proxy) -> None:
    proxy.trouble = {"deliver": [ProxyError("unreachable", "Away.")] * 3}
    node.thread.start()
    node._server.answers.put(work(make_order()))
    until(lambda: any(pipeline.stage is Stage.SEALED for pipeline in node._pipelines.values()))
    node._server.answers.put(KeyRefused("no", 401))
    until(lambda: proxy.delivered)
    until(lambda: not node._pipelines)
    assert node._server.finished == []


def test_what_was_lost_is_not_started_though_the_disk_is_full(node, make_order, launcher, monkeypatch) -> None:
    def full(_journal: Journal, _attempt: Attempt) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Journal, "lose", full)
    order = make_order("wait")
    shut_out_and_let_in(node, order, launcher)
    assert launcher.starts == [order.key]


def test_a_proxy_that_died_is_replaced_and_gets_its_gates_back(node, make_order, proxy, launcher) -> None:
    node.thread.start()
    node._server.answers.put(work(make_order("wait")))
    until(lambda: launcher.watched)
    served = proxy.served
    node.spawned[0].over.set()
    until(lambda: len(node.spawned) == 2)
    until(lambda: proxy.served == served + 1)


def test_it_says_good_bye_and_leaves_its_runs_running(node, make_order, launcher) -> None:
    node.thread.start()
    node._server.answers.put(work(make_order("wait")))
    until(lambda: launcher.watched)
    node.stop()
    node.thread.join(10)
    assert node._server.left
    assert [str(found.phase) for found in launcher.list()] == ["running"]


def test_what_an_earlier_daemon_left_is_taken_up(node, launcher) -> None:
    """A container that no entry speaks of is removed before anything else."""
    launcher._containers[Attempt(99, 1)] = FakeContainer(Phase.RUNNING)
    node.thread.start()
    until(lambda: node._server.asked)
    assert launcher.list() == []


def damage(node, order) -> None:
    """What a daemon left that was killed, and whose disk then did harm."""
    journal = Journal(node._config.state_folder / "runs")
    journal.write(Entry(order))
    (journal.folder(order.key) / "entry.json").write_text('{"order":')


def test_a_run_whose_record_is_damaged_ends_and_is_not_started_again(node, make_order, launcher, proxy) -> None:
    """The server sends it again, as it does with all that a node does not say that it holds."""
    server, lost, other = node._server, make_order(run=8), make_order(run=9)
    damage(node, lost)
    launcher._containers[Attempt(8, 1)] = FakeContainer(Phase.RUNNING)
    server.first = work(lost, other)
    node.thread.start()
    until(lambda: proxy.delivered and server.finished)
    [(attempt, status, text)] = server.finished
    assert (attempt, status) == (Attempt(8, 1), "unknown error")
    assert "damaged" in text
    assert launcher.starts == [Attempt(9, 1)]
    until(lambda: not list((node._state.folder / "runs").iterdir()))


def test_a_damaged_record_is_kept_until_the_server_has_heard(node, make_order, server, launcher, monkeypatch) -> None:
    order, answers = make_order(run=8), [ServerUnreachable("away")]

    def finish(attempt, status, text) -> None:
        if answers:
            raise answers.pop()
        server.finish(attempt, status, text)

    monkeypatch.setattr(node._server, "finish", finish)
    monkeypatch.setattr("skerry_node.losses._PAUSE_SECONDS", 0.01)
    damage(node, order)
    node._server.first = work(order)
    node.thread.start()
    until(lambda: not answers)
    assert (node._state.folder / "runs" / "8-1" / "lost").exists()
    node._server.answers.put(work(order))
    until(lambda: server.finished)
    assert launcher.starts == []


def test_a_damaged_record_of_a_run_that_is_over_is_forgotten(node, make_order, monkeypatch) -> None:
    def finish(attempt, status, text) -> None:
        raise Conflict("The attempt is not the current one.", 409)

    monkeypatch.setattr(node._server, "finish", finish)
    damage(node, make_order(run=8))
    node.thread.start()
    until(lambda: not list((node._state.folder / "runs").iterdir()))


def test_a_damaged_record_counts_though_the_server_sends_its_run_late(node, make_order, server, launcher) -> None:
    """As it does to a node that takes no runs yet."""
    order = make_order(run=8)
    damage(node, order)
    node._server.first = work()
    node.thread.start()
    until(lambda: server.finished)
    assert [attempt for attempt, _, _ in server.finished] == [order.key]
    assert launcher.starts == []


def test_an_engine_that_is_away_at_the_start_is_waited_for(node, make_order, launcher, proxy, monkeypatch) -> None:
    found, away = launcher.list, [LauncherError("The engine is away.")] * 2

    def list_() -> list:
        if away:
            raise away.pop()
        return found()

    monkeypatch.setattr(launcher, "list", list_)
    node.thread.start()
    node._server.answers.put(work(make_order()))
    until(lambda: proxy.delivered)


def test_two_nodes_do_not_share_a_folder(config) -> None:
    first = State(config.state_folder)
    with pytest.raises(ConfigurationError, match="another node"):
        State(config.state_folder)
    assert is_locked(config.state_folder)
    first.close()
    assert not is_locked(config.state_folder)
    again = State(config.state_folder)
    assert again.installation == first.installation
    again.close()


@pytest.mark.parametrize(("lived", "grows"), [(59.0, True), (61.0, False)])
def test_the_pause_before_another_proxy_grows_while_they_do_not_live(node, monkeypatch, lived, grows) -> None:
    pauses, clock = [], [0.0]

    class Proxy:
        def wait(self) -> int:
            clock[0] += lived
            if len(pauses) == 3:
                node._closing.set()
            return 1

        def stop(self) -> None:
            pass

    monkeypatch.setattr("skerry_node.daemon.time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr("random.uniform", lambda _, most: most)
    monkeypatch.setattr(node._closing, "wait", pauses.append)
    monkeypatch.setattr(node, "_spawn_proxy", lambda _: Proxy())
    node._proxy = Proxy()
    node._keep_proxy(None)
    assert (pauses[0] < pauses[1] < pauses[2]) == grows
    assert (len(set(pauses)) == 1) != grows
