"""What a waiting user sees: a bar and log lines on a terminal and in a notebook, elsewhere only why nothing happens."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any, Protocol

from skerry import outcomes
from skerry.wire import Refusal, Status

_NOTEBOOK_LINES = 200
"""How many log lines a notebook keeps on display."""
_SAID_EVERY = 60.0
_REFUSALS: dict[str, str] = {
    Refusal.SANDBOX: "its sandbox does not hold (the log of the node says why)",
    Refusal.RECORDS: "it can't write its audit journal (the log of the node says why)",
}
"""By what a node says; one that is just starting is not worth a word."""


class Show(Protocol):
    """Takes what is known of a task's runs, and lines of their logs, each time that there is something new."""

    @property
    def wants_changes(self) -> bool: ...

    @property
    def wants_lines(self) -> bool: ...

    def runs(self, runs: Sequence[dict[str, Any]]) -> None: ...

    def line(self, text: str) -> None: ...


@contextmanager
def showing(title: str, *, wanted: bool | None) -> Iterator[Show]:
    """A bar while the block runs. ``wanted`` None: in a notebook, and where standard error is a terminal.

    Elsewhere a line on standard error says, now and then, for which nodes a script stands still.
    """
    if wanted is not False and (display := _notebook()) is not None:
        yield _Notebook(title, display)
        return
    if wanted is False:
        yield _Nothing()
        return
    if wanted is None and not sys.stderr.isatty():
        yield _Words(title)
        return
    try:
        from rich.console import Console  # noqa: PLC0415 - only a terminal needs it
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415
    except ImportError:
        yield _Nothing()
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True, force_terminal=wanted), transient=True) as bar:
        yield _Bar(bar, bar.add_task(title, state="", total=None))


@contextmanager
def moving(title: str, *, wanted: bool | None) -> Iterator[Callable[[int, int], None]]:
    """A bar for a stream, to be told how many bytes there are, of how many. ``wanted`` as in ``showing``.

    There is none for what is there at once.
    """
    with ExitStack() as shown:
        tell: Callable[[int, int], None] | None = None

        def show(have: int, size: int) -> None:
            nonlocal tell
            if tell is None and have < size:
                tell = shown.enter_context(_moving(title, wanted=wanted))
            if tell is not None:
                tell(have, size)

        yield show


@contextmanager
def _moving(title: str, *, wanted: bool | None) -> Iterator[Callable[[int, int], None]]:
    if wanted is not False and (display := _notebook()) is not None:
        notebook = _Notebook(title, display)
        yield lambda have, size: notebook.tell(f"{have * 100 // max(size, 1)}% of {size} bytes")
        return
    if wanted is False or (wanted is None and not sys.stderr.isatty()):
        yield lambda _have, _size: None
        return
    try:
        from rich.console import Console  # noqa: PLC0415 - only a terminal needs it
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn  # noqa: PLC0415
    except ImportError:
        yield lambda _have, _size: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True, force_terminal=wanted), transient=True) as bar:
        row = bar.add_task(title, total=None)
        yield lambda have, size: bar.update(row, completed=have, total=size)


def describe(runs: Sequence[dict[str, Any]]) -> str:
    """How many runs have ended, and whose nodes the others wait for."""
    ended = [run for run in runs if outcomes.ended(str(run["status"]))]
    failed = sum(outcomes.failed(str(run["status"])) for run in ended)
    text = f"{len(ended)} of {len(runs)} runs ended" + (f", {failed} of them failed" if failed else "")
    return "; ".join([text, *standstills(runs)])


def standstills(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Whose nodes will not begin for now, by the reason."""
    reasons: dict[str, list[str]] = {}
    for run in offline(runs):
        reasons.setdefault("offline", []).append(str(run["organization_id"]))
    for run in runs:
        words = _REFUSALS.get(str(run.get("node_refuses")))
        if words is not None and str(run["status"]) == Status.PENDING:
            reasons.setdefault(f"takes no runs, since {words}", []).append(str(run["organization_id"]))
    return [f"{reason}: the node of organization {', '.join(whose)}" for reason, whose in reasons.items()]


def offline(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs that wait for a node that is not there."""
    return [run for run in runs if not outcomes.ended(str(run["status"])) and run.get("node_online") is False]


class _Nothing:
    wants_lines = wants_changes = False

    def runs(self, runs: Sequence[dict[str, Any]]) -> None:
        """Shows nothing."""

    def line(self, text: str) -> None:
        """Shows nothing."""


class _Words:
    """In a script: nothing as long as all goes on; what it stands still for when that changes, and each minute."""

    wants_lines = False
    wants_changes = True

    def __init__(self, title: str) -> None:
        self._title, self._said = title, ""
        self._since = self._last = time.monotonic()

    def runs(self, runs: Sequence[dict[str, Any]]) -> None:
        now, words = time.monotonic(), "; ".join(standstills(runs))
        if words != self._said:
            self._since = now
        if words and (words != self._said or now - self._last >= _SAID_EVERY):
            self._last = now
            sys.stderr.write(f"{self._title} waits, for {now - self._since:.0f} s so far; {words}\n")
        self._said = words

    def line(self, text: str) -> None:
        """Shows nothing."""


class _Bar:
    """On a terminal: the bar stays below, the lines scroll above it."""

    wants_lines = wants_changes = True

    def __init__(self, bar: Any, row: Any) -> None:
        self._bar, self._row = bar, row

    def runs(self, runs: Sequence[dict[str, Any]]) -> None:
        self._bar.update(self._row, state=describe(runs))

    def line(self, text: str) -> None:
        self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)


class _Notebook:
    """In a notebook: one output that is written anew; needs nothing but IPython itself."""

    wants_lines = wants_changes = True

    def __init__(self, title: str, display: Any) -> None:
        self._title, self._state = title, ""
        self._lines: list[str] = []
        self._handle = display(self._content(), display_id=True, raw=True)

    def runs(self, runs: Sequence[dict[str, Any]]) -> None:
        self.tell(describe(runs))

    def tell(self, state: str) -> None:
        """Shows this behind the title; the same is not shown twice."""
        if state != self._state:
            self._state = state
            self._update()

    def line(self, text: str) -> None:
        self._lines = [*self._lines, text][-_NOTEBOOK_LINES:]
        self._update()

    def _update(self) -> None:
        self._handle.update(self._content(), raw=True)

    def _content(self) -> dict[str, str]:
        return {"text/plain": "\n".join([*self._lines, f"{self._title}: {self._state}".rstrip(": ")])}


def _notebook() -> Any:
    """IPython's ``display`` where a notebook's kernel runs this, else None."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if type(shell).__name__ != "ZMQInteractiveShell":
        return None
    return import_module("IPython.display").display
