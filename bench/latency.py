"""Where the time of a no-op task goes: each step at client, server, node, proxy and container, in the order it happens.

The moments are the clients' own, those of the audit trails of server and node, and the container's. The reference is
`docker run --rm` of the same image. Also: what it costs to import skerry in the container.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from datetime import datetime
from typing import Any

import measuring

from skerry import UserClient
from skerry.dev import Federation

COUNT = int(os.environ.get("COUNT", "20"))
_STEPS = {
    "asked": "client: create is called",
    "server run.create": "server: task and run are written",
    "server run.initializing": "server: the node's claim is written",
    "node run.order": "node: the order has come",
    "node run.admit": "proxy, node: input opened, task admitted",
    "node run.start": "node: image, files, gate are ready; the engine is asked",
    "node run.started": "node: the engine has started the container",
    "process": "container: the process began",
    "function": "container: Python, skerry and the algorithm are imported",
    "server run.active": "server: the node's report is written",
    "node run.end": "node: the end is seen, log and output are read",
    "node run.seal": "proxy: the result is sealed",
    "node run.deliver": "node: the journal is on the disk",
    "server run.completed": "server: the result is written",
    "told": "client: the wait has ended",
    "read": "client: the result is decrypted",
}


def one_task(client: UserClient, made: Federation, image: str) -> dict[str, float]:
    """Step → Unix seconds."""
    found = {"asked": time.time()}
    task = measuring.ask(client, made, image, "moments")
    task.wait(progress=False)
    found["told"] = time.time()
    [inside] = task.results()
    found["read"] = time.time()
    run = int(task.runs()[0]["id"])
    found |= inside
    found |= {f"server {action}": at for action, at in _server_moments(client, run).items()}
    return found | {f"node {action}": at for action, at in _node_moments(made, run).items()}


def _server_moments(client: UserClient, run: int) -> dict[str, float]:
    rows = client.request("skerry/audit", params={"run_id": run})["data"]
    return {str(row["action"]): _seconds(row["time"]) for row in rows}


def _node_moments(made: Federation, run: int) -> dict[str, float]:
    lines = [line for file in (made.folder / "node-1" / "state" / "audit").glob("*") for line in _lines(file)]
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    return {str(row["action"]): _seconds(row["time"]) for row in rows if (row.get("about") or {}).get("run") == run}


def _lines(file: Any) -> list[str]:
    return list(file.read_text(errors="replace").splitlines())


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def import_seconds(image: str) -> float:
    """Of `import skerry` and its entry point, in a container, as Python itself counts; the least of five."""
    command = ["docker", "run", "--rm", "--network", "none", "--entrypoint", "python3", image]
    command += ["-X", "importtime", "-c", "import skerry, skerry.entrypoint"]

    def once() -> float:
        told = subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()
        parts = [line.removeprefix("import time:").split("|") for line in told if line.startswith("import time:")]
        ours = [int(total) for _, total, name in parts[1:] if name in {" skerry", " skerry.entrypoint"}]
        return sum(ours) / 1e6

    return min(once() for _ in range(5))


def measure() -> tuple[list[dict[str, float]], list[float], float]:
    image = measuring.build("rounds")
    with measuring.federation(1) as made, measuring.reference(image, "moments") as start:
        client = made.client()
        one_task(client, made, image)
        pairs = [(one_task(client, made, image), measuring.seconds(lambda: start(1))) for _ in range(COUNT)]
    return [one for one, _ in pairs], [alone for _, alone in pairs], import_seconds(image)


def report(tasks: list[dict[str, float]], alone: list[float], importing: float) -> None:
    medians = {
        step: statistics.median(one[step] - one["asked"] for one in tasks)
        for step in _STEPS
        if all(step in one for one in tasks)
    }
    rows, last = [], 0.0
    for step, at in sorted(medians.items(), key=lambda pair: pair[1]):
        rows.append([_STEPS[step], f"{at * 1000:.1f}", f"{(at - last) * 1000:.1f}"])
        last = at
    measuring.table([f"step (medians of {len(tasks)})", "ms", "since"], rows)
    whole = statistics.median(one["read"] - one["asked"] for one in tasks)
    measuring.tell("latency", whole, "s", "docker run --rm", statistics.median(alone), n=len(tasks))
    measuring.tell("import", importing, "s", "the limit", 0.1)


if __name__ == "__main__":
    report(*measure())
