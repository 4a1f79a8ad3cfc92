"""A breached server against a real node with its real proxy: what it can't make the node do, and can't change unseen.

Each attack differs in one point from the honest order, which runs.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from lying_server import PATIENCE, LyingServer, serve

from skerry import crypto, keys
from skerry.dev.leftovers import remove_folder
from skerry.errors import CryptoError
from skerry.keys import Certificate, Identity
from skerry.payloads import Collaboration, Keyring, Owner, Payloads, TaskFacts
from skerry.pins import Pins
from skerry.statements import revoked, succeed
from skerry.wire import MAGIC, Context, Format, b64, to_stored, unb64

pytestmark = pytest.mark.integration
SKERRY = Path(sys.executable).with_name("skerry")
PROBE = Path(__file__).parent.parent / "algorithms" / "probe"
IMAGE, OTHER_IMAGE = "skerry-tests/allowed", "skerry-tests/forbidden"
DATABASES: tuple[dict[str, Any], ...] = ({"label": "default"},)
TEXT = b'{"method": "echo", "args": [], "kwargs": {"value": 42}}'
REFUSED = "not allowed"


def make_identity() -> Identity:
    return Identity(generate_private_key(public_exponent=65537, key_size=2048), Ed25519PrivateKey.generate())


def certified(organization: Identity, number: int, user: int) -> Identity:
    own = Ed25519PrivateKey.generate()
    certificate = Certificate.issue(organization.require_signing(), number, user, own.public_key().public_bytes_raw())
    return Identity(organization.encryption, own, certificate)


@dataclass
class World:
    """Organizations 1 (asks; allowed), 2 (the node's), 3 (not allowed); user 7 of organization 1 is allowed."""

    folder: Path
    liar: LyingServer
    people: dict[int, Identity]
    user: Identity
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def start(self) -> None:
        command = [str(SKERRY), "node", "start", "--config", str(self.folder / "node.yaml")]
        log = (self.folder / "node.log").open("ab")
        with log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment)
        assert self.liar.sees_node(lambda: self.process is not None and self.process.poll() is None), self.log()

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(PATIENCE)
            self.process = None

    def show_keys(self, **changed: dict[str, Any]) -> None:
        """The genuine keys, but for those of ``organization_<n>``."""
        entries = {f"organization_{number}": one.organization_keys(number) for number, one in self.people.items()}
        self.liar.keys = list((entries | changed).values())

    def context(self, **changes: Any) -> Context:
        now = int(time.time())
        genuine = Context(
            direction="input",
            task=str(uuid.uuid4()),
            parent=None,
            collaboration=1,
            sender=1,
            user=7,
            recipient=2,
            image=IMAGE,
            databases=DATABASES,
            attempt=None,
            created=now,
            expires=now + 3600,
        )
        return replace(genuine, **changes)

    def seal(
        self, context: Context, text: bytes = TEXT, author: Identity | None = None, chain: tuple[crypto.Proof, ...] = ()
    ) -> bytes:
        recipient = self.people[2].public_pem
        pieces = crypto.seal([text], context, recipients=[recipient], identity=author or self.user, chain=chain)
        return b"".join(pieces)

    def order(self, context: Context, stored: bytes, **task: Any) -> dict[str, Any]:
        number = next(self.numbers)
        described = {
            "id": number,
            "uuid": context.task,
            "parent_uuid": context.parent,
            "job_id": number,
            "parent_id": None,
            "name": "n",
            "image": context.image,
            "collaboration_id": 1,
            "study_id": None,
            "store_id": None,
            "init_org_id": context.sender,
            "init_user_id": 7,
            "databases": list(context.databases),
        }
        return {
            "run": number,
            "attempt": 1,
            "organization_id": 2,
            "node_id": 5,
            "format": "native",
            "task": described | task,
            "input": b64(stored),
            "input_size": len(stored),
            "token": "upstream",
            "token_expires_in": 900,
        }

    def runs(self, order: dict[str, Any]) -> dict[str, Any]:
        ended = self.liar.offer(order)
        assert ended["status"] == "completed", (ended, self.log())
        assert self.liar.ran(order["run"])
        return ended

    def refuses(self, order: dict[str, Any], status: str = REFUSED) -> str:
        """Nothing was started, nothing but a sentence came out."""
        ended = self.liar.offer(order)
        assert ended["status"] == status, (ended, self.log())
        assert not self.liar.ran(order["run"])
        assert (ended["result"], ended["staged"], order["run"] in self.liar.staged) == (None, False, False)
        return self.read_log(ended["log"])

    def read_log(self, log: str) -> str:
        """What could be opened is sealed for the asker, organization 1 or 3; else a sentence in the clear."""
        if not log.startswith(b64(MAGIC)[:4]):
            return log
        for reader in (self.people[1], self.people[3]):
            try:
                return b"".join(crypto.unseal([unb64(log)], reader).chunks).decode()
            except CryptoError:
                continue
        raise AssertionError("nobody can read this log")

    def log(self) -> str:
        return (self.folder / "node.log").read_text()[-4000:]

    def client(self) -> Payloads:
        """User 7, who reads what the server hands on."""
        keyring = Keyring(self.user, Pins(self.folder / f"{uuid.uuid4()}.json"))
        return Payloads(Owner(1, 7), lambda _: self.liar.keys, keyring)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    # Not below pytest's own folder, which every session that starts closes to the node's other users.
    folder = Path(tempfile.mkdtemp(prefix="skerry-lying-"))
    folder.chmod(0o711)
    environment = {**os.environ, "XDG_DATA_HOME": str(folder)}
    for image in (IMAGE, OTHER_IMAGE):
        command = [str(SKERRY), "algorithm", "build", str(PROBE), "--tag", image, "--launcher", "process"]
        built = subprocess.run(
            [*command, "--registry", str(folder / "images")], capture_output=True, text=True, check=False
        )
        assert built.returncode == 0, built.stderr
    people = {number: make_identity() for number in (1, 2, 3)}
    liar = LyingServer()
    server = serve(liar)
    world = World(folder, liar, people, certified(people[1], 1, 7), environment)
    world.show_keys()
    configure(folder, server.server_port, people[2])
    try:
        world.start()
        yield world
    finally:
        world.stop()
        server.shutdown()
        server.server_close()
        remove_folder(folder)


