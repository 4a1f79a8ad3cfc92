"""To whom a relay hands on packets, who may be reached through it, and that it needs no key of theirs."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from skerry_server.relay import handshake, switch
from skerry_server.relay.cli import open_keys, relay
from skerry_server.relay.handshake import Addressee, NotForUs, Responder, Session
from skerry_server.relay.switch import SESSION_SECONDS, SILENT_SECONDS, Switch

pytestmark = pytest.mark.unit
NORTH, SOUTH, EAST = ("192.0.2.1", 1), ("192.0.2.2", 2), ("192.0.2.3", 3)


def key(letter: str) -> bytes:
    return letter.encode() * 32


def initiation(to: bytes, index: int) -> bytes:
    covered = b"\x01\0\0\0" + index.to_bytes(4, "little") + bytes(108)
    return covered + Addressee.of(to).seal(covered) + bytes(16)


def response(index: int, to_index: int) -> bytes:
    return b"\x02\0\0\0" + index.to_bytes(4, "little") + to_index.to_bytes(4, "little") + bytes(80)


def cookie(to_index: int) -> bytes:
    return b"\x03\0\0\0" + to_index.to_bytes(4, "little") + bytes(56)


def data(to_index: int, size: int = 100) -> bytes:
    return b"\x04\0\0\0" + to_index.to_bytes(4, "little") + bytes(size)


class Heard(Session):
    def hear(self, packet: bytes) -> None:
        if packet[8:9] == b"!":
            raise NotForUs


@dataclass
class FakeResponder:
    """Whoever calls is whom it is told."""

    me: Addressee = field(default_factory=lambda: Addressee.of(key("r")))
    caller: bytes = b""

    def answer(self, _: bytes, index: int) -> tuple[bytes, Session]:
        return response(index, 0), Heard(self.caller, b"")


class Place:
    def __init__(self) -> None:
        self.responder = FakeResponder()
        self.switch = Switch(self.responder, iter(range(1000, 9999)).__next__)
        self.now = 0.0
        self.given = 1000

    def take(self, packet: bytes, source: tuple[str, int]) -> tuple[bytes, tuple[str, int]] | None:
        return self.switch.take(packet, source, self.now)

    def register(self, public_key: bytes, source: tuple[str, int]) -> int:
        """The number of its session."""
        self.responder.caller = public_key
        assert self.take(initiation(key("r"), 7), source) is not None
        index, self.given = self.given, self.given + 1
        assert self.take(data(index, 24), source) is None
        return index

    def join(self, caller: tuple[str, int], called: bytes, at: tuple[str, int]) -> None:
        """A handshake by the numbers 11 and 22."""
        assert self.take(initiation(called, 11), caller) == (initiation(called, 11), at)
        assert self.take(response(22, 11), at) == (response(22, 11), caller)


@pytest.fixture
def place() -> Place:
    return Place()


def test_both_ways(place: Place) -> None:
    place.register(key("s"), SOUTH)
    place.join(NORTH, key("s"), SOUTH)
    assert place.take(data(22), NORTH) == (data(22), SOUTH)
    assert place.take(data(11), SOUTH) == (data(11), NORTH)
    assert place.take(cookie(22), NORTH) == (cookie(22), SOUTH)


def test_who_has_not_registered_is_not_reached(place: Place) -> None:
    assert place.take(initiation(key("s"), 11), NORTH) is None
    place.responder.caller = key("s")
    assert place.take(initiation(key("r"), 7), SOUTH) is not None
    assert place.take(initiation(key("s"), 11), NORTH) is None, "it has not proven yet that it knows the secret"


def test_what_proves_nothing_registers_nobody(place: Place) -> None:
    place.responder.caller = key("s")
    place.take(initiation(key("r"), 7), SOUTH)
    place.take(data(1000, 0) + b"!" + bytes(23), SOUTH)
    assert place.switch.registered == 0


def test_numbers_are_those_of_one_way(place: Place) -> None:
    """Somebody else who sends the same numbers reaches nobody, and takes nobody's place."""
    place.register(key("s"), SOUTH)
    place.join(NORTH, key("s"), SOUTH)
    assert place.take(data(22), EAST) is None
    assert place.take(data(11), EAST) is None
    assert place.take(response(33, 11), EAST) is None
    assert place.take(initiation(key("s"), 11), EAST) is None
    assert place.take(data(11), SOUTH) == (data(11), NORTH)


