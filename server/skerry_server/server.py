"""What every handler of a running server works with; made once, by the entry point."""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib.metadata import version

from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import Session

from skerry.audit import What
from skerry.errors import ConfigurationError
from skerry_server import bootstrap, locks
from skerry_server.clocks import SharedClock
from skerry_server.counting import Counter
from skerry_server.database import Database
from skerry_server.events import Hub, prune
from skerry_server.mail import Mailer
from skerry_server.models import utcnow
from skerry_server.payloads import PayloadStore
from skerry_server.seats import Seat
from skerry_server.services import failures, labels, repeats
from skerry_server.services.blobs import remove_waiting
from skerry_server.services.retention import clean_up
from skerry_server.services.users import has_users, write_policy
from skerry_server.services.work import give_up_lost, note_absence, renew_leases
from skerry_server.settings import S3Store, Settings, jwt_secret
from skerry_server.trail import Trail, kept_writer, note

_EVENTS_KEPT = timedelta(days=1)
_WITNESSED_EVERY = timedelta(minutes=10)


@functools.cache
def own_version() -> str:
    """Looked up once: what is installed is a file to be read."""
    return version("skerry")


class Repeats:
    """What each node was told last. A node that still acts on it gets it again only after a pause.

    A hint, in memory only: without it a node that takes a second to stop a container would ask a hundred times.
    """

    def __init__(self) -> None:
        self._last: dict[int, object] = {}

    def repeats(self, node_id: int, answer: object) -> bool:
        """Remembers the answer; true when it is the one that was given before."""
        same = self._last.get(node_id) == answer
        self._last[node_id] = answer
        return same


class Anchors:
    """Which nodes' audit heads are due to be witnessed: changed ones, and each node's at most once in a while.

    In memory only: a server that starts witnesses anew.
    """

    def __init__(self) -> None:
        self._last: dict[int, tuple[datetime, str]] = {}

    def due(self, node_id: int, head: str, now: datetime) -> bool:
        """Remembers the head when it is."""
        last = self._last.get(node_id)
        if last is not None and (head == last[1] or now - last[0] < _WITNESSED_EVERY):
            return False
        self._last[node_id] = now, head
        return True


@dataclass(frozen=True, slots=True)
class Server:
    """The parts of one server process. ``clock`` gives naive UTC; ``read_clock`` sets it, where it has to be."""

    settings: Settings
    secret: str
    hub: Hub
    database: Database
    payloads: PayloadStore
    mailer: Mailer
    clock: Callable[[], datetime]
    read_clock: Callable[[], None]
    stopping: threading.Event = field(default_factory=threading.Event)
    told: Repeats = field(default_factory=Repeats)
    anchors: Anchors = field(default_factory=Anchors)
    counter: Counter = field(default_factory=Counter)

    @property
    def id(self) -> str:
        """The same for as long as the server keeps its secret, and no hint at it."""
        return _name(self.secret)

    @property
    def lease(self) -> timedelta:
        return timedelta(seconds=self.settings.leases.seconds)

    @property
    def run_token_lifetime(self) -> timedelta:
        return timedelta(minutes=self.settings.tokens.run_minutes)

    def begin(self) -> None:
        """What is due before the first request is answered. Raises ConfigurationError."""
        self.database.listen()
        self.payloads.sweep(self.database.reading)
        self.database.repeating(self._begin)

    def _begin(self) -> None:
        with self.database.writing() as session:
            note(session, "server.start", What("server"), version=own_version())
            renew_leases(session, self.clock() + self.lease)
            founded = has_users(session)
        (bootstrap.withdraw if founded else bootstrap.offer)(self.settings.state)

    def renew_leases(self) -> None:
        """All that there are, from now on."""
        with self.database.writing() as session:
            renew_leases(session, self.clock() + self.lease)

    def end(self) -> None:
        """What is due after the last one."""
        self.database.repeating(self._end)

    def _end(self) -> None:
        with self.database.writing() as session:
            note(session, "server.stop", What("server"))

    def is_ready(self) -> dict[str, bool]:
        """What has to be true for it to serve, and whether it is."""
        return {
            "database": self.database.answers(),
            "events": self.database.listens,
            "payloads": self.payloads.is_usable(),
            "staying": not self.stopping.is_set(),
        }

    def sweep(self) -> None:
        """Announces nodes that fell silent, ends runs that were lost, forgets old events and unused uploads.

        Of several processes, one at a time.
        """
        now = self.clock()
        with self.database.writing() as session:
            if not locks.try_hold(session, "sweep"):
                return
            note_absence(session, now)
            give_up_lost(session, timedelta(seconds=self.settings.leases.lost_after_seconds), now)
            prune(session, now - _EVENTS_KEPT)
            failures.forget_old(session, now)
            repeats.forget_old(session, now)
            files = [payload.file for payload in remove_waiting(session, now)]
            if self.settings.retention_days is not None:
                files += clean_up(session, timedelta(days=self.settings.retention_days), now)
        for file in files:
            self.payloads.remove(file)
        self.payloads.sweep_parts()

    def label_tasks(self) -> None:
        """While processes are replaced one by one, one of the version before may make tasks without their labels."""
        while self._labels_are_missing():
            self.database.repeating(self._add_labels)

    def _labels_are_missing(self) -> bool:
        with self.database.reading() as session:
            return labels.are_missing(session)

    def _add_labels(self) -> None:
        with self.database.writing() as session:
            labels.add_missing(session)


