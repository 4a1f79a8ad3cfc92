"""What the benchmarks have in common: their federation, looking at processes, and how a result is told."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from skerry import UserClient, contract
from skerry.dev import Federation, Plan, running

HERE = Path(__file__).parent
SKERRY = Path(sys.executable).with_name("skerry")


def say(line: str) -> None:
    print(f"bench: {line}", file=sys.stderr)


def build(name: str) -> str:
    """The image of one of the algorithms beside this file."""
    tag = f"skerry-bench/{name}"
    command = [SKERRY, "algorithm", "build", HERE / name, "--tag", tag]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return tag


def federation(nodes: int, **settings: Any) -> AbstractContextManager[Federation]:
    """``settings``: of every node."""
    plan = Plan(name=f"bench-{os.getpid()}", nodes=nodes, launcher="docker", node_settings=settings)
    return running(plan, report=say)


def organizations(made: Federation) -> list[int]:
    return [int(one["id"]) for one in made.facts["organizations"]]


def ask(
    client: UserClient, made: Federation, image: str, method: str, *, at: Sequence[int] | None = None, **arguments: Any
) -> Any:
    """A task, created; by default at the first organization."""
    return client.task.create(
        organizations=list(at or organizations(made)[:1]),
        name=method,
        image=image,
        collaboration=made.facts["collaboration"]["id"],
        input_={"method": method, "kwargs": arguments},
    )


def seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


# --- processes -------------------------------------------------------------------------------------------


def processes(made: Federation) -> dict[str, int]:
    """The pids of the server and of each node and its proxy."""
    found = {"server": int(made.facts["server_pid"])}
    for number, node in enumerate(made.facts["nodes"], start=1):
        suffix = f" {number}" if len(made.facts["nodes"]) > 1 else ""
        found[f"node{suffix}"] = int(node["pid"])
        found[f"proxy{suffix}"] = _proxy_of(int(node["pid"]))
    return found


def _proxy_of(node: int) -> int:
    for child in Path(f"/proc/{node}/task/{node}/children").read_text().split():
        if b"skerry_proxy" in Path(f"/proc/{child}/cmdline").read_bytes():
            return int(child)
    raise LookupError(f"node {node} has no proxy")


def resident(pid: int | str, *, peak: bool = False) -> int:
    """Bytes of memory that a process has now, or had at most since ``forget_peak``."""
    wanted = "VmHWM:" if peak else "VmRSS:"
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(wanted)) * 1024


def forget_peak(pid: int | str) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def processor_seconds(pid: int) -> float:
    """What a process and its threads have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


# --- telling ---------------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    shown = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[column]) for row in shown) for column in range(len(head))]
    for row in shown:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        print("  ".join([row[0].ljust(widths[0]), *cells]))


def tell(name: str, value: float, unit: str, reference: str, reference_value: float, **more: Any) -> None:
    """The line that is read by programs; the ratio is value to reference."""
    line = {
        "name": name,
        "value": round(value, 4),
        "unit": unit,
        "reference": reference,
        "reference_value": round(reference_value, 4),
        "ratio": round(value / reference_value, 3) if reference_value else None,
        **more,
    }
    print(f"bench: {json.dumps(line)}")


def spread(values: Sequence[float]) -> list[str]:
    """Median, fastest and slowest."""
    return [f"{one:.3f}" for one in (statistics.median(values), min(values), max(values))]


# --- the reference ---------------------------------------------------------------------------------------


@contextmanager
def reference(image: str, method: str, **arguments: Any) -> Iterator[Callable[[int], None]]:
    """Starts so many containers of the image at once, by the engine's command, for the same call."""
    variables = {contract.INPUT_FILE: "/mnt/data/input", contract.OUTPUT_FILE: "/mnt/data/output"}
    environment = [f"--env={name}={contract.encode(value)}" for name, value in variables.items()]
    with tempfile.TemporaryDirectory(prefix="skerry-bench-") as home:

        def start(count: int) -> None:
            started = [subprocess.Popen(_docker_run(Path(home, str(n)), environment, image)) for n in range(count)]
            assert [process.wait() for process in started] == [0] * count

        Path(home).chmod(0o711)
        for number in range(8):
            folder = Path(home, str(number))
            folder.mkdir()
            folder.chmod(0o777)
            (folder / "input").write_text(json.dumps({"method": method, "args": [], "kwargs": arguments}))
        start(1)
        yield start


def _docker_run(folder: Path, environment: list[str], image: str) -> list[str]:
    return ["docker", "run", "--rm", *_network(), f"--volume={folder}:/mnt/data", *environment, image]


@cache
def _network() -> tuple[str, ...]:
    """The engine's default; none where it has no bridge."""
    command = ["docker", "network", "ls", "--quiet", "--filter", "driver=bridge"]
    bridges = subprocess.run(command, capture_output=True, check=True).stdout.strip()
    return () if bridges else ("--network", "none")


def decode(value: str) -> str:
    """A variable as the container contract writes it."""
    return contract.decode_environment({"INPUT_FILE": value})["INPUT_FILE"]
