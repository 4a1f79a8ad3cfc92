from __future__ import annotations

import errno
import json
import threading
import time
from dataclasses import replace
from functools import partial

import pytest

from skerry.errors import InvalidInput, ServerUnreachable
from skerry_node.config import Share
from skerry_node.course import Course, NodeStops
from skerry_node.journal import Entry, Journal, Stage
from skerry_node.launchers import fakes
from skerry_node.launchers.launcher import Ended, EngineAway, LauncherError, Vanished
from skerry_node.pipeline import Pipeline
from skerry_node.server import BackOff
from skerry_proxy.client import ProxyError

pytestmark = pytest.mark.unit


@pytest.fixture
def carry_out(make_order):
    def carry_out(parts, image="copy", **order) -> None:
        Pipeline(parts, Entry(make_order(image, **order))).carry_out()

    return carry_out


def in_thread(pipeline: Pipeline) -> threading.Thread:
    thread = threading.Thread(target=pipeline.carry_out, daemon=True)
    thread.start()
    return thread


def until(condition) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def leftovers(parts) -> list:
    return [*(parts.config.state_folder / "runs").iterdir(), *parts.launcher.list()]


def test_from_claim_to_delivery(parts, proxy, server, carry_out) -> None:
    carry_out(parts, databases=["default"])
    assert proxy.delivered == [("completed", "copied\n", b'{"method": "mean"}')]
    assert [status for _, status in server.reports] == ["active"]
    assert proxy.served == 1
    assert leftovers(parts) == []


ENDINGS = [
    ("fail", "crashed", "about to fail\n"),
    ("nothing", "crashed", "error > The algorithm ended without writing a result.\n"),
    ("unstartable", "start failed", "error > The image unstartable can't be started.\n"),
    ("unknown", "non-existing Docker image", "error > The image unknown is not here.\n"),
]


@pytest.mark.parametrize(("image", "status", "log"), ENDINGS)
def test_other_endings_keep_their_log(image, status, log, parts, carry_out) -> None:
    carry_out(parts, image)
    assert parts.proxy.delivered == [(status, log, None)]
    assert leftovers(parts) == []


def test_logs_that_the_owner_keeps(parts, proxy, server, make_order) -> None:
    kept = replace(parts, config=parts.config.model_copy(update={"share": Share(logs=False)}))
    for run, image in enumerate(["copy", "fail", "nothing"], 1):
        Pipeline(kept, Entry(make_order(image, run=run))).carry_out()
    sentence = "The owner of this node does not give out what algorithms write to their logs.\n"
    assert [log for _, log, _ in proxy.delivered] == [
        sentence,
        f"{sentence}\nerror > The algorithm ended with exit code 3.\n",
        f"{sentence}\nerror > The algorithm ended without writing a result.\n",
    ]
    stopped = Pipeline(kept, Entry(make_order("wait", run=4)))
    thread = in_thread(stopped)
    until(lambda: len(server.reports) == 4)
    stopped.stop("killed by user")
    thread.join(10)
    assert [text[::-1] for _, _, text in server.finished] == [sentence]


class NamespaceEnds(fakes.FakeLauncher):
    """So many namespaces end before anything is started in them."""

    def __init__(self, images, ends: int) -> None:
        super().__init__(images)
        self.ends, self.prepared = ends, 0

    def prepare(self, attempt):
        self.prepared += 1
        return super().prepare(attempt)

    def start(self, spec, environment) -> None:
        if self.prepared <= self.ends:
            raise Vanished("The namespace holder ended before the algorithm was started.")
        super().start(spec, environment)


def test_a_namespace_that_ends_before_the_start_is_made_once_more(parts, proxy, launcher, carry_out) -> None:
    once = NamespaceEnds(launcher.images, 1)
    carry_out(replace(parts, launcher=once))
    assert proxy.delivered == [("completed", "copied\n", b'{"method": "mean"}')]
    assert (len(once.starts), once.prepared, proxy.served) == (1, 2, 2)
    assert leftovers(parts) == []


