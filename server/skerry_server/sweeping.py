"""What a running server does again and again, and what it makes of a clock that was set meanwhile."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC

from skerry_server.server import Server

_LOG = logging.getLogger(__name__)
_LABELS_SECONDS = 3600.0
"""Between two looks for tasks without their labels, which are looks at all tasks."""
_SET_SECONDS = 30.0
"""A clock that went on by so much more or less than the steady one was set; or the machine slept."""


class Sweeper:
    """``steady`` counts the seconds, whatever the clock says."""

    def __init__(self, server: Server, steady: Callable[[], float] = time.monotonic) -> None:
        self._server = server
        self._steady = steady
        self._ahead = self._measure()
        self._labels_due = steady()

    def sweep(self) -> None:
        """Time that never passed is no node's silence: leases are renewed before anything is done about them."""
        self._server.read_clock()
        ahead = self._measure()
        if abs(ahead - self._ahead) > _SET_SECONDS:
            _LOG.warning("the clock was set by %+.0f s: all leases begin anew", ahead - self._ahead)
            self._server.renew_leases()
        self._ahead = ahead
        self._server.sweep()
        if self._steady() >= self._labels_due:
            self._labels_due = self._steady() + _LABELS_SECONDS
            self._server.label_tasks()

    def _measure(self) -> float:
        """How far the clock is ahead of the steady one, in seconds."""
        return self._server.clock().replace(tzinfo=UTC).timestamp() - self._steady()
