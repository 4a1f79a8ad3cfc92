"""A server and its database in a network namespace of their own, where packets between them are dropped.

Run under ``unshare --net``, by root, with the folder of PostgreSQL's programs and an empty one. Prints after how many
seconds the server knew, of its next question and of its ear for events, and whether it came back.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from clusters import cluster

from skerry_server.server import open_server
from skerry_server.settings import load

LONGEST = 120.0


def run(*command: str) -> None:
    subprocess.run(command, check=True)


def seconds_until(happens: Callable[[], bool]) -> float:
    begun = time.monotonic()
    while not happens():
        assert time.monotonic() - begun < LONGEST
        time.sleep(0.1)
    return time.monotonic() - begun


def main(programs: str, folder: str) -> None:
    run("ip", "link", "set", "lo", "up")
    with cluster(Path(programs)) as made:
        config = Path(folder, "server.yaml")
        config.write_text(f"database: {json.dumps(made.url(made.make_database()))}\n")
        server = open_server(load(config))
        server.begin()
        assert server.database.answers()
        run(
            "nft",
            f"add table inet cut; add chain inet cut in {{ type filter hook input priority 0; }}; "
            f"add rule inet cut in tcp sport {made.port} drop; add rule inet cut in tcp dport {made.port} drop",
        )
        begun = time.monotonic()
        assert not server.database.answers()
        asked = time.monotonic() - begun
        seconds_until(lambda: not server.database.listens)
        heard = time.monotonic() - begun
        run("nft", "delete table inet cut")
        seconds_until(lambda: server.database.answers() and server.database.listens)
        print(json.dumps({"asked": asked, "heard": heard}))
        server.database.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
