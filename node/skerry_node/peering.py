"""A run's way to the other runs of its job: its tunnel, and who is let in."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from skerry.errors import InvalidInput
from skerry.peering import MOST_PORTS
from skerry.wire import Status
from skerry_node import vpn
from skerry_node.course import Course, GivenUp, NodeStops, RunEnded, ending
from skerry_node.launchers.launcher import Image, LauncherError
from skerry_node.orders import Others
from skerry_node.story import Story
from skerry_node.vpn import Tunnel
from skerry_proxy.client import ProxyError

log = logging.getLogger(__name__)
T = TypeVar("T")


class Peering:
    """``broken`` is a sentence once the run's tunnel can't be made again, and the run is ended for it."""

    def __init__(self, course: Course, story: Story) -> None:
        self._course = course
        self._story = story
        self._meeting = threading.Lock()
        self.broken: str | None = None

    def choose(self, image: Image) -> None:
        """An image that declares ports wants to be reached; the owner says whether it is. Raises RunEnded."""
        course, ports = self._course, vpn.declared_ports(image)
        if len(ports) > MOST_PORTS:
            sentence = f"The image {image.reference} declares {len(ports)} ports: a run may have {MOST_PORTS} at most."
            raise RunEnded(Status.NOT_ALLOWED, sentence)
        if ports and course.parts.config.policies.vpn == "allow":
            course.entry = replace(course.entry, vpn=ports)
        elif ports:
            log.info(
                "Run %s: %s declares ports, and this node allows no VPN (policies.vpn)", course.key, image.reference
            )

    def join(self) -> None:
        """Known to its peers, and they to it, before the algorithm's first instruction. Raises RunEnded."""
        course = self._course
        tunnels, ports = course.parts.tunnels, course.entry.vpn
        if tunnels is None or ports is None:
            return
        if course.parts.config.policies.vpn != "allow":
            tunnels.close(course.key)
            return
        reserved = course.patiently(_refusable(lambda: course.parts.server.reserve_address(course.key)))
        with ending(Status.FAILED, LauncherError, ProxyError):
            namespace = course.parts.launcher.open_namespace(course.key)
            tunnel = tunnels.open(course.key, vpn.place(namespace, reserved.address, reserved.subnet, ports))
            self._introduce(tunnel)
        threading.Thread(target=self._keep, args=(tunnel,), name=f"vpn {course.key}", daemon=True).start()

    def _introduce(self, tunnel: Tunnel) -> None:
        """Raises LauncherError, ProxyError, GivenUp, RunEnded."""
        course, said = self._course, tunnel.describe()
        parts, resume, job = course.parts, course.entry.resume, course.order.task.job_id
        assert resume is not None  # noqa: S101 - for the reader and mypy
        statement = course.ask_proxy(lambda: parts.proxy.introduce(resume, job, said))
        others = course.patiently(_refusable(lambda: parts.server.introduce(course.key, statement)))
        self._story.tell("run.vpn", address=said["address"], endpoint=said["endpoint"], ports=said["ports"])
        self._let_in(tunnel, others, newcomer=True)
        # The call that waits at the server says nothing of this run's peers yet, so it would hear nothing of them.
        parts.ask_again()

    def meet(self, others: Others) -> None:
        """Lets in the peers that the server now names, and shuts out all others. Does not raise."""
        tunnel = self._find_tunnel()
        with self._meeting:
            if tunnel is None or tunnel.version == others.version:
                return
            try:
                self._let_in(tunnel, others, newcomer=False)
            except (LauncherError, ProxyError, GivenUp, NodeStops) as error:
                log.warning("Run %s: its peers can't be changed yet: %s", self._course.key, error)

    def _let_in(self, tunnel: Tunnel, others: Others, *, newcomer: bool) -> None:
        """Only whom its organization has signed for this very job. Raises LauncherError, ProxyError, GivenUp."""
        course = self._course
        resume, job = course.entry.resume, course.order.task.job_id
        assert resume is not None  # noqa: S101 - for the reader and mypy
        judged = course.ask_proxy(lambda: course.parts.proxy.judge(resume, course.token(), job, others.statements))
        for sentence in judged.refused:
            log.warning("Run %s: a peer is not let in: %s", course.key, sentence)
        tunnel.admit(judged.peers, others.version, newcomer=newcomer)
        runs = [peer.run for peer in judged.peers]
        self._story.tell("run.peers", peers=runs, refused=list(judged.refused))

    def introduce_again(self) -> None:
        """To a proxy that was replaced, which knows nobody. In a thread: who restarts the proxy waits for no one."""
        tunnel = self._find_tunnel()
        if tunnel is not None:
            name = f"vpn {self._course.key} again"
            threading.Thread(target=self._try_to_introduce, args=(tunnel,), name=name, daemon=True).start()

    def _try_to_introduce(self, tunnel: Tunnel) -> None:
        with self._meeting:
            try:
                self._introduce(tunnel)
            except (LauncherError, ProxyError, GivenUp, NodeStops, RunEnded) as error:
                log.warning("Run %s: it can't be introduced again yet: %s", self._course.key, error)

    def drain(self) -> None:
        tunnel = self._find_tunnel()
        if tunnel is not None:
            tunnel.drain()

    def _find_tunnel(self) -> Tunnel | None:
        tunnels = self._course.parts.tunnels
        return tunnels.find(self._course.key) if tunnels is not None else None

    def _keep(self, tunnel: Tunnel) -> None:
        """An interface that has gone is made anew, with a new key; where that can't be done, the run ends."""
        course = self._course
        while tunnel.wait() and not course.parts.closing.is_set():
            log.warning("Run %s: its WireGuard interface has gone; another one is made", course.key)
            try:
                tunnel.renew()
                with self._meeting:
                    self._introduce(tunnel)
            except (GivenUp, NodeStops):
                return
            except (LauncherError, ProxyError, RunEnded) as error:
                log.warning("Run %s: its VPN broke off: %s", course.key, error)
                self.broken = "The run's way to its peers broke off, and the node could not make it again."
                course.stop_container()
                return

    def close(self) -> None:
        if self._course.parts.tunnels is not None:
            self._course.parts.tunnels.close(self._course.key)


def _refusable(call: Callable[[], T]) -> Callable[[], T]:
    """What the server does not take ends the run: asked again, it would not take it either."""

    def asked() -> T:
        with ending(Status.FAILED, InvalidInput):
            return call()

    return asked
