"""An iterative algorithm: rounds of children on three nodes, each waiting for all results.

The time is that of a round inside the central function. The reference: three containers of the same image, started in
parallel by `docker run --rm`, nothing else. `COUNT=10 make bench-rounds` makes fewer rounds.
"""

from __future__ import annotations

import os
import statistics

import measuring

COUNT = int(os.environ.get("COUNT", "50"))
NODES = 3


def measure() -> tuple[list[float], list[float]]:
    """The seconds of each round, and of each three containers."""
    image = measuring.build("rounds")
    with measuring.federation(NODES) as made, measuring.reference(image, "step", number=1) as start:
        client, organizations = made.client(), measuring.organizations(made)

        def take_turns(count: int) -> list[float]:
            task = measuring.ask(client, made, image, "rounds", organizations=organizations, count=count)
            [taken] = task.wait(progress=False).results()
            return list(taken)

        take_turns(1)
        alone = [measuring.seconds(lambda: start(NODES)) for _ in range(max(COUNT // 5, 3))]
        return take_turns(COUNT), alone


def report(rounds: list[float], alone: list[float]) -> None:
    measuring.table(
        ["seconds", "median", "fastest", "slowest", "n"],
        [
            ["a round on 3 nodes", *measuring.spread(rounds), len(rounds)],
            ["3 at once: docker run --rm", *measuring.spread(alone), len(alone)],
        ],
    )
    reference = "three parallel docker run --rm of the same image"
    measuring.tell("rounds", statistics.median(rounds), "s", reference, statistics.median(alone), n=len(rounds))


if __name__ == "__main__":
    report(*measure())
