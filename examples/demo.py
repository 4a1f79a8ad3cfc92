"""The demonstration that `make demo` runs: two federated analyses on three nodes, beside the pooled ones.

Its last line is `demo: ok max_abs_diff=<number> launcher=docker|process` or `demo: failed <sentence>`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from demo_data import COLUMN, FEATURES, LICENCE, OUTCOME, SOURCE, pooled_logistic, pooled_mean, split
from rich.console import Console
from rich.table import Table

from skerry.client import UserClient
from skerry.dev import Database, Federation, Plan, running
from skerry.errors import SkerryError

ROOT = Path(__file__).resolve().parent.parent
SKERRY = Path(sys.executable).with_name("skerry")
NODES = 3
MEAN = "skerry/federated-mean"
LOGISTIC = "skerry/logistic-regression"
LARGEST_DIFFERENCE = 1e-6
NO_ENGINE_HERE = 3
"""What docker/engine.sh ends with where no engine can run."""

Launcher = Literal["docker", "process"]
console = Console()


@dataclass
class Clock:
    """How long each part took."""

    parts: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        console.print(f"[bold]demo:[/bold] {name}", highlight=False, soft_wrap=True)
        began = time.perf_counter()
        yield
        self.parts[name] = time.perf_counter() - began


@dataclass(frozen=True)
class Row:
    """One number, federated and pooled."""

    name: str
    federated: float
    pooled: float

    @property
    def difference(self) -> float:
        return abs(self.federated - self.pooled)


def main() -> None:
    clock = Clock()
    try:
        launcher, rows = demonstrate(clock)
        show(rows, clock)
        largest = max(row.difference for row in rows)
        if not largest < LARGEST_DIFFERENCE:
            fail(f"federated and pooled results differ by {largest:.3g}.")
    except SkerryError as error:
        fail(str(error))
    except subprocess.CalledProcessError as error:
        fail(f"{Path(error.cmd[0]).name} ended with status {error.returncode}; the lines above say why.")
    except KeyboardInterrupt:
        fail("interrupted.")
    except Exception as error:  # noqa: BLE001 (the last line is for scripts, whatever happens)
        traceback.print_exc()
        fail(f"{type(error).__name__}, which should not have happened; see the traceback above.")
    print(f"demo: ok max_abs_diff={largest:.3g} launcher={launcher}")


def fail(sentence: str) -> None:
    print(f"demo: failed {' '.join(sentence.split())}")
    raise SystemExit(1)


def demonstrate(clock: Clock) -> tuple[Launcher, list[Row]]:
    with clock.part("a Docker engine"):
        launcher = find_launcher()
    with clock.part("images"):
        build_images(launcher)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="skerry-demo-")))
        with clock.part(f"data of {NODES} hospitals: {SOURCE}, {LICENCE}"):
            files = split(folder, NODES)
        with clock.part(f"a server and {NODES} nodes"):
            federation = stack.enter_context(running(plan(files, launcher), report=say))
        rows = analyse(federation, clock)
        with clock.part("everything down again"):
            stack.close()
    return launcher, rows


def plan(files: list[Path], launcher: Launcher) -> Plan:
    database = Database("default", tuple(map(str, files)))
    return Plan(f"demo-{os.getpid()}", NODES, (database,), launcher=launcher)


def say(line: str) -> None:
    console.print(f"      {line}", highlight=False, soft_wrap=True)


def find_launcher() -> Launcher:
    if os.geteuid() != 0:
        say("neither root nor sudo: algorithms run as plain processes")
        return "process"
    status = subprocess.run([ROOT / "docker" / "engine.sh", "start"], check=False).returncode
    if status not in {0, NO_ENGINE_HERE}:
        raise subprocess.CalledProcessError(status, ["engine.sh"])
    return "docker" if status == 0 else "process"


def build_images(launcher: Launcher) -> None:
    if launcher == "docker":
        subprocess.run([ROOT / "docker" / "images.sh"], check=True)
    for tag in (MEAN, LOGISTIC):
        folder = ROOT / "examples" / tag.removeprefix("skerry/")
        command = [SKERRY, "algorithm", "build", folder, "--tag", tag, "--launcher", launcher]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def analyse(federation: Federation, clock: Clock) -> list[Row]:
    client = federation.client()
    with clock.part("a federated mean"):
        mean = ask(client, federation, MEAN, "mean", column=COLUMN)
    with clock.part("a federated logistic regression"):
        fit = ask(client, federation, LOGISTIC, "fit", outcome=OUTCOME, features=list(FEATURES))
    pooled, coefficients = pooled_mean(), pooled_logistic()
    rows = [Row("rows", mean["n"], pooled["n"]), Row(f"mean of {COLUMN}", mean["mean"], pooled["mean"])]
    return rows + [Row(f"logistic: {name}", fit["coefficients"][name], value) for name, value in coefficients.items()]


def ask(client: UserClient, federation: Federation, image: str, method: str, **arguments: Any) -> dict[str, Any]:
    """The central function's result, from the first organization's node."""
    task = client.task.create(
        organizations=[federation.facts["organizations"][0]["id"]],
        name=method,
        image=image,
        collaboration=federation.facts["collaboration"]["id"],
        input_={"method": method, "kwargs": arguments},
        databases=[{"label": "default"}],
    )
    [result] = task.wait().results()
    return dict(result)


def show(rows: list[Row], clock: Clock) -> None:
    table = Table("", "federated", "pooled", "difference", title="Three hospitals' data, never in one place")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(row.name, f"{row.federated:.10g}", f"{row.pooled:.10g}", f"{row.difference:.1e}")
    console.print(table)
    times = Table("", "seconds", title="How long it took")
    times.columns[1].justify = "right"
    for name, seconds in clock.parts.items():
        times.add_row(name.partition(":")[0], f"{seconds:.1f}")
    console.print(times)
    console.print(
        "Where to go next: README.md (your own algorithm), skerry dev up (a federation to play with), docs/overview.md",
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
