"""What skerry adds on top of the engine: a no-op task on one node beside `docker run --rm` of the same image.

The task is timed from `create` to the decrypted result at the client. The container of the reference does the same
no-op by the same entry point, with its input and output in a folder. Both take turns, so that what else the machine
does hits both.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from skerry import UserClient, contract
from skerry.dev import Federation, Plan, running

IMAGE = "skerry-bench/noop"
COUNT = 20
HERE = Path(__file__).parent
SKERRY = Path(sys.executable).with_name("skerry")


def build() -> None:
    subprocess.run([SKERRY, "algorithm", "build", HERE / "noop", "--tag", IMAGE], check=True, stdout=subprocess.DEVNULL)


def one_task(client: UserClient, federation: Federation) -> None:
    organization = federation.facts["organizations"][0]["id"]
    task = client.task.create(
        organizations=[organization],
        name="noop",
        image=IMAGE,
        collaboration=federation.facts["collaboration"]["id"],
        input_={"method": "noop"},
    )
    assert task.wait().results() == [{}]


def one_container(folder: Path) -> None:
    variables = {contract.INPUT_FILE: "/mnt/data/input", contract.OUTPUT_FILE: "/mnt/data/output"}
    environment = [f"--env={name}={contract.encode(value)}" for name, value in variables.items()]
    subprocess.run(["docker", "run", "--rm", f"--volume={folder}:/mnt/data", *environment, IMAGE], check=True)
    output = folder / "output"
    assert json.loads(output.read_bytes()) == {}
    output.unlink()


def seconds(action: Callable[[], None]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def measure() -> tuple[list[float], list[float]]:
    """The seconds of each task and of each container."""
    with (
        running(Plan(name="bench", nodes=1, launcher="docker"), report=_say) as federation,
        reference_folder() as folder,
    ):
        client = federation.client()
        one_task(client, federation)  # warm: imports, connections, the first holder
        one_container(Path(folder))
        pairs = [
            (seconds(lambda: one_task(client, federation)), seconds(lambda: one_container(Path(folder))))
            for _ in range(COUNT)
        ]
    return [task for task, _ in pairs], [container for _, container in pairs]


def reference_folder() -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory(prefix="skerry-bench-")
    Path(folder.name).chmod(0o777)
    (Path(folder.name) / "input").write_text('{"method": "noop", "args": [], "kwargs": {}}')
    return folder


def report(tasks: list[float], containers: list[float]) -> None:
    print(f"{'':<18}{'median':>9}{'fastest':>9}{'slowest':>9}   seconds, n = {len(tasks)}")
    for name, values in (("noop task", tasks), ("docker run --rm", containers)):
        print(f"{name:<18}{statistics.median(values):>9.3f}{min(values):>9.3f}{max(values):>9.3f}")
    value, reference = statistics.median(tasks), statistics.median(containers)
    line = {
        "name": "noop_task",
        "value": round(value, 4),
        "unit": "s",
        "reference": "docker run --rm",
        "reference_value": round(reference, 4),
        "ratio": round(value / reference, 3),
        "n": len(tasks),
    }
    print(f"bench: {json.dumps(line)}")


def _say(line: str) -> None:
    print(f"bench: {line}", file=sys.stderr)


if __name__ == "__main__":
    build()
    report(*measure())
