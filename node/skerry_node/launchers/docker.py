"""Algorithms as containers of a Docker engine, each in the namespace of its own holder."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import re
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import docker
import requests
from docker.errors import APIError, DockerException, NotFound
from docker.errors import ImageNotFound as DockerImageNotFound

from skerry import contract
from skerry_node import sandbox
from skerry_node.config import DockerSettings, Limits, Registry
from skerry_node.holders import Holder, HolderEnded, Holders
from skerry_node.launchers import images
from skerry_node.launchers.launcher import (
    AlreadyStarted,
    Attempt,
    Ended,
    EngineAway,
    Found,
    Image,
    ImageNotFound,
    LauncherError,
    Layout,
    Phase,
    Spec,
    StartFailed,
    Vanished,
)
from skerry_node.policies import Relaxation
from skerry_node.pulled import PulledImages
from skerry_node.references import Reference
from skerry_node.users import default_base, holder_user

log = logging.getLogger(__name__)
T = TypeVar("T")

_CONFLICT = 409
_OLDEST = "1.41"
_SECONDS = 60
_CONNECTIONS = 128
_REFERENCE = re.compile(r"[a-z0-9][A-Za-z0-9._:/-]{0,254}(@sha256:[0-9a-f]{64})?")
_NOT_LOGGED_IN = re.compile(r"unauthorized|authentication required|no basic auth|access to the resource is denied")
_NOT_EXECUTED = frozenset({126, 127})
_EXEC_FAILED = re.compile(r"\A\[FATAL tini \(\d+\)\] (exec .* failed: .*)")
"""What the engine's init says of a command that isn't there; the engine itself takes the start for a good one."""
_PORT = re.compile(r"([1-9][0-9]{0,4})(/|\Z)")
"""An image may say anything of itself: what is no port is none."""
_PHASES = {"created": Phase.CREATED, "exited": Phase.EXITED, "dead": Phase.EXITED}


class _Client(docker.APIClient):
    """At each call, ``requests`` would look for proxies and passwords in the environment: half of what it takes."""

    def __init__(self, host: str | None, version: str) -> None:
        super().__init__(base_url=host, version=version, timeout=_SECONDS, max_pool_size=_CONNECTIONS)
        self.trust_env = False

    def _check_is_tty(self, container: str) -> bool:  # noqa: ARG002 - the base class's
        """No container of a node has a terminal: the engine need not be asked each time that a log is read."""
        return False


def connect(host: str | None) -> docker.APIClient:
    """The engine; raises LauncherError when none answers."""
    try:
        return _Client(host, _ask_version(host))
    except (DockerException, requests.RequestException) as error:
        where = host or "its standard socket"
        raise LauncherError(
            f"No Docker engine answers at {where}: start it, or name another one in docker.host."
        ) from error


def _ask_version(host: str | None) -> str:
    """The engine's own API version. A client that finds it out by itself leaves its socket open when none answers."""
    client = docker.APIClient(base_url=host, version=_OLDEST, timeout=_SECONDS)
    with contextlib.closing(client):
        return str(client.version(api_version=False)["ApiVersion"])


def require_runtime(api: docker.APIClient, runtime: str) -> None:
    """Raises LauncherError when the engine does not know the runtime that the owner's policy demands."""
    with _engine("The engine's runtimes can't be looked at"):
        known = api.info().get("Runtimes") or {}
    if runtime not in known:
        raise LauncherError(
            f"docker.runtime is {runtime}, and the Docker engine knows no runtime of that name: install it and name it "
            "in the engine's daemon.json (docs/how-to/gvisor.md). No run is started under another one."
        )


