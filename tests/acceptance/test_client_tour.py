"""vantage6's published clients call all that they have, in an encrypted and in a plain collaboration."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from devfederation import PATIENCE, SKERRY, DevFederation, skerry
from postoffice import open_office
from storedouble import open_store

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]
COMPAT = Path(__file__).parent.parent / "compat"
PASSWORD = "Aa1-guarded-horse"


@pytest.fixture(scope="module")
def surroundings(average_image, probe_image, tmp_path_factory) -> Iterator[dict[str, Any]]:
    """A mail server, a store, and the images."""
    folder = tmp_path_factory.mktemp("surroundings")
    letters = folder / "letters"
    letters.mkdir()
    listed = {probe_image: None, **dict.fromkeys(("example.org/pinned", "example.org/closed"), f"sha256:{'ab' * 32}")}
    with open_office(letters) as office, open_store(listed) as store:
        settings = (
            f'mail: {{host: 127.0.0.1, port: {office.server_address[1]}, security: none, sender: "s@example.org"}}\n'
        )
        settings += 'stores: {allowed: ["127.0.0.1"]}\n'
        yield {
            "images": {"average": average_image, "probe": probe_image},
            "store": store.url,
            "letters": str(letters),
            "settings": settings,
            "folder": str(folder),
        }


@pytest.fixture
def guarded(surroundings, tmp_path) -> Iterator[dict[str, Any]]:
    """A server of its own, where users log in with a one-time code, too."""
    folder, keeper = tmp_path / "guarded", f"keeper-{uuid.uuid4().hex[:8]}"
    assert skerry("server", "new", str(folder)).returncode == 0
    [config] = folder.glob("*.yaml")
    with config.open("a") as file:
        file.write(f"{surroundings['settings']}two_factor_auth: true\n")
    first = ("--config", str(config), "--organization", "harbour", "--username", keeper)
    assert skerry("server", "bootstrap", *first, input=f"{PASSWORD}\n").returncode == 0
    log = folder / "log"
    with log.open("w") as file:
        command = [str(SKERRY), "server", "start", "--config", str(config), "--port", "0"]
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        yield {"url": _address(process, log), "login": {"username": keeper, "password": PASSWORD}}
    finally:
        process.terminate()
        process.wait()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        if found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text()):
            return found[0]
        time.sleep(0.05)
    raise AssertionError(log.read_text())


@pytest.fixture(scope="module", params=[["--accept", "both"], ["--plain"]], ids=["encrypted", "plain"])
def connected(request, dev: Callable[..., Any], shares: str, surroundings) -> Iterator[DevFederation]:
    """Two nodes with two of the tables, at a server that can send mail and ask the store."""
    files = shares.split(",")[:2]
    with dev("--nodes", "2", "--database", ",".join(files), *request.param) as federation:
        [config] = federation.server_folder.glob("*.yaml")
        with config.open("a") as file:
            file.write(surroundings["settings"])
        os.kill(federation.server_pid, signal.SIGKILL)
        federation.restart()
        yield federation


@pytest.mark.parametrize("version", ["4.15.2", "4.7.1"])
def test_every_call(version, connected, surroundings, guarded, published_python, tmp_path, capsys) -> None:  # noqa: PLR0917
    facts = tmp_path / "facts.json"
    facts.write_text(json.dumps({**surroundings, "guarded": guarded, "federation": connected.facts}))
    command = [str(published_python(version)), "-W", "ignore", str(COMPAT / "client_tour.py"), str(facts)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=800)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    seen = json.loads(ran.stdout.splitlines()[-1])
    with capsys.disabled():
        print(f"\ncompat: {seen['calls']} calls, {len(seen['failed'])} failed")
    assert not seen["failed"], "\n".join(seen["failed"])
    assert (seen["uncalled"], seen["missing"], seen["not lacking"]) == ([], [], [])
    assert seen["calls"] > 250
