from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from federation import TOKEN, Caller, FakeServer, make_input, make_order, make_settings, start_server

from skerry.keys import Identity
from skerry_proxy.office import Office
from skerry_proxy.settings import Settings


def make_identity() -> Identity:
    return Identity(generate_private_key(public_exponent=65537, key_size=2048), Ed25519PrivateKey.generate())


@pytest.fixture(scope="session")
def alice() -> Identity:
    """Organization 1: asks."""
    return make_identity()


@pytest.fixture(scope="session")
def bob() -> Identity:
    """Organization 2: the proxy's own."""
    return make_identity()


@pytest.fixture(scope="session")
def carol() -> Identity:
    """Organization 3: gets child tasks."""
    return make_identity()


@pytest.fixture
def fake(alice, bob, carol) -> FakeServer:
    people = ((1, alice), (2, bob), (3, carol))
    return FakeServer(keys=[identity.organization_keys(number) for number, identity in people])


@pytest.fixture
def server_url(fake) -> Iterator[str]:
    server = start_server(fake)
    yield f"http://127.0.0.1:{server.server_port}"
    fake.released.set()
    server.shutdown()
    server.server_close()


@dataclass
class Bench:
    """An office on a folder, and what a node and a container do with it."""

    office: Office
    folder: Path
    fake: FakeServer
    alice: Identity
    bob: Identity
    format: str

    def open(self, plaintext: bytes = b'{"method": "central"}', **changes) -> dict:
        task_uuid, stored = make_input(self.format, plaintext, self.alice, self.bob)
        return self.open_order(make_order(self.format, stored, task_uuid=task_uuid, **changes))[0]

    def open_order(self, order: dict) -> tuple[dict, bytes]:
        """The answer, and the decrypted input."""
        path = self.folder / "opened"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
            answer = self.office.open(order, descriptor)
        finally:
            os.close(descriptor)
        return answer, path.read_bytes()

    def serve(self, resume: dict, token: str = TOKEN) -> Caller:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            gate_token = self.office.serve(resume, token, [listener.fileno()])
            return Caller(listener.getsockname()[1], gate_token)


@pytest.fixture
def make_bench(tmp_path, fake, server_url, alice, bob) -> Iterator[Callable[..., Bench]]:
    made: list[Office] = []

    def make(fmt: str = "native", **changes) -> Bench:
        defaults: dict = {"native": {}, "vantage6": {"accept": "both", "unsigned": "allow"}}.get(
            fmt, {"encrypted": False, "unsigned": "allow"}
        )
        values = make_settings(server_url, tmp_path, **(defaults | changes))
        settings = Settings.parse(json.dumps(values).encode())
        office = Office(settings, bob if settings.encrypted else None)
        made.append(office)
        return Bench(office, tmp_path, fake, alice, bob, fmt)

    yield make
    for office in made:
        office.close()


@pytest.fixture
def bench(make_bench) -> Bench:
    return make_bench()


def session_for(caller: Caller) -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    session.headers["Authorization"] = f"Bearer {caller.token}"
    return session


@pytest.fixture
def call() -> Callable[..., requests.Response]:
    """One call of a container, as an HTTP client makes it."""

    def make(caller: Caller, method: str, path: str, **options) -> requests.Response:
        with session_for(caller) as session:
            return session.request(method, f"http://127.0.0.1:{caller.port}{path}", timeout=20, **options)

    return make
