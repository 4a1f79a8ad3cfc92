"""A hostile algorithm: tries what it is told from inside its container, and says how far it got."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import sys
import time
from pathlib import Path
from typing import Any

from attacker.bombs import BOMBS
from attacker.calls import CALLS
from attacker.looks import LOOKS
from attacker.relays import RELAYS
from attacker.trial import try_all
from skerry import partial
from skerry.probes import PROBES

_PROBES = {probe.name: lambda _, probe=probe: (probe.tries(), "") for probe in PROBES}
TRICKS = {**_PROBES, **LOOKS, **BOMBS, **CALLS, **RELAYS}


@partial
def strike(names: list[str], facts: dict[str, Any]) -> dict[str, list[Any]]:
    """For each name whether it succeeded, and what was to be seen of it."""
    return try_all({name: TRICKS[name] for name in names}, facts)


@partial
def show_token() -> str:
    return Path(os.environ["TOKEN_FILE"]).read_text()


@partial
def flood(megabytes: int) -> str:
    """Writes a log without end."""
    line = "x" * 1023 + "\n"
    for _ in range(megabytes * 1024):
        sys.stdout.write(line)
    sys.stdout.flush()
    return "written"


@partial
def plant(what: str, target: str) -> None:
    """Leaves something else than a result, and goes before the entry point writes one."""
    output = Path(os.environ["OUTPUT_FILE"])
    output.unlink()
    PLANTS[what](output, target)
    os._exit(0)


def _sparse(output: Path, _: str) -> None:
    with output.open("wb") as file:
        file.truncate(1 << 40)


def _hard_link(output: Path, _: str) -> None:
    output.write_text('"mine"')
    os.link(output, output.with_name("other"))


def _swapped(output: Path, target: str) -> None:
    """Goes on swapping a file and a link for as long as it may. Whoever looks twice may see one and open the other."""
    if os.fork():
        time.sleep(1)
        return
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    link, file = output.with_name("link"), output.with_name("file")
    while True:
        file.write_text("{}")
        link.symlink_to(target)
        file.replace(output)
        link.replace(output)
        time.sleep(0.05)


def _folder(output: Path, target: str) -> None:
    """A link in the place of the run's own folder, to one that holds a file of the same name."""
    home = output.parent
    shutil.rmtree(home, ignore_errors=True)
    home.symlink_to(Path(target).parent)


PLANTS = {
    "link": lambda output, target: output.symlink_to(target),
    "link-to-device": lambda output, _: output.symlink_to("/dev/zero"),
    "link-to-process": lambda output, _: output.symlink_to("/proc/self/environ"),
    "pipe": lambda output, _: os.mkfifo(output),
    "device": lambda output, _: os.mknod(output, stat.S_IFCHR | 0o666, os.makedev(1, 5)),
    "sparse": _sparse,
    "hard-link": _hard_link,
    "folder": lambda output, _: output.mkdir(),
    "swapped": _swapped,
    "own-folder": _folder,
}