def test_a_namespace_that_ends_again_fails_the_run(parts, proxy, launcher, carry_out) -> None:
    ever = NamespaceEnds(launcher.images, 9)
    carry_out(replace(parts, launcher=ever))
    [(status, log, _)] = proxy.delivered
    assert (status, ever.prepared, ever.starts) == ("start failed", 2, [])
    assert "namespace holder ended" in log
    assert leftovers(parts) == []


def test_an_unknown_database(parts, proxy, carry_out) -> None:
    carry_out(parts, databases=["patients"])
    [(status, log, result)] = proxy.delivered
    assert status == "not allowed"
    assert log == 'error > This node has no database "patients"; it has: default.\n'
    assert result is None
    assert parts.launcher.starts == []


def test_a_database_that_is_gone(parts, proxy, carry_out) -> None:
    parts.config.databases[0].uri.unlink()
    carry_out(parts, databases=["default"])
    [(status, log, _)] = proxy.delivered
    assert status == "failed"
    assert "not there at present" in log


@pytest.mark.parametrize(("kind", "status"), [("refused", "not allowed"), ("invalid", "failed")])
def test_an_input_that_the_proxy_does_not_open(kind, status, parts, server, carry_out) -> None:
    parts.proxy.trouble["open"] = [ProxyError(kind, "The signature does not hold.")]
    carry_out(parts)
    [(_, ended, text)] = server.finished
    assert (ended, text) == (status, "error > The signature does not hold.\n")
    assert parts.proxy.delivered == []
    assert leftovers(parts) == []


def test_a_server_that_is_away_is_waited_for(parts, proxy, carry_out) -> None:
    away = ProxyError("unreachable", "The server does not answer.")
    proxy.trouble = {"open": [away], "seal": [away], "deliver": [away, away]}
    carry_out(parts)
    assert [status for status, _, _ in proxy.delivered] == ["completed"]


def test_a_fenced_delivery_is_dropped(parts, proxy, caplog, carry_out) -> None:
    proxy.trouble["deliver"] = [ProxyError("fenced", "The attempt is not the current one.")]
    with caplog.at_level("INFO"):
        carry_out(parts)
    assert proxy.delivered == []
    assert "is given up: The attempt is not the current one." in caplog.text
    assert leftovers(parts) == []


# --- large results ---------------------------------------------------------------------------------------


@pytest.fixture
def large(proxy) -> bytes:
    """What the algorithm then copies."""
    proxy.method = "m" * 100_000
    return json.dumps({"method": proxy.method}).encode()


def test_a_large_result_is_sealed_on_its_way(parts, proxy, carry_out, large) -> None:
    carry_out(parts)
    assert proxy.delivered == [("completed", "copied\n", large)]
    assert "deliver" not in proxy.asked
    assert leftovers(parts) == []


@pytest.mark.parametrize("kind", ["unreachable", "internal", "invalid", "refused"])
def test_one_that_can_not_be_handed_over_is_kept_and_delivered(parts, proxy, carry_out, large, kind) -> None:
    proxy.trouble = {"hand_over": [ProxyError(kind, "It broke off.")], "deliver": [ProxyError("unreachable", "Away.")]}
    carry_out(parts)
    assert proxy.delivered == [("completed", "copied\n", large)]
    told = [one for one in proxy.asked if one in {"seal", "hand_over", "deliver"}]
    assert told == ["seal", "hand_over", "seal", "deliver", "deliver"]
    assert leftovers(parts) == []


def test_a_fenced_one_is_dropped(parts, proxy, carry_out, large) -> None:
    proxy.trouble["hand_over"] = [ProxyError("fenced", "The attempt is not the current one.")]
    carry_out(parts)
    assert proxy.delivered == []
    assert leftovers(parts) == []


def test_a_fenced_start_is_stopped(parts, proxy, server, carry_out) -> None:
    server.fenced = True
    carry_out(parts, "wait")
    assert proxy.delivered == []
    assert leftovers(parts) == []


