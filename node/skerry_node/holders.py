"""Namespace holders: containers without a network, each in a network namespace that is to be one run's.

Made ahead in the background, with the gate's listener in the namespace already. A namespace is used once: as soon as
the algorithm has been started in it, the holder leaves it to the run and moves into a fresh one (docker/hold.sh), for
another run. One that can't move is replaced.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import docker
from docker.errors import APIError, ImageNotFound, NotFound

from skerry import contract
from skerry_node.launchers.launcher import LauncherError
from skerry_node.namespace import identify, listen_inside, open_of
from skerry_node.sandbox import holder_config

log = logging.getLogger(__name__)
T = TypeVar("T")

_PATIENCE = 1.0
"""Seconds for what takes milliseconds on a machine that has nothing else to do."""
_PAUSE = 0.002
_REST = 5.0
"""Seconds after which holders go that only a rush of runs has needed."""


class _NotStartedError(LauncherError):
    """The engine made it and did not start it."""


class _CanNotMoveError(LauncherError):
    """The holder stays in a namespace that it has left to a run."""


class HolderEnded(LauncherError):
    """Nothing can be opened in that namespace any more, as after a restart of the machine."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A holder's container, its process, the namespace that it was last seen in, and the gate's listener in there."""

    id: str
    process: int
    namespace: tuple[int, int]
    listener: socket.socket

    @property
    def stands(self) -> bool:
        """Whether it runs, and still in that namespace: who joins it finds the listener."""
        try:
            _check_owner(self.process, self.id)
            return identify(self.process) == self.namespace
        except LauncherError:
            return False


class Holders:
    """The pool. Safe for threads; its methods raise LauncherError."""

    def __init__(self, api: docker.APIClient, image: str, user: int, labels: dict[str, str], size: int) -> None:
        self._api = api
        self._image = image
        self._user = user
        self._labels = {**labels, "skerry.kind": "holder"}
        self._size = size
        self._ready: deque[Holder] = deque()
        self._moving: deque[Holder] = deque()
        self._own: set[str] = set()
        self._left: set[str] = set()
        self._condemned: set[str] = set()
        self._changed = threading.Condition()
        self._asked = time.monotonic()
        self._closed = False
        self._thread = threading.Thread(target=self._tend, name="holders", daemon=True)

    def start(self) -> None:
        """Removes what an earlier process left unused, then begins to fill the pool."""
        in_use = self._in_use()
        found = {container["Id"] for container in self._api.containers(all=True, filters=self._filter())}
        self._left = found & in_use
        self._condemned = found - in_use
        self._thread.start()

    def take(self) -> Holder:
        """One in a namespace that nobody has used, made now when none is ready. The listener is the caller's."""
        return self._find_ready() or self._make()

    def give_back(self, holder: Holder) -> None:
        """The algorithm has been started, and keeps the namespace."""
        with self._changed:
            self._moving.append(holder)
            self._changed.notify_all()

    def discard(self, holder: Holder) -> None:
        """Of one that was taken and that no algorithm was started in, as far as the caller knows."""
        self._condemn(holder.id)

    @property
    def left(self) -> bool:
        """Whether there are some of an earlier process that an algorithm's container was made to join."""
        return bool(self._left)

    def remove_left(self, holder: str) -> None:
        """Of one of an earlier process; nothing happens to others."""
        if holder in self._left:
            self._condemn(holder)

    def _condemn(self, container: str) -> None:
        """It is removed in the background, as soon as the engine does it."""
        with self._changed:
            self._own.discard(container)
            self._left.discard(container)
            self._condemned.add(container)
            self._changed.notify_all()

    def listen(self, container: str, port: int) -> socket.socket:
        """A listener in the namespace of a holder or of an algorithm."""
        return listen_inside(self._find_process(container), port)

    def open_namespace(self, container: str) -> int:
        """A descriptor of the namespace of a holder or of an algorithm."""
        return open_of(self._find_process(container))

    def close(self) -> None:
        """Removes those that no run has taken. Raises what the engine raises, when all others are gone."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        for holder in self._ready:
            self._drop(holder)
        for holder in self._moving:
            self.discard(holder)
        self._remove_condemned()

    def _find_ready(self) -> Holder | None:
        while (holder := self._next()) is not None:
            if holder.stands:
                return holder
            self._drop(holder)
        return None

    def _drop(self, holder: Holder) -> None:
        holder.listener.close()
        self.discard(holder)

    def _next(self) -> Holder | None:
        """One that is about to be ready is sooner there than a new one."""
        with self._changed:
            self._asked = time.monotonic()
            self._changed.wait_for(lambda: self._ready or not self._moving, _PATIENCE)
            return self._ready.popleft() if self._ready else None

    def _tend(self) -> None:
        while (work := self._wait_for_work()) is not None:
            try:
                work()
            except (LauncherError, OSError) as error:
                log.warning("The namespace holders can't be tended: %s", error)
                with self._changed:
                    self._changed.wait(timeout=5)

    def _wait_for_work(self) -> Callable[[], None] | None:
        """None when the pool is closed."""
        with self._changed:
            while not self._closed:
                if self._moving:
                    return self._move_next
                if len(self._own) < self._size:
                    return lambda: self._add(self._make())
                if self._condemned:
                    return self._remove_condemned
                too_many = bool(self._ready) and len(self._own) > self._size
                left = self._asked + _REST - time.monotonic()
                if too_many and left <= 0:
                    return self._drop_one
                self._changed.wait(left if too_many else None)
        return None

    def _drop_one(self) -> None:
        with self._changed:
            holder = self._ready.pop() if self._ready else None
        if holder is not None:
            self._drop(holder)

    def _add(self, holder: Holder) -> None:
        with self._changed:
            self._ready.append(holder)
            self._changed.notify_all()

    def _move_next(self) -> None:
        holder = self._moving[0]
        try:
            self._add(_move(holder))
        except LauncherError as error:
            log.info("A namespace holder is replaced: %s", error)
            self.discard(holder)
        finally:
            with self._changed:
                self._moving.popleft()
                self._changed.notify_all()

    def _make(self) -> Holder:
        """Tries twice: that one died while it was being started says nothing of the next."""
        try:
            return self._start(self._create())
        except _NotStartedError as error:
            log.info("%s Trying once more.", error)
            return self._start(self._create())

    def _start(self, container: str) -> Holder:
        try:
            return self._try_to_start(container)
        except (APIError, LauncherError) as error:
            self._condemn(container)
            raise _NotStartedError(f"A namespace holder can't be started: {error}") from error
        except BaseException:
            self._condemn(container)
            raise

    def _try_to_start(self, container: str) -> Holder:
        self._api.start(container)
        process = self._find_process(container)
        holder = Holder(container, process, identify(process), listen_inside(process, contract.GATE_PORT))
        with self._changed:
            self._own.add(container)
        return holder

    def _create(self) -> str:
        config = holder_config(self._image, self._user, self._labels)
        name = f"skerry-{self._labels['skerry.installation']}-holder-{secrets.token_hex(6)}"
        try:
            return str(self._api.create_container_from_config(config, name)["Id"])  # type: ignore[no-untyped-call]
        except ImageNotFound as error:
            raise LauncherError(f"The image {self._image} is missing; build it with: make images") from error
        except APIError as error:
            raise LauncherError(f"A namespace holder can't be made: {error.explanation}") from error

    def _find_process(self, container: str) -> int:
        try:
            state = self._api.inspect_container(container)["State"]
        except NotFound as error:
            raise HolderEnded("A run's namespace is gone with its container.") from error
        except APIError as error:
            raise LauncherError(f"The container of a namespace can't be looked at: {error.explanation}") from error
        if not state["Running"]:
            raise HolderEnded("A run's namespace has ended with its container.")
        _check_owner(state["Pid"], container)
        return int(state["Pid"])

    def _remove_condemned(self) -> None:
        """Each that the engine removes; one that it does not is in no other's way. Raises LauncherError for it."""
        with self._changed:
            condemned = sorted(self._condemned)
        trouble = None
        for container in condemned:
            try:
                self._remove(container)
            except LauncherError as error:
                trouble = error
                continue
            with self._changed:
                self._condemned.discard(container)
        if trouble is not None:
            raise trouble

    def _remove(self, container: str) -> None:
        try:
            self._api.remove_container(container, force=True, v=True)
        except NotFound:
            return
        except APIError as error:
            if error.status_code != 409:  # noqa: PLR2004 - its removal is under way already
                raise LauncherError(f"A namespace holder can't be removed: {error.explanation}") from error

    def _in_use(self) -> set[str]:
        """The holders that algorithms' containers of this installation were made to join."""
        found = self._api.containers(all=True, filters=self._filter("algorithm"))
        modes = [str(container["HostConfig"]["NetworkMode"]) for container in found]
        return {mode.removeprefix("container:") for mode in modes}

    def _filter(self, kind: str = "holder") -> dict[str, list[str]]:
        installation = self._labels["skerry.installation"]
        return {"label": [f"skerry.kind={kind}", f"skerry.installation={installation}"]}


