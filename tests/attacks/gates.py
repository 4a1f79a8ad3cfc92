"""The ground for hostile calls: a gate of this process before a server that grants everything, and its relays."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "unit" / "proxy"))
import cells  # first: it knows where the attacker's modules are
import federation
from attacker.calls import CALLS
from attacker.relays import RELAYS
from attacker.trial import try_one
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from skerry.keys import Identity
from skerry_proxy.destinations import Destination
from skerry_proxy.office import Office
from skerry_proxy.relays import Lead, Relay
from skerry_proxy.settings import Settings

__all__ = ["OpenGate", "cells", "open_gate", "open_relays"]
REUSE_PORT = False
"""Whether another may listen where the gate does: for the control of that attack."""


@dataclass
class OpenGate:
    """A run's gate, which hostile calls are made to from outside of any container."""

    facts: dict[str, Any]

    def strike(self, name: str, image: str = cells.IMAGE) -> tuple[bool, str]:
        assert image in {cells.IMAGE, cells.RELAY_IMAGE}
        succeeded, seen = try_one({**CALLS, **RELAYS}[name], self.facts)
        return bool(succeeded), str(seen)


@cache
def _people() -> dict[int, Identity]:
    """Of organizations 1 (asks), 2 (the gate's own) and 3."""

    def make() -> Identity:
        return Identity(generate_private_key(public_exponent=65537, key_size=2048), Ed25519PrivateKey.generate())

    return {number: make() for number in (1, 2, 3)}


@contextmanager
def open_gate() -> Iterator[OpenGate]:
    people = _people()
    fake = federation.FakeServer(keys=[one.organization_keys(number) for number, one in people.items()])
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="skerry-gate-")))
        server = federation.start_server(fake)
        stack.callback(_end(server))
        values = federation.make_settings(f"http://127.0.0.1:{server.server_port}", folder)
        office = Office(Settings.parse(json.dumps(values).encode()), people[2])
        stack.callback(office.close)
        port, token = _serve(office, people, folder, stack)
        facts = {"gate": port, "token": token, "organization": 3, "outsider": 9999, "other_token": "another's"}
        yield OpenGate(facts | {"other_task": 77, "other_run": 78, "other_node": 6})


@contextmanager
def open_relays(folder: Path) -> Iterator[OpenGate]:
    """The same ways out as those of a node's owner, beside no namespace."""
    with cells.surroundings(folder) as facts, ExitStack() as stack:
        ways = cells.ways_out(facts)
        [gate], allowed = ways["gates"], ways["egress"]["allowed"]
        leads = {"forward": Lead("open", (Destination.parse(gate["destination"]),))}
        leads["egress"] = Lead("egress", tuple(map(Destination.parse, allowed)), egress=True)
        for name, lead in leads.items():
            listener = socket.create_server(("127.0.0.1", 0))
            facts[name] = listener.getsockname()[1]
            relay = Relay(1, lead, listener, folder)
            relay.start()
            stack.callback(relay.close)
        yield OpenGate(facts)


def _serve(office: Office, people: dict[int, Identity], folder: Path, stack: ExitStack) -> tuple[int, str]:
    uuid, stored = federation.make_input("native", b'{"method": "central"}', people[1], people[2])
    with (folder / "opened").open("w+b") as file:
        resume = office.open(federation.make_order("native", stored, task_uuid=uuid), file.fileno())["resume"]
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), reuse_port=REUSE_PORT))
    # A copy, as the node hands it over: the gate closes its own.
    with contextlib.closing(socket.socket(fileno=os.dup(listener.fileno()))) as handed:
        token = office.serve(resume, federation.TOKEN, [handed.fileno()])
    return listener.getsockname()[1], token


def _end(server: Any) -> Callable[[], None]:
    def end() -> None:
        server.shutdown()
        server.server_close()

    return end
