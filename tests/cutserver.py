"""A server that breaks off its answers: it gives one content, or the range of it that is asked for, piece by piece."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class CutServer:
    """``bring``: how many bytes an answer brings, by its number; -1: it is a 503. ``ranges``: those asked for.

    With ``forgetful`` it gives all of it, whichever range is asked for.
    """

    content: bytes
    bring: Callable[[int], int]
    ranges: list[str] = field(default_factory=list)
    port: int = 0
    forgetful: bool = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class _Handler(BaseHTTPRequestHandler):
    cuts: CutServer

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        self.cuts.ranges.append(asked)
        length, size = self.cuts.bring(len(self.cuts.ranges) - 1), len(self.cuts.content)
        asked = "" if self.cuts.forgetful else asked
        start = int(asked.removeprefix("bytes=").rstrip("-") or 0)
        self.send_response(503 if length < 0 else 206 if asked else 200)
        self.send_header("Content-Length", str(size - start if length >= 0 else 0))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.end_headers()
        self.wfile.write(self.cuts.content[start:][: max(length, 0)])

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def cut_server(content: bytes, bring: Callable[[int], int]) -> Iterator[CutServer]:
    cuts = CutServer(content, bring)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"cuts": cuts}))
    cuts.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield cuts
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
