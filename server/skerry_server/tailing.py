"""Events across the processes of one server, on SQLite: who has committed wakes the others, which read its rows."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, Engine, bindparam, func, select
from sqlalchemy.orm import Session

from skerry_server.events import Hub
from skerry_server.hearing import Ear
from skerry_server.models import Event
from skerry_server.seats import Seat

_LOOK_SECONDS = 1.0
"""After which it looks unasked: for what a process that was killed did not tell, or a command of the administrator."""
_NEWEST = select(func.max(Event.id))
_SINCE = select(Event.id, Event.topics).where(Event.id > bindparam("last")).order_by(Event.id)


class Bus(Ear):
    """One process's ear and mouth.

    Rows are in the order of their commits, since SQLite has one writer at a time, and no number comes twice
    (AUTOINCREMENT).
    """

    def __init__(self, engine: Engine, hub: Hub, seat: Seat) -> None:
        super().__init__(engine, hub)
        self._seat = seat
        self._last: int | None = None

    def tell(self, _session: Session, _topics: Iterable[str]) -> None:
        """The row of the events says it all."""

    def told(self) -> None:
        self._seat.wake_others()

    def stop(self) -> None:
        self._stopped.set()
        self._seat.wake()
        super().stop()

    def _listen(self) -> None:
        with self._engine.connect() as connection:
            if self._last is None:
                self._last = connection.scalar(_NEWEST) or 0
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
