"""From an invitation to a node that the server knows, over TLS, by the command line as a hospital uses it."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import connectproxy
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from skerry import UserClient
from skerry.errors import AuthenticationError, ServerUnreachable
from skerry.invitations import Invitation
from skerry.keys import Identity
from skerry.statements import Announced
from skerry_node import config as configuration
from skerry_node.server import Server
from skerry_proxy.settings import Settings as ProxySettings
from skerry_proxy.upstream import Call, Upstream

pytestmark = pytest.mark.integration
SKERRY = Path(sys.executable).with_name("skerry")
PASSWORD = "Aa1-correct-horse"
NOBODY = {
    "control_socket": Path("socket"),
    "state_folder": Path("state"),
    "node": 1,
    "organization": 1,
    "collaboration": 1,
    "encrypted": False,
    "formats": frozenset(),
    "require_confirmed_keys": False,
}


def make_certificate(folder: Path) -> None:
    """An authority of the test's own, and the server's certificate."""
    authority, own = generate_private_key(SECP256R1()), generate_private_key(SECP256R1())
    root = _certify("authority", authority, "authority", authority, authority=True)
    certificate = _certify("server", own, "authority", authority, authority=False)
    (folder / "ca.pem").write_bytes(root.public_bytes(Encoding.PEM))
    (folder / "server.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    key = folder / "server-key.pem"
    key.touch(mode=0o600)
    key.write_bytes(own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _certify(
    name: str, key: EllipticCurvePrivateKey, issuer: str, signer: EllipticCurvePrivateKey, *, authority: bool
) -> x509.Certificate:
    names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, one)]) for one in (name, issuer)]
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(names[0])
        .issuer_name(names[1])
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    return builder.sign(signer, hashes.SHA256())


def run(*arguments: object, words: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(SKERRY), *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, input=words, env={**os.environ, **environment}
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@dataclass
class Hospital:
    """A server that speaks TLS, two organizations, and an administrator who is logged in."""

    folder: Path
    port: int

    @property
    def login(self) -> dict[str, str]:
        return {"XDG_STATE_HOME": str(self.folder / "state-home")}

    def client(self) -> UserClient:
        client = UserClient("https://127.0.0.1", self.port, "/api", ca_file=str(self.folder / "ca.pem"))
        client.authenticate("root", PASSWORD)
        return client

    def invite(self, name: str, *more: object) -> Path:
        file = self.folder / name
        where = ("--collaboration", 1, "--organization", 2, "--ca-file", self.folder / "ca.pem")
        made = run("server", "invite", file, *where, *more, **self.login)
        assert made.returncode == 0, made.stderr
        return file


def wait_for_line(stream: Callable[[], str], wanted: str) -> None:
    for line in iter(stream, ""):
        if wanted in line:
            return
    raise AssertionError(f"the server never said: {wanted}")


def found_from_elsewhere(hospital: Hospital) -> None:
    """The first user, by the secret that the server's first start left; it is good once."""
    [secret] = hospital.folder.rglob("bootstrap-secret")
    copy = hospital.folder / "secret"
    copy.write_text(secret.read_text())
    where = ("--server", f"https://127.0.0.1:{hospital.port}", "--ca-file", hospital.folder / "ca.pem")
    command = ("server", "bootstrap", *where, "--secret-file", copy, "--organization", "one")
    made = run(*command, words=f"{PASSWORD}\n")
    assert made.returncode == 0, made.stderr
    assert not secret.exists()
    again = run(*command, "--username", "second", words=f"{PASSWORD}\n")
    assert (again.returncode, "This secret is not good" in again.stderr) == (1, True), again.stderr


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    folder = tmp_path_factory.mktemp("hospital")
    make_certificate(folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = folder / "server.yaml"
    config.write_text(f"port: {port}\ntls: {{certificate: server.pem, private_key: server-key.pem}}\n")
    command = [str(SKERRY), "server", "start", "--config", str(config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            wait_for_line(process.stdout.readline, f"https://127.0.0.1:{port}")
            threading.Thread(target=process.stdout.read, daemon=True).start()
            hospital = Hospital(folder, port)
            found_from_elsewhere(hospital)
            client = hospital.client()
            client.organization.create(name="two", address1="", address2="", zipcode="", country="", domain="")
            client.collaboration.create(name="both", organizations=[1, 2], encrypted=True)
            server = ("--server", f"https://127.0.0.1:{port}", "--ca-file", folder / "ca.pem")
            logged = run("task", "login", *server, "--username", "root", words=f"{PASSWORD}\n", **hospital.login)
            assert logged.returncode == 0, logged.stderr
            yield hospital
        finally:
            process.terminate()


@contextmanager
def node_server(folder: Path, key: str | None = None) -> Iterator[Server]:
    """The server as a node of this folder talks to it; with another key than its own where one is given."""
    config = configuration.load(folder / "node.yaml")
    server = Server(config.server, config.api_key if key is None else lambda: key)
    try:
        yield server
    finally:
        server.close()


def allow(folder: Path) -> None:
    """What the owner fills in."""
    path = folder / "node.yaml"
    path.write_text(path.read_text().replace("allowed_algorithms: []", "allowed_algorithms: [example/mean]"))


@pytest.fixture(scope="module")
def joined(hospital: Hospital) -> tuple[Path, Path, str]:
    """The node's folder, the invitation, and what was printed."""
    invitation = hospital.invite("invitation")
    folder = hospital.folder / "node"
    done = run("node", "join", "-", folder, words=invitation.read_text())
    assert done.returncode == 0, done.stderr
    allow(folder)
    return folder, invitation, done.stdout


def test_a_node_joins_and_is_known(hospital: Hospital, joined: tuple[Path, Path, str]) -> None:
    folder, _, printed = joined
    with node_server(folder) as server:
        me = server.describe_self()
    assert (me.organization.name, me.collaboration.name) == ("two", "both")
    for secret in ("api-key", "key.pem", "node.yaml"):
        assert (folder / secret).stat().st_mode & 0o777 == 0o600, secret
    shown = hospital.client().request("skerry/organization/2/keys")
    identity = Identity.load(folder / "key.pem")
    assert {name: shown[name] for name in identity.organization_keys(2)} == identity.organization_keys(2)
    assert identity.own_keys(2).fingerprint in printed
    assert (folder / "api-key").read_text().strip() not in printed
    assert yaml.safe_load((folder / "node.yaml").read_text())["server"]["ca_file"] == "server-ca.pem"


def test_a_node_whose_way_leads_through_a_proxy(hospital: Hospital, joined: tuple[Path, Path, str]) -> None:
    """Both the node's own calls and those of its local proxy, and each checks the server's certificate."""
    folder = joined[0]
    with connectproxy.running() as way:
        settings = configuration.load(folder / "node.yaml").server.model_copy(update={"https_proxy": way.url})
        server = Server(settings, (folder / "api-key").read_text().strip)
        assert server.describe_self().organization.name == "two"
        server.close()
        assert way.asked == [f"127.0.0.1:{hospital.port}"]
        for ca_file, answers in ((str(folder / "server-ca.pem"), True), (None, False)):
            given = {"server_url": settings.url, "api_path": "/api", "ca_file": ca_file, "https_proxy": way.url}
            upstream = Upstream(ProxySettings(**given, **NOBODY))
            with contextlib.nullcontext() if answers else pytest.raises(ServerUnreachable):
                assert upstream.answer(Call("GET", "/version"))["version"]
            upstream.close()
        assert way.asked == [f"127.0.0.1:{hospital.port}"] * 3


WRONG_WAYS = {
    "no port": "http://proxy.example.org",
    "encrypted itself": "https://proxy.example.org:443",
    "a password": "http://me:secret@proxy.example.org:3128",
    "no address": "proxy:port",
    "not a number": "http://proxy.example.org:port",
}


@pytest.mark.parametrize("why", WRONG_WAYS)
def test_a_proxy_that_can_not_be_meant_is_named(joined: tuple[Path, Path, str], tmp_path: Path, why: str) -> None:
    text = (joined[0] / "node.yaml").read_text()
    for path in joined[0].glob("*.pem"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "node.yaml").write_text(text.replace("  ca_file:", f"  https_proxy: {WRONG_WAYS[why]}\n  ca_file:"))
    done = run("node", "check", "--config", tmp_path / "node.yaml")
    assert done.returncode != 0
    assert "server.https_proxy: write it as http://host:port" in done.stdout + done.stderr
    assert "secret" not in done.stdout + done.stderr


def test_no_secret_lies_at_the_server(hospital: Hospital, joined: tuple[Path, Path, str]) -> None:
    folder, invitation, _ = joined
    secrets = [(folder / "api-key").read_text().strip(), Invitation.parse(invitation.read_text()).secret]
    for path in hospital.folder.glob("skerry.sqlite*"):
        assert not any(secret.encode() in path.read_bytes() for secret in secrets)


def test_used_unknown_and_expired_invitations_are_refused_alike(
    hospital: Hospital, joined: tuple[Path, Path, str]
) -> None:
    _, used, _ = joined
    parsed = Invitation.parse(used.read_text())
    unknown = hospital.folder / "unknown"
    values = {name: getattr(parsed, name) for name in Invitation.__slots__} | {"secret": "x" * 43}
    unknown.write_text(Invitation(**values).dump())
    said = set()
    for number, file in enumerate((used, unknown)):
        done = run("node", "join", file, hospital.folder / f"refused-{number}")
        assert done.returncode == 1
        assert not (hospital.folder / f"refused-{number}" / "api-key").exists()
        said.add(done.stderr)
    assert len(said) == 1
    old = Invitation(**{**values, "expires": "2020-01-01T00:00:00Z"})
    done = run("node", "join", "-", hospital.folder / "refused-3", words=old.dump())
    assert (done.returncode, "expired" in done.stderr) == (1, True)


def test_another_server_gets_no_secret(hospital: Hospital, joined: tuple[Path, Path, str]) -> None:
    parsed = Invitation.parse(joined[1].read_text())
    values = {name: getattr(parsed, name) for name in Invitation.__slots__}
    for change, reason in (({"server_id": "0" * 32}, "not the one"), ({"ca": ""}, "does not answer")):
        text = Invitation(**{**values, **change}).dump()
        done = run("node", "join", "-", hospital.folder / f"other-{len(change)}-{reason[:3]}", words=text)
        assert (done.returncode, reason in done.stderr) == (1, True), done.stderr


def test_the_key_is_rotated_while_the_node_is_logged_in(hospital: Hospital, joined: tuple[Path, Path, str]) -> None:
    folder = joined[0]
    old = (folder / "api-key").read_text().strip()
    with node_server(folder) as running:
        running.log_in()
        done = run("node", "rotate-key", "--config", folder / "node.yaml")
        assert done.returncode == 0, done.stderr
        assert (folder / "api-key").read_text().strip() != old
        assert (folder / "api-key").stat().st_mode & 0o777 == 0o600
        assert running.describe_self().organization.id == 2
    with node_server(folder, old) as stale, pytest.raises(AuthenticationError):
        stale.log_in()


def test_an_organization_that_has_keys_brings_its_file(hospital: Hospital, joined: tuple[Path, Path, str]) -> None:
    """A second invitation for the same node: the one that joined before loses its key when it is used."""
    folder = joined[0]
    again = hospital.folder / "node-again"
    done = run("node", "join", hospital.invite("second"), again, "--key", folder / "key.pem")
    assert done.returncode == 0, done.stderr
    allow(again)
    with node_server(again) as server:
        assert server.describe_self().organization.id == 2
    with node_server(folder) as stale, pytest.raises(AuthenticationError):
        stale.log_in()
    third = hospital.folder / "node-third"
    done = run("node", "join", hospital.invite("third"), third)
    assert (done.returncode, "has keys already" in done.stdout) == (0, True)
    assert not (third / "key.pem").exists()


def test_an_invitation_is_nobody_elses_to_read(hospital: Hospital) -> None:
    file = hospital.invite("private")
    assert file.stat().st_mode & 0o777 == 0o600
    assert re.search(r"[A-Za-z0-9+/]{40}", file.read_text())
    assert json.dumps(Invitation.parse(file.read_text()).secret) not in file.read_text()


def test_the_server_answers_its_own_status_by_tls(hospital: Hospital) -> None:
    done = run("server", "status", "--config", hospital.folder / "server.yaml")
    assert (done.returncode, "answers at https://" in done.stdout) == (0, True), done.stderr


def test_an_organization_replaces_its_keys_and_revokes_a_user(hospital: Hospital) -> None:
    file = hospital.folder / "one.pem"
    for command in (("new", file), ("register", file)):
        done = run("key", *command, **hospital.login)
        assert done.returncode == 0, done.stderr
    old = Identity.load(file)
    for command in (("rotate", file), ("revoke", file, "--user", 7)):
        done = run("key", *command, **hospital.login)
        assert done.returncode == 0, done.stderr
    fresh = Identity.load(file)
    assert fresh.decryption_keys[1].private_numbers() == old.encryption.private_numbers()
    assert (hospital.folder / "one.pem.old").stat().st_mode & 0o777 == 0o600
    shown = Announced.from_wire(hospital.client().request("skerry/organization/1/keys"))
    assert shown.follow(old.own_keys(1)) == fresh.own_keys(1)
    assert shown.revocation is not None
    assert [user for user, _ in shown.revocation.revoked] == [7]
    printed = run("key", "fingerprint", file).stdout
    assert "".join(printed.split()) == fresh.own_keys(1).fingerprint
