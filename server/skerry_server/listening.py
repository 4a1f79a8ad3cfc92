"""Events across the processes of one server, by PostgreSQL's own LISTEN and NOTIFY.

What a transaction announces is notified inside it, so it is heard exactly when it is committed. One thread with one
connection hears what the others announced and hands it to this process's hub. While its connection is lost it may miss
some; on its return it reads the rows of the events since.
"""

from __future__ import annotations

import contextlib
import select as polling
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from skerry_server.events import Hub
from skerry_server.hearing import Ear
from skerry_server.models import Event

_CHANNEL = "skerry_events"
_NOTIFY = text("SELECT pg_notify(:channel, :notice)")
_LONGEST_NOTICE = 7900
"""Bytes; PostgreSQL takes fewer than 8000."""
_LOOK_SECONDS = 1.0
_MARGIN = timedelta(minutes=2)
"""How long before the connection was lost a transaction may have begun whose notice was missed."""


class Bus(Ear):
    """One process's ear and mouth."""

    def __init__(self, engine: Engine, hub: Hub, clock: Callable[[], datetime], connecting: Mapping[str, Any]) -> None:
        """``clock``: what events are dated by. ``connecting``: what the driver is told for each connection."""
        super().__init__(engine, hub)
        self._connecting = connecting
        self._clock = clock
        self._name = uuid.uuid4().hex

    def tell(self, session: Session, topics: Iterable[str]) -> None:
        """Notifies the other processes, when this transaction is committed."""
        for notice in notices(self._name, sorted(topics)):
            session.connection().execute(_NOTIFY, {"channel": _CHANNEL, "notice": notice})

    def told(self) -> None:
        """PostgreSQL has done it."""

    def start(self) -> None:
        self._heard_at = self._clock()
        super().start()

    def _listen(self) -> None:
        with contextlib.closing(self._connect()) as connection:
            connection.execute(f"LISTEN {_CHANNEL}")
            self._catch_up()
            self._connected.set()
            poll = polling.poll()  # select takes no descriptor from 1024 on, and each waiting call has one
            poll.register(connection, polling.POLLIN)
            while not self._stopped.is_set():
                poll.poll(1000 * _LOOK_SECONDS)
                connection.pgconn.consume_input()
                while notice := connection.pgconn.notifies():
                    self._hear(notice.extra.decode())
                self._heard_at = self._clock()

    def _connect(self) -> Any:
        """A connection beside the pool: it is kept for ever, and by one thread."""
        arguments, options = self._engine.dialect.create_connect_args(self._engine.url)
        settings = {**options, **self._connecting, "application_name": "skerry events", "autocommit": True}
        return self._engine.dialect.loaded_dbapi.connect(*arguments, **settings)

    def _catch_up(self) -> None:
        with Session(self._engine) as session:
            self._hub.publish(set(_topics_since(session, self._heard_at - _MARGIN)))

    def _hear(self, notice: str) -> None:
        sender, *topics = notice.split("\n")
        if sender != self._name:
            self._hub.publish(topics)


def notices(sender: str, topics: Iterable[str]) -> Iterator[str]:
    """The sender and as many topics as fit in each notice, a line each."""
    lines, size = [sender], len(sender)
    for topic in topics:
        if size + 1 + len(topic) > _LONGEST_NOTICE:
            yield "\n".join(lines)
            lines, size = [sender], len(sender)
        lines.append(topic)
        size += 1 + len(topic)
    if len(lines) > 1:
        yield "\n".join(lines)


def _topics_since(session: Session, moment: datetime) -> Iterator[str]:
    for topics in session.scalars(select(Event.topics).where(Event.at >= moment)):
        yield from topics
