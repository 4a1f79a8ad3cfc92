"""A wire that is cut, a clock that jumps and a disk that is full, as a program sees them."""

from __future__ import annotations

import os
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_host import Clock, Disk
from fault_wire import Wire

PRINT = """
import subprocess, sys, threading, time
print(time.time(), flush=True)
time.sleep(0.01)
threading.Event().wait(0.01)
sys.argv[1:] and subprocess.run(sys.argv[1:], check=True)
"""


class Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while line := self.rfile.readline():
            self.wfile.write(line)


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as far:
        far.daemon_threads = True
        threading.Thread(target=far.serve_forever, args=(0.02,), daemon=True).start()
        made = Wire.to_port(lambda: int(far.server_address[1]))
        yield made
        made.close()
        far.shutdown()


def speak(connection: socket.socket) -> bytes:
    connection.settimeout(10)
    try:
        connection.sendall(b"word\n")
        return connection.recv(10)
    except OSError:
        return b""


@pytest.mark.unit
def test_a_wire_that_is_cut_and_joined_again(wire: Wire) -> None:
    with socket.create_connection(("127.0.0.1", wire.port)) as open_:
        assert speak(open_) == b"word\n"
        wire.cut()
        assert speak(open_) == b""
    with socket.create_connection(("127.0.0.1", wire.port)) as new:
        assert speak(new) == b""
    wire.join()
    with socket.create_connection(("127.0.0.1", wire.port)) as again:
        assert speak(again) == b"word\n"


@pytest.mark.integration
def test_a_clock_jumps_for_a_process_and_its_children(own_machines: object, tmp_path: Path) -> None:
    clock = Clock(tmp_path / "clock")
    clock.jump(-86400)
    environment = {**os.environ, "PYTHONPATH": str(clock.folder)}
    command = [sys.executable, "-c", PRINT]
    said = subprocess.run([*command, *command], env=environment, capture_output=True, text=True, check=True).stdout
    real = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert [abs(real - 86400 - float(line)) < 3600 for line in said.split()] == [True, True]


@pytest.mark.integration
def test_a_disk_that_is_full_until_it_is_not(own_machines: object, tmp_path: Path) -> None:
    folder = tmp_path / "part"
    folder.mkdir(mode=0o711)
    (folder / "file").write_text("kept")
    disk = Disk(folder, 4)
    try:
        make_room = disk.fill()
        with pytest.raises(OSError, match="No space left"):
            (folder / "new").write_text("x")
        make_room()
        (folder / "new").write_text("x")
        assert (folder / "file").read_text() == "kept"
        assert folder.stat().st_mode & 0o777 == 0o711
    finally:
        disk.close()
