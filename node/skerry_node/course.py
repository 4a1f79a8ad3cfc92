"""One attempt as all its rooms share it: what it is made of, how far it is, and how each of its steps waits."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from skerry.errors import Conflict, NotFound, NotRecorded, ServerError, ServerUnreachable, SkerryError
from skerry.wire import Status
from skerry_node.approvals import Approvals
from skerry_node.clocks import since_boot
from skerry_node.config import Config
from skerry_node.jobs import JobFolders
from skerry_node.journal import Entry, Journal, Stage
from skerry_node.launchers.launcher import Attempt, EngineAway, Launcher, LauncherError, task_folder
from skerry_node.losses import Losses
from skerry_node.orders import Order
from skerry_node.places import Places
from skerry_node.pulled import PulledImages
from skerry_node.server import BackOff, Server
from skerry_node.trail import Trail
from skerry_node.users import Users
from skerry_node.vpn import Tunnels
from skerry_proxy.client import ProxyClient, ProxyError

log = logging.getLogger(__name__)
T = TypeVar("T")

_INTERNAL_TRIES = 8


class GivenUp(Exception):
    """The run is no longer this node's: nothing more is reported of it."""


class NodeStops(Exception):
    """The daemon ends; the run goes on, and the next daemon takes it up where the journal says."""


class RunEnded(Exception):
    """The run ends before it was started, in this status and for this reason."""

    def __init__(self, status: Status, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


@contextlib.contextmanager
def ending(status: Status, *errors: type[SkerryError]) -> Iterator[None]:
    """These errors end the run in that status; their text is for the user."""
    try:
        yield
    except errors as error:
        raise RunEnded(status, str(error)) from error


@dataclass(frozen=True, slots=True)
class Parts:
    """What all runs of a node share. ``users`` is None where the node can't give runs users of their own, ``tunnels``
    where runs have no network namespaces of their own. ``ask_again`` renews the call that waits at the server.
    ``clock`` is for what people read, in Unix seconds; what takes its time goes by ``steady``, which nobody sets.
    """

    config: Config
    launcher: Launcher
    proxy: ProxyClient
    server: Server
    journal: Journal
    jobs: JobFolders
    users: Users | None
    closing: threading.Event
    places: Places
    approvals: Approvals
    pulled: PulledImages
    trail: Trail
    losses: Losses
    clock: Callable[[], float] = time.time
    steady: Callable[[], float] = since_boot
    tunnels: Tunnels | None = None
    ask_again: Callable[[], None] = lambda: None


class Course:
    """``entry`` is replaced, by the attempt's own thread only; ``stopped`` is set by whoever ends the run."""

    def __init__(self, parts: Parts, entry: Entry) -> None:
        self.parts = parts
        self.entry = entry
        self.stopped = threading.Event()
        self._upstream_token = entry.order.token
        life = entry.order.token_expires_in if entry.stage is Stage.CLAIMED else 0
        self._token_until = parts.steady() + life / 2

    @property
    def key(self) -> Attempt:
        return self.entry.key

    @property
    def order(self) -> Order:
        return self.entry.order

    @property
    def folder(self) -> Path:
        """The run's own files. Once the algorithm runs, they are its own: they may be links."""
        return self.parts.journal.data(self.key) / task_folder(self.key.run)

    def forget_token(self) -> None:
        """The next one is a fresh one: the server may no longer take this."""
        self._token_until = 0.0

    def token(self) -> str:
        """The upstream token of the run, fresh enough for one more call."""
        if self.parts.steady() >= self._token_until:
            self._upstream_token = self.patiently(lambda: self.parts.server.run_token(self.key))
        return self._upstream_token

    def stop_container(self) -> None:
        try:
            self.parts.launcher.stop(self.key)
        except LauncherError as error:
            log.warning("Run %s can't be stopped yet: %s", self.key, error)

    def wait(self, seconds: float) -> None:
        """Raises GivenUp when the run is stopped, NodeStops when the node is."""
        self.stopped.wait(seconds)
        self.check_stopped()
        if self.parts.closing.is_set():
            raise NodeStops

    def pause(self, back_off: BackOff) -> None:
        """A stop ends the pause. Raises NodeStops when there is nobody to wait for."""
        (self.parts.closing if self.stopped.is_set() else self.stopped).wait(back_off.pause())
        if self.parts.closing.is_set():
            raise NodeStops

    def check_stopped(self) -> None:
        if self.stopped.is_set():
            raise GivenUp("it was stopped")

    def ask_proxy(self, call: Callable[[], T]) -> T:
        """Asks until there is an answer, and room on the disk.

        Raises GivenUp when fenced or stopped, ProxyError for a refusal.
        """
        back_off, internal = BackOff(), 0
        while True:
            try:
                return call()
            except ProxyError as error:
                self.forget_token()
                internal += error.kind == "internal" and self._proxy_answers()
                if error.kind == "fenced":
                    raise GivenUp(str(error)) from error
                if error.kind in {"refused", "invalid"} or internal >= _INTERNAL_TRIES:
                    raise
                log.info("Run %s: %s", self.key, error)
            except OSError as error:
                log.warning("Run %s: %s: make room on the disk.", self.key, error)
            self.pause(back_off)
            self.check_stopped()

    def _proxy_answers(self) -> bool:
        """False while the proxy is being replaced: then it isn't the call that is at fault."""
        try:
            self.parts.proxy.pins()
        except ProxyError:
            return False
        return True

    def outlast(self, call: Callable[[], T]) -> T:
        """Asks the engine until it is there: nothing was started yet, so nothing ends for a restart of it.

        Raises GivenUp when stopped, and LauncherError for all else that it says.
        """
        back_off = BackOff()
        while True:
            try:
                return call()
            except EngineAway as error:
                log.warning("Run %s: %s The node tries again.", self.key, error)
            self.pause(back_off)
            self.check_stopped()

    def patiently(self, call: Callable[[], T]) -> T:
        """Asks server, engine or disk until there is an answer. Raises GivenUp when fenced or stopped.

        Nothing else gives a run up: the server would give it again, and it would be started a second time.
        """
        back_off = BackOff()
        while True:
            try:
                return call()
            except (Conflict, NotFound) as error:
                raise GivenUp(str(error)) from error
            except (ServerUnreachable, ServerError, LauncherError, NotRecorded, OSError) as error:
                log.info("Run %s: %s", self.key, error)
            self.pause(back_off)
            self.check_stopped()