def test_a_result_that_can_not_be_sealed(parts, proxy, carry_out) -> None:
    proxy.trouble["seal"] = [ProxyError("invalid", "There is no key.")]
    carry_out(parts)
    [(status, log, result)] = proxy.delivered
    assert (status, result) == ("failed", None)
    assert "There is no key." in log


def test_a_fault_of_the_node_still_ends_the_run(parts, proxy, server, monkeypatch, carry_out) -> None:
    monkeypatch.setattr(proxy, "open", lambda *_: 1 / 0)
    carry_out(parts)
    [(_, status, text)] = server.finished
    assert status == "unknown error"
    assert "division" not in text


def test_a_fault_is_told_until_the_server_has_heard_of_it(parts, proxy, server, monkeypatch, carry_out) -> None:
    """Else it would give the run again, and the journal would know nothing of its start."""
    monkeypatch.setattr(proxy, "open", lambda *_: 1 / 0)
    fail_first(monkeypatch, server, "finish", ServerUnreachable("Away."))
    carry_out(parts)
    assert [status for _, status, _ in server.finished] == ["unknown error"]
    assert leftovers(parts) == []


def test_a_call_that_the_server_does_not_take_gives_no_run_up(parts, proxy, server, monkeypatch, make_order) -> None:
    """After a jump of its clock the server may take no token for a while."""
    fail_first(monkeypatch, server, "run_token", InvalidInput("The token is not yet valid (iat)", 422))
    Pipeline(parts, Entry(make_order().model_copy(update={"token_expires_in": 0}))).carry_out()
    assert [status for status, _, _ in proxy.delivered] == ["completed"]
    assert len(parts.launcher.starts) == 1


def fail_first(monkeypatch, thing, name: str, error: Exception) -> None:
    real, errors = getattr(thing, name), [error]

    def call(*arguments):
        if errors:
            raise errors.pop()
        return real(*arguments)

    monkeypatch.setattr(thing, name, call)


def test_a_kill_ends_it_at_once_and_leaves_its_log(parts, proxy, server, make_order) -> None:
    pipeline = Pipeline(parts, Entry(make_order("wait")))
    thread = in_thread(pipeline)
    until(lambda: server.reports)
    pipeline.stop("killed by user")
    thread.join(10)
    assert not thread.is_alive()
    assert [(status, text[::-1]) for _, status, text in server.finished] == [("killed by user", "waiting\n")]
    assert proxy.delivered == []
    assert leftovers(parts) == []


def test_a_kill_before_the_start(parts, proxy, make_order) -> None:
    slow = fakes.SlowLauncher({"wait": fakes.wait_for_kill})
    pipeline = Pipeline(replace(parts, launcher=slow), Entry(make_order("wait")))
    thread = in_thread(pipeline)
    pipeline.stop("killed by user")
    slow.go.set()
    thread.join(10)
    assert not thread.is_alive()
    assert slow.starts == []
    assert proxy.delivered == []


def test_the_time_limit(parts, proxy, carry_out) -> None:
    carry_out(limited(parts, 1.0), "wait")
    [(status, log, _)] = proxy.delivered
    assert status == "timed out"
    assert "longer than this node allows (1 s)" in log
    assert log.startswith("waiting\n")


def test_a_server_that_does_not_know_time_limits_is_told_of_a_failure(parts, proxy, carry_out) -> None:
    proxy.trouble["deliver"] = [ProxyError("invalid", "Field \"status\": Input should be 'pending' or 'failed'.")]
    carry_out(limited(parts, 1.0), "wait")
    [(status, log, _)] = proxy.delivered
    assert status == "failed"
    assert "longer than this node allows (1 s)" in log


def limited(parts, seconds: float):
    limits = parts.config.limits.model_copy(update={"seconds": seconds})
    return replace(parts, config=parts.config.model_copy(update={"limits": limits}))


