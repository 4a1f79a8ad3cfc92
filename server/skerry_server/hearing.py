"""A thread that hears of the events of a server's other processes, in whichever way, and tries again when it fails."""

from __future__ import annotations

import logging
import random
import threading
from abc import ABC, abstractmethod

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from skerry.errors import ConfigurationError
from skerry_server.events import Hub

_LOG = logging.getLogger(__name__)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_START_SECONDS, _STOP_SECONDS = 30.0, 2.0


class Ear(ABC):
    """Tells this process's ``hub`` what it hears. Safe for threads."""

    def __init__(self, engine: Engine, hub: Hub) -> None:
        self._engine = engine
        self._hub = hub
        self._stopped = threading.Event()
        self._connected = threading.Event()
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    @property
    def connected(self) -> bool:
        return self._connected.is_set()

    def start(self) -> None:
        """Raises ConfigurationError when the database can't be listened to."""
        self._thread.start()
        if not self._connected.wait(_START_SECONDS):
            raise ConfigurationError("The database does not let this server listen for its events within 30 seconds.")

    def stop(self) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)

    @abstractmethod
    def _listen(self) -> None:
        """Until it fails or is stopped; sets ``_connected`` as soon as nothing is missed."""

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while not self._stopped.is_set():
            try:
                self._listen()
            except (SQLAlchemyError, OSError, self._engine.dialect.loaded_dbapi.Error) as error:
                _LOG.warning("events of other processes can't be heard; trying again: %s", error)
            pause = _FIRST_PAUSE if self._connected.is_set() else min(2 * pause, _LONGEST_PAUSE)
            self._connected.clear()
            self._stopped.wait(random.uniform(0.5, 1) * pause)  # noqa: S311 - spreads processes
