"""What no line of the repository may do: run code that somebody else wrote as data."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit
ROOT = Path(__file__).parents[2]
FOLDERS = ("algorithm-sdk", "server", "node", "proxy", "tests", "examples", "bench", "docker", "docs")
MODULES = frozenset(
    {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "jsonpickle", "joblib", "marshal", "shelve"}
)
BUILT_IN = frozenset({"eval", "exec", "compile", "__import__"})
SAFE_LOADERS = frozenset({"SafeLoader", "CSafeLoader"})
YAML_LOADERS = frozenset({"load", "load_all"})
UNSAFE = frozenset({"unsafe_load", "unsafe_load_all", "full_load", "full_load_all", "read_pickle", "to_pickle"})


EXCEPT = {"tests/unit/server/test_server_advisories.py": ["imports pickle"]}
"""It makes a pickle, to see that nothing opens it."""


def findings(source: str) -> Iterator[str]:
    tree = ast.parse(source)
    safe = SAFE_LOADERS | {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and _is_safe(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (f"imports {one.name}" for one in node.names if one.name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in MODULES:
            yield f"imports from {node.module}"
        elif isinstance(node, ast.ImportFrom) and node.module == "yaml":
            yield from (f"imports yaml.{one.name}" for one in node.names if one.name in UNSAFE | YAML_LOADERS)
        elif isinstance(node, ast.Call):
            yield from _of_call(node, safe)


def _of_call(call: ast.Call, safe: frozenset[str]) -> Iterator[str]:
    function = call.func
    if isinstance(function, ast.Name) and function.id in BUILT_IN:
        yield f"calls {function.id}"
    if not isinstance(function, ast.Attribute):
        return
    if function.attr in UNSAFE:
        yield f"calls {function.attr}"
    owner = function.value.id if isinstance(function.value, ast.Name) else ""
    if owner == "builtins" and function.attr in BUILT_IN:
        yield f"calls {function.attr}"
    if owner == "yaml" and function.attr in YAML_LOADERS and not _loads_safely(call, safe):
        yield "calls yaml.load without a safe loader"


def _loads_safely(call: ast.Call, safe: frozenset[str]) -> bool:
    given = [*call.args[1:], *(keyword.value for keyword in call.keywords if keyword.arg == "Loader")]
    return any(_name(one) in safe for one in given)


def _is_safe(loader: ast.ClassDef) -> bool:
    """Made of a safe loader, and of nothing else."""
    return bool(loader.bases) and all(_name(base) in SAFE_LOADERS for base in loader.bases)


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def sources() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def test_nothing_runs_data_as_code() -> None:
    assert len(sources()) > 200
    found = {str(path.relative_to(ROOT)): list(findings(path.read_text(encoding="utf-8"))) for path in sources()}
    assert {path: what for path, what in found.items() if what} == EXCEPT


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "import os, pickle as p",
        "from pickle import loads",
        "from joblib import load",
        "import marshal",
        "eval(x)",
        "exec(x)",
        "builtins.exec(x)",
        "__import__(x)",
        "yaml.load(x)",
        "yaml.load(x, Loader=yaml.Loader)",
        "class L(yaml.Loader): pass\nyaml.load(x, Loader=L)",
        "yaml.unsafe_load(x)",
        "yaml.full_load(x)",
        "from yaml import load",
        "frame.to_pickle(x)",
        "pandas.read_pickle(x)",
    ],
)
def test_the_search_finds_it(line: str) -> None:
    assert list(findings(line))


@pytest.mark.parametrize(
    "line",
    [
        "import yaml",
        "yaml.safe_load(x)",
        "yaml.load(x, Loader=yaml.SafeLoader)",
        "re.compile(x)",
        "a.exec(x)",
        "class L(yaml.SafeLoader): pass\nyaml.load(x, Loader=L)",
    ],
)
def test_the_search_finds_nothing_in_good_lines(line: str) -> None:
    assert not list(findings(line))
