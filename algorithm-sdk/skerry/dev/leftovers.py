"""What a killed node leaves behind: containers, namespaces' holders, mounts, folders."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from skerry.dev.machine import docker_client
from skerry.errors import SkerryError

MOUNTS = Path("/proc/self/mountinfo")
_ESCAPE = re.compile(r"\\([0-7]{3})")


def remove_containers(installations: Iterable[str]) -> int:
    """Removes every container that these nodes labelled as theirs; returns how many there were."""
    wanted = list(installations)
    client = docker_client() if wanted else None
    if client is None:
        return 0
    try:
        found = [
            container
            for installation in wanted
            for container in client.containers.list(
                all=True, ignore_removed=True, filters={"label": f"skerry.installation={installation}"}
            )
        ]
        for container in found:
            _remove(container)
        return len(found)
    finally:
        client.close()


def _remove(container: object) -> None:
    import docker.errors  # noqa: PLC0415 (only where there is an engine)

    try:
        container.remove(force=True, v=True)  # type: ignore[attr-defined]
    except docker.errors.NotFound:
        return
    except docker.errors.APIError as error:
        if error.status_code != 409:  # noqa: PLR2004 (its removal is under way already)
            raise


def mounts_below(folder: Path) -> list[str]:
    """Mount points at or below a folder, the deepest first (proc_pid_mountinfo(5), field 5)."""
    points = [line.split()[4] for line in MOUNTS.read_text().splitlines()]
    plain = [_ESCAPE.sub(lambda match: chr(int(match[1], 8)), point) for point in points]
    inside = [point for point in plain if Path(point).is_relative_to(folder)]
    return sorted(inside, key=len, reverse=True)


def remove_folder(folder: Path) -> None:
    """Unmounts what is mounted below and removes all. Raises SkerryError when something stays."""
    for point in mounts_below(folder):
        subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)
    if mounts_below(folder):
        raise SkerryError(f"{mounts_below(folder)[0]} can't be unmounted; run skerry dev down as root.")
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        who = "" if os.geteuid() == 0 else " as root"
        raise SkerryError(f"{folder} can't be removed ({error.strerror}); run skerry dev down{who} again.") from error
