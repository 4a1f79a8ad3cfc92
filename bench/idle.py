"""What a federation costs that has nothing to do: a server and three nodes.

`IDLE_SECONDS=10 make bench-idle` looks for less long.
The reference is what it is meant to stay below: 2% of one core.
"""

from __future__ import annotations

import os
import time

import measuring

SECONDS = float(os.environ.get("IDLE_SECONDS", "60"))
_SETTLED = 10.0
_MOST = 2.0


def measure() -> dict[str, tuple[float, int]]:
    """For each process its share of one core, in percent, and its resident bytes."""
    with measuring.federation(3) as made:
        time.sleep(min(_SETTLED, SECONDS))
        pids = measuring.processes(made)
        before = {name: measuring.processor_seconds(pid) for name, pid in pids.items()}
        time.sleep(SECONDS)
        return {
            name: (
                (measuring.processor_seconds(pid) - before[name]) / SECONDS * 100,
                measuring.resident(pid),
            )
            for name, pid in pids.items()
        }


def report(found: dict[str, tuple[float, int]]) -> None:
    share, memory = (sum(one[index] for one in found.values()) for index in (0, 1))
    rows = [[name, f"{one[0]:.2f}", f"{one[1] / (1 << 20):.0f}"] for name, one in found.items()]
    rows.append(["all", f"{share:.2f}", f"{memory / (1 << 20):.0f}"])
    measuring.table([f"idle for {SECONDS:g} s", "% of a core", "MiB"], rows)
    measuring.tell("idle", share, "% of one core", "the limit", _MOST, memory_mib=round(memory / (1 << 20)))


if __name__ == "__main__":
    report(measure())