@pytest.mark.parametrize("jump", [2 * 86400, -2 * 86400])
def test_a_clock_that_is_set_neither_ends_a_run_nor_silences_it(parts, proxy, server, make_order, jump) -> None:
    ahead = [0]
    pipeline = Pipeline(replace(parts, clock=lambda: time.time() + ahead[0]), Entry(make_order("wait")))
    thread = in_thread(pipeline)
    until(lambda: server.reports)
    ahead[0] = jump
    until(lambda: server.shown)
    assert proxy.delivered == []
    pipeline.stop("over")
    thread.join(10)


def test_a_node_that_starts_again_goes_on_counting(parts, proxy, entry_after_restart) -> None:
    """By seconds that nobody sets: the hour of the day is another one."""
    entry = entry_after_restart("wait")
    now = [parts.steady() + 3000]
    later = replace(limited(parts, 3600), steady=lambda: now[0], clock=lambda: 0.0)
    thread = in_thread(Pipeline(later, entry))
    until(lambda: proxy.served == 2)
    assert proxy.delivered == []
    now[0] += 601
    thread.join(10)
    assert "timed out" in [status for status, _, _ in proxy.delivered]


def test_a_token_is_renewed_after_half_its_life(parts, make_order) -> None:
    now, day = [0.0], [time.time()]
    course = Course(replace(parts, steady=lambda: now[0], clock=lambda: day[0]), Entry(make_order()))
    day[0] += 86400
    assert course.token() == "first"
    now[0], day[0] = 451.0, 0.0
    assert course.token() == "fresh"


def test_an_input_that_is_too_large(parts, server, carry_out) -> None:
    """It is not even fetched: the run's area lies in the node's memory."""
    limits = parts.config.limits.model_copy(update={"input": 2})
    carry_out(replace(parts, config=parts.config.model_copy(update={"limits": limits})))
    [(_, status, text)] = server.finished
    assert status == "not allowed"
    assert "has 3 bytes; this node allows 2" in text


def test_an_engine_that_does_not_answer(parts, proxy, carry_out) -> None:
    carry_out(replace(parts, launcher=fakes.NeverLauncher({})))
    [(status, log, _)] = proxy.delivered
    assert status == "failed"
    assert "No engine answers" in log


def test_an_engine_that_breaks_off_in_the_start(parts, proxy, carry_out) -> None:
    """It did start: so it is watched, not started again."""
    forgetful = fakes.ForgetfulLauncher({"copy": fakes.copy_input})
    carry_out(replace(parts, launcher=forgetful))
    assert len(forgetful.starts) == 1
    assert [status for status, _, _ in proxy.delivered] == ["completed"]


@pytest.fixture
def entry_after_restart(parts, launcher, make_order):
    """Starts a run and lets its daemon end; the entry that the next daemon finds."""
    return partial(_entry_after_restart, parts, launcher, make_order)


class UntilTheNodeEnds:
    """Another launcher, whose polls end with their process: nobody hears from it any more."""

    def __init__(self, launcher, closing, watching) -> None:
        self._launcher, self._closing, self._watching = launcher, closing, watching

    def __getattr__(self, name):
        return getattr(self._launcher, name)

    def poll(self, attempt, timeout):
        self._watching.set()
        self._closing.wait()
        raise NodeStops


def _entry_after_restart(parts, launcher, make_order, image: str) -> Entry:
    closing, watching = threading.Event(), threading.Event()
    first = replace(parts, closing=closing, launcher=UntilTheNodeEnds(launcher, closing, watching))
    pipeline = Pipeline(first, Entry(make_order(image)))
    thread = threading.Thread(target=pipeline.carry_out, daemon=True)
    thread.start()
    assert watching.wait(10)
    closing.set()
    thread.join(10)
    assert not thread.is_alive()
    [entry] = Journal(parts.config.state_folder / "runs").read().entries
    assert entry.stage is Stage.STARTING
    return entry


def test_a_running_attempt_is_taken_up_again(parts, launcher, proxy, entry_after_restart) -> None:
    go = threading.Event()
    launcher.images["slow"] = lambda spec, container: go.wait() and fakes.copy_input(spec, container)
    entry = entry_after_restart("slow")
    second = Pipeline(parts, entry)
    thread = in_thread(second)
    until(lambda: proxy.served == 2)
    assert proxy.delivered == []
    thread_count = len(launcher.starts)
    go.set()
    thread.join(10)
    assert thread_count == len(launcher.starts) == 1
    assert ("completed", "copied\n", b'{"method": "mean"}') in proxy.delivered


