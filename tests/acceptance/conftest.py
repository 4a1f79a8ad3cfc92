"""Real federations for the acceptance tests, made by ``skerry dev`` as a user would."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from devfederation import ALGORITHMS, DevFederation, build, start


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


def lines(command: list[str]) -> int:
    return len(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines())


@pytest.fixture(scope="session")
def engine_starts() -> Callable[[DevFederation], int]:
    """How often the engine started an algorithm's container since the federation is up."""

    def count(federation: DevFederation) -> int:
        until = str(int(time.time()) + 1)
        when = ["--since", str(int(federation.started)), "--until", until, "--filter", "event=start"]
        what = ["--filter", "label=skerry.kind=algorithm", "--format", "{{.ID}}"]
        return sum(lines(["docker", "events", *when, *what, *node]) for node in federation.engine_filters())

    return count


@pytest.fixture(autouse=True)
def _nothing_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("SKERRY_"):
            monkeypatch.delenv(name)
