"""The main job with vantage6's published client, and with an image made with its published tools."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from devfederation import ALGORITHMS, build

pytestmark = pytest.mark.acceptance
MAIN_JOB = Path(__file__).parent.parent / "compat" / "main_job.py"


@pytest.fixture(scope="session")
def published_client(tmp_path_factory) -> Path:
    """A Python that has vantage6-client 4.15.2 and nothing of ours."""
    folder = tmp_path_factory.mktemp("published") / "client"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "-q", "vantage6-client==4.15.2", "setuptools<81"]
    subprocess.run(install, check=True, capture_output=True)
    return python


@pytest.mark.parametrize("arguments", [["--accept", "both"], ["--plain"]], ids=["encrypted", "plain"])
def test_main_job(arguments, dev, shares, published_client, average_image, tmp_path) -> None:  # noqa: PLR0917
    with dev("--nodes", "3", "--database", shares, *arguments) as federation:
        facts = tmp_path / "federation.json"
        facts.write_text(json.dumps(federation.facts))
        ran = subprocess.run(
            [str(published_client), "-W", "ignore", str(MAIN_JOB), str(facts), average_image],
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        seen = json.loads(ran.stdout.splitlines()[-1])
        assert seen["results"] == [{"mean": 39.5}]
        assert seen["status"] == seen["run"] == "completed"
        assert seen["children"] == 1
        assert seen["organizations"] == sorted(federation.organization_ids)
        assert seen["nodes"] == 3
        assert json.loads(seen["input"])["method"] == "mean" if isinstance(seen["input"], str) else seen["input"]


@pytest.fixture(scope="session")
def average_image(images) -> str:
    return build(ALGORITHMS / "average", "skerry-tests/average")
