"""How the end of a run is told to the one who asked, in a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from skerry.output import ERROR_MARK, printable
from skerry.wire import Status

_LONGEST = 500


def last_words(log: str | None) -> str:
    """What a log ends with: its last error, else its last line; one line of bounded length, or nothing."""
    lines = [line.strip() for line in (log or "").splitlines() if line.strip()]
    errors = [line.removeprefix(ERROR_MARK) for line in lines if line.startswith(ERROR_MARK)]
    words = printable((errors or lines or [""])[-1])
    return words if len(words) <= _LONGEST else f"{words[:_LONGEST]}…"


def ended(status: str) -> bool:
    """Whether a run of this status does nothing more; a word that is not known yet counts as ended."""
    return status not in set(Status) or Status(status).finished


def failed(status: str) -> bool:
    """Whether a run of this status ended without a result; a word that is not known yet counts as failed."""
    return status not in set(Status) or Status(status).failed


def lines(runs: Iterable[Mapping[str, Any]]) -> list[str]:
    """A line for each failed run: its organization, its status and its log's last words, or the reason."""
    return [_describe(run) for run in runs if failed(str(run["status"]))]


def describe(what: str, runs: Iterable[Mapping[str, Any]]) -> str:
    """That ``what`` failed, and how: one organization in the same line, several in a line each."""
    told = lines(runs)
    return f"{what} failed. {told[0]}" if len(told) == 1 else "\n".join([f"{what} failed.", *told])


def _describe(run: Mapping[str, Any]) -> str:
    who = f"Organization {int(run['organization_id'])}"
    words = last_words(run.get("log")) or printable(str(run.get("reason") or ""))
    return f"{who}: {run['status']}." if words in {"", run["status"]} else f"{who}: {run['status']}: {words}"
