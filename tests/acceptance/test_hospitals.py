"""Runs that talk to each other from three hospitals, two of them reached directly, one through a relay."""

from __future__ import annotations

import contextlib
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from os import kill
from pathlib import Path
from typing import Any

import pytest
from devfederation import ALGORITHMS, build
from hospitals import ADDRESSES, RELAY, RELAY_PORT, Capture, Hospital, Hospitals, hospitals

from skerry.errors import TaskFailed

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]

EXAMPLES = Path(__file__).parents[2] / "examples"
SUM = sum(20 + 10 * i + j for i in range(3) for j in range(20))
PROBE = "skerry-tests/peerprobe"
PORT = 9000
WIREGUARD_PORT = 51820


@pytest.fixture(scope="module")
def three(images: object, vpn_machine: None, state_home: Path, tables: list[Path]) -> Iterator[Hospitals]:
    built = [build(EXAMPLES / name, f"skerry-tests/{name}") for name in ("ring-sum", "secret-shares")]
    built.append(build(ALGORITHMS / "peerprobe", PROBE))
    with hospitals(state_home, ["skerry/holder", "skerry/probe", *built], tables) as federation:
        yield federation


@pytest.fixture
def hidden(three: Hospitals) -> Hospital:
    return three.hospitals[2]


@contextlib.contextmanager
def under_way(federation: Hospitals, to: int, seconds: float) -> Iterator[Callable[[], dict[str, Any]]]:
    """A run at the first hospital that exchanges lines with one at another; gives what came of it."""
    ids = federation.organization_ids
    task = federation.create(PROBE, ids[:1], "steady", organization=ids[to], seconds=seconds)
    federation.wait_for_child(task["id"])
    _await_talk(federation, task["id"])

    def result() -> dict[str, Any]:
        try:
            [found] = task.wait(timeout=240).results()
        except TaskFailed as error:
            error.add_note(federation.tell_logs())
            raise
        return dict(found)

    yield result


@pytest.mark.parametrize("example", ["ring-sum", "secret-shares"])
def test_the_examples_add_up(three: Hospitals, example: str) -> None:
    [found] = three.ask(f"skerry-tests/{example}", three.organization_ids[:1], "total", column="age")
    assert found == {"sum": SUM}


def test_nobody_on_the_way_reads_what_runs_say(three: Hospitals) -> None:
    """Through the relay, in both directions; the captures would show what is said in the clear."""
    ids, marker, clear = three.organization_ids, secrets.token_hex(16), secrets.token_hex(16).encode()
    wan = three.spaces["wan"]
    with Capture(wan, "br0") as at_relay, Capture(None, "lo") as at_server:
        [found] = three.ask(PROBE, ids[:1], "steady", organization=ids[2], seconds=5.0, marker=marker)
        three.hospitals[0].space.do(lambda: _send(clear, (RELAY, RELAY_PORT)))
        _send(clear, ("127.0.0.1", three.port))
    assert found["rounds"] > 5
    assert len([packet for packet in at_relay.udp(RELAY_PORT) if packet[:1] == b"\x04"]) > found["rounds"]
    assert at_relay.shows(clear)
    assert at_server.shows(clear)
    assert not at_relay.shows(marker.encode())
    assert not at_server.shows(marker.encode())


