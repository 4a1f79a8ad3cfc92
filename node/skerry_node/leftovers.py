"""What is left of runs that ended, where a node was killed and never started again: found, and removed on request."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import docker
import requests
from docker.errors import APIError

from skerry_node import areas
from skerry_node.approvals import Approvals
from skerry_node.config import Config
from skerry_node.launchers import images
from skerry_node.launchers.docker import connect
from skerry_node.launchers.launcher import LauncherError
from skerry_node.pulled import PulledImages


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that no run needs. ``remove`` raises LauncherError."""

    what: str
    remove: Callable[[], None]


def find_images(config: Config) -> Iterator[Leftover]:
    """The images that the owner's policy lets go. Raises LauncherError or ConfigurationError."""
    api, pulled = connect(config.docker.host), PulledImages(config.state_folder)
    needed = Approvals(config.state_folder).waiting_images()
    for image in images.list_removable(api, pulled, needed, config.docker.keep_images, time.time()):
        yield Leftover(f"image {', '.join(image.references)}", partial(images.remove, api, pulled, image))


def find_remains(config: Config) -> Iterator[Leftover]:
    """Containers and folders that no entry of a run speaks of; only of a node that does not run. Raises LauncherError.

    What an entry speaks of is left alone: the node's next start takes it up.
    """
    installation = config.state_folder / "installation"
    known = {entry.parent.name for entry in config.state_folder.glob("runs/*/entry.json")}
    if config.launcher == "docker" and installation.exists():
        yield from _find_containers(connect(config.docker.host), installation.read_text().strip(), known)
    for folder in sorted(config.state_folder.glob("runs/*")):
        if folder.name not in known:
            yield Leftover(f"folder {folder}", partial(_remove_folder, folder))


def _find_containers(api: docker.APIClient, installation: str, known: set[str]) -> Iterator[Leftover]:
    try:
        found = api.containers(all=True, filters={"label": [f"skerry.installation={installation}"]})
    except (APIError, requests.RequestException) as error:
        raise LauncherError(f"The containers of this node can't be listed: {error}") from error
    kept = [container for container in found if _attempt(container) in known]
    holders = {container["HostConfig"]["NetworkMode"].removeprefix("container:") for container in kept}
    for container in found:
        if container not in kept and container["Id"] not in holders:
            name = container["Names"][0].removeprefix("/")
            yield Leftover(f"container {name} ({container['State']})", partial(_remove_container, api, container["Id"]))


def _attempt(container: dict[str, Any]) -> str | None:
    labels = container["Labels"]
    run, attempt = labels.get("skerry.run"), labels.get("skerry.attempt")
    return f"{run}-{attempt}" if run else None


def _remove_container(api: docker.APIClient, container: str) -> None:
    try:
        api.remove_container(container, force=True, v=True)
    except (APIError, requests.RequestException) as error:
        raise LauncherError(f"The container {container} can't be removed: {error}") from error


def _remove_folder(folder: Path) -> None:
    areas.remove(folder / "data")
    areas.remove(folder)
