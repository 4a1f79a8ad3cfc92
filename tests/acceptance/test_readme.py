"""The README's first algorithm, taken from its text, built and run as it says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from devfederation import build

pytestmark = pytest.mark.acceptance
README = Path(__file__).parents[2] / "README.md"


def python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def test_the_first_algorithm(federation, images, tmp_path) -> None:
    module, script = python_blocks()
    assert len(module.splitlines()) < 30
    package = tmp_path / "average" / "average"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(module)
    build(tmp_path / "average", "example/average")
    (tmp_path / "federation.json").write_text(json.dumps(federation.facts))
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip().splitlines()[-1] == "[{'mean': 39.5}]"
