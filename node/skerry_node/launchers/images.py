"""Keeping the images of a Docker engine in bounds: those that the node pulled itself, never others."""

from __future__ import annotations

import logging
from collections.abc import Collection

import docker
import requests
from docker.errors import APIError, ImageNotFound

from skerry_node.config import KeepImages
from skerry_node.launchers.launcher import LauncherError
from skerry_node.pulled import Pulled, PulledImages, choose

log = logging.getLogger(__name__)


def list_removable(
    api: docker.APIClient, pulled: PulledImages, needed: Collection[str], keep: KeepImages, now: float
) -> list[Pulled]:
    """What the policy lets go at present, but for the ids in ``needed``. Raises LauncherError."""
    entries = pulled.list()
    try:
        sizes = {one.image: size for one in entries if (size := _size(api, one.image)) is not None}
        in_use = {str(container["ImageID"]) for container in api.containers(all=True)}
    except (APIError, requests.RequestException) as error:
        raise LauncherError(f"The engine's images can't be looked at: {error}") from error
    return choose(entries, sizes, in_use.union(needed), keep, now)


def _size(api: docker.APIClient, image: str) -> int | None:
    """None for an image that is gone."""
    try:
        return int(api.inspect_image(image)["Size"])  # type: ignore[no-untyped-call]
    except ImageNotFound:
        return None


def remove(api: docker.APIClient, pulled: PulledImages, image: Pulled) -> None:
    """Takes away the names under which it was pulled, and with the last one the image: under another, it stays.

    Raises LauncherError.
    """
    for reference in image.references:
        try:
            api.remove_image(reference)
        except ImageNotFound:
            continue
        except (APIError, requests.RequestException) as error:
            raise LauncherError(f"The image {reference} can't be removed: {error}") from error
    pulled.forget(image.image)
    log.info("The image %s is removed: by the policy for images that this node pulled", ", ".join(image.references))
