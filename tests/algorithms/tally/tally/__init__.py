"""An algorithm that tells a counter outside of all that is being broken that it starts, and what it will answer."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skerry import AlgorithmClient, central, partial

_PATIENCE = 300.0


@partial
def count(canary: str, seconds: float, size: int) -> dict[str, str]:
    """The answer holds ``size`` characters, and the canary that must be nowhere in plaintext."""
    nonce = secrets.token_hex(8)
    tell(kind="start", nonce=nonce)
    time.sleep(seconds)
    answer = {"nonce": nonce, "canary": f"{canary}-{nonce}", "filler": "x" * size}
    tell(kind="end", nonce=nonce, digest=hashlib.sha256(json.dumps(answer).encode()).hexdigest())
    return answer


@central
def ask_child(
    client: AlgorithmClient, canary: str, seconds: float, organization: int, then: Sequence[int] = ()
) -> dict[str, str]:
    """One child task, however often the way to it breaks off. ``then``: where it asks for children of its own."""
    nonce = secrets.token_hex(8)
    tell(kind="start", nonce=nonce)
    kwargs: dict[str, Any] = {"canary": canary, "seconds": seconds}
    if then:
        input_ = {"method": "ask_child", "kwargs": {**kwargs, "organization": then[0], "then": then[1:]}}
    else:
        input_ = {"method": "count", "kwargs": {**kwargs, "size": 10}}
    task = client.task.create(input_, organizations=[organization], name=f"child of {nonce}")
    [child] = client.wait_for_results(task["id"])
    answer = {"nonce": nonce, "canary": f"{canary}-{nonce}", "child": child["nonce"]}
    tell(kind="end", nonce=nonce, digest=hashlib.sha256(json.dumps(answer).encode()).hexdigest())
    return answer


def tell(**event: Any) -> None:
    """Until the counter has confirmed it: the way there dies and comes back, too."""
    # The run's folder is named after it: task-000000007.
    run = int(Path(os.environ["INPUT_FILE"]).parent.name.rpartition("-")[2])
    line = json.dumps({**event, "run": run}).encode() + b"\n"
    host, _, port = os.environ["COUNTER_GATE_ADDRESS"].rpartition(":")
    end = time.monotonic() + _PATIENCE
    while not _tell_once(host, int(port), line):
        if time.monotonic() > end:
            raise TimeoutError("The counter does not answer.")
        time.sleep(0.1)


def _tell_once(host: str, port: int, line: bytes) -> bool:
    try:
        with socket.create_connection((host, port), timeout=10) as connection:
            connection.sendall(line)
            return connection.recv(3) == b"ok\n"
    except OSError:
        return False