def configure(folder: Path, port: int, identity: Identity) -> None:
    identity.save(folder / "key.pem")
    (folder / "api-key").touch(mode=0o600)
    (folder / "api-key").write_text("11111111-1111-4111-8111-111111111111\n")
    (folder / "data").mkdir(mode=0o755)
    for name in ("default", "secret"):
        (folder / "data" / f"{name}.csv").write_text("age\n1\n")
        (folder / "data" / f"{name}.csv").chmod(0o444)
    labels = ("default", "secret")
    settings = {
        "name": "node",
        "server": {"url": f"http://127.0.0.1:{port}"},
        "api_key_file": "api-key",
        "state_folder": "s",
        "encryption": {"private_key_file": "key.pem"},
        "databases": [{"label": label, "uri": f"data/{label}.csv", "type": "csv"} for label in labels],
        "policies": {
            "allowed_algorithms": [{"algorithm": IMAGE, "functions": ["echo"], "databases": ["default"]}],
            "allowed_users": [7],
            "allowed_organizations": [1],
        },
        "launcher": "process",
        "process": {"registry": "images"},
        "development": True,
    }
    (folder / "node.yaml").write_text(yaml.safe_dump(settings))


@pytest.fixture(autouse=True)
def _genuine_keys(world: World) -> None:
    world.show_keys()


def test_the_honest_order_runs_and_its_result_can_be_read(world: World) -> None:
    context = world.context()
    ended = world.runs(world.order(context, world.seal(context)))
    facts = TaskFacts(context.task, Collaboration(1, encrypted=True, accept="native"), IMAGE, DATABASES)
    stored = to_stored(ended["result"], Format.NATIVE)
    assert world.client().open(stored, "result", facts, 2) == b"42"


# --- policy ----------------------------------------------------------------------------------------------


def test_another_image_than_the_signed_one(world: World) -> None:
    context = world.context()
    world.refuses(world.order(context, world.seal(context), image=OTHER_IMAGE))


