"""A mail server on this machine that keeps what it is handed."""

from __future__ import annotations

import re
import socketserver
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class _Reception(socketserver.StreamRequestHandler):
    """As much of SMTP as a client needs to hand in a letter."""

    server: PostOffice

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        while line := self.rfile.readline():
            verb = line[:4].upper()
            if verb == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                letter = b""
                while (line := self.rfile.readline()) not in {b".\r\n", b""}:
                    letter += line
                self.server.keep(letter.decode())
            self.wfile.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 fine\r\n")
            if verb == b"QUIT":
                return


class PostOffice(socketserver.ThreadingTCPServer):
    """Takes letters at a free port of the loopback interface."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Reception)
        self.letters: list[str] = []
        self._folder = folder

    def keep(self, letter: str) -> None:
        """In ``letters``, and for other processes as a file of the folder."""
        self.letters.append(letter)
        if self._folder is not None:
            draft = self._folder / f".{uuid.uuid4()}"
            draft.write_text(letter)
            draft.rename(draft.with_suffix(".letter"))


@contextmanager
def open_office(folder: Path | None = None) -> Iterator[PostOffice]:
    with PostOffice(folder) as office:
        thread = threading.Thread(target=office.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield office
        finally:
            office.shutdown()
            thread.join()


def token_in(letter: str) -> str:
    text = letter.replace("=\r\n", "").replace("=3D", "=")
    found = re.search(r"^(ey[\w.-]+)\s*$", text, re.MULTILINE)
    assert found is not None, text
    return found[1]
