"""A real S3 store of the tests' own: Ceph's object gateway, on a cluster of one monitor and one store in memory."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
import requests
import yaml
from clusters import free_port
from obstore.store import S3Store

if TYPE_CHECKING:
    from obstore.store import ClientConfig

PROGRAMS = ("ceph", "ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "monmaptool")
_SETTINGS = """
[global]
fsid = {fsid}
mon host = v1:127.0.0.1:{monitor}
mon initial members = a
mon data = {folder}/mon
mon allow pool size one = true
mon data avail crit = 1
mon data avail warn = 2
auth cluster required = none
auth service required = none
auth client required = none
osd data = {folder}/osd
osd objectstore = memstore
osd pool default size = 1
osd pool default pg num = 1
osd crush chooseleaf type = 0
memstore device bytes = 1073741824
public addr = 127.0.0.1
cluster addr = 127.0.0.1
log to file = false
admin socket =
run dir = {folder}
crash dir = {folder}
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw enable gc threads = false
rgw enable lc threads = false
"""
_SECONDS = 240.0


@dataclass(frozen=True)
class ObjectStore:
    """Listens on loopback, and has one user."""

    port: int
    access_key_id: str
    secret_access_key: str

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def keys(self) -> dict[str, str]:
        return {"access_key_id": self.access_key_id, "secret_access_key": self.secret_access_key}

    def make_bucket(self) -> str:
        name = f"b{uuid.uuid4().hex}"
        address = obstore.sign(self._open(name), "PUT", "", timedelta(minutes=5))
        requests.put(address, timeout=60).raise_for_status()
        return name

    def settings(self, folder: Path, bucket: str | None = None) -> dict[str, str]:
        """A server's ``blob_store``, with the file of its keys in the server's folder."""
        keys = folder / "bucket.keys"
        keys.write_text(yaml.safe_dump(self.keys))
        keys.chmod(0o600)
        return {"kind": "s3", "endpoint": self.endpoint, "bucket": bucket or self.make_bucket(), "keys": keys.name}

    def names(self, bucket: str) -> list[str]:
        return sorted(one["path"] for some in obstore.list(self._open(bucket)) for one in some)

    def _open(self, bucket: str) -> S3Store:
        options: ClientConfig = {"allow_http": True}
        return S3Store(bucket, endpoint=self.endpoint, region="us-east-1", client_options=options, **self.keys)


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """Until the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="skerry-s3-"))
    made = ObjectStore(free_port(), "the-access-key", uuid.uuid4().hex)
    try:
        with ExitStack() as stack:
            for command in _prepare(folder, made):
                stack.enter_context(_kept_up([*command, "-c", str(folder / "ceph.conf"), "-f"]))
            _await(made.endpoint)
            yield made
    finally:
        shutil.rmtree(folder)


@contextmanager
def _kept_up(command: list[str]) -> Iterator[None]:
    """As a service manager would: Ceph counts on it, for a store may end at once that the monitor does not know yet."""
    again = ["sh", "-c", 'while :; do "$@"; sleep 0.2; done', "sh", *command]
    with subprocess.Popen(again, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def _prepare(folder: Path, store: ObjectStore) -> Iterator[list[str]]:
    """The programs that stay, in their order, each as soon as what it needs is there."""
    monitor, fsid, config = free_port(), str(uuid.uuid4()), folder / "ceph.conf"
    config.write_text(_SETTINGS.format(folder=folder, fsid=fsid, monitor=monitor, port=store.port))
    for name in ("mon", "osd"):
        (folder / name).mkdir()
    _run("monmaptool", "--create", "--addv", "a", f"[v1:127.0.0.1:{monitor}]", "--fsid", fsid, folder / "map")
    _run("ceph-mon", "-i", "a", "--mkfs", "--monmap", folder / "map", "-c", config)
    yield ["ceph-mon", "-i", "a"]
    number = str(uuid.uuid4())
    _ask(config, "new", number, "0")
    _run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", number, "-c", config)
    yield ["ceph-osd", "-i", "0"]
    _await_up(config)
    keys = ("--access-key", store.access_key_id, "--secret-key", store.secret_access_key)
    _run("radosgw-admin", "-c", config, "user", "create", "--uid=tests", "--display-name=tests", *keys)
    yield ["radosgw", "-n", "client.rgw"]


def _await_up(config: Path) -> None:
    """Who asks for a pool before there is anywhere to put it may wait for ever."""
    deadline = time.monotonic() + _SECONDS
    while not json.loads(_ask(config, "stat"))["num_up_osds"]:
        if time.monotonic() > deadline:
            raise TimeoutError("Ceph's store of objects does not come up.")
        time.sleep(0.2)


def _ask(config: Path, *words: str) -> bytes:
    """The monitor's answer about stores; at its start it now and then refuses."""
    command = ("ceph", "-c", config, "--connect-timeout", "60", "osd", *words, "--format", "json")
    for _ in range(5):
        with suppress(subprocess.CalledProcessError):
            return _run(*command)
        time.sleep(0.5)
    return _run(*command)


def _await(endpoint: str) -> None:
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        with suppress(requests.ConnectionError):
            requests.get(endpoint, timeout=10).raise_for_status()
            return
        time.sleep(0.1)
    raise TimeoutError("Ceph's object gateway does not answer.")


def _run(*command: str | Path) -> bytes:
    return subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS).stdout
