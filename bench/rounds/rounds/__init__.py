"""A central function that has children do next to nothing, again and again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from skerry import AlgorithmClient, central, info, partial


@central
def rounds(client: AlgorithmClient, organizations: list[int], count: int) -> list[float]:
    """The seconds of each round, from the creation of its child task to its last result."""
    taken = []
    for number in range(count):
        began = time.perf_counter()
        task = client.task.create({"method": "step", "kwargs": {"number": number}}, organizations)
        assert client.wait_for_results(task["id"]) == [number] * len(organizations)
        taken.append(time.perf_counter() - began)
    return taken


@partial
def step(number: int) -> int:
    return number


@partial
def rest(seconds: float) -> dict[str, Any]:
    time.sleep(seconds)
    return {}


@partial
def moments() -> dict[str, float]:
    """When this process began, and when its function did; Unix seconds."""
    now = time.time()
    info("here")
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    up = float(Path("/proc/uptime").read_text().split()[0])
    return {"process": now - (up - ticks / 100), "function": now}
