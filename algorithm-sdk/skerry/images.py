"""Images of algorithms: built from a folder by a Docker engine, or kept in a folder for the process launcher."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from skerry import packages
from skerry.contract import GATE_PORT
from skerry.errors import ConfigurationError, SkerryError
from skerry.packages import Package

BASE = "skerry/algorithm-base"
_TAIL = 15
_DOCKERFILE = """\
ARG BASE={base}
FROM ${{BASE}}
USER root
COPY {source} /app/{source}
RUN python3 -m compileall -q /app
USER 64100:64100
ENV PYTHONPATH=/app PKG_NAME={package}
"""


class BuildFailed(SkerryError):
    """The image could not be built or pushed; says what the engine said last."""


@dataclass(frozen=True, slots=True)
class Image:
    """A built image: ``id`` is the engine's, ``digest`` a registry's, or empty where it was not pushed."""

    name: str
    id: str
    digest: str = ""


def dockerfile(source: str, package: str) -> str:
    """A Dockerfile for a package that needs no more than the base image has; ``source`` is its folder or file."""
    return _DOCKERFILE.format(base=BASE, source=source, package=package)


def build(folder: Path, name: str, *, base: str | None = None, push: bool = False) -> Image:
    """Builds the folder's Dockerfile, or without one a default that holds the folder's package.

    Raises BuildFailed, or ConfigurationError when the folder or the machine can't do it.
    """
    arguments = ["--build-arg", f"BASE={base}"] if base else []
    own = folder / "Dockerfile"
    text = None if own.exists() else _dockerfile_of(packages.find(folder))
    file = str(own) if text is None else "-"
    with tempfile.TemporaryDirectory() as scratch:
        id_file = Path(scratch) / "id"
        docker("build", "--iidfile", str(id_file), "-t", name, "-f", file, *arguments, str(folder), feed=text)
        id_ = id_file.read_text().strip()
    if push:
        docker("push", name)
    return Image(name, id_, _digest(name) if push else "")


def register(folder: Path, name: str, registry: Path) -> Image:
    """Keeps a copy of the folder where the process launcher finds it; its id is the digest of its content."""
    package = packages.find(folder)
    ports = packages.exposed_ports(folder / "Dockerfile")
    if GATE_PORT in ports:
        raise ConfigurationError(f"The Dockerfile EXPOSEs {GATE_PORT}, which is the gate's port: take another.")
    digest = f"sha256:{_hash(package.path)}"
    home = registry / quote(name, safe="")
    content = home / digest.removeprefix("sha256:")
    shutil.rmtree(home, ignore_errors=True)
    _copy(package.path, content)
    entry = {
        "name": name,
        "digest": digest,
        "package": package.name,
        "python": sys.executable,
        "folder": str(content.absolute()),
        "ports": ports,
    }
    (home / "image.json").write_text(json.dumps(entry, indent=1))
    return Image(name, digest)


def docker(*arguments: str, feed: str | None = None) -> str:
    """What the docker command printed. Raises BuildFailed, or ConfigurationError when there is none."""
    try:
        done = subprocess.run(["docker", *arguments], input=feed, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ConfigurationError(
            "There is no docker command here; install Docker, or build with --launcher process for development."
        ) from error
    if done.returncode != 0:
        raise BuildFailed(_explain(arguments[0], f"{done.stdout}\n{done.stderr}"))
    return done.stdout


def inspect(name: str) -> dict[str, Any]:
    """What the engine knows of an image; raises BuildFailed when it has none of that name."""
    answer: list[dict[str, Any]] = json.loads(docker("image", "inspect", name))
    return answer[0]


def _explain(what: str, output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    if any("Cannot connect to the Docker daemon" in line for line in lines):
        return "No Docker engine answers: start one, or build with --launcher process for development."
    return "\n".join([f"docker {what} failed:", *lines[-_TAIL:]])


def _dockerfile_of(package: Package) -> str:
    return dockerfile(package.path.name, package.name)


def _digest(name: str) -> str:
    digests: Sequence[str] = inspect(name).get("RepoDigests") or []
    return digests[0].partition("@")[2] if digests else ""


def _hash(path: Path) -> str:
    """SHA-256 over the names and contents of the package's files."""
    total = hashlib.sha256()
    for file in _files(path):
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        total.update(f"{file.relative_to(path.parent)}\0{content}\n".encode())
    return total.hexdigest()


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return [file for file in sorted(path.rglob("*")) if file.is_file() and "__pycache__" not in file.parts]


def _copy(path: Path, target: Path) -> None:
    for file in _files(path):
        copy = target / file.relative_to(path.parent)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