def test_an_attempt_that_vanished_has_crashed(parts, launcher, proxy, carry_out, entry_after_restart) -> None:
    entry = entry_after_restart("wait")
    launcher.forget(entry.key)
    Pipeline(parts, entry).carry_out()
    [(status, log, _)] = proxy.delivered
    assert status == "crashed"
    assert "vanished" in log
    assert len(launcher.starts) == 1


def end_unseen(parts, monkeypatch, written: bytes, *, broke_off: bool) -> None:
    """An image that writes this; the engine says 255 in the end, perhaps after it was away."""

    def write(spec, container) -> int:
        (spec.task_folder / "output").write_bytes(written)
        return 0

    def poll(attempt, timeout) -> Ended | None:
        ended = real(attempt, timeout)
        if answers:
            raise answers.pop()
        return ended and Ended(255)

    real, answers = parts.launcher.poll, [LauncherError("The engine broke off.")] if broke_off else []
    parts.launcher.images["write"] = write
    monkeypatch.setattr(parts.launcher, "poll", poll)


UNWATCHED = [
    (b'{"mean": 3}', "completed", b'{"mean": 3}'),
    (b'{"mean": 3', "crashed", None),
    (b"", "crashed", None),
    (b"37", "crashed", None),
]


@pytest.mark.parametrize(("written", "status", "result"), UNWATCHED)
def test_an_end_that_the_engine_missed_is_told_by_the_result(
    *, written, status, result, parts, carry_out, monkeypatch
) -> None:
    """A whole result says that the algorithm had come to its end."""
    end_unseen(parts, monkeypatch, written, broke_off=True)
    carry_out(parts, "write")
    assert [(ended, sealed) for ended, _, sealed in parts.proxy.delivered] == [(status, result)]


def test_exit_code_255_under_the_nodes_eyes_is_a_failure(parts, carry_out, monkeypatch) -> None:
    end_unseen(parts, monkeypatch, b'{"mean": 3}', broke_off=False)
    carry_out(parts, "write")
    assert [status for status, _, _ in parts.proxy.delivered] == ["crashed"]


@pytest.mark.parametrize("verb", ["resolve", "prepare", "start", "remove"])
def test_an_engine_that_is_restarted_costs_no_run(*, verb, parts, launcher, proxy, carry_out, monkeypatch) -> None:
    """Whatever it is asked for first; the engine of "start" died before it made anything."""
    real, away = getattr(launcher, verb), [EngineAway("The engine does not answer.")] * 2

    def ask(*given):
        if away:
            raise away.pop()
        return real(*given)

    monkeypatch.setattr(launcher, verb, ask)
    carry_out(parts)
    assert [(status, result) for status, _, result in proxy.delivered] == [("completed", b'{"method": "mean"}')]
    assert len(launcher.starts) == 1
    assert leftovers(parts) == []


@pytest.mark.parametrize(("refusals", "stays"), [(2, False), (100, True)])
def test_an_engine_that_refuses_to_clean_up_is_asked_again_for_a_while(
    *, refusals, stays, parts, launcher, proxy, carry_out, monkeypatch
) -> None:
    remove, refusing = launcher.remove, [LauncherError("It did not receive an exit event.")] * refusals

    def ask(attempt) -> None:
        if refusing:
            raise refusing.pop()
        remove(attempt)

    monkeypatch.setattr(launcher, "remove", ask)
    monkeypatch.setattr(BackOff, "pause", lambda _: 0.001)
    carry_out(parts)
    assert [status for status, _, _ in proxy.delivered] == ["completed"]
    assert bool(launcher.list()) is stays


