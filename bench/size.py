"""Large results: that they arrive intact, how fast, and what memory that takes.

The algorithm writes its result into a file; from then on until the client has the decrypted and verified file, time
counts. The references, of the same bytes on the same machine: AES-256-GCM alone in this Python on one core, and
writing to the disk where all this happens (with a sync at the end). The client is a process of its own.

Before the first byte of a result can move, its run has to be ended and its reader told: what a result of a thousand
bytes takes in the same run. So there are two ratios: of the whole time, and ("moving") of the time beyond that one.
Small results are measured several times; the middle one counts.

Sizes in bytes can be given: `SIZES="1000000 1000000000" make bench-size`.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import measuring
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from skerry import UserClient, crypto
from skerry.dev import Federation

sys.path.insert(0, str(measuring.HERE / "large"))
from large import pieces

SIZES = [int(size) for size in os.environ.get("SIZES", "1000000 100000000 1000000000 4000000000").split()]
MOST_GROWTH = 64 << 20
_SPARE = 64 << 20
_TINY = 1000
_TIMES = {_TINY: 5, 1_000_000: 5, 100_000_000: 3}
"""How often results up to a size are measured; larger ones are once."""


def aes_rate(size: int) -> float:
    """Bytes a second, of chunks as the envelope has them."""
    cipher, chunk = AESGCM(os.urandom(32)), os.urandom(crypto.CHUNK_SIZE)
    count = max(size // len(chunk), 1)

    def encrypt() -> None:
        for number in range(count):
            cipher.encrypt(number.to_bytes(12), chunk, b"")

    taken = measuring.seconds(encrypt)
    return count * len(chunk) / taken


def disk_rate(size: int, folder: Path) -> float:
    """Bytes a second to a file and onto the disk."""
    file = folder / "disk"

    def write() -> None:
        with file.open("wb") as out:
            for piece in pieces(size):
                out.write(piece)
            out.flush()
            os.fsync(out.fileno())

    taken = measuring.seconds(write)
    file.unlink()
    return size / taken


def digest_of(size: int) -> str:
    digest = hashlib.sha256()
    for piece in pieces(size):
        digest.update(piece)
    return digest.hexdigest()


# --- the client, a process of its own --------------------------------------------------------------------


def serve_as_client() -> None:
    """Does what a line on standard input says, and answers in a line."""
    facts = json.loads(sys.stdin.readline())
    client = UserClient(*facts["address"])
    client.authenticate(*facts["user"])
    client.setup_encryption(facts["key"])
    for line in sys.stdin:
        print(json.dumps(fetch(client, **json.loads(line))), flush=True)


def fetch(client: UserClient, *, image: str, collaboration: int, organization: int, size: int, folder: str) -> Any:
    task = client.task.create([organization], "large", image, collaboration=collaboration,
                              input_={"method": "large", "kwargs": {"size": size}})  # fmt: skip
    task.wait(progress=False).check()
    idle = measuring.resident("self")
    measuring.forget_peak("self")
    began = time.time()
    [file] = task.download(folder, progress=False)
    ended = time.time()
    grown = measuring.resident("self", peak=True) - idle
    with file.open("rb") as result:
        digest = hashlib.file_digest(result, "sha256").hexdigest()
    file.unlink()
    written = float(task.logs()[0].rpartition("written at ")[2].split()[0])
    return {"seconds": ended - written, "download": ended - began, "grown": grown, "digest": digest}


@contextmanager
def client_process(made: Federation) -> Iterator[subprocess.Popen[str]]:
    host, _, port = made.facts["server"]["url"].rpartition(":")
    user = made.facts["users"][0]
    keys = {one["id"]: one["private_key_file"] for one in made.facts["organizations"]}
    facts = {
        "address": (host, int(port), made.facts["server"]["api_path"]),
        "user": (user["username"], user["password"]),
        "key": keys[user["organization_id"]],
    }
    command = [sys.executable, __file__, "--client"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        tell(process, facts)
        try:
            yield process
        finally:
            process.stdin.close()  # type: ignore[union-attr] - it is a pipe


def tell(process: subprocess.Popen[str], what: Any) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(what) + "\n")
    process.stdin.flush()


def answer(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


# --- the whole -------------------------------------------------------------------------------------------


def measure_one(made: Federation, client: subprocess.Popen[str], image: str, size: int, folder: str) -> dict[str, Any]:
    pids = measuring.processes(made)
    idle = {name: measuring.resident(pid) for name, pid in pids.items()}
    for pid in pids.values():
        measuring.forget_peak(pid)
    [organization] = measuring.organizations(made)
    collaboration = made.facts["collaboration"]["id"]
    tell(client, {"image": image, "collaboration": collaboration, "organization": organization, "size": size,
                  "folder": folder})  # fmt: skip
    found: dict[str, Any] = answer(client)
    assert found["digest"] == digest_of(size), f"{size} bytes did not arrive intact"
    grown = {name: measuring.resident(pid, peak=True) - idle[name] for name, pid in pids.items()}
    return {**found, "size": size, "memory": {"client": found["grown"], **grown}}


def measure(folder: str) -> Iterator[dict[str, Any]]:
    image = measuring.build("large")
    limits = {"output": max(SIZES) + _SPARE}
    with measuring.federation(1, limits=limits) as made, client_process(made) as client:
        measure_one(made, client, image, _TINY, folder)  # warm: imports, connections, the first holder
        fixed = middle(made, client, image, _TINY, folder)["seconds"]
        for size in SIZES:
            rates = {"aes": aes_rate(size), "disk": disk_rate(size, Path(folder))}
            yield {**middle(made, client, image, size, folder), **rates, "fixed": fixed}


def middle(made: Federation, client: subprocess.Popen[str], image: str, size: int, folder: str) -> dict[str, Any]:
    """By its seconds; of the memory the most that any took."""
    times = next((many for most, many in _TIMES.items() if size <= most), 1)
    found = sorted(
        (measure_one(made, client, image, size, folder) for _ in range(times)), key=lambda one: float(one["seconds"])
    )
    memory = {name: max(one["memory"][name] for one in found) for name in found[0]["memory"]}
    return {**found[len(found) // 2], "memory": memory}


def moving_rate(one: dict[str, Any]) -> float:
    """Bytes a second beyond what a tiny result takes; no time at all counts as a millisecond."""
    return float(one["size"] / max(one["seconds"] - one["fixed"], 0.001))


def report(found: list[dict[str, Any]]) -> None:
    names = ("client", "server", "proxy", "node")
    measured = ["MB/s", "AES MB/s", "disk MB/s", "ratio", "moving"]
    head = ["result", "s", "download", *measured, *(f"{name} +MiB" for name in names)]
    rows = []
    for one in found:
        rate, least = one["size"] / one["seconds"], min(one["aes"], one["disk"])
        memory = [f"{one['memory'][name] / (1 << 20):.1f}" for name in names]
        rates = [f"{value / 1e6:.0f}" for value in (rate, one["aes"], one["disk"])]
        rows.append([f"{one['size'] / 1e6:g} MB", f"{one['seconds']:.2f}", f"{one['download']:.2f}", *rates,
                     f"{rate / least:.2f}", f"{moving_rate(one) / least:.2f}", *memory])  # fmt: skip
    measuring.table(head, rows)
    for one in found:
        slower = "AES-256-GCM" if one["aes"] < one["disk"] else "disk with sync"
        rate, least = one["size"] / one["seconds"] / 1e6, min(one["aes"], one["disk"]) / 1e6
        measuring.tell(
            f"size_{one['size']}", rate, "MB/s", slower, least,
            moving=round(moving_rate(one) / 1e6 / least, 3), fixed_seconds=round(one["fixed"], 4),
            memory_growth_mib={name: round(grown / (1 << 20), 1) for name, grown in one["memory"].items()},
            memory_bounded=all(grown < MOST_GROWTH for grown in one["memory"].values()),
        )  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:] == ["--client"]:
        serve_as_client()
    else:
        with tempfile.TemporaryDirectory(prefix="skerry-bench-", dir="/var/tmp") as folder:
            report(list(measure(folder)))
