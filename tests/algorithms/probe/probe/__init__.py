"""An algorithm for the acceptance tests: does what it is told, and looks around from where it stands."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import socket
import stat
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from skerry import AlgorithmClient, RunMetadata, central, data, info, metadata, partial
from skerry.errors import AlgorithmError
from skerry.gate import GateConnection


@partial
def noop() -> dict[str, Any]:
    return {}


@partial
def echo(value: Any) -> Any:
    return value


@metadata
def large(run: RunMetadata, size: int) -> Path:
    """Writes so many bytes where the result belongs."""
    block = hashlib.shake_256(b"large").digest(1 << 20)
    with Path(run.output_file).open("wb") as file:
        file.writelines((start.to_bytes(8, "big") + block[8:])[: size - start] for start in range(0, size, len(block)))
    return Path(run.output_file)


@partial
def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@partial
def numbers(count: int) -> dict[str, Any]:
    import numpy as np  # noqa: PLC0415 - only here

    return {"weights": [np.arange(count, dtype=float), np.eye(2)], "count": count}


@partial
def table(count: int) -> Any:
    import pandas as pd  # noqa: PLC0415 - only here

    return pd.DataFrame({"x": range(count), "y": ["a"] * count})


@central
def add_up(client: AlgorithmClient, organizations: list[int], count: int) -> Any:
    """The sum of arrays that child tasks returned."""
    task = client.task.create({"method": "numbers", "kwargs": {"count": count}}, organizations)
    return sum(found["weights"][0] for found in client.wait_for_results(task["id"]))


@partial
def sleep(seconds: float) -> dict[str, float]:
    started = time.time()
    time.sleep(seconds)
    return {"started": started, "ended": time.time()}


@partial
def tells(message: str, seconds: float) -> None:
    """Logs, and goes on."""
    info(message)
    time.sleep(seconds)


@partial
def wait_for_file(name: str, seconds: float) -> dict[str, Any]:
    """Until a file of that name lies in the job's shared folder, or time is up."""
    path, end = Path(os.environ["TEMPORARY_FOLDER"]) / name, time.time() + seconds
    while not path.exists() and time.time() < end:
        time.sleep(0.05)
    return {"seen": path.exists()}


@partial
def raises(message: str) -> None:
    raise ValueError(message)


@partial
def refuses(message: str) -> None:
    raise AlgorithmError(message)


@partial
def returns_nothing() -> None:
    return None


@partial
def returns_a_set() -> Any:
    return {1, 2, 3}


@partial
def writes_garbage() -> None:
    """Goes behind the entry point's back."""
    Path(os.environ["OUTPUT_FILE"]).write_bytes(b"\xff\xfe not json")
    os._exit(0)


@partial
def exits(code: int) -> None:
    sys.stdout.write("about to leave\n")
    sys.stdout.flush()
    os._exit(code)


@partial
def eats_memory(megabytes: int) -> int:
    return len(bytearray(megabytes * 1024 * 1024))


@partial
@data(1)
def columns(frame: Any) -> list[str]:
    return [str(column) for column in frame.columns]


@partial
@data(1)
def rows(frame: Any) -> list[Any]:
    return json.loads(frame.to_json(orient="values"))


@partial
def variables(part: str) -> dict[str, str]:
    """Those with this in their names."""
    return {name: value for name, value in os.environ.items() if part in name}


@partial
def talk(name: str) -> list[str]:
    """What a service of the owner's echoes; and again, when its connection was cut and it answers once more.

    One more byte tells the service that its answer has arrived.
    """
    host, _, port = os.environ[f"{name}_GATE_ADDRESS"].partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        first = _echo(connection, "first")
        connection.sendall(b".")
        connection.settimeout(120)
        while connection.recv(1):
            pass
    end = time.monotonic() + 120
    while True:
        try:
            with socket.create_connection((host, int(port)), timeout=30) as connection:
                return [first, _echo(connection, "second")]
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def _echo(connection: socket.socket, text: str) -> str:
    connection.sendall(text.encode())
    answer = b""
    while len(answer) < len(text):
        piece = connection.recv(len(text))
        if not piece:
            raise ConnectionError("cut off")
        answer += piece
    return answer.decode()


@partial
def connect_by_proxy(targets: list[str]) -> dict[str, Any]:
    """The status that the egress listener gives each target, and what the first one echoes."""
    proxy = urlsplit(os.environ["HTTPS_PROXY"])
    seen: dict[str, Any] = {}
    for target in targets:
        with socket.create_connection((proxy.hostname, proxy.port), timeout=30) as connection:
            connection.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(1)
            seen[target] = int(head.split(b" ", 2)[1])
            if seen[target] == 200:
                seen["echo"] = _echo(connection, "hello")
    return seen


@partial
@data(1)
def refuses_below(frame: Any, age: int) -> int:
    """Refuses where anybody is younger."""
    if int(frame["age"].min()) < age:
        raise AlgorithmError(f"somebody is younger than {age}")
    return len(frame)


