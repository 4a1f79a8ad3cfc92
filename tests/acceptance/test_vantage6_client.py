"""The main job with vantage6's published client, and with an image made with its published tools."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.acceptance
MAIN_JOB = Path(__file__).parent.parent / "compat" / "main_job.py"


@pytest.mark.parametrize("arguments", [["--accept", "both"], ["--plain"]], ids=["encrypted", "plain"])
def test_main_job(arguments, dev, shares, published_python, average_image, tmp_path) -> None:  # noqa: PLR0917
    with dev("--nodes", "3", "--database", shares, *arguments) as federation:
        facts = tmp_path / "federation.json"
        facts.write_text(json.dumps(federation.facts))
        ran = subprocess.run(
            [str(published_python("4.15.2")), "-W", "ignore", str(MAIN_JOB), str(facts), average_image],
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