def test_a_run_whose_router_gives_it_another_address(place: Place) -> None:
    index = place.register(key("s"), SOUTH)
    place.join(NORTH, key("s"), SOUTH)
    place.take(data(index, 24), EAST)
    assert place.take(data(22), NORTH) == (data(22), EAST)
    assert place.take(data(11), EAST) == (data(11), NORTH)
    assert place.take(data(11), SOUTH) is None


def test_two_that_are_both_behind_the_relay(place: Place) -> None:
    place.register(key("s"), SOUTH)
    place.join(NORTH, key("s"), SOUTH)
    place.register(key("n"), NORTH)
    assert place.take(data(22), NORTH) == (data(22), SOUTH), "it registered in between"
    assert place.take(data(11), SOUTH) == (data(11), NORTH)


def test_runs_that_follow_each_other_at_one_address(place: Place) -> None:
    place.register(key("s"), SOUTH)
    place.register(key("t"), SOUTH)
    assert place.switch.registered == 1
    assert place.take(initiation(key("s"), 11), NORTH) is None
    assert place.take(initiation(key("t"), 11), NORTH) is not None
    place.now += SILENT_SECONDS + 1
    place.switch.forget(place.now)
    assert place.switch.registered == 0


def test_the_silent_are_forgotten(place: Place) -> None:
    place.register(key("s"), SOUTH)
    place.join(NORTH, key("s"), SOUTH)
    place.now += SESSION_SECONDS + 1
    place.switch.forget(place.now)
    assert place.take(initiation(key("s"), 11), NORTH) is None
    assert place.take(data(22), NORTH) is None


def test_no_more_than_so_many(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switch, "MOST_RUNS", 1)
    place.register(key("s"), SOUTH)
    place.register(key("n"), NORTH)
    assert place.switch.registered == 1
    assert place.take(initiation(key("n"), 11), EAST) is None


def test_one_host_can_not_shake_hands_for_ever(place: Place) -> None:
    place.register(key("s"), SOUTH)
    answers = [place.take(initiation(key("s"), number), NORTH) for number in range(300)]
    assert 0 < len([answer for answer in answers if answer]) < 300
    assert place.take(initiation(key("s"), 6000), EAST) is not None
    place.now += 10
    assert place.take(initiation(key("s"), 5000), NORTH) is not None


@pytest.mark.parametrize(
    "packet",
    [b"", b"\x01", data(22, 4), b"\x05\0\0\0" + bytes(100), b"\x01\0\0\x01" + bytes(144), bytes(2000), response(1, 2)],
)
def test_what_is_no_packet_of_wireguards(place: Place, packet: bytes) -> None:
    place.register(key("s"), SOUTH)
    assert place.take(packet, NORTH) is None


def test_a_handshake_of_somebody_elses_making() -> None:
    responder = Responder(X25519PrivateKey.generate(), bytes(32))
    with pytest.raises(NotForUs):
        responder.answer(initiation(responder.me.public_key, 7), 1)


@pytest.mark.parametrize("packet", [bytes(32), bytes(31), bytes(handshake.KEEPALIVE_BYTES + 1)])
def test_a_keepalive_of_somebody_elses_making(packet: bytes) -> None:
    session = Session(key("s"), bytes(32))
    with pytest.raises(NotForUs):
        session.hear(packet)


def test_keys_are_made_once_and_kept_closed(tmp_path) -> None:
    first, again = open_keys(tmp_path / "relay"), open_keys(tmp_path / "relay")
    assert first[0].private_bytes_raw() == again[0].private_bytes_raw()
    assert first[1] == again[1]
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "relay").iterdir()} == {0o600}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--address", "relay.example.org:1"], "write an address and a port"),
        (["--address", "192.0.2.9:0"], "write an address and a port"),
        (["--address", "192.0.2.9:9", "--listen", "x"], "--listen x"),
        (["--address", "192.0.2.9:9", "--listen", "192.0.2.9:9"], "can't be used"),
    ],
)
def test_what_can_not_be(tmp_path, arguments, sentence) -> None:
    done = CliRunner().invoke(relay, [str(tmp_path), *arguments])
    assert sentence in str(done.exception)


@pytest.mark.parametrize(
    ("content", "mode", "sentence"),
    [("x\n", 0o600, "as a key"), ("AAAA\n", 0o600, "not a key"), ("", 0o644, "chmod 600")],
)
def test_a_key_that_is_none(tmp_path, content, mode, sentence) -> None:
    (tmp_path / "relay.key").write_text(content)
    (tmp_path / "relay.key").chmod(mode)
    done = CliRunner().invoke(relay, [str(tmp_path), "--address", "127.0.0.1:9"])
    assert sentence in str(done.exception)
