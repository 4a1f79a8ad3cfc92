"""How one process of a server hears of what the others did."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from clusters import Cluster
from replicas import database
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from skerry_server.events import Hub
from skerry_server.listening import Bus
from skerry_server.models import Base

pytestmark = pytest.mark.integration
MOST_OF_SELECT = 1024


@pytest.fixture
def crowd() -> Iterator[None]:
    """So many open descriptors as there are when thousands of nodes wait."""
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(MOST_OF_SELECT)]
    yield
    for descriptor in held:
        os.close(descriptor)


@pytest.mark.usefixtures("crowd")
def test_it_hears_beside_thousands_of_connections(postgresql_cluster: Cluster) -> None:
    for url in database(postgresql_cluster):
        engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
        Base.metadata.create_all(engine)
        hub = Hub()
        ear, mouth = Bus(engine, hub), Bus(engine, Hub())
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
