"""Large payloads of vantage6's published clients: as blobs since 4.13, inside their JSON before."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from devfederation import ALGORITHMS, DevFederation, skerry, start

pytestmark = pytest.mark.acceptance
IMAGE = "skerry-tests/probe-blobs"
SCRIPT = Path(__file__).parent.parent / "compat" / "large_payloads.py"
CLIENTS = {"4.15.2": True, "4.7.1": False}
"""Release: whether it knows of blobs."""


@pytest.fixture(scope="module")
def clients(published_python) -> dict[str, Path]:
    """For each release a Python that has it and nothing of ours."""
    return {release: published_python(release) for release in CLIENTS}


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> str:
    """As processes, since the engine is not what is looked at here; each run's user must get through to the code."""
    folder = tmp_path_factory.mktemp("images")
    for place in (folder, folder.parent, folder.parent.parent):
        place.chmod(place.stat().st_mode | 0o711)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(folder))
        built = skerry("algorithm", "build", str(ALGORITHMS / "probe"), "--tag", IMAGE, "--launcher", "process")
        assert built.returncode == 0, built.stderr
        yield IMAGE


def with_blobs(federation: DevFederation) -> None:
    """Restarts the server with a blob store."""
    [config] = federation.server_folder.glob("*.yaml")
    with config.open("a") as file:
        file.write("\nblob_store:\n  kind: files\n")
    os.kill(federation.server_pid, signal.SIGKILL)
    federation.restart()


@pytest.mark.parametrize("arguments", [["--accept", "both"], ["--plain"]], ids=["encrypted", "plain"])
def test_large_payloads(arguments, image, clients, tmp_path) -> None:
    with start("--nodes", "2", "--launcher", "process", *arguments) as federation:
        with_blobs(federation)
        facts = tmp_path / "federation.json"
        facts.write_text(json.dumps(federation.facts))
        for release, as_blobs in CLIENTS.items():
            ran = subprocess.run(
                [str(clients[release]), "-W", "ignore", str(SCRIPT), str(facts), image],
                capture_output=True,
                text=True,
                check=False,
                timeout=250,
            )
            assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
            seen = json.loads(ran.stdout.splitlines()[-1])
            assert seen == {"came_back": [True] * 2, "as_blobs": [as_blobs] * 2, "inputs": [True]}, release
