"""Events across the processes of one server, on SQLite: who has committed wakes the others, which read its rows."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable

from sqlalchemy import Connection, Engine, bindparam, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from skerry_server.events import Hub
from skerry_server.models import Event
from skerry_server.seats import Seat

_LOG = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0
"""After which it looks unasked: for what a process that was killed did not tell, or a command of the administrator."""
_NEWEST = select(func.max(Event.id))
_SINCE = select(Event.id, Event.topics).where(Event.id > bindparam("last")).order_by(Event.id)


class Bus:
    """One process's ear and mouth.

    Rows are in the order of their commits, since SQLite has one writer at a time, and no number comes twice
    (AUTOINCREMENT).
    """

    def __init__(self, engine: Engine, hub: Hub, seat: Seat) -> None:
        self._engine = engine
        self._hub = hub
        self._seat = seat
        self._last = 0
        self._stopped = threading.Event()
        self._connected = threading.Event()
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    @property
    def connected(self) -> bool:
        return self._connected.is_set()

    def tell(self, _session: Session, _topics: Iterable[str]) -> None:
        """The row of the events says it all."""

    def told(self) -> None:
        self._seat.wake_others()

    def start(self) -> None:
        with self._engine.connect() as connection:
            self._last = connection.scalar(_NEWEST) or 0
        self._connected.set()
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._seat.wake()
        if self._thread.is_alive():
            self._thread.join(2 * _LOOK_SECONDS)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                with self._engine.connect() as connection:
                    self._listen(connection)
            except SQLAlchemyError as error:
                self._connected.clear()
                _LOG.warning("events of other processes can't be read; trying again: %s", error)
                self._stopped.wait(_LOOK_SECONDS)

    def _listen(self, connection: Connection) -> None:
        while not self._stopped.is_set():
            self._hear(connection)
            self._connected.set()
            self._seat.sleep(_LOOK_SECONDS)

    def _hear(self, connection: Connection) -> None:
        """What this process itself announced is among it: whoever waits for that looks once more."""
        found = connection.execute(_SINCE, {"last": self._last}).all()
        connection.rollback()
        if found:
            self._hub.publish({topic for row in found for topic in row.topics})
            self._last = found[-1].id
