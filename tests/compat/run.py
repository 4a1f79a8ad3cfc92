"""All that shows that vantage6's clients and images work unchanged; `make compat` runs it.

The tests that need an engine and those that need a processor run beside each other. The last two lines are the sums.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).parent.parent
WITH_ENGINE = (
    "acceptance/test_client_tour.py",
    "acceptance/test_vantage6_client.py",
    "acceptance/test_vantage6_blobs.py",
    "acceptance/test_vantage6_images.py",
    "acceptance/test_algorithm_client.py",
)
WITHOUT = ("compat/test_steps.py", "compat/test_permission_matrix.py", "compat/test_openapi.py")
EXAMPLES = "75"
"""Of each operation of the door: more than 5,000 in all."""
_COUNTS = re.compile(r"(compat|matrix): (\d+) (calls|cells), (\d+) (failed|mismatches)")


@dataclass
class Counts:
    """How much was tried, and how much of it was wrong, over all lines that said so."""

    tried: dict[str, int] = field(default_factory=lambda: {"compat": 0, "matrix": 0})
    wrong: dict[str, int] = field(default_factory=lambda: {"compat": 0, "matrix": 0})

    def add(self, line: str) -> None:
        if found := _COUNTS.search(line):
            self.tried[found[1]] += int(found[2])
            self.wrong[found[1]] += int(found[4])

    @property
    def good(self) -> bool:
        return all(self.tried.values()) and not any(self.wrong.values())


def run(tests: tuple[str, ...], counts: Counts, statuses: list[int]) -> None:
    command = [sys.executable, "-m", "pytest", "-q", *(str(TESTS / test) for test in tests)]
    environment = {**os.environ, "SKERRY_SCHEMATHESIS_EXAMPLES": EXAMPLES}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as pytest:
        for line in pytest.stdout or ():
            counts.add(line)
            print(line, end="", flush=True)
    statuses.append(pytest.returncode)


def main() -> int:
    counts, statuses = Counts(), list[int]()
    threads = [threading.Thread(target=run, args=(tests, counts, statuses)) for tests in (WITH_ENGINE, WITHOUT)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"compat: {counts.tried['compat']} calls, {counts.wrong['compat']} failed")
    print(f"matrix: {counts.tried['matrix']} cells, {counts.wrong['matrix']} mismatches")
    return 0 if counts.good and statuses == [0, 0] else 1


if __name__ == "__main__":
    sys.exit(main())