def test_a_container_that_was_made_and_perhaps_not_started_is_not_started_again(
    parts, launcher, proxy, carry_out, monkeypatch
) -> None:
    def start(spec, environment) -> None:
        launcher._containers[spec.attempt] = fakes.FakeContainer()
        raise EngineAway("The engine does not answer.")

    monkeypatch.setattr(launcher, "start", start)
    carry_out(parts)
    assert [status for status, _, _ in proxy.delivered] == ["start failed"]
    assert leftovers(parts) == []


def test_a_full_disk_is_waited_for(parts, proxy, make_order, monkeypatch) -> None:
    """When the sealed result is written, and when the journal is."""
    full = OSError(errno.ENOSPC, "No space left on device")
    proxy.trouble["seal"] = [full, ProxyError("unreachable", "[Errno 28] No space left on device")]
    write, failing = parts.journal.write, [full]

    def write_when_there_is_room(entry) -> None:
        if entry.stage is Stage.SEALED and failing:
            raise failing.pop()
        write(entry)

    monkeypatch.setattr(parts.journal, "write", write_when_there_is_room)
    Pipeline(parts, Entry(make_order())).carry_out()
    assert proxy.delivered == [("completed", "copied\n", b'{"method": "mean"}')]
    assert failing == []


@pytest.mark.parametrize("where", ["folder", "journal"])
def test_a_disk_that_is_full_before_the_start_is_what_the_run_fails_of(
    *, where, parts, proxy, server, launcher, carry_out, monkeypatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/var/lib/node/runs")

    if where == "folder":
        monkeypatch.setattr("skerry_node.areas.make", full)
    else:
        write = parts.journal.write
        monkeypatch.setattr(
            parts.journal, "write", lambda entry: full() if entry.stage is Stage.STARTING else write(entry)
        )
    carry_out(parts)
    [(status, log)] = [one[:2] for one in proxy.delivered] + [one[1:] for one in server.finished]
    assert status == "failed"
    assert "disk is full" in log
    assert "/var/lib" not in log
    assert launcher.starts == []
    assert leftovers(parts) == []


def test_a_start_that_the_node_did_not_live_to_see_is_not_tried_again(
    parts, launcher, proxy, entry_after_restart
) -> None:
    entry = entry_after_restart("wait")
    launcher._containers[entry.key] = fakes.FakeContainer()
    Pipeline(parts, entry).carry_out()
    assert [status for status, _, _ in proxy.delivered] == ["start failed"]
    assert len(launcher.starts) == 1
    assert launcher.list() == []


def test_a_sealed_result_outlives_the_daemon(parts, proxy, carry_out, make_order) -> None:
    """The first daemon ends while the server is away; the second delivers what lies in the outbox."""
    away = ProxyError("unreachable", "The server does not answer.")
    proxy.trouble["deliver"] = [away] * 100
    first = replace(parts, closing=threading.Event())
    thread = in_thread(Pipeline(first, Entry(make_order())))
    until(lambda: "deliver" in proxy.asked)
    first.closing.set()
    thread.join(30)
    assert not thread.is_alive()
    proxy.trouble.clear()
    [entry] = parts.journal.read().entries
    Pipeline(parts, entry).carry_out()
    assert proxy.delivered == [("completed", "copied\n", b'{"method": "mean"}')]
    assert leftovers(parts) == []
    assert len(parts.launcher.starts) == 1


def test_the_gate_is_given_to_a_new_proxy(parts, proxy, server, make_order) -> None:
    pipeline = Pipeline(parts, Entry(make_order("wait")))
    thread = in_thread(pipeline)
    until(lambda: server.reports)
    pipeline.serve_again()
    assert proxy.served == 2
    pipeline.stop("over")
    thread.join(10)


def test_an_active_run_shows_its_log(parts, proxy, server, make_order) -> None:
    """By a clock that runs faster than the tests'."""
    quick = replace(parts, steady=lambda: time.monotonic() * 50)
    pipeline = Pipeline(quick, Entry(make_order("wait")))
    thread = in_thread(pipeline)
    until(lambda: server.shown)
    pipeline.stop("killed by user")
    thread.join(10)
    assert server.shown == [(pipeline.key, "waiting\n")]
