"""Attempts that may have been started and won't be finished here: the server is told, and none is started again."""

from __future__ import annotations

import logging
import threading

from skerry import logs
from skerry.audit import What
from skerry.errors import Conflict, NotFound, NotRecorded, ServerError, ServerUnreachable
from skerry.output import ERROR_MARK
from skerry.wire import Status
from skerry_node.journal import Journal
from skerry_node.launchers.launcher import Attempt
from skerry_node.server import Server
from skerry_node.trail import Trail

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 1.0
_SENTENCE = (
    f"{ERROR_MARK}The node could not finish this run: its own record of it was damaged, or the server shut the node "
    "out meanwhile, or was restored from a back-up that does not know of its end. The run is not started a second "
    "time.\n"
)


class Losses:
    """Safe for threads. The journal keeps each attempt until the server has heard of its end."""

    def __init__(self, journal: Journal, server: Server, trail: Trail, closing: threading.Event) -> None:
        self._journal = journal
        self._server = server
        self._trail = trail
        self._closing = closing
        self._attempts: set[Attempt] = set()

    def __contains__(self, attempt: Attempt) -> bool:
        return attempt in self._attempts

    def add(self, attempt: Attempt) -> None:
        """Nothing of it but its name is kept. Does not raise: on a full disk its entry stays for the next start."""
        self._attempts.add(attempt)
        ids = logs.about(run=attempt.run)
        log.warning("Run %s may have been started, and is not finished here", attempt, extra=ids)
        try:
            belongs = {"run": attempt.run, "attempt": attempt.number}
            self._trail.write("run.lose", What("run", attempt.run), belongs)
            self._journal.lose(attempt)
        except (NotRecorded, OSError) as error:
            log.error("Run %s: %s", attempt, error, extra=ids)  # noqa: TRY400 - the sentence says it all

    def tell(self) -> frozenset[Attempt]:
        """Tells the server of all that there are; to be called at each of its answers. Those that there were."""
        there = frozenset(self._attempts)
        for attempt in sorted(there):
            self._tell(attempt)
        return there

    def _tell(self, attempt: Attempt) -> None:
        ids = logs.about(run=attempt.run)
        try:
            self._server.finish(attempt, Status.UNKNOWN_ERROR, _SENTENCE)
        except (Conflict, NotFound) as error:
            log.info("Run %s: %s", attempt, error, extra=ids)
        except (ServerUnreachable, ServerError) as error:
            log.warning("The end of run %s can't be reported yet: %s", attempt, error, extra=ids)
            self._closing.wait(_PAUSE_SECONDS)
            return
        self._conclude(attempt)
        self._attempts.discard(attempt)

    def _conclude(self, attempt: Attempt) -> None:
        try:
            self._journal.conclude(attempt, None)
        except NotRecorded as error:
            log.error("Run %s: %s", attempt, error, extra=logs.about(run=attempt.run))  # noqa: TRY400 - as above
