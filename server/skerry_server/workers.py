"""Several processes of one server behind one address: the kernel shares callers out among them, and any may end."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from types import FrameType

from skerry_server.seats import Seat
from skerry_server.serve import bind, listen
from skerry_server.settings import Settings

_LOG = logging.getLogger(__name__)
_FORK = multiprocessing.get_context("fork")
_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
_LONG_LIFE = 60.0
_STOPS = (signal.SIGTERM, signal.SIGINT)
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG, linux/prctl.h

Work = Callable[[Settings, Seat, Callable[[str], None]], None]
"""Serves until SIGTERM or SIGINT, as the process at that seat, and says its address once it answers."""


@dataclass(frozen=True, slots=True)
class _Worker:
    """``line``: on which it says its address, open for as long as it lives."""

    process: ForkProcess
    line: Connection
    began: float


class Workers:
    """Keeps as many processes as the settings say; ``work`` is what each does. Raises ConfigurationError."""

    def __init__(self, settings: Settings, work: Work) -> None:
        with listen(settings.host, settings.port) as alone:  # the address is nobody else's
            port = alone.getsockname()[1]
        self._held = bind(settings.host, port, shared=True)  # and stays ours, whoever of them listens
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        self._settings = settings.model_copy(update={"port": port})
        self._work = work
        self._seats = Seat.row(settings.processes)
        self._workers: dict[int, _Worker] = {}
        self._stopping = False

    def run(self, announce: Callable[[str], None]) -> int:
        """Until SIGTERM or SIGINT, or until one can't start at all; the exit code. Raises OSError."""
        for number in _STOPS:
            signal.signal(number, self._pass_on)
        address = self._begin()
        if address:
            announce(address)
            self._keep()
        self.close()
        return max(map(self._code, self._workers.values()), default=0)

    def close(self) -> None:
        """The address is free once the processes have ended."""
        self._held.close()
        for bell in self._seats[0].bells:
            os.close(bell)

    def _begin(self) -> str:
        """Where they answer; empty when not all of them do, and the others are told to stop."""
        address = ""
        for index in range(len(self._seats)):  # the first one brings the tables up to date
            self._start(index)
            address = self._address(index)
            if not address:
                if not self._stopping:
                    self._pass_on(signal.SIGTERM, None)
                break
        return address

    def _keep(self) -> None:
        """Replaces those that end; the pause before grows while they end soon."""
        pause = _SHORTEST_PAUSE
        while not self._stopping:
            ended = wait([worker.process.sentinel for worker in self._workers.values()], _LONGEST_PAUSE)
            for index in [index for index, worker in self._workers.items() if worker.process.sentinel in ended]:
                if self._stopping:
                    return
                worker = self._workers.pop(index)
                worker.line.close()
                worker.process.join()
                long = time.monotonic() - worker.began > _LONG_LIFE
                pause = _SHORTEST_PAUSE if long else min(pause * 2, _LONGEST_PAUSE)
                _LOG.error("process %d has ended (%s); another is started", index, worker.process.exitcode)
                self._replace(index, pause)

    def _replace(self, index: int, pause: float) -> None:
        while not self._stopping and index not in self._workers:
            self._rest(pause)
            try:
                self._start(index)
            except OSError as error:
                _LOG.error("process %d can't be started yet: %s", index, error.strerror)

    def _rest(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stopping and time.monotonic() < end:
            time.sleep(0.1)

    def _start(self, index: int) -> None:
        """Unless all are to stop. Raises OSError."""
        line, telling = _FORK.Pipe(duplex=False)
        with _held_back(), telling:  # who is asked to stop meanwhile tells the new one, too
            if not self._stopping:
                process = _FORK.Process(target=self._live, args=[index, telling, os.getpid()], daemon=True)
                process.start()
                self._workers[index] = _Worker(process, line, time.monotonic())

    def _address(self, index: int) -> str:
        """Where it answers, as soon as it does; empty when it ends before, or was not started."""
        try:
            return str(self._workers[index].line.recv()) if index in self._workers else ""
        except EOFError:
            return ""

    def _live(self, index: int, ready: Connection, parent: int) -> None:
        """In the new process. Ctrl-C is the parent's, and one whose parent was killed does not stay behind."""
        for number in _STOPS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
        os.setpgid(0, 0)
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
        if os.getppid() == parent:
            self._work(_own(self._settings, index), self._seats[index], ready.send)

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        self._stopping = True
        for worker in self._workers.values():
            with suppress(ProcessLookupError):
                if worker.process.pid is not None and worker.process.exitcode is None:
                    os.kill(worker.process.pid, number)

    def _code(self, worker: _Worker) -> int:
        """Once it has ended, as a shell would say it; a signal that was passed on is no failure."""
        worker.process.join()
        code = worker.process.exitcode or 0
        return 0 if self._stopping and -code in _STOPS else code if code >= 0 else 128 - code


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
