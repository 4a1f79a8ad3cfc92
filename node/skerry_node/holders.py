"""Namespace holders: containers without a network that each own the network namespace of one run.

Made ahead in the background, each with the gate's listener in it already; used once, never again. The pool is filled
again between runs: a run that somebody waits for has the machine to itself.
"""

from __future__ import annotations

import logging
import secrets
import socket
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import docker
from docker.errors import APIError, ImageNotFound, NotFound

from skerry import contract
from skerry_node.launchers.launcher import LauncherError
from skerry_node.namespace import listen_inside, open_of
from skerry_node.sandbox import holder_config

log = logging.getLogger(__name__)


class _NotStartedError(LauncherError):
    """The engine made it and did not start it."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A holder's container, the listener in its namespace, and its process."""

    id: str
    listener: socket.socket
    process: int

    @property
    def runs(self) -> bool:
        try:
            _check_owner(self.process, self.id)
        except LauncherError:
            return False
        return True


class HolderEnded(LauncherError):
    """Nothing can be opened in that namespace any more, as after a restart of the machine."""


class Holders:
    """The pool. Safe for threads; its methods raise LauncherError."""

    def __init__(self, api: docker.APIClient, image: str, labels: dict[str, str], size: int) -> None:
        self._api = api
        self._image = image
        self._labels = {**labels, "skerry.kind": "holder"}
        self._size = size
        self._ready: deque[Holder] = deque()
        self._taken: set[str] = set()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._fill, name="holders", daemon=True)

    def start(self) -> None:
        """Removes what an earlier process left unused, then begins to fill the pool."""
        in_use = self._in_use()
        for found in self._api.containers(all=True, filters=self._filter()):
            if found["Id"] not in in_use:
                self.remove(found["Id"])
        self._thread.start()

    def take(self) -> Holder:
        """One that nobody used and that still runs: a restart of the engine ends them. Made now when none is ready."""
        holder = self._find_ready() or self._make()
        with self._changed:
            self._taken.add(holder.id)
            self._changed.notify_all()
        return holder

    def _find_ready(self) -> Holder | None:
        while True:
            with self._changed:
                holder = self._ready.popleft() if self._ready else None
            if holder is None or holder.runs:
                return holder
            self._discard(holder)

    def listen(self, holder: str, port: int) -> socket.socket:
        """A listener in the namespace of a holder."""
        return listen_inside(self._find_process(holder), port)

    def open_namespace(self, holder: str) -> int:
        """A descriptor of the namespace of a holder."""
        return open_of(self._find_process(holder))

    def _find_process(self, holder: str) -> int:
        try:
            state = self._api.inspect_container(holder)["State"]
        except NotFound as error:
            raise HolderEnded("A run's namespace holder is gone.") from error
        except APIError as error:
            raise LauncherError(f"A run's namespace holder can't be looked at: {error.explanation}") from error
        if not state["Running"]:
            raise HolderEnded("A run's namespace holder has ended.")
        _check_owner(state["Pid"], holder)
        return int(state["Pid"])

    def remove(self, holder: str) -> None:
        with self._changed:
            self._taken.discard(holder)
            self._changed.notify_all()
        try:
            self._api.remove_container(holder, force=True, v=True)
        except NotFound:
            return
        except APIError as error:
            if error.status_code != 409:  # noqa: PLR2004 - its removal is under way already
                raise LauncherError(f"A namespace holder can't be removed: {error.explanation}") from error

    def close(self) -> None:
        """Removes the unused ones; those of running attempts stay."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        while self._ready:
            self._discard(self._ready.popleft())

    def _fill(self) -> None:
        while self._wait_for_room():
            try:
                holder = self._make()
            except (LauncherError, OSError) as error:
                log.warning("No namespace holder can be made ahead: %s", error)
                with self._changed:
                    self._changed.wait(timeout=5)
                continue
            with self._changed:
                self._ready.append(holder)

    def _wait_for_room(self) -> bool:
        """False when the pool is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or (len(self._ready) < self._size and self._is_time))
            return not self._closed

    @property
    def _is_time(self) -> bool:
        """An empty pool does not wait: where there is always a run, there would never be time."""
        return not self._taken or not self._ready

    def _make(self) -> Holder:
        """Tries twice: under load, the engine now and then finds a container dead that it was just about to start."""
        try:
            return self._start(self._create())
        except _NotStartedError as error:
            log.info("%s Trying once more.", error)
            return self._start(self._create())

    def _start(self, holder: str) -> Holder:
        try:
            self._api.start(holder)
            process = self._find_process(holder)
            return Holder(holder, listen_inside(process, contract.GATE_PORT), process)
        except (APIError, LauncherError) as error:
            self.remove(holder)
            raise _NotStartedError(f"A namespace holder can't be started: {error}") from error

    def _create(self) -> str:
        config = holder_config(self._image, self._labels)
        name = f"skerry-{self._labels['skerry.installation']}-holder-{secrets.token_hex(6)}"
        try:
            return str(self._api.create_container_from_config(config, name)["Id"])  # type: ignore[no-untyped-call]
        except ImageNotFound as error:
            raise LauncherError(f"The image {self._image} is missing; build it with: make images") from error
        except APIError as error:
            raise LauncherError(f"A namespace holder can't be made: {error.explanation}") from error

    def _discard(self, holder: Holder) -> None:
        holder.listener.close()
        self.remove(holder.id)

    def _in_use(self) -> set[str]:
        """The holders that algorithms' containers of this installation stand in."""
        found = self._api.containers(all=True, filters=self._filter("algorithm"))
        modes = [str(container["HostConfig"]["NetworkMode"]) for container in found]
        return {mode.removeprefix("container:") for mode in modes}

    def _filter(self, kind: str = "holder") -> dict[str, list[str]]:
        installation = self._labels["skerry.installation"]
        return {"label": [f"skerry.kind={kind}", f"skerry.installation={installation}"]}


def _check_owner(pid: int, container: str) -> None:
    """The process really is the container's: its number may have been given to another in the meantime."""
    try:
        text = Path(f"/proc/{pid}/cgroup").read_text()
    except OSError as error:
        raise LauncherError(
            "The engine's processes can't be seen: the node must run on the engine's machine (in a container: in "
            "the host's pid namespace)."
        ) from error
    if container not in text:
        raise LauncherError("A namespace holder's process is not the one that the engine says.")