class DockerLauncher:
    """Containers of one installation; ``node`` is the name on their labels, ``uid_base`` as in the configuration."""

    def __init__(
        self,
        settings: DockerSettings,
        limits: Limits,
        installation: str,
        node: str,
        relaxations: Sequence[Relaxation] = (),
        *,
        uid_base: int | None = None,
    ) -> None:
        self._settings = settings
        self._profile = sandbox.Profile(limits, settings.runtime, relaxations)
        self._labels = {"skerry.installation": installation, "skerry.node": node}
        self._api = connect(settings.host)
        try:
            require_runtime(self._api, settings.runtime)
        except LauncherError:
            self._api.close()
            raise
        user = holder_user(uid_base or default_base(installation))
        self._holders = Holders(self._api, settings.holder_image, user, self._labels, settings.holder_pool)
        self._prepared: dict[Attempt, Holder] = {}
        self._lock = threading.Lock()
        with _engine("The namespace holders of an earlier process can't be listed"):
            self._holders.start()

    @property
    def own_users(self) -> bool:
        return True

    @property
    def unix_gate(self) -> bool:
        return self._settings.gate == "unix"

    @property
    def sandboxed(self) -> bool:
        return True

    def missing(self) -> list[str]:
        return []

    def resolve(self, reference: str) -> Image:
        if not _REFERENCE.fullmatch(reference):
            raise ImageNotFound(f'"{reference}" is not the name of an image.')
        policy = self._settings.pull
        found = self._find(reference) if policy != "always" else None
        if found is None and policy == "never":
            raise ImageNotFound(f"The image {reference} is not on the node's machine, and the node pulls none.")
        return _describe(reference, found) if found is not None else self._pull_anew(reference)

    def prepare(self, attempt: Attempt) -> socket.socket:
        with _engine("A namespace holder can't be made"):
            holder = self._holders.take()
        with self._lock:
            self._prepared[attempt] = holder
        return holder.listener

    def layout(self, spec: Spec) -> Layout:
        databases = {s.label: sandbox.database_path(s.label, s.path.name, s.type) for s in spec.sources}
        folder = contract.run_folder(spec.attempt.run)
        socket_file = contract.GATE_SOCKET_FILE if self.unix_gate else None
        return Layout(folder, contract.TEMPORARY_FOLDER, databases, contract.GATE_PORT, socket_file)

    def start(self, spec: Spec, environment: Mapping[str, str]) -> None:
        with self._lock:
            holder = self._prepared.get(spec.attempt)
        if holder is None:
            raise _already_started(spec.attempt)
        for relaxation in self._profile.relaxed(spec.image):
            log.warning("Run %s: the sandbox is relaxed: %s", spec.attempt, relaxation)
        _write_hosts(sandbox.hosts_file(spec))
        intended = self._profile.config(spec, holder.id, environment, self._labels_of(spec))
        try:
            container = self._create(spec, intended)
            self._check(spec, container, intended)
            self._begin(spec, container)
        except StartFailed as error:
            if holder.stands or self._may_have_run(spec.attempt):
                raise
            raise Vanished(f"The namespace holder ended before the algorithm was started: {error}") from error
        with self._lock:
            removed = self._prepared.pop(spec.attempt, None) is None
        if not removed:
            self._holders.give_back(holder)

    def _may_have_run(self, attempt: Attempt) -> bool:
        """Whether there is a container that is more than made; raises LauncherError."""
        try:
            with _engine("A container that was not started can't be looked at"):
                return str(self._inspect(attempt)["State"]["Status"]) != Phase.CREATED
        except Vanished:
            return False

    def _begin(self, spec: Spec, container: str) -> None:
        try:
            self._api.start(container)
        except APIError as error:
            raise StartFailed(f"The image {spec.image.reference} can't be started: {_reason(error)}") from error
        except requests.RequestException as error:
            raise LauncherError("The Docker engine broke off while starting a container.") from error

    def listen(self, attempt: Attempt, port: int) -> socket.socket:
        with _engine("A running container can't be looked at"):
            return self._inside(attempt, lambda container: self._holders.listen(container, port))

    def open_namespace(self, attempt: Attempt) -> int:
        with _engine("A running container can't be looked at"):
            return self._inside(attempt, self._holders.open_namespace)

    def attach(self, attempt: Attempt) -> socket.socket:
        try:
            return self.listen(attempt, contract.GATE_PORT)
        except HolderEnded as error:
            raise Vanished(f"The way out of run {attempt.run} is gone: {error}") from error

    def poll(self, attempt: Attempt, timeout: float) -> Ended | None:
        try:
            code = int(self._api.wait(self._name(attempt), timeout=max(1, math.ceil(timeout)))["StatusCode"])
        except NotFound as error:
            raise Vanished(f"The container of run {attempt.run} is gone.") from error
        except requests.RequestException as error:
            if _timed_out(error):
                return None
            raise LauncherError("The Docker engine broke off while a container was watched.") from error
        except APIError as error:
            raise LauncherError(f"A container can't be watched: {_reason(error)}") from error
        return Ended(code) if code == 0 else self._explain(attempt, code)

    def logs(self, attempt: Attempt) -> str:
        try:
            raw: bytes = self._api.logs(self._name(attempt), stdout=True, stderr=True)
        except NotFound:
            return ""
        except (APIError, requests.RequestException) as error:
            raise LauncherError(f"The log of run {attempt.run} can't be read.") from error
        return raw.decode(errors="replace")

    def stop(self, attempt: Attempt) -> None:
        try:
            self._api.kill(self._name(attempt))
        except APIError as error:
            if error.status_code not in {404, _CONFLICT}:
                raise LauncherError(f"The container of run {attempt.run} can't be stopped: {_reason(error)}") from error
        except requests.RequestException as error:
            raise LauncherError("The Docker engine broke off while stopping a container.") from error

    def remove(self, attempt: Attempt) -> None:
        with self._lock:
            prepared = self._prepared.pop(attempt, None)
        if prepared is not None:
            self._holders.discard(prepared)
        with _engine("A container can't be removed"):
            left = self._find_left_holder(attempt)
            try:
                self._api.remove_container(self._name(attempt), force=True, v=True)
            except NotFound:
                pass
            except APIError as error:
                if error.status_code != _CONFLICT:
                    raise
            if left is not None:
                self._holders.remove_left(left)

    def list(self) -> list[Found]:
        wanted = ["skerry.kind=algorithm", f"skerry.installation={self._labels['skerry.installation']}"]
        with _engine("The containers of this node can't be listed"):
            containers = self._api.containers(all=True, filters={"label": wanted})
        return [_found(container) for container in containers]

    def tidy(self, pulled: PulledImages, needed: Collection[str]) -> None:
        for image in images.list_removable(self._api, pulled, needed, self._settings.keep_images, time.time()):
            images.remove(self._api, pulled, image)

    def close(self) -> None:
        with _engine("Unused namespace holders can't be removed"):
            self._holders.close()
        self._api.close()

    def _name(self, attempt: Attempt) -> str:
        return f"skerry-{self._labels['skerry.installation']}-run-{attempt}"

    def _inside(self, attempt: Attempt, do: Callable[[str], T]) -> T:
        """With a container in the run's namespace: before the start its holder, then the algorithm's own."""
        with self._lock:
            prepared = self._prepared.get(attempt)
        return do(prepared.id if prepared is not None else str(self._inspect(attempt)["Id"]))

    def _inspect(self, attempt: Attempt) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self._api.inspect_container(self._name(attempt))
        except NotFound as error:
            raise Vanished(f"The container of run {attempt.run} is gone.") from error
        return found

    def _find(self, reference: str) -> dict[str, Any] | None:
        """The image's own description. Without a registry an image has no digest, and its id serves as one."""
        with _engine("The engine's images can't be looked at"):
            with contextlib.suppress(DockerImageNotFound):
                return dict(self._api.inspect_image(reference))  # type: ignore[no-untyped-call]
            name, _, digest = reference.partition("@")
            with contextlib.suppress(DockerImageNotFound):
                found = dict(self._api.inspect_image(name)) if digest else {}  # type: ignore[no-untyped-call]
                return found if found.get("Id") == digest else None
        return None

    def _pull_anew(self, reference: str) -> Image:
        """It is new unless it was on the machine already, under whatever name."""
        with _engine("The engine's images can't be looked at"):
            before = set(self._api.images(quiet=True))
        self._pull(reference)
        found = self._find(reference)
        if found is None:
            raise ImageNotFound(f"The image {reference} was pulled and still is not there.")
        return replace(_describe(reference, found), new=found["Id"] not in before)

    def _pull(self, reference: str) -> None:
        try:
            # Without a tag the engine would pull them all.
            name = reference if "@" in reference or ":" in reference.rpartition("/")[2] else f"{reference}:latest"
            for line in self._api.pull(name, stream=True, decode=True, auth_config=self._log_in_as(reference)):
                if "error" in line:
                    raise _not_pulled(reference, str(line["error"]))
        except APIError as error:
            raise _not_pulled(reference, _reason(error)) from error
        except (requests.RequestException, json.JSONDecodeError) as error:
            raise EngineAway(f"The Docker engine broke off while pulling {reference}.") from error

    def _log_in_as(self, reference: str) -> dict[str, str] | None:
        """Read anew each time, so that a changed password needs no restart; the engine keeps none of it."""
        registry = Reference.parse(reference).registry
        for one in self._settings.registries:
            if one.registry == registry:
                return {"username": one.username, "password": _read_password(one)}
        return None

    def _create(self, spec: Spec, intended: dict[str, Any]) -> str:
        try:
            return str(self._api.create_container_from_config(intended, self._name(spec.attempt))["Id"])  # type: ignore[no-untyped-call]
        except DockerImageNotFound as error:
            raise ImageNotFound(f"The image {spec.image.reference} is no longer on the node's machine.") from error
        except APIError as error:
            if error.status_code == _CONFLICT:
                raise _already_started(spec.attempt) from error
            raise StartFailed(f"The image {spec.image.reference} can't be started: {_reason(error)}") from error
        except requests.RequestException as error:
            raise EngineAway("The Docker engine broke off while making a container.") from error

    def _labels_of(self, spec: Spec) -> dict[str, str]:
        return {
            **self._labels,
            "skerry.kind": "algorithm",
            "skerry.run": str(spec.attempt.run),
            "skerry.attempt": str(spec.attempt.number),
            "skerry.job": str(spec.job),
            "skerry.image": spec.image.id,
        }

    def _check(self, spec: Spec, container: str, intended: dict[str, Any]) -> None:
        """Raises StartFailed, before anything has run, when the engine made something else than was asked for."""
        with _engine("A new container can't be looked at"):
            seen = self._api.inspect_container(container)
        wrong = sandbox.differences(intended, seen, spec.image)
        if wrong:
            log.error("The engine changed the settings of a container: %s", ", ".join(wrong))
            raise StartFailed(f"The node's engine does not keep the sandbox's settings: {', '.join(wrong)}.")

    def _find_left_holder(self, attempt: Attempt) -> str | None:
        """The holder that an earlier process made for it."""
        if not self._holders.left:
            return None
        with contextlib.suppress(Vanished):
            return str(self._inspect(attempt)["HostConfig"]["NetworkMode"]).removeprefix("container:")
        return None

    def _explain(self, attempt: Attempt, code: int) -> Ended:
        with _engine("A container that has ended can't be looked at"):
            seen = self._inspect(attempt)
        if seen["State"]["OOMKilled"]:
            allowed = int(seen["HostConfig"]["Memory"]) >> 20
            return Ended(code, f"The run needed more memory than this node allows ({allowed} MiB).")
        failure = _EXEC_FAILED.search(self.logs(attempt)) if code in _NOT_EXECUTED else None
        if failure is not None:
            return Ended(code, f"The image can't be started: {failure[1]}.", started=False)
        return Ended(code)


