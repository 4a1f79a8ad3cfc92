"""The demonstration ends as it promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]
DEMO = Path(__file__).parent.parent.parent / "examples" / "demo.py"


def test_the_demonstration_ends_well(images) -> None:
    ended = subprocess.run([sys.executable, DEMO], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    last = re.fullmatch(r"demo: ok max_abs_diff=(\S+) launcher=docker", ended.stdout.splitlines()[-1])
    assert last is not None, ended.stdout
    assert float(last[1]) < 1e-6


def test_the_demonstration_fails_in_a_sentence(tmp_path) -> None:
    """Where its federation can't be made: the state's folder is a file."""
    (tmp_path / "file").write_text("")
    places = {"XDG_STATE_HOME": str(tmp_path / "file"), "XDG_DATA_HOME": str(tmp_path)}
    environment = {"PATH": "/usr/bin:/bin", "DOCKER_HOST": "tcp://127.0.0.1:1", **places}
    ended = subprocess.run([sys.executable, DEMO], capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == 1
    last = ended.stdout.splitlines()[-1]
    assert last.startswith("demo: failed ")
    assert "XDG_STATE_HOME" in last
    assert "Traceback" not in ended.stdout + ended.stderr
