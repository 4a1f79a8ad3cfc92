"""Real federations for the acceptance tests, made by ``skerry dev`` as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path

import pytest
from devfederation import ALGORITHMS, DevFederation, build, start

from skerry_node.preflight import RUN as PREFLIGHT


@pytest.fixture(scope="session")
def dev(engine: object) -> Callable[..., AbstractContextManager[DevFederation]]:
    return start


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("tables")
    paths = [folder / f"{i}.csv" for i in range(3)]
    for i, path in enumerate(paths):
        path.write_text("age,height\n" + "".join(f"{20 + 10 * i + j},{150 + j}\n" for j in range(20)))
    return paths


@pytest.fixture(scope="session")
def shares(tables: list[Path]) -> str:
    """For ``--database``: ages 20 to 59 and heights, twenty rows at each of three nodes."""
    return f"default={','.join(map(str, tables))}"


@pytest.fixture(scope="session")
def federation(dev: Callable[..., AbstractContextManager[DevFederation]], shares: str) -> Iterator[DevFederation]:
    """Three nodes, native encryption; shared by all tests that break nothing."""
    with dev("--nodes", "3", "--database", shares) as federation:
        yield federation


@pytest.fixture(scope="session")
def probe_image(images: object) -> str:
    return build(ALGORITHMS / "probe", "skerry-tests/probe")


PUBLISHED = ("pandas==2.1.4", "numpy<2", "openpyxl", "psycopg2-binary", "setuptools<81", "pyotp")
"""What stands beside vantage6's packages: the tools demand an SQLAlchemy that later data frames don't know."""


@pytest.fixture(scope="session")
def published_python(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives a Python that has a release of vantage6's client and algorithm tools, and nothing of ours."""

    @cache
    def make(version: str) -> Path:
        folder = tmp_path_factory.mktemp("published") / version
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        python = folder / "bin" / "python"
        wanted = [f"vantage6-client=={version}", f"vantage6-algorithm-tools=={version}", *PUBLISHED]
        quick = [sys.executable, "-m", "uv", "pip", "install", "-q", "--python", str(python), *wanted]
        if subprocess.run(quick, capture_output=True, check=False).returncode:
            # uv does not read pip's configuration, which may name the only index that answers.
            slow = [str(python), "-m", "pip", "install", "-q", "--no-compile", *wanted]
            subprocess.run(slow, check=True, capture_output=True)
        return python

    return make


@pytest.fixture(scope="session")
def average_image(images: object) -> str:
    return build(ALGORITHMS / "average", "skerry-tests/average")


def lines(command: list[str]) -> list[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.fixture(scope="session")
def engine_starts() -> Callable[[DevFederation], int]:
    """How often the engine started an algorithm's container since the federation is up."""

    def count(federation: DevFederation) -> int:
        until = str(int(time.time()) + 1)
        when = ["--since", str(int(federation.started)), "--until", until, "--filter", "event=start"]
        what = ["--filter", "label=skerry.kind=algorithm"]
        what += ["--format", '{{index .Actor.Attributes "skerry.run"}}']
        runs = [one for node in federation.engine_filters() for one in lines(["docker", "events", *when, *what, *node])]
        return len([run for run in runs if run != str(PREFLIGHT)])

    return count


@pytest.fixture(autouse=True)
def _nothing_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("SKERRY_"):
            monkeypatch.delenv(name)
