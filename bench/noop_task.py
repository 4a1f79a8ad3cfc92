"""What skerry adds on top of the engine: a no-op task on one node beside `docker run --rm` of the same image.

The task is timed from `create` to the decrypted result at the client. The container of the reference does the same
no-op by the same entry point, with its input and output in a folder. The tasks come one right after the other: what the
node does after one, as cleaning and refilling its pool, takes the time of the next. Then come as many containers.
"""

from __future__ import annotations

import os
import statistics
import time

import measuring

COUNT = int(os.environ.get("COUNT", "20"))
_SETTLED = 2.0


def measure() -> tuple[list[float], list[float]]:
    """The seconds of each task and of each container."""
    image = measuring.build("noop")
    with measuring.federation(1) as made, measuring.reference(image, "noop") as start:
        client = made.client()

        def one_task() -> None:
            assert measuring.ask(client, made, image, "noop").wait(progress=False).results() == [{}]

        one_task()  # warm: imports, connections, the first holder
        tasks = [measuring.seconds(one_task) for _ in range(COUNT)]
        time.sleep(_SETTLED)
        return tasks, [measuring.seconds(lambda: start(1)) for _ in range(COUNT)]


def report(tasks: list[float], containers: list[float]) -> None:
    measuring.table(
        ["seconds", "median", "fastest", "slowest", "n"],
        [
            ["noop task", *measuring.spread(tasks), len(tasks)],
            ["docker run --rm", *measuring.spread(containers), len(containers)],
        ],
    )
    value, alone = statistics.median(tasks), statistics.median(containers)
    measuring.tell("noop_task", value, "s", "docker run --rm", alone, n=len(tasks))


if __name__ == "__main__":
    report(*measure())
