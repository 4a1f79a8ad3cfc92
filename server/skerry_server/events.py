"""Who should look again: rows of the same transaction as the change, published after its commit.

The counters are hints and live in memory; the truth is in the tables. Whoever wants to wait takes a ticket *before*
looking at the tables, so that a change in between is not missed. Processes of one server feed each other's hubs: by
PostgreSQL's own notifications (``listening``), or from the rows in SQLite (``tailing``).
"""

from __future__ import annotations

import asyncio
import threading
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sqlalchemy import delete, insert
from sqlalchemy.orm import Session

from skerry_server.models import Event

_ANNOUNCED = "announced"
_SLOTS = 1 << 16
_ADD = insert(Event.__table__)  # type: ignore[arg-type]


def node_topic(node_id: int) -> str:
    """There is something for this node, whatever it is doing: to stop a run, or to take one in another's place."""
    return f"node:{node_id}"


def task_for_topic(node_id: int) -> str:
    """A user has a task for this node: nothing to one without room."""
    return f"task-for:{node_id}"


def presence_topic(node_id: int) -> str:
    """The node came or went."""
    return f"presence:{node_id}"


def user_topic(user_id: int) -> str:
    """This user is out: whoever waits in their name does so no longer."""
    return f"user:{user_id}"


def task_topic(task_id: int) -> str:
    """A run of this task changed."""
    return f"task:{task_id}"


def end_topic(task_id: int) -> str:
    """All runs of this task have ended."""
    return f"end:{task_id}"


def job_topic(job_id: int) -> str:
    """All tasks of this job have ended."""
    return f"job:{job_id}"


def announce(session: Session, topics: Iterable[str], now: datetime) -> None:
    """Notes that these topics changed; the world hears of it when the transaction has been committed."""
    session.info.setdefault(_ANNOUNCED, {}).update(dict.fromkeys(topics, now))


def record(session: Session) -> set[str]:
    """Writes all that the transaction announced, in one row, before it is committed; gives the topics."""
    announced: Mapping[str, datetime] = session.info.get(_ANNOUNCED, {})
    if announced:
        values = {"at": max(announced.values()), "topics": sorted(announced)}
        session.connection().execute(_ADD, values)
    return set(announced)


def prune(session: Session, before: datetime) -> None:
    """Removes the rows of events that everybody has heard of long ago."""
    session.execute(delete(Event).where(Event.at < before))


class Bus(Protocol):
    """How the hubs of a server's processes hear of each other's events."""

    @property
    def connected(self) -> bool:
        """Whether all of them have been heard, as far as is known."""

    def start(self) -> None:
        """From now on they are. Raises ConfigurationError."""

    def stop(self) -> None: ...

    def tell(self, session: Session, topics: Iterable[str]) -> None:
        """In the transaction that announced these."""

    def told(self) -> None:
        """Once it is committed."""


class NoBus:
    """Of a process that has nobody to tell."""

    connected = True

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def tell(self, session: Session, topics: Iterable[str]) -> None: ...

    def told(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Ticket:
    """How far each topic had counted when the holder began to look."""

    counters: Mapping[str, int]


class Hub:
    """Counts changes of topics, and wakes who waits for one. Any thread may publish; waiting is for the event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters = [0] * _SLOTS
        self._sleepers: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)
        self._closed = False

    @property
    def closed(self) -> bool:
        return self._closed

    def ticket(self, topics: Iterable[str]) -> Ticket:
        with self._lock:
            return Ticket({topic: self._counters[_slot(topic)] for topic in topics})

    def publish(self, topics: Iterable[str]) -> None:
        with self._lock:
            woken = [sleeper for topic in topics for sleeper in self._count(topic)]
        _wake(woken)

    def close(self) -> None:
        """Wakes everybody; from now on nobody waits."""
        with self._lock:
            self._closed = True
            woken = [sleeper for sleepers in self._sleepers.values() for sleeper in sleepers]
        _wake(woken)

    def sleep(self, ticket: Ticket) -> tuple[asyncio.Future[None], Callable[[], None]]:
        """A future that is done as soon as a topic has counted on since the ticket, and how to give it up."""
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._lock:
            if self._closed or any(self._counters[_slot(topic)] != seen for topic, seen in ticket.counters.items()):
                sleeper.set_result(None)
            else:
                for topic in ticket.counters:
                    self._sleepers[topic].add(sleeper)
        return sleeper, lambda: self._forget(sleeper, ticket)

    def _count(self, topic: str) -> Iterable[asyncio.Future[None]]:
        self._counters[_slot(topic)] += 1
        return self._sleepers.get(topic, ())

    def _forget(self, sleeper: asyncio.Future[None], ticket: Ticket) -> None:
        with self._lock:
            for topic in ticket.counters:
                self._sleepers[topic].discard(sleeper)
                if not self._sleepers[topic]:
                    del self._sleepers[topic]


def _slot(topic: str) -> int:
    """Topics share counters, so that memory does not grow with them; a neighbour's change costs a look, no more."""
    return zlib.crc32(topic.encode()) % _SLOTS


def _wake(sleepers: Iterable[asyncio.Future[None]]) -> None:
    for sleeper in set(sleepers):
        sleeper.get_loop().call_soon_threadsafe(_finish, sleeper)


def _finish(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)