@contextlib.contextmanager
def _engine(trouble: str) -> Iterator[None]:
    """What the engine or the way to it raises, as a LauncherError."""
    try:
        yield
    except APIError as error:
        raise LauncherError(f"{trouble}: {_reason(error)}") from error
    except requests.RequestException as error:
        raise EngineAway(f"{trouble}: the Docker engine does not answer.") from error


def _already_started(attempt: Attempt) -> AlreadyStarted:
    return AlreadyStarted(f"Attempt {attempt.number} of run {attempt.run} was started.")


def _write_hosts(path: Path) -> None:
    """Readable by whatever user the run has, however the node was started."""
    path.write_text(sandbox.HOSTS)
    path.chmod(0o644)


def _timed_out(error: requests.RequestException) -> bool:
    """A read that times out may come wrapped in a ConnectionError (requests, issue of streamed bodies)."""
    return isinstance(error, requests.Timeout) or "timed out" in str(error).lower()


def _reason(error: APIError) -> str:
    return " ".join(str(error.explanation or error).split())


def _read_password(registry: Registry) -> str:
    try:
        return registry.password_file.read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        log.warning("docker.registries: %s can't be read", registry.password_file)
        raise ImageNotFound(f"The node can't log in to the registry {registry.registry} at present.") from error


def _not_pulled(reference: str, reason: str) -> ImageNotFound:
    registry = Reference.parse(reference).registry
    if _NOT_LOGGED_IN.search(reason):
        log.warning("%s does not take the node's log-in, or it needs one: see docker.registries", registry)
        return ImageNotFound(
            f"The image {reference} is not on the node's machine, and its registry {registry} does not take the "
            "node's log-in, or needs one: the node's owner can set it in docker.registries."
        )
    return ImageNotFound(
        f"The image {reference} is not on the node's machine and can't be pulled: {' '.join(reason.split())}. Is the "
        "name right? An image of your own is made with `skerry algorithm build`."
    )


def _describe(reference: str, found: dict[str, Any]) -> Image:
    config = found.get("Config") or {}
    digests = {entry.partition("@")[2] for entry in found.get("RepoDigests") or ()} | {found["Id"]}
    ports = {int(number[1]) for port in config.get("ExposedPorts") or () if (number := _PORT.match(port))}
    volumes = tuple(sorted(config.get("Volumes") or ()))
    variables = tuple(entry.partition("=")[0] for entry in config.get("Env") or ())
    labels = dict(config.get("Labels") or {})
    return Image(
        reference, found["Id"], tuple(sorted(digests)), tuple(sorted(ports)), volumes, variables, labels=labels
    )


def _found(container: dict[str, Any]) -> Found:
    labels = container["Labels"]
    attempt = Attempt(int(labels["skerry.run"]), int(labels["skerry.attempt"]))
    return Found(attempt, _PHASES.get(container["State"], Phase.RUNNING))