def _send(text: bytes, where: tuple[str, int]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(text, where)


def test_nothing_but_the_jobs_runs_is_reached(three: Hospitals) -> None:
    """No hospital's host, not its own; not the relay, the router or the internet; nor another job's run."""
    ids = three.organization_ids
    held = three.create(PROBE, ids[1:], "hold", seconds=300)
    _wait_for_active(three, held["id"], 2)
    others = three.addresses()
    assert len(others) == 2
    hosts = [*ADDRESSES, RELAY, "192.0.2.13", "10.13.0.1"]
    try:
        with _listening(three):
            assert all(_answers(three, host) for host in (ADDRESSES[0], ADDRESSES[1], RELAY))
            targets = [*([host, PORT] for host in hosts), *([host, 8888] for host in others), ["1.1.1.1", 443]]
            found = three.ask(PROBE, ids, "reach", targets=targets)
    finally:
        three.kill(held["id"])
    assert [set(one.values()) for one in found] == [{False}] * 3


def test_a_replay_is_not_answered(three: Hospitals) -> None:
    """What was recorded of an ended run does nothing to the one that has its port now."""
    ids, south = three.organization_ids, three.hospitals[1]
    south.wait_until_alone()
    with Capture(south.space, "eth0") as recorded:
        three.ask(PROBE, ids[:1], "steady", organization=ids[1], seconds=0.5)
    packets = recorded.udp(WIREGUARD_PORT)
    assert packets
    south.wait_until_alone()
    assert _replies(three, packets) == 0
    held = three.create(PROBE, ids[1:2], "hold", seconds=300)
    _wait_for_active(three, held["id"], 1)
    assert south.wireguards()
    assert _replies(three, packets) == 0
    three.kill(held["id"])


def test_a_cut_link_is_waited_for(three: Hospitals, hidden: Hospital) -> None:
    with under_way(three, 2, 10) as result:
        hidden.space.set_link("down")
        time.sleep(4)
        hidden.space.set_link("up")
        found = result()
    assert found["longest"] > 2
    assert found["rounds"] > 20


def test_a_link_that_stays_cut_ends_the_run(three: Hospitals, hidden: Hospital) -> None:
    ids = three.organization_ids
    hidden.space.set_link("down")
    try:
        task = three.create(PROBE, ids[:1], "steady", organization=ids[2], seconds=1, patience=3)
        end = time.monotonic() + 120
        while (status := three.client().task.get(task["id"])["status"]) not in {"failed", "crashed"}:
            assert status != "completed"
            assert time.monotonic() < end, status
            time.sleep(0.2)
        [run] = three.client().run.list(task=task["id"])["data"]
        assert "Nobody answers at" in three.client().run.get(run["id"])["log"]
    finally:
        hidden.space.set_link("up")
    for child in three.client().request("task", params={"parent_id": task["id"]})["data"]:
        three.kill(child["id"])


def test_a_killed_program_is_replaced(three: Hospitals) -> None:
    with under_way(three, 1, 12) as result:
        before = three.hospitals[1].wireguards()
        assert before
        for pid in before:
            kill(pid, signal.SIGKILL)
        found = result()
    assert found["rounds"] > 20


def test_a_node_that_is_killed_and_started_again(three: Hospitals, hidden: Hospital) -> None:
    with under_way(three, 2, 15) as result:
        hidden.kill_node()
        hidden.start_node()
        found = result()
    assert found["rounds"] > 20


def test_a_late_peer(three: Hospitals, hidden: Hospital) -> None:
    """Its node is away when the task comes; the others wait for it."""
    hidden.kill_node()
    try:
        task = three.create("skerry-tests/ring-sum", three.organization_ids[:1], "total", column="age")
        three.wait_for_child(task["id"], 2)
    finally:
        hidden.start_node()
    assert task.wait(timeout=240).results() == [{"sum": SUM}]


def test_the_check_meets_the_relay(three: Hospitals, hidden: Hospital) -> None:
    said = hidden.check_node()
    assert f"the relay at {RELAY} port {RELAY_PORT}" in said


def _await_talk(federation: Hospitals, task: int) -> None:
    client, end = federation.client(), time.monotonic() + 120
    while "They talk." not in (log := client.run.from_task(task)["data"][0]["log"] or ""):
        assert time.monotonic() < end, log
        time.sleep(0.1)


def _wait_for_active(federation: Hospitals, task: int, count: int) -> None:
    end = time.monotonic() + 120
    while [run["status"] for run in federation.client().run.list(task=task)["data"]] != ["active"] * count:
        assert time.monotonic() < end
        time.sleep(0.1)


@contextlib.contextmanager
def _listening(federation: Hospitals) -> Iterator[None]:
    """Somebody listens on each host."""
    made: list[socket.socket] = []
    for space in federation.spaces.values():
        made.append(space.do(lambda: socket.create_server(("", PORT))))
        threading.Thread(target=_take_all, args=(made[-1],), daemon=True).start()
    try:
        yield
    finally:
        for listener in made:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()


def _take_all(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            listener.accept()[0].close()


def _answers(federation: Hospitals, host: str) -> bool:
    """To the host of the first hospital."""

    def dial() -> bool:
        with contextlib.suppress(OSError), socket.create_connection((host, PORT), 2):
            return True
        return False

    return bool(federation.hospitals[0].space.do(dial))


def _replies(federation: Hospitals, packets: list[bytes]) -> int:
    """How many answers come when the first hospital's host sends these to the second."""

    def send() -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.settimeout(1.5)
            heard = 0
            for packet in packets:
                sender.sendto(packet, (ADDRESSES[1], WIREGUARD_PORT))
            with contextlib.suppress(TimeoutError):
                while True:
                    sender.recvfrom(1 << 16)
                    heard += 1
            return heard

    return int(federation.hospitals[0].space.do(send))
