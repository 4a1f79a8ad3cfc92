"""Inputs of child tasks as blobs: from a container through its gate and the server to the other containers."""

from __future__ import annotations

import os
import signal

import pytest
from devfederation import PATIENCE, DevFederation
from walks import contents

pytestmark = pytest.mark.acceptance
SIZE = 3_000_000


def keep_blobs(federation: DevFederation) -> None:
    """Restarts the server with a blob store."""
    [config] = federation.server_folder.glob("*.yaml")
    with config.open("a") as file:
        file.write("\nblob_store:\n  kind: files\n")
    os.kill(federation.server_pid, signal.SIGKILL)
    federation.restart()


@pytest.mark.parametrize("arguments", [["--accept", "native"], ["--plain"]], ids=["native", "plain"])
def test_children_get_what_was_sent_ahead(arguments, dev, probe_image) -> None:
    with dev("--nodes", "2", *arguments) as federation:
        keep_blobs(federation)
        task = federation.client().task.create(
            organizations=federation.organization_ids[:1],
            name="blobs",
            image=probe_image,
            collaboration=federation.collaboration_id,
            input_={"method": "children_as_blobs", "kwargs": {"size": SIZE}},
        )
        assert task.wait(timeout=PATIENCE).results() == [[SIZE, SIZE]]
        assert stored(federation)


def stored(federation: DevFederation) -> bool:
    """Whether the server keeps files as large as these inputs."""
    return any(len(content) > SIZE for _, content in contents(federation.server_folder))
