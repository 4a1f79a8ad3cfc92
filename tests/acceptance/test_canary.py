"""Point 3: what is sealed is found nowhere on its way; in a plain federation, as a control, it is."""

from __future__ import annotations

import base64
import secrets
import socket
import threading
from collections import defaultdict
from pathlib import Path
from typing import Self

import pytest
from walks import contents

pytestmark = pytest.mark.acceptance


class Capture:
    """Every TCP byte on the loopback interface from or to one port, joined by direction of connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: dict[tuple[int, int], bytearray] = defaultdict(bytearray)
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
        self._socket.bind(("lo", 0))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024 * 1024)
        self._socket.settimeout(0.2)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                frame, address = self._socket.recvfrom(1 << 17)
            except TimeoutError:
                continue
            if address[2] != socket.PACKET_OUTGOING:  # loopback shows each packet twice
                self._keep(frame[14:])

    def _keep(self, packet: bytes) -> None:
        if packet[9] != socket.IPPROTO_TCP:
            return
        segment = packet[(packet[0] & 15) * 4 :]
        ports = int.from_bytes(segment[0:2], "big"), int.from_bytes(segment[2:4], "big")
        if self._port in ports:
            self._streams[ports] += segment[(segment[12] >> 4) * 4 :]

    @property
    def streams(self) -> list[bytes]:
        return [bytes(stream) for stream in self._streams.values()]


def spellings(canary: str) -> list[bytes]:
    """Plain, hex, and base64 and base32 in each alignment, without the letters that depend on the neighbours."""
    raw = canary.encode()
    found = [raw, raw.hex().encode(), raw.hex().upper().encode()]
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + raw)
        found.append(encoded[4 if shift else 0 : len(encoded) - 4])
    for shift in range(5):
        encoded = base64.b32encode(b"\0" * shift + raw)
        found.append(encoded[8 if shift else 0 : len(encoded) - 8])
    return found


def files_below(folder: Path) -> list[tuple[str, bytes]]:
    return [(str(path), content) for path, content in contents(folder)]


def where_found(canaries: dict[str, str], places: list[tuple[str, bytes]]) -> set[tuple[str, str]]:
    return {
        (name, place)
        for name, canary in canaries.items()
        for place, content in places
        if any(spelling in content for spelling in spellings(canary))
    }


@pytest.mark.parametrize("plain", [False, True], ids=["native", "plain-control"])
def test_canaries(plain, dev, probe_image, tmp_path) -> None:
    canaries = {"data": f"DATA{secrets.token_hex(16)}", "input": f"INPUT{secrets.token_hex(16)}"}
    table = tmp_path / "table.csv"
    table.write_text(f"name,age\n{canaries['data']},40\n")
    with dev("--nodes", "2", "--database", f"default={table}", *(["--plain"] if plain else [])) as federation:
        client, organizations = federation.client(), federation.organization_ids
        with Capture(federation.port) as capture:
            for fail in (False, True):
                task = client.task.create(
                    organizations=organizations,
                    name="canary",
                    image=probe_image,
                    collaboration=federation.collaboration_id,
                    input_={
                        "method": "leaks",
                        "kwargs": {"column": "name", "needle": canaries["input"], "fail": fail},
                    },
                    databases=[{"label": "default"}],
                )
                task.wait(timeout=120)
                if fail:
                    logs = "\n".join(str(log) for log in task.logs())
                    assert f"the exception says {canaries['data']}" in logs
                else:
                    expected = f"{canaries['data']} and {canaries['input']}"
                    assert task.results() == [{"result": expected}] * 2
        places = files_below(federation.server_folder)
        places += [(f"traffic {i}", stream) for i, stream in enumerate(capture.streams)]
    found = where_found(canaries, places)
    assert sum(len(stream) for stream in capture.streams) > 10_000, "the capture saw no traffic"
    if plain:
        assert {name for name, place in found if place.startswith("traffic")} == {"data", "input"}
        assert {name for name, place in found if not place.startswith("traffic")} == {"data", "input"}
    else:
        assert found == set()
