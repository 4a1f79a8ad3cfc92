"""The table of promises names tests that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit
ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "explanation" / "promises.md"
NAMED = re.compile(r"`(tests/[^`:]+\.py)::(\w+)`")


def test_each_promise_names_tests_that_exist() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")][2:]
    assert rows
    for row in rows:
        named = NAMED.findall(row)
        assert named, f"no test backs: {row}"
        for file, test in named:
            tree = ast.parse((ROOT / file).read_text())
            found = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
            assert test in found, f"{file} has no {test}"
