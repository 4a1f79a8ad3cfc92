"""An iterative algorithm: rounds of children on three nodes, each waiting for all results.

The time is that of a round inside the central function. The reference: three containers of the same image, started in
parallel by `docker run --rm`, nothing else. And the whole of a central function with one such round, from `create` to
the decrypted result, beside one container. `COUNT=10 make bench-rounds` makes fewer rounds.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import measuring

COUNT = int(os.environ.get("COUNT", "50"))
NODES = 3


@dataclass(frozen=True)
class Found:
    """Seconds of each round, of three containers at once; of each central function with one round, of one container."""

    rounds: list[float]
    three: list[float]
    centrals: list[float]
    one: list[float]


def measure() -> Found:
    image = measuring.build("rounds")
    with measuring.federation(NODES) as made, measuring.reference(image, "step", number=1) as start:
        client, organizations = made.client(), measuring.organizations(made)

        def take_turns(count: int) -> list[float]:
            task = measuring.ask(client, made, image, "rounds", organizations=organizations, count=count)
            [taken] = task.wait(progress=False).results()
            return list(taken)

        def times(action: Callable[[], object]) -> list[float]:
            return [measuring.seconds(action) for _ in range(max(COUNT // 5, 3))]

        take_turns(1)
        three, one = times(lambda: start(NODES)), times(lambda: start(1))
        return Found(take_turns(COUNT), three, times(lambda: take_turns(1)), one)


def report(found: Found) -> None:
    rows = [
        ("a round on 3 nodes", found.rounds),
        ("3 at once: docker run --rm", found.three),
        ("a central function with 1 round", found.centrals),
        ("docker run --rm", found.one),
    ]
    head = ["seconds", "median", "fastest", "slowest", "n"]
    measuring.table(head, [[name, *measuring.spread(times), len(times)] for name, times in rows])
    reference = "three parallel docker run --rm of the same image"
    tell("rounds", found.rounds, reference, found.three)
    tell("central", found.centrals, "docker run --rm of the same image", found.one)


def tell(name: str, times: list[float], reference: str, alone: list[float]) -> None:
    measuring.tell(name, statistics.median(times), "s", reference, statistics.median(alone), n=len(times))


if __name__ == "__main__":
    report(measure())
