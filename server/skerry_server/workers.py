"""Several processes of one server behind one address: the kernel shares callers out among them, and any may end."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from types import FrameType

from skerry_server.serve import bind, listen
from skerry_server.settings import Settings

_LOG = logging.getLogger(__name__)
_FORK = multiprocessing.get_context("fork")
_PAUSE_SECONDS = 1.0
_STOPS = (signal.SIGTERM, signal.SIGINT)
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG, linux/prctl.h

Work = Callable[[Settings, int, Callable[[str], None]], None]
"""Serves until SIGTERM or SIGINT, as the process of that number, and says its address once it answers."""


class Workers:
    """Keeps as many processes as the settings say; ``work`` is what each does. Raises ConfigurationError."""

    def __init__(self, settings: Settings, work: Work) -> None:
        with listen(settings.host, settings.port) as alone:  # the address is nobody else's
            port = alone.getsockname()[1]
        self._held = bind(settings.host, port, shared=True)  # and stays ours while one of them is replaced
        self._settings = settings.model_copy(update={"port": port})
        self._work = work
        self._processes: dict[int, ForkProcess] = {}
        self._stopping = False

    def run(self, announce: Callable[[str], None]) -> int:
        """Until SIGTERM or SIGINT, or until one can't start at all; the exit code."""
        for number in _STOPS:
            signal.signal(number, self._pass_on)
        address = ""
        for index in range(self._settings.processes):  # the first one brings the tables up to date
            address = self._start(index)
            if not address:
                self._pass_on(signal.SIGTERM, None)
        if not self._stopping:
            announce(address)
            self._keep()
        self._held.close()
        return max(map(_code, self._processes.values()), default=0)

    def _keep(self) -> None:
        while not self._stopping:
            wait([process.sentinel for process in self._processes.values()])
            for index, process in self._processes.items():
                if not self._stopping and not process.is_alive():
                    _LOG.error("process %d of the server has ended (%s); another is started", index, process.exitcode)
                    time.sleep(_PAUSE_SECONDS)
                    self._start(index)

    def _start(self, index: int) -> str:
        """Where it answers, empty when it ended before it did."""
        listening, telling = _FORK.Pipe(duplex=False)
        with _held_back(), telling:  # who is asked to stop meanwhile tells the new one, too
            if self._stopping:
                return ""
            self._processes[index] = _FORK.Process(target=self._live, args=[index, telling, os.getpid()])
            self._processes[index].start()
        with listening:
            try:
                return str(listening.recv())
            except EOFError:
                return ""

    def _live(self, index: int, ready: Connection, parent: int) -> None:
        """In the new process. Ctrl-C is the parent's, and one whose parent was killed does not stay behind."""
        for number in _STOPS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
        os.setpgid(0, 0)
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGTERM, 0, 0, 0)
        if os.getppid() == parent:
            self._work(_own(self._settings, index), index, ready.send)

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        self._stopping = True
        for process in self._processes.values():
            with suppress(ProcessLookupError):
                if process.pid is not None and process.exitcode is None:
                    os.kill(process.pid, number)


@contextmanager
def _held_back() -> Iterator[None]:
    """Signals that ask to stop come after the block."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)


def _own(settings: Settings, index: int) -> Settings:
    """Each has a port for its metrics."""
    found = settings.metrics
    changes = {"metrics": found.model_copy(update={"port": found.port + index})} if found is not None else {}
    return settings.model_copy(update=changes)


def _code(process: ForkProcess) -> int:
    """Once it has ended; by a signal counts as a failure."""
    process.join()
    return abs(process.exitcode or 0)
