"""Upstream tokens: each run's own, known to the proxy alone, and renewed before it expires."""

from __future__ import annotations

import base64
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from skerry.errors import ServerError, ServerUnreachable
from skerry_proxy.fields import Fields
from skerry_proxy.upstream import Call, Upstream

_ASSUMED_SECONDS = 300.0
_SHORTEST_SECONDS = 5.0
_LONGEST_SECONDS = 3600.0
_log = logging.getLogger(__name__)


class Access:
    """The upstream token of one run. Safe for threads."""

    def __init__(self, run: int, attempt: int, token: str, upstream: Upstream) -> None:
        self.run = run
        self._attempt = attempt
        self._upstream = upstream
        self.token = token

    def renew(self) -> float:
        """Gets a new token with the present one; in how many seconds to do so again. Raises as upstream does."""
        call = Call("POST", f"/skerry/run/{self.run}/token", self.token, json={"attempt": self._attempt})
        try:
            fields = Fields(self._upstream.answer(call), "The server's answer")
            token, seconds = fields.text("token", 16384), fields.identifier("expires_in")
        except ValueError as error:
            raise ServerError(str(error), 200) from error
        self.token = token
        return min(max(seconds / 2, _SHORTEST_SECONDS), _LONGEST_SECONDS)


class Renewer:
    """One thread that renews the tokens of all runs that are served."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._due: dict[Access, float] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="renewer", daemon=True)
        self._thread.start()

    def add(self, access: Access) -> None:
        with self._changed:
            self._due[access] = time.monotonic() + first_renewal(access.token, self._clock())
            self._changed.notify()

    def remove(self, access: Access) -> None:
        with self._changed:
            self._due.pop(access, None)

    @contextmanager
    def renewing(self, access: Access) -> Iterator[None]:
        """Keeps the token good for as long as the block takes."""
        self.add(access)
        try:
            yield
        finally:
            self.remove(access)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout=1)

    def _run(self) -> None:
        while (access := self._next()) is not None:
            self._postpone(access, _renew(access))

    def _next(self) -> Access | None:
        """Waits until a renewal is due; None when there will be no more."""
        with self._changed:
            while not self._closed:
                access = min(self._due, key=self._due.__getitem__, default=None)
                wait = None if access is None else self._due[access] - time.monotonic()
                if access is not None and wait is not None and wait <= 0:
                    return access
                self._changed.wait(wait)
        return None

    def _postpone(self, access: Access, seconds: float | None) -> None:
        """Until the next renewal; None: never again."""
        with self._changed:
            if seconds is None or access not in self._due:
                self._due.pop(access, None)
            else:
                self._due[access] = time.monotonic() + seconds


def _renew(access: Access) -> float | None:
    """Renews; in how many seconds again, or None when the server says that the run is over."""
    try:
        return access.renew()
    except ServerUnreachable:
        return _SHORTEST_SECONDS
    except ServerError as error:
        _log.info("run %d: its upstream token is not renewed any more: status %d", access.run, error.status)
        return None if error.status < 500 else _SHORTEST_SECONDS  # noqa: PLR2004
    except Exception:  # noqa: BLE001 - the top of the loop; the log has the traceback
        _log.exception("run %d: renewing its upstream token failed", access.run)
        return _SHORTEST_SECONDS


def first_renewal(token: str, now: float) -> float:
    """In how many seconds a token of unknown age is to be renewed: half of what is left, never more than of its life.

    The two clocks may differ, so a token that seems to have expired is renewed at once, and not believed dead.
    """
    issued, expires = _read_times(token, now)
    return min(max(min(expires - now, expires - issued) / 2, 0.0), _LONGEST_SECONDS)


def _read_times(token: str, now: float) -> tuple[float, float]:
    """``iat`` and ``exp`` of a JWT, unverified; a token that has none is taken to live for a few minutes."""
    try:
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return int(claims["iat"]), int(claims["exp"])
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, RecursionError):
        return now, now + _ASSUMED_SECONDS
