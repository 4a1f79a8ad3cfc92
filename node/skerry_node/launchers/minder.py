"""The process beside each algorithm of the process launcher: makes its namespaces, starts it, writes down its end.

``python -m skerry_node.launchers.minder probe`` prints which separations this machine allows. ``mind FD FOLDER
[SEPARATION …]`` sends the gate's listener over the unix socket FD, waits there for what to start, answers, and then
outlives the node. ``listen FD PID PORT`` sends a new listener from the namespace of a process.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

from skerry import contract
from skerry_node.areas import CAP_SYS_ADMIN, has_capability
from skerry_node.launchers import separation
from skerry_node.launchers.separation import Separation
from skerry_node.namespace import listen

STARTED = "started"
EXIT = "exit"
LOG = "log"
LARGEST_REQUEST = 1 << 20

_PIECE = 65536
_NOT_STARTED = 127


def main(arguments: list[str]) -> int:
    verb, *rest = arguments
    if verb == "probe":
        sys.stdout.write(json.dumps(probe()))
    elif verb == "listen":
        separation.join_network(int(rest[1]))
        _send_listener(socket.socket(fileno=int(rest[0])), int(rest[2]))
    else:
        _mind(socket.socket(fileno=int(rest[0])), Path(rest[1]), [Separation(name) for name in rest[2:]])
    return 0


def probe() -> dict[str, Any]:
    """``use``: the separations to be had here, in order. ``missing``: the others, each with the reason.

    A user namespace is entered only to get the rights for the rest where this process lacks them.
    """
    use: list[str] = []
    missing: dict[str, str] = {}
    for one in Separation:
        if one is Separation.USER and has_capability(CAP_SYS_ADMIN):
            continue
        try:
            separation.enter(one)
        except OSError as error:
            missing[one] = error.strerror or "not permitted"
        else:
            use.append(one)
    return {"use": use, "missing": missing}


def _mind(node: socket.socket, folder: Path, separations: list[Separation]) -> None:
    for one in separations:
        separation.enter(one)
    _send_listener(node, contract.GATE_PORT if Separation.NETWORK in separations else 0)
    raw = node.recv(LARGEST_REQUEST)
    if not raw:
        return
    request = json.loads(raw)
    # From here on the attempt may have run: the mark is there before the child is.
    (folder / STARTED).touch(exist_ok=False)
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    error_read, error_write = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        _become(request, write_end, error_write, own_proc=_owns_proc(separations))
    # Before the node hears of the start, and may have it stopped.
    signal.signal(signal.SIGTERM, lambda *_: _kill(child))
    os.close(write_end)
    os.close(error_write)
    with os.fdopen(error_read) as errors:
        problem = errors.read()
    with contextlib.suppress(OSError):  # the node may be gone
        node.send(json.dumps({"error": problem}).encode())
    node.close()
    code = _pump(read_end, child, folder / LOG, int(request["log"]))
    _write_exit(folder, code)


def _owns_proc(separations: list[Separation]) -> bool:
    return Separation.PID in separations and Separation.MOUNT in separations


def _send_listener(node: socket.socket, port: int) -> None:
    with listen(port) as listener:
        socket.send_fds(node, [b"listener"], [listener.fileno()])


def _become(request: dict[str, Any], output: int, errors: int, *, own_proc: bool) -> NoReturn:
    """The child: bounded, without rights, then the algorithm."""
    try:
        os.setsid()
        if own_proc:
            with contextlib.suppress(OSError):  # refused where the machine itself hides parts of /proc
                separation.mount_proc()
        os.chdir(request["folder"])
        separation.bound(request["limits"])
        separation.give_up_rights(request["user"], request["groups"])
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        os.execve(request["command"][0], request["command"], request["environment"])  # noqa: S606 - this is what it is for
    except (OSError, ValueError) as error:
        os.write(errors, str(error).encode())
    os._exit(_NOT_STARTED)


def _kill(child: int) -> None:
    """The whole session; in a pid namespace of its own nothing could have left it anyway."""
    for target in (-child, child):
        with contextlib.suppress(ProcessLookupError):
            os.kill(target, signal.SIGKILL)


def _pump(source: int, child: int, path: Path, limit: int) -> int:
    """Copies the output to the log until the child has ended: the first half of the limit, and the last. The exit code.

    What the child left running is killed, so that nothing of the run goes on after its end.
    """
    half, head, tail = limit // 2, 0, b""
    ended = os.pidfd_open(child)
    with path.open("wb", buffering=0) as log:
        while piece := _read(source, ended):
            first = piece[: half - head]
            head += log.write(first)
            tail = (tail + piece[len(first) :])[-half:]
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        _kill(child)  # before its number may be another's
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        log.write(tail)
    return code


def _read(source: int, ended: int) -> bytes:
    """The next piece; empty when there is no more, and the child has ended or closed its output."""
    ready, _, _ = select.select([source, ended], [], [])
    return os.read(source, _PIECE) if source in ready else b""


def _write_exit(folder: Path, code: int) -> None:
    draft = folder / f"{EXIT}.new"
    draft.write_text(str(code))
    draft.rename(folder / EXIT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
