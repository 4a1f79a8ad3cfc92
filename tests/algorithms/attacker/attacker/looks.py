"""Reaching for what isn't the run's own."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def _reach(host: str, port: int) -> tuple[bool, str]:
    with socket.create_connection((host, port), timeout=5) as connection:
        said = connection.recv(64).decode()
    return said == "canary", f"heard {said}"


def _ask_name_server(facts: Mapping[str, Any]) -> tuple[bool, str]:
    """The test's own name server, by UDP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(5)
        asker.connect(("127.0.0.1", facts["name_server"]))
        asker.send(b"who?")
        return True, asker.recv(64).decode()


def _send(address: str, port: int = 80) -> tuple[None, str]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", (address, port))
    return None, f"sent to {address}"


def _abstract_socket(facts: Mapping[str, Any]) -> tuple[bool, str]:
    """Abstract sockets belong to a network namespace, and no file guards them."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(5)
        connection.connect("\0" + facts["abstract"])
        return True, connection.recv(64).decode()


def _run_setuid(_: Mapping[str, Any]) -> tuple[bool, str]:
    shown = subprocess.run(["/setuid-cat", "/proc/self/status"], capture_output=True, text=True, check=False)
    line = next((line for line in shown.stdout.splitlines() if line.startswith("Uid:")), shown.stderr)
    return line.split()[2:3] == ["0"], line


def _see_marker(facts: Mapping[str, Any]) -> tuple[bool, str]:
    """Waits for a file that something else than the algorithm would make."""
    end = time.monotonic() + facts["marker_seconds"]
    path = Path(os.environ["TEMPORARY_FOLDER"]) / "checked"
    while time.monotonic() < end:
        if path.exists():
            return True, "there it is"
        time.sleep(0.1)
    return False, "refused: nothing came"


def _own_working_folder(facts: Mapping[str, Any]) -> tuple[bool, str]:
    """By a working folder that leads out (CVE-2024-21626)."""
    found = Path(Path.cwd(), "../" * 12 + facts["canary_file"].lstrip("/")).read_text()
    return found.strip() == "canary", found


def _read_host_file(facts: Mapping[str, Any]) -> tuple[bool, str]:
    for start in ("", "/host", "/proc/1/root", "/proc/self/root", "/proc/self/cwd/../../../.."):
        path = Path(start + facts["canary_file"])
        if path.exists():
            return True, path.read_text()
    return False, "refused: no such file"


def _foreign_result(_: Mapping[str, Any]) -> tuple[bool, str]:
    others = [path for path in Path("/mnt/data").iterdir() if path != Path(os.environ["OUTPUT_FILE"]).parent]
    seen = [path.joinpath("output").read_text() for path in others if path.is_dir()]
    return bool(seen), f"{seen}" if seen else "refused: nothing but its own"


def _environment(facts: Mapping[str, Any]) -> tuple[bool, str]:
    """Names that would change what a program loads, or tell the node's own secrets."""
    bad = [name for name in os.environ if name.startswith(("LD_", "SKERRY_", "DOCKER_", "XDG_DATA"))]
    return bool(bad), f"{bad}" if bad else "refused: no such name"


def _change_database(_: Mapping[str, Any]) -> None:
    path = next(one for one in Path("/mnt/databases").rglob("*") if one.is_file())
    path.open("r+b").close()


def _engine_variable(_: Mapping[str, Any]) -> tuple[bool, str]:
    told = os.environ.get("HOST", "")
    return told == "http://evil.test", f"refused: HOST is {told}"


LOOKS = {
    "host-loopback": lambda facts: _reach("127.0.0.1", facts["port"]),
    "host-address": lambda facts: _reach(facts["address"], facts["port"]),
    "host-bridge": lambda facts: _send("172.17.0.1"),
    "host-abstract-socket": _abstract_socket,
    "host-file": _read_host_file,
    "name-server": _ask_name_server,
    "metadata-service": lambda _: _send("169.254.169.254"),
    "link-local": lambda _: _send("169.254.1.1"),
    "private-network": lambda _: _send("10.0.0.1"),
    "setuid-program": _run_setuid,
    "health-check": _see_marker,
    "working-folder": _own_working_folder,
    "foreign-result": _foreign_result,
    "variables": _environment,
    "change-database": lambda facts: (_change_database(facts), "opened"),
    "image-variable": _engine_variable,
}