@contextmanager
def reading_database(settings: Settings) -> Iterator[Session]:
    """One reading transaction on the database of a server, which may run meanwhile. Raises ConfigurationError."""
    database = Database(settings.database_url, Hub(), Trail(kept_writer(settings.state), utcnow), utcnow, connections=1)
    try:
        with database.snapshot() as session:
            yield session
    except DatabaseError as error:
        where = database.engine.url.render_as_string(hide_password=True)
        raise ConfigurationError(f"The database {where} can't be read: {error.orig}.") from error
    finally:
        database.close()


def _name(secret: str) -> str:
    return hashlib.sha256(b"skerry server id\0" + secret.encode()).hexdigest()[:32]


def _open_payloads(settings: Settings, server_id: str) -> PayloadStore:
    """Raises ConfigurationError, or OSError for the folder."""
    folder, store = settings.payload_folder, settings.blob_store
    if not isinstance(store, S3Store):
        return PayloadStore.of_files(folder)
    from skerry_server.s3 import open_bucket  # noqa: PLC0415 - an optional extra

    return PayloadStore(folder, open_bucket(settings, store, server_id))


def open_server(
    settings: Settings,
    clock: Callable[[], datetime] | None = None,
    *,
    seat: Seat = Seat(),  # noqa: B008 - it does not change
) -> Server:
    """Makes the folders and tables where they are missing. Raises ConfigurationError.

    ``clock``: in place of the database's, or this machine's where the database is a file. ``seat``: of this process
    among those that share the state folder.
    """
    try:
        settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        secret = jwt_secret(settings)
        payloads = _open_payloads(settings, _name(secret))
    except OSError as error:
        raise ConfigurationError(f"The state folder {settings.state} can't be made: {error.strerror}.") from error
    hub, shared = Hub(), SharedClock()
    trail = Trail(kept_writer(settings.state, seat.number), clock or shared)
    connections = settings.limits.threads
    database = Database(settings.database_url, hub, trail, clock or shared, connections=connections, seat=seat)
    database.migrate()

    def read_clock() -> None:
        shared.set(database.now())

    database.repeating(read_clock)

    def bring_policy_up_to_date() -> None:
        with database.writing() as session:
            locks.hold(session, "policy")
            write_policy(session)

    database.repeating(bring_policy_up_to_date)
    return Server(settings, secret, hub, database, payloads, Mailer(settings.mail), clock or shared, read_clock)
