"""What all tests share: a real engine and its images, or a reason to skip; and the check that nothing is left over."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import Cluster, cluster
from objectstores import PROGRAMS, ObjectStore, object_store

from skerry.dev.leftovers import mounts_below
from skerry.dev.machine import docker_client, may_enter_namespaces
from skerry_node import vpn

ROOT = Path(__file__).parent.parent
IN_CI = os.environ.get("CI", "").lower() in {"1", "true"}


def skip_or_fail(reason: str) -> None:
    """Nothing is skipped in CI: what is missing there is a failure."""
    if IN_CI:
        pytest.fail(f"in CI this has to be there: {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def engine() -> None:
    """A Docker engine that nodes can use."""
    if not may_enter_namespaces():
        skip_or_fail("nodes with the Docker launcher need root with CAP_SYS_ADMIN")
    client = docker_client()
    if client is None:
        skip_or_fail("no Docker engine answers (make engine starts one)")
    else:
        client.close()


@pytest.fixture(scope="session")
def images(engine: None) -> None:
    """The holder's and the base image, as the present sources make them."""
    built = subprocess.run([ROOT / "docker" / "images.sh"], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr


@pytest.fixture(scope="session")
def postgresql_programs() -> Path:
    """The folder of a PostgreSQL's programs."""
    folder = Path("/usr/lib/postgresql/15/bin")
    if not folder.is_dir():
        skip_or_fail("PostgreSQL 15 is not installed (tests/programs.sh installs it)")
    return folder


@pytest.fixture(scope="session")
def postgresql_cluster(postgresql_programs: Path) -> Iterator[Cluster]:
    """A PostgreSQL with nothing in it, for databases of the tests' own."""
    with cluster(postgresql_programs) as made:
        yield made


@pytest.fixture(scope="session")
def s3_store() -> Iterator[ObjectStore]:
    """A store that speaks S3, for buckets of the tests' own."""
    if any(shutil.which(name) is None for name in PROGRAMS):
        skip_or_fail("Ceph's object gateway is not installed (tests/programs.sh installs it)")
    with object_store() as made:
        yield made


@pytest.fixture(scope="session")
def balancer_program() -> None:
    """HAProxy."""
    if not Path("/usr/sbin/haproxy").exists():
        skip_or_fail("HAProxy is not installed (tests/programs.sh installs it)")


@pytest.fixture(scope="session")
def own_machines() -> None:
    """What gives a process a clock and a disk of its own."""
    if not Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1").exists():
        skip_or_fail("libfaketime is not installed (tests/programs.sh installs it)")
    if not may_enter_namespaces():
        skip_or_fail("only root may mount")


@pytest.fixture(scope="session")
def gvisor(engine: None) -> None:
    """An engine that has gVisor as a runtime."""
    client = docker_client()
    assert client is not None
    try:
        known = client.info()["Runtimes"]
    finally:
        client.close()
    if "runsc" not in known or shutil.which(known["runsc"]["path"]) is None:
        skip_or_fail("the engine has no gVisor (make gvisor installs it; docs/how-to/gvisor.md)")


@pytest.fixture(scope="session")
def vpn_machine() -> None:
    """WireGuard and nftables, as a node with a VPN needs them."""
    reason = vpn.missing()
    if reason is not None:
        skip_or_fail(reason)


@pytest.fixture(scope="session")
def registry_programs() -> None:
    """Debian's registry and what makes its file of passwords."""
    missing = [name for name in ("docker-registry", "htpasswd") if shutil.which(name) is None]
    if missing:
        skip_or_fail(f"{' and '.join(missing)} missing (tests/programs.sh installs them)")


@pytest.fixture(scope="session", autouse=True)
def state_home() -> Iterator[Path]:
    """Federations of this session live in a folder of their own; at its end nothing of them may be left."""
    home = Path(tempfile.mkdtemp(prefix="skerry-"))  # short: the path of a socket has at most 107 bytes
    home.chmod(0o711)
    before = containers()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(home))
        yield home
    left = [*processes_of(home), *mounts_below(home), *map(str, home.glob("skerry/dev/*"))]
    left += sorted(set(containers()) - set(before))
    shutil.rmtree(home, ignore_errors=True)
    assert not left, f"left over: {left}"


def processes_of(home: Path) -> list[str]:
    """The command lines that name the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(home) in line:
            found.append(f"process {entry.parent.name}: {line}")
    return found


def containers() -> list[str]:
    """Containers of any node: only where this session has the engine for itself."""
    client = docker_client() if IN_CI else None
    if client is None:
        return []
    try:
        found = client.containers.list(all=True, ignore_removed=True, filters={"label": "skerry.installation"})
        return [f"container {container.name}" for container in found]
    finally:
        client.close()
