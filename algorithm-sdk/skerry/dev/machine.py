"""What this machine can do for a development federation."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from skerry.errors import ConfigurationError, MissingExtra

if TYPE_CHECKING:
    from docker import DockerClient

    from skerry.dev.plan import Launcher

NODE_IMAGES = ("skerry/holder", "skerry/probe")
"""What holds the runs' namespaces, and what a node tries its sandbox with."""
_CAP_SYS_ADMIN = 21
_UNIX = "unix://"
_STANDARD = "unix:///var/run/docker.sock"


def docker_client() -> DockerClient | None:
    """A client of the engine at DOCKER_HOST or the standard socket, or None when none answers. The caller closes it."""
    try:
        import docker  # noqa: PLC0415 (a process-launcher federation does without)
        from docker.utils import kwargs_from_env  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtra("node", "skerry dev") from error
    if not _listens(kwargs_from_env().get("base_url") or _STANDARD):
        return None
    try:
        client = docker.from_env(timeout=60)
    except docker.errors.DockerException:
        return None
    try:
        client.ping()
    except (docker.errors.DockerException, OSError):
        client.close()
        return None
    return client


def _listens(address: str) -> bool:
    """Whether somebody is at a unix socket; the engine's library leaves one open when nobody is."""
    if not address.startswith(_UNIX):
        return True
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(address.removeprefix(_UNIX)) == 0


def may_enter_namespaces() -> bool:
    """Whether this process has CAP_SYS_ADMIN, which a node needs to put a gate into a run's namespace."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_SYS_ADMIN & 1) and os.geteuid() == 0
    return False


def choose_launcher(wanted: Launcher) -> tuple[Launcher, str]:
    """``docker`` or ``process`` and, where auto takes processes, the reason. Raises ConfigurationError."""
    if wanted == "process":
        return "process", ""
    reason = _why_not_docker()
    if not reason:
        return "docker", ""
    if wanted == "docker":
        raise ConfigurationError(f"--launcher docker: {reason}")
    return "process", reason


def _why_not_docker() -> str:
    if not may_enter_namespaces():
        return "nodes need root with CAP_SYS_ADMIN to start containers without a network; run it with sudo."
    client = docker_client()
    if client is None:
        return "no Docker engine answers; start one (make engine does)."
    client.close()
    return ""


def require_images() -> None:
    """Raises ConfigurationError when an image that every node with the Docker launcher needs has not been built."""
    client = docker_client()
    if client is None:
        raise ConfigurationError("no Docker engine answers; start one (make engine does).")
    try:
        for image in NODE_IMAGES:
            if not client.images.list(image):
                raise ConfigurationError(f"the image {image} is missing; build it with: make images")
    finally:
        client.close()


def choose_port(wanted: int | None) -> int:
    """A port of the loopback interface that is free now. Raises ConfigurationError when the wanted one is not."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted or 0))
        except OSError as error:
            raise ConfigurationError(
                f"--port {wanted}: can't be used ({error.strerror}); choose another, or leave it out for any free one."
            ) from error
        return int(probe.getsockname()[1])
