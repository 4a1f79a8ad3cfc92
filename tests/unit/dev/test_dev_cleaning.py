from __future__ import annotations

import os
import sys

import pytest

from skerry.dev import federation, processes
from skerry.dev.folder import Folder

pytestmark = pytest.mark.unit


def test_what_nobody_lived_to_record_is_ended(tmp_path, monkeypatch) -> None:
    """As when a start is killed in the moment in which a part begins to live."""
    program = (sys.executable, "-c", "import time; time.sleep(600)")
    monkeypatch.setattr(federation, "_PROGRAM", program)
    places = federation.Places(tmp_path / "home", tmp_path / "images")
    folder = Folder(places.home / "dev")
    folder.make()
    config = str(folder.node(1) / "node.yaml")
    part = processes.start((*program, "--config", config), tmp_path / "log", {"PATH": os.environ["PATH"]})
    try:
        assert federation.down("dev", places, lambda _: None)
        assert not part.alive()
    finally:
        processes.stop([part])
    assert not folder.path.exists()
