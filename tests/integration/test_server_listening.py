"""How one process of a server hears of what the others did."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import Cluster
from replicas import database
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from skerry_server.events import Hub
from skerry_server.listening import Bus
from skerry_server.models import Base, utcnow

pytestmark = pytest.mark.integration
MOST_OF_SELECT = 1024


@pytest.fixture
def crowd() -> Iterator[None]:
    """So many open descriptors as there are when thousands of nodes wait."""
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(MOST_OF_SELECT)]
    yield
    for descriptor in held:
        os.close(descriptor)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_silent_partition_is_noticed_and_forgotten(postgresql_programs: Path, tmp_path: Path) -> None:
    """Nothing comes back of what is sent, not even a refusal."""
    script = Path(__file__).with_name("partition.py")
    command = ["unshare", "--net", sys.executable, script, postgresql_programs, tmp_path]
    environment = {**os.environ, "PYTHONPATH": str(script.parent.parent)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=300, check=True)
    knew = json.loads(done.stdout)
    assert knew["asked"] < 30
    assert knew["heard"] < 60


@pytest.mark.usefixtures("crowd")
def test_it_hears_beside_thousands_of_connections(postgresql_cluster: Cluster) -> None:
    for url in database(postgresql_cluster):
        engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
        Base.metadata.create_all(engine)
        hub = Hub()
        ear, mouth = Bus(engine, hub, utcnow, {}), Bus(engine, Hub(), utcnow, {})
        ear.start()
        try:
            before = hub.ticket(["task:1"])
            with Session(engine) as session, session.begin():
                mouth.tell(session, ["task:1"])
            end = time.monotonic() + 30
            while hub.ticket(["task:1"]) == before:
                assert time.monotonic() < end
                time.sleep(0.01)
        finally:
            ear.stop()
            engine.dispose()
