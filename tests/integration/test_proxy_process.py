"""The proxy as a process: its user, its lifeline, what it refuses to start with."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from skerry.errors import ConfigurationError
from skerry.keys import Identity, OrganizationKeys
from skerry_proxy.client import ProxyError, spawn

pytestmark = pytest.mark.integration
USER = 64200


@pytest.fixture(scope="module")
def key_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "key.pem"
    rsa = generate_private_key(public_exponent=65537, key_size=2048)
    Identity(rsa, Ed25519PrivateKey.generate()).save(path)
    return path


@pytest.fixture(params=[None, pytest.param(USER, marks=pytest.mark.skipif(os.geteuid() != 0, reason="needs root"))])
def user(request) -> int | None:
    return request.param


@pytest.fixture
def settings(user):
    """In a folder that the user can reach, which pytest's are not."""
    with tempfile.TemporaryDirectory() as folder:
        if user is not None:
            os.chown(folder, user, user)
        yield {
            "server_url": "http://127.0.0.1:9",
            "api_path": "/api",
            "ca_file": None,
            "control_socket": f"{folder}/control.sock",
            "state_folder": folder,
            "node_id": 5,
            "organization_id": 2,
            "collaboration": {"id": 1, "encrypted": True, "accept": "native"},
            "unsigned_tasks": "refuse",
            "require_confirmed_keys": False,
        }


@pytest.fixture
def key_fd(key_file):
    descriptor = os.open(key_file, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def own_pin(pins: list[dict], key_file: Path) -> bool:
    """A proxy knows its own organization's key from its start, and no other."""
    known = OrganizationKeys.from_wire(Identity.load(key_file).organization_keys(2)).fingerprint
    return pins == [{"organization_id": 2, "fingerprint": known, "confirmed": True}]


def test_it_serves_without_privilege_until_its_lifeline_ends(settings, key_fd, key_file, user) -> None:
    with spawn(settings, key_fd, user, user) as proxy:
        status = status_of(proxy.pid)
        assert own_pin(proxy.client.pins(), key_file)
        if user is not None:
            assert status["Uid"].split() == [str(user)] * 4
            assert status["Gid"].split() == [str(user)] * 4
            assert status["Groups"] == ""
            assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        assert proxy.poll() is None
    assert proxy.poll() == 0
    with pytest.raises(ProxyError):
        proxy.client.pins()


def test_nothing_of_the_key_is_in_its_command_line_or_environment(settings, key_fd, key_file, user) -> None:
    secret = key_file.read_bytes().splitlines()[3]
    with spawn(settings, key_fd, user, user) as proxy:
        for what in ("cmdline", "environ"):
            assert secret not in Path(f"/proc/{proxy.pid}/{what}").read_bytes()


def test_it_can_be_killed_and_started_again_on_the_same_folder(settings, key_file, user) -> None:
    for _ in range(2):
        descriptor = os.open(key_file, os.O_RDONLY)
        with spawn(settings, descriptor, user, user) as proxy:
            assert own_pin(proxy.client.pins(), key_file)
            os.kill(proxy.pid, signal.SIGKILL)
            assert proxy.wait(5) == -signal.SIGKILL
        os.close(descriptor)


@pytest.mark.parametrize(
    ("change", "with_key", "word"),
    [
        ({"pickle": 1}, True, "pickle"),
        ({"server_url": "ftp://x"}, True, "server_url"),
        ({}, False, "no key file"),
        ({"collaboration": {"id": 1, "encrypted": False, "accept": "native"}}, True, "key file"),
        ({"state_folder": "/nonexistent"}, True, "can't start"),
    ],
)
def test_what_it_can_not_start_with_is_one_sentence(  # noqa: PLR0917 - fixtures
    settings, key_fd, capfd, change, with_key, word
) -> None:
    with pytest.raises(ConfigurationError, match="did not start"):
        spawn(settings | change, key_fd if with_key else None)
    said = capfd.readouterr().err
    assert word in said
    assert "Traceback" not in said
    assert len(said.strip().splitlines()) == 1