def test_an_image_that_the_policy_lacks_though_it_is_signed(world: World) -> None:
    context = world.context(image=OTHER_IMAGE)
    world.refuses(world.order(context, world.seal(context)))


def test_a_user_that_the_policy_lacks(world: World) -> None:
    context = world.context(user=8)
    order = world.order(context, world.seal(context, author=certified(world.people[1], 1, 8)))
    assert "user 8" in world.refuses(order)


def test_a_user_whom_only_the_server_names(world: World) -> None:
    """The organization signed for nobody in particular; the server says that it was user 7."""
    context = world.context(user=None)
    world.refuses(world.order(context, world.seal(context, author=world.people[1])))


def test_a_function_that_the_policy_lacks(world: World) -> None:
    context = world.context()
    order = world.order(context, world.seal(context, b'{"method": "noop", "args": [], "kwargs": {}}'))
    assert "noop" in world.refuses(order)


@pytest.mark.parametrize("databases", [[{"label": "secret"}], [{"label": "default"}, {"label": "secret"}], []])
def test_other_databases_than_the_signed_ones(world: World, databases: list[dict[str, str]]) -> None:
    context = world.context()
    world.refuses(world.order(context, world.seal(context), databases=databases))


def test_a_database_that_the_policy_lacks_though_it_is_signed(world: World) -> None:
    context = world.context(databases=({"label": "secret"},))
    assert "secret" in world.refuses(world.order(context, world.seal(context)))


def test_an_organization_that_the_policy_lacks(world: World) -> None:
    context = world.context(sender=3)
    order = world.order(context, world.seal(context, author=certified(world.people[3], 3, 7)), init_org_id=1)
    assert "organization 3" in world.refuses(order)


def test_a_child_task_of_an_organization_that_the_policy_lacks(world: World) -> None:
    """An allowed organization's central function is no way around the policy."""
    parent, author = world.context(sender=3, recipient=1), certified(world.people[3], 3, 7)
    stored = b"".join(crypto.seal([TEXT], parent, recipients=[world.people[1].public_pem], identity=author))
    opened = crypto.unseal([stored], world.people[1])
    list(opened.chunks)
    child = world.context(user=None, parent=parent.task)
    order = world.order(child, world.seal(child, author=world.people[1], chain=(opened.proof,)))
    assert "organization 3" in world.refuses(order)


@pytest.mark.parametrize("fmt", ["plain", "vantage6"])
def test_a_task_that_nobody_signed(world: World, fmt: str) -> None:
    context = world.context()
    stored = TEXT if fmt == "plain" else crypto.vantage6_encrypt(TEXT, world.people[2].public_pem).encode()
    world.refuses(world.order(context, stored) | {"format": fmt})


@pytest.mark.parametrize("change", [{"organization_id": 1}, {"node_id": 6}])
def test_another_nodes_run(world: World, change: dict[str, int]) -> None:
    context = world.context()
    world.refuses(world.order(context, world.seal(context)) | change)


# --- replay and time -------------------------------------------------------------------------------------


def test_a_task_is_not_replayed_not_even_after_a_restart(world: World) -> None:
    context = world.context()
    stored = world.seal(context)
    first = world.order(context, stored)
    world.runs(first)
    assert "used before" in world.refuses(world.order(context, stored))
    again = world.seal(context)
    assert "used before" in world.refuses(world.order(context, again))
    world.stop()
    world.start()
    assert "used before" in world.refuses(world.order(context, stored))


def test_an_expiry_is_not_stretched(world: World) -> None:
    now = int(time.time())
    for times in ({"created": now - 7200, "expires": now - 3600}, {"expires": now + 40 * 86400}):
        context = world.context(**times)
        assert "expired" in world.refuses(world.order(context, world.seal(context)))


def test_a_stretched_expiry_breaks_the_signature(world: World) -> None:
    context = world.context(expires=int(time.time()) + 1000)
    stored = world.seal(context)
    forged = stored.replace(str(context.expires).encode(), str(context.expires + 86400).encode())
    assert forged != stored
    world.refuses(world.order(context, forged), status="failed")


