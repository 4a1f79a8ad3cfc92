"""The listeners in a run's namespace, its gate and its relays: made, handed to the proxy, and closed."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from skerry import contract
from skerry.wire import Status
from skerry_node import relays
from skerry_node.course import Course, ending
from skerry_node.launchers.launcher import Image, LauncherError, Vanished
from skerry_node.namespace import listen_at
from skerry_node.server import BackOff
from skerry_node.story import Story
from skerry_proxy.client import ProxyError
from skerry_proxy.relays import Lead

log = logging.getLogger(__name__)

_LISTEN_TRIES = 8


class Ways:
    """All that a run can reach, but for its peers. ``open_gate`` comes when all listeners are there."""

    def __init__(self, course: Course, story: Story) -> None:
        self._course = course
        self._story = story
        self._gates: list[socket.socket] = []
        self._relays: list[tuple[Lead, socket.socket]] = []
        self._listening = False

    def listen(self, gate: socket.socket) -> None:
        """Takes over the gate's listener, and adds that on a unix socket where it is wanted. Raises LauncherError."""
        parts = self._course.parts
        self._gates.append(gate)
        if parts.launcher.unix_gate:
            path = parts.journal.data(self._course.key) / contract.GATE_SOCKET_NAME
            self._gates.append(listen_at(path, self._course.entry.user))

    def open_relays(self, leads: Sequence[Lead], image: Image) -> None:
        """Raises LauncherError. On a loopback that others use, too, as the gate then shows, any port is taken."""
        launcher, key = self._course.parts.launcher, self._course.key
        own = self._gates[0].getsockname()[1] == contract.GATE_PORT
        for lead, port in zip(leads, relays.ports(len(leads), image), strict=True):
            listen = partial(launcher.listen, key, port if own else 0)
            self._relays.append((lead, self._course.outlast(listen)))
        ports = {lead.name: int(listener.getsockname()[1]) for lead, listener in self._relays}
        self._course.entry = replace(self._course.entry, ports=ports)

    def open_relays_again(self) -> None:
        """Those that the run had before the node was away. One that can't be had is left out: it leads nowhere."""
        ports = self._course.entry.ports
        for lead in relays.again(self._course.parts.config, list(ports)):
            listener = self._listen_when_free(ports[lead.name])
            if listener is None:
                log.warning("Run %s: %s can't be opened again", self._course.key, lead.name)
            else:
                self._relays.append((lead, listener))

    def _listen_when_free(self, port: int) -> socket.socket | None:
        """An earlier node's proxy may still hold the port for a moment; None when it stays taken."""
        course, back_off = self._course, BackOff(longest=2.0)
        for _ in range(_LISTEN_TRIES):
            try:
                return course.parts.launcher.listen(course.key, port)
            except Vanished:
                return None
            except LauncherError as error:
                log.info("Run %s: %s", course.key, error)
            course.pause(back_off)
            course.check_stopped()
        return None

    def open_gate(self) -> str:
        """From now on the gate answers; the token that it takes, the same at each opening. Raises RunEnded.

        Only now are all listeners there: a proxy that was given some of them would end those when it gets them all.
        """
        self._listening = True
        resume = self._course.entry.resume
        assert resume is not None  # noqa: S101 - for the reader and mypy
        with ending(Status.FAILED, ProxyError):
            return self._course.ask_proxy(lambda: self._serve(resume, self._course.token()))

    def serve_again(self) -> None:
        """Hands the listeners to a proxy that was replaced, or gives it a fresh upstream token."""
        course = self._course
        if self._listening and course.entry.resume is not None and course.entry.finish is None:
            self._serve(course.entry.resume, course.parts.server.run_token(course.key))

    def _serve(self, resume: dict[str, Any], token: str) -> str:
        others = [(lead, listener.fileno()) for lead, listener in self._relays]
        return self._course.parts.proxy.serve(resume, token, [listener.fileno() for listener in self._gates], others)

    def close(self) -> None:
        """The gate's door is shut, and what went through is told."""
        key = self._course.key
        with contextlib.suppress(ProxyError):
            used = self._course.parts.proxy.close(key.run, key.number)
            if self._gates:
                self._story.tell_gate(used)
            for one in used.relays:
                log.info(
                    "Run %s: %s: %s connections, %s refused, %s bytes sent, %s bytes received",
                    *(key, one["name"], one["connections"], one["refused"], one["sent"], one["received"]),
                )

    def close_listeners(self) -> None:
        listeners = [*self._gates, *(listener for _, listener in self._relays)]
        self._gates, self._relays, self._listening = [], [], False
        for listener in listeners:
            listener.close()
