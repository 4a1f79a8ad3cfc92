"""What a run has logged so far, shown to the user who waits for it: best effort, and ever less often."""

from __future__ import annotations

import logging
from collections.abc import Callable

from skerry.errors import ServerError, ServerUnreachable
from skerry_node.launchers.launcher import LauncherError
from skerry_proxy.client import ProxyError
from skerry_proxy.logs import shorten

log = logging.getLogger(__name__)

LIMIT = 64 * 1024
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 10.0
_GROWTH = 1.25


class LiveLog:
    """Of one run. ``read`` gives its whole log, ``tell`` shows it to the asker; what goes wrong there is noted only."""

    def __init__(self, read: Callable[[], str], tell: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._read, self._tell, self._clock = read, tell, clock
        self._pause = _FIRST_PAUSE
        self._next = clock() + self._pause
        self._told = ""

    def seconds_left(self) -> float:
        """Until it is due again."""
        return max(0.0, self._next - self._clock())

    def tell_if_due(self) -> None:
        """Shows what there is, at most the last of it, when there is more than was shown before."""
        if self.seconds_left() > 0:
            return
        try:
            text = shorten(self._read(), LIMIT)
            if text != self._told:
                self._tell(text)
                self._told = text
        except (LauncherError, ProxyError, ServerUnreachable, ServerError) as error:
            log.info("A log is not shown while its run is active: %s", error)
        self._pause = min(self._pause * _GROWTH, _LONGEST_PAUSE)
        self._next = self._clock() + self._pause
