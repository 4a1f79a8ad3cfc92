"""GPUs on a real engine that has none: what it is asked for, and what a run is told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from skerry_node.config import DockerSettings, Limits
from skerry_node.launchers.docker import DockerLauncher, connect
from skerry_node.launchers.launcher import Attempt, Spec, StartFailed

pytestmark = pytest.mark.integration
INSTALLATION = "abcdef678901"


@pytest.fixture
def launcher(images: object) -> Iterator[DockerLauncher]:
    made = DockerLauncher(
        DockerSettings(host=os.environ.get("DOCKER_HOST"), holder_pool=0), Limits(), INSTALLATION, "gpus"
    )
    yield made
    for found in made.list():
        made.remove(found.attempt)
    made.close()


@pytest.fixture
def spec(launcher: DockerLauncher, tmp_path: Path) -> Spec:
    (tmp_path / "data").mkdir()
    (tmp_path / "temporary").mkdir()
    attempt, image = Attempt(1, 1), launcher.resolve("skerry/holder")
    return Spec(attempt, 1, image, tmp_path / "data", tmp_path / "temporary", user=70001, gpus=-1)


def test_the_engine_is_asked_for_gpus_and_says_that_there_are_none(launcher, spec) -> None:
    """The container is made, and passes the check of its settings; without a driver the engine can't start it."""
    with launcher.prepare(spec.attempt), pytest.raises(StartFailed, match=r"can't be started.*gpu"):
        launcher.start(spec, {})
    with connect(os.environ.get("DOCKER_HOST")) as engine:
        name = f"skerry-{INSTALLATION}-run-{spec.attempt}"
        [request] = engine.inspect_container(name)["HostConfig"]["DeviceRequests"]
    assert (request["Count"], request["Capabilities"]) == (-1, [["gpu"]])


def test_without_a_rule_no_gpu_is_asked_for(launcher, spec) -> None:
    plain = replace(spec, gpus=0)
    with launcher.prepare(plain.attempt):
        launcher.start(plain, {})
    with connect(os.environ.get("DOCKER_HOST")) as engine:
        assert not engine.inspect_container(f"skerry-{INSTALLATION}-run-{plain.attempt}")["HostConfig"][
            "DeviceRequests"
        ]
