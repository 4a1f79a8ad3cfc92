"""What a waiting user sees: a bar on a terminal, nothing anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from skerry import outcomes


class Show(Protocol):
    """Takes what the server says of a task's runs, each time that it says something new."""

    def __call__(self, runs: Sequence[dict[str, Any]]) -> None: ...


@contextmanager
def showing(title: str, *, wanted: bool | None) -> Iterator[Show]:
    """A bar while the block runs. ``wanted`` None: where standard error is a terminal and rich is installed."""
    if wanted is False or (wanted is None and not sys.stderr.isatty()):
        yield _nothing
        return
    try:
        from rich.console import Console  # noqa: PLC0415 - only a terminal needs it
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415
    except ImportError:
        yield _nothing
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True, force_terminal=wanted), transient=True) as bar:
        row = bar.add_task(title, state="", total=None)

        def show(runs: Sequence[dict[str, Any]]) -> None:
            bar.update(row, state=describe(runs))

        yield show


def describe(runs: Sequence[dict[str, Any]]) -> str:
    """How many runs have ended, and whose nodes the others wait for."""
    ended = [run for run in runs if outcomes.ended(str(run["status"]))]
    failed = sum(outcomes.failed(str(run["status"])) for run in ended)
    text = f"{len(ended)} of {len(runs)} runs ended" + (f", {failed} of them failed" if failed else "")
    absent = ", ".join(str(run["organization_id"]) for run in offline(runs))
    return f"{text}; offline: the node of organization {absent}" if absent else text


def offline(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs that wait for a node that is not there."""
    return [run for run in runs if not outcomes.ended(str(run["status"])) and run.get("node_online") is False]


def _nothing(runs: Sequence[dict[str, Any]]) -> None:
    """Shows nothing."""