@partial
@data(1)
def leaks(frame: Any, column: str, needle: str, *, fail: bool) -> dict[str, Any]:
    """Puts the data's and the input's canaries where a careless algorithm would: log, result, exception."""
    secret = str(frame[column].iloc[0])
    info(f"the log says {secret} and {needle}")
    if fail:
        raise RuntimeError(f"the exception says {secret} and {needle}")
    return {"result": f"{secret} and {needle}"}


@central
def children(client: AlgorithmClient, method: str, kwargs: dict[str, Any], organizations: list[int]) -> Any:
    task = client.task.create(input_={"method": method, "kwargs": kwargs}, organizations=organizations)
    return client.wait_for_results(task["id"])


@central
def children_as_blobs(client: AlgorithmClient, size: int) -> Any:
    """As the tools of vantage6 since 4.13 do: each input ahead of the task, whose organizations name it by a UUID."""
    if not client.request("blobstream/status")["blob_store_enabled"]:
        raise AlgorithmError("the server has no blob store")
    raw = json.dumps({"method": "length", "kwargs": {"value": "x" * size}}).encode()
    organizations = [
        {"id": organization["id"], "input": _send_blob(client, raw, client.organization.get(organization["id"]))}
        for organization in client.organization.list()
    ]
    body = {"name": "blobs", "image": client.claims.image, "organizations": organizations}
    task = client.request("task", json=body, method="post")
    return client.wait_for_results(task["id"])


def _send_blob(client: AlgorithmClient, raw: bytes, organization: dict[str, Any]) -> str:
    pieces = (raw[start : start + 65536] for start in range(0, len(raw), 65536))
    headers = {**client.headers, "X-Public-Key": organization["public_key"]}
    answer = requests.post(f"{client.base_path}/blobstream", data=pieces, headers=headers, timeout=120)
    answer.raise_for_status()
    return str(answer.json()["uuid"])


@partial
def length(value: str) -> int:
    return len(value)


@partial
def look_around(targets: list[list[Any]], names: list[str], seconds: float = 0) -> dict[str, Any]:
    """What can be seen and reached from inside, after so long: interfaces, listeners, addresses, names, rights."""
    time.sleep(seconds)
    return {
        "interfaces": [name for _, name in socket.if_nameindex()],
        "routes": len(Path("/proc/net/route").read_text().splitlines()) - 1,
        "listeners": sorted(_listeners()),
        "reached": [target for target in targets if _reaches(target[0], int(target[1]))],
        "resolved": [name for name in names if _resolves(name)],
        "uid": os.getuid(),
        "capabilities": _status("CapEff"),
        "no_new_privileges": _status("NoNewPrivs"),
        "can_write_root": _writes(Path("/probe")),
        "can_write_tmp": _writes(Path("/tmp/probe")),
        "processes_limit": resource.getrlimit(resource.RLIMIT_NPROC),
        "mounts": Path("/proc/self/mounts").read_text(),
        "environment": sorted(os.environ),
    }


@partial
def call_gate(calls: list[list[str]]) -> list[int]:
    """The status that the gate gives each (method, path), with this run's own token; 0 for no answer."""
    return [_call(method, path) for method, path in calls]


def _ask_unix_gate(path: Path, head: dict[str, str]) -> int:
    with closing(GateConnection("gate", path=str(path))) as connection:
        connection.request("GET", "/organization", headers=head)
        return connection.getresponse().status


@partial
def call_unix_gate() -> dict[str, Any]:
    """By the socket: who owns it, what it answers with and without the run's token, and whether it can be replaced."""
    path, token = Path(os.environ["GATE_SOCKET"]), Path(os.environ["TOKEN_FILE"]).read_text()
    about = path.stat()
    statuses = [_ask_unix_gate(path, head) for head in ({}, {"Authorization": f"Bearer {token}"})]
    return {
        "path": str(path),
        "own": about.st_uid == os.getuid(),
        "mode": stat.filemode(about.st_mode),
        "statuses": statuses,
        "replaced": _removes(path),
    }


def _removes(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:
        return False
    return True


def _call(method: str, path: str) -> int:
    token = Path(os.environ["TOKEN_FILE"]).read_text()
    url = f"{os.environ['HOST']}:{os.environ['PORT']}{path}"
    try:
        answer = requests.request(method, url, headers={"Authorization": f"Bearer {token}"}, timeout=10)
    except requests.RequestException:
        return 0
    return answer.status_code


def _listeners() -> set[int]:
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A"}


def _reaches(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True


def _resolves(name: str) -> bool:
    try:
        socket.getaddrinfo(name, 80)
    except OSError:
        return False
    return True


def _status(field: str) -> str:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((line.split()[1] for line in lines if line.startswith(f"{field}:")), "")


def _writes(path: Path) -> bool:
    try:
        path.write_text("x")
    except OSError:
        return False
    return True
