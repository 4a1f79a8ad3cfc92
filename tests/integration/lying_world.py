"""A real node with its real proxy before a lying server, and the people whose names the server may misuse."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from lying_server import PATIENCE, LyingServer, serve

from skerry import crypto
from skerry.dev.leftovers import remove_folder
from skerry.errors import CryptoError
from skerry.keys import Certificate, Identity
from skerry.payloads import Keyring, Owner, Payloads
from skerry.pins import Pins
from skerry.wire import MAGIC, Context, b64, unb64

SKERRY = Path(sys.executable).with_name("skerry")
PROBE = Path(__file__).parent.parent / "algorithms" / "probe"
IMAGE, OTHER_IMAGE, TAGGED = "skerry-tests/allowed", "skerry-tests/forbidden", "skerry-tests/tagged"
DATABASES: tuple[dict[str, Any], ...] = ({"label": "default"},)
TEXT = b'{"method": "echo", "args": [], "kwargs": {"value": 42}}'
REFUSED = "not allowed"
POLICIES: dict[str, Any] = {
    "allowed_algorithms": [
        {"algorithm": IMAGE, "functions": ["echo"], "databases": ["default"]},
        {"algorithm": f"{TAGGED}:1", "functions": ["echo"], "databases": ["default"]},
        {"algorithm": r"skerry-tests/v[0-9]\.ok", "functions": ["echo"], "databases": ["default"]},
    ],
    "allowed_users": [7],
    "allowed_organizations": [1],
}
WEAKER = ""
"""Python that the node and its proxy run as they start: for attacks' controls, which take one defence away."""


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


@contextmanager
def open_world(more_images: Sequence[str] = (), accept: str = "native") -> Iterator[World]:
    """The node runs; everything of it is gone afterwards. ``accept`` is what the server says of the formats."""
    # Not below pytest's own folder, which every session that starts closes to the node's other users.
    folder = Path(tempfile.mkdtemp(prefix="skerry-lying-"))
    folder.chmod(0o711)
    environment = {**os.environ, "XDG_DATA_HOME": str(folder), "PYTHONPATH": str(folder / "weaker")}
    (folder / "weaker").mkdir()
    (folder / "weaker" / "sitecustomize.py").write_text(WEAKER)
    for image in (IMAGE, OTHER_IMAGE):
        command = [str(SKERRY), "algorithm", "build", str(PROBE), "--tag", image, "--launcher", "process"]
        built = subprocess.run(
            [*command, "--registry", str(folder / "images")], capture_output=True, text=True, check=False
        )
        assert built.returncode == 0, built.stderr
    for name in more_images:
        _name_again(folder / "images", name)
    people = {number: make_identity() for number in (1, 2, 3)}
    liar = LyingServer(accept=accept)
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


def _name_again(registry: Path, name: str) -> None:
    """The allowed image under another name too."""
    home = registry / quote(name, safe="")
    shutil.copytree(registry / quote(IMAGE, safe=""), home)
    entry = json.loads((home / "image.json").read_text())
    (home / "image.json").write_text(json.dumps({**entry, "name": name}))


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
        "policies": POLICIES,
        "launcher": "process",
        "process": {"registry": "images"},
        "development": True,
    }
    (folder / "node.yaml").write_text(yaml.safe_dump(settings))