# --- keys ------------------------------------------------------------------------------------------------


def test_a_swapped_key_is_not_believed(world: World) -> None:
    mallory = make_identity()
    world.show_keys(organization_1=mallory.organization_keys(1))
    context = world.context()
    order = world.order(context, world.seal(context, author=certified(mallory, 1, 7)))
    assert "key confirm" in world.refuses(order)
    later = world.context()
    world.runs(world.order(later, world.seal(later)))


def test_a_successor_that_the_server_made_up_is_not_believed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "RSA_BITS", 2048)
    mallory = make_identity()
    fresh, statement = succeed(mallory, 1, compromised=False)
    statement["previous"] = world.people[1].own_keys(1).fingerprint
    entry = {**fresh.organization_keys(1), "successions": [statement]}
    world.show_keys(organization_1=entry)
    context = world.context()
    assert "key confirm" in world.refuses(world.order(context, world.seal(context, author=certified(fresh, 1, 7))))


def test_the_organizations_own_keys_are_those_of_its_file(world: World) -> None:
    mallory = make_identity()
    world.show_keys(organization_2=mallory.organization_keys(2))
    context = world.context(sender=2)
    world.refuses(world.order(context, world.seal(context, author=certified(mallory, 2, 7))))


# --- payloads --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", [200, -200, -70, -1])
def test_an_altered_input_is_not_run(world: World, position: int) -> None:
    context = world.context()
    bent = bytearray(world.seal(context))
    bent[position] ^= 1
    ended = world.liar.offer(order := world.order(context, bytes(bent)))
    assert ended["status"] in {REFUSED, "failed"}
    assert not world.liar.ran(order["run"])


def test_a_result_is_not_altered_swapped_or_attributed_unseen(world: World) -> None:
    client, collaboration = world.client(), Collaboration(1, encrypted=True, accept="native")
    first, second = (world.context() for _ in range(2))
    results = [
        to_stored(world.runs(world.order(context, world.seal(context)))["result"], Format.NATIVE)
        for context in (first, second)
    ]
    facts = [TaskFacts(context.task, collaboration, IMAGE, DATABASES) for context in (first, second)]
    assert client.open(results[0], "result", facts[0], 2) == b"42"
    bent = bytearray(results[0])
    bent[-100] ^= 1
    attempts = [(bytes(bent), 2), (results[1], 2), (results[0], 1), (results[0], 3), (b"42", 2)]
    for stored, sender in attempts:
        with pytest.raises(CryptoError):
            client.open(stored, "result", facts[0], sender)
    with pytest.raises(CryptoError):
        client.open(unb64(b64(results[0])), "log", facts[0], 2)


# --- what organizations themselves say, which the server only hands on; these change the node's pins: last ------


def test_a_revoked_user_is_refused_from_the_next_task_on(world: World) -> None:
    person = certified(world.people[1], 1, 7)
    context = world.context()
    world.runs(world.order(context, world.seal(context, author=person)))
    statement = revoked(world.people[1], 1, {7: int(time.time())})
    world.show_keys(organization_1={**world.people[1].organization_keys(1), "revocation": statement})
    context = world.context()
    assert "revoked" in world.refuses(world.order(context, world.seal(context, author=person)))
    world.show_keys()
    context = world.context()
    assert "revoked" in world.refuses(world.order(context, world.seal(context, author=person)))


def test_an_organizations_own_successor_is_followed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "RSA_BITS", 2048)
    old = world.people[1]
    fresh, statement = succeed(old, 1, compromised=False)
    world.show_keys(organization_1={**fresh.organization_keys(1), "successions": [statement]})
    person = certified(fresh, 1, 7)
    future = replace(person.certificate, created=person.certificate.created + 60) if person.certificate else None
    assert future is not None
    person = replace(person, certificate=resigned(future, fresh))
    context = world.context(created=int(time.time()) + 60)
    world.runs(world.order(context, world.seal(context, author=person)))


def resigned(certificate: Certificate, issuer: Identity) -> Certificate:
    return replace(certificate, signature=b64(issuer.require_signing().sign(certificate.signed_message())))