def _move(holder: Holder) -> Holder:
    """The holder in a fresh namespace; the caller sees to it that a run has the old one. Raises LauncherError."""
    _tell_to_move(holder)
    namespace = _await(lambda: _another(holder), "its engine or its machine does not let it make one of its own")
    listener = _await(lambda: _listen(holder.process), "there is no lo in its new one")
    return replace(holder, namespace=namespace, listener=listener)


def _tell_to_move(holder: Holder) -> None:
    """Told once: a second signal could move it when it is another run's already."""
    try:
        process = os.pidfd_open(holder.process)
    except OSError as error:
        raise _CanNotMoveError(f"It has ended ({error.strerror}).") from error
    try:
        _check_owner(holder.process, holder.id)
        if not holder.stands or not _owns_user_namespace(holder.process):
            raise _CanNotMoveError("It can't make a namespace.")
        signal.pidfd_send_signal(process, signal.SIGUSR1)
    except OSError as error:
        raise _CanNotMoveError(f"It can't be told to move ({error.strerror}).") from error
    finally:
        os.close(process)


def _owns_user_namespace(process: int) -> bool:
    """Without one, which some machines refuse to all but root, it has no right to make network namespaces."""
    return not os.path.samestat(os.stat(f"/proc/{process}/ns/user"), os.stat("/proc/self/ns/user"))  # noqa: PTH116


def _another(holder: Holder) -> tuple[int, int] | None:
    now = identify(holder.process)
    return now if now != holder.namespace else None


def _listen(process: int) -> socket.socket | None:
    """None before its lo is up."""
    try:
        return listen_inside(process, contract.GATE_PORT)
    except LauncherError:
        return None


def _await(look: Callable[[], T | None], otherwise: str) -> T:
    until = time.monotonic() + _PATIENCE
    while (seen := look()) is None:
        if time.monotonic() > until:
            raise _CanNotMoveError(f"It has not moved into another namespace: {otherwise}.")
        time.sleep(_PAUSE)
    return seen


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
